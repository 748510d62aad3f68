from fractions import Fraction

import pytest
import torch
from torch import Tensor

from aae_core.evaluation.clustering import (
    cluster_error,
    empty_clusters,
    majorities,
    representatives,
    ties,
)


@pytest.fixture
def logits() -> Tensor:
    """Five images; clusters 0 and 2 have two each, cluster 1 has one, cluster 3 none."""
    q = torch.tensor(
        [
            [0.6, 0.1, 0.1, 0.2],
            [0.9, 0.0, 0.0, 0.1],
            [0.1, 0.2, 0.6, 0.1],
            [0.2, 0.1, 0.4, 0.3],
            [0.2, 0.7, 0.1, 0.0],
        ]
    )
    return q.log()


def test_the_surest_image_names_a_cluster(logits: Tensor) -> None:
    assert representatives(logits, torch.tensor([7, 1, 2, 5, 3])).tolist() == [1, 3, 2, 5]


def test_the_most_frequent_class_names_a_cluster(logits: Tensor) -> None:
    with_third = torch.cat([logits, logits[:1]])
    names = majorities(with_third, torch.tensor([7, 1, 2, 2, 3, 7]))
    assert names.tolist() == [7, 3, 2, -1]


def test_of_equally_frequent_classes_the_lowest_counts(logits: Tensor) -> None:
    assert majorities(logits, torch.tensor([7, 1, 2, 5, 0])).tolist() == [1, 0, 2, -1]


def test_error_counts_images_under_another_name(logits: Tensor) -> None:
    y = torch.tensor([7, 1, 2, 5, 3])
    assert cluster_error(logits, y, representatives(logits, y)) == pytest.approx(40)
    assert cluster_error(logits, torch.tensor([1, 1, 2, 2, 3]), representatives(logits, y)) == 0
    assert cluster_error(logits, y, torch.full((4,), -1)) == 100


def test_empty_clusters(logits: Tensor) -> None:
    assert empty_clusters(logits) == 1
    assert empty_clusters(torch.eye(6)) == 0
    assert empty_clusters(torch.eye(6)[:1].repeat(9, 1)) == 5


def saturated(n: int = 400, clusters: int = 12) -> tuple[Tensor, Tensor]:
    """Logits so large that a float32 softmax of many images is exactly 1, and classes."""
    stream = torch.Generator().manual_seed(2)
    logits = 300 * torch.randn(n, clusters, generator=stream)
    return logits, torch.randint(10, (n,), generator=stream)


def test_representatives_of_saturated_softmax_ignore_the_order_of_images() -> None:
    logits, y = saturated()
    assert (logits.softmax(1) == 1).sum(0).min() > 5  # of every cluster
    want = representatives(logits, y)
    for seed in range(5):
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
        assert torch.equal(representatives(logits[order], y[order]), want)
    assert ties(logits) == 0


def test_representatives_of_saturated_softmax_take_the_widest_margin() -> None:
    """At such logits log q/(1 − q) is the distance to the next cluster, but for 1e-4 nats."""
    logits, y = saturated()
    margins = torch.stack(
        [
            logits[:, i] - logits[:, [j for j in range(12) if j != i]].amax(1)
            for i in range(logits.shape[1])
        ],
        1,
    )
    assert torch.equal(representatives(logits, y), y[margins.argmax(0)])


def test_representatives_order_images_as_exact_odds_do() -> None:
    """Fractions of integers know q exactly; the odds' order is q's, in and out of the top place."""
    weights = torch.randint(1, 50, (60, 5), generator=torch.Generator().manual_seed(3))
    exact = [[Fraction(w, sum(row)) for w in row] for row in weights.tolist()]
    surest = [max(range(60), key=lambda i: exact[i][k]) for k in range(5)]
    images = torch.arange(60)  # every image is a class of its own
    assert representatives(weights.double().log(), images).tolist() == surest


def test_representatives_of_equal_images_take_their_most_frequent_class() -> None:
    logits = torch.tensor([[3.0, 0], [3, 0], [3, 0], [0, 1], [0, 2], [0, 2]])
    y = torch.tensor([4, 2, 4, 9, 7, 5])
    assert representatives(logits, y).tolist() == [4, 5]
    assert representatives(logits.flip(0), y.flip(0)).tolist() == [4, 5]
    assert ties(logits) == 3


def test_ties_of_diverged_logits_are_none() -> None:
    assert ties(torch.full((6, 3), torch.nan)) == 0


def test_no_other_names_are_better_on_the_images_that_chose_them_than_the_majority() -> None:
    stream = torch.Generator().manual_seed(0)
    logits = torch.rand(300, 16, generator=stream)
    y = torch.randint(10, (300,), generator=stream)
    best = cluster_error(logits, y, majorities(logits, y))
    assert best < cluster_error(logits, y, representatives(logits, y))
    for _ in range(20):
        assert best <= cluster_error(logits, y, torch.randint(10, (16,), generator=stream))


def test_the_order_of_clusters_does_not_matter() -> None:
    stream = torch.Generator().manual_seed(1)
    logits, y = torch.rand(300, 16, generator=stream), torch.randint(10, (300,), generator=stream)
    order = torch.randperm(16, generator=stream)
    for name in (representatives, majorities):
        assert torch.equal(name(logits[:, order], y), name(logits, y)[order])


def test_perfect_clusters_are_never_wrong_under_any_order() -> None:
    y = torch.arange(100) % 10
    logits = torch.eye(10)[(y + 3) % 10].log()
    for name in (representatives, majorities):
        assert cluster_error(logits, y, name(logits, y)) == 0
