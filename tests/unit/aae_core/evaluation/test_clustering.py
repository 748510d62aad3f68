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
    """Logits of five images: clusters 0 and 2 have two each, cluster 1 has one, cluster 3 none."""
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


def test_representatives_name_a_cluster_by_its_surest_image(logits: Tensor) -> None:
    assert representatives(logits, torch.tensor([7, 1, 2, 5, 3])).tolist() == [1, 3, 2, 5]


def test_majorities_name_a_cluster_by_its_most_frequent_class(logits: Tensor) -> None:
    with_third = torch.cat([logits, logits[:1]])
    names = majorities(with_third, torch.tensor([7, 1, 2, 2, 3, 7]))
    assert names.tolist() == [7, 3, 2, -1]


def test_majorities_take_the_lowest_of_equally_frequent_classes(logits: Tensor) -> None:
    assert majorities(logits, torch.tensor([7, 1, 2, 5, 0])).tolist() == [1, 0, 2, -1]


def test_cluster_error_counts_images_whose_cluster_has_another_class(logits: Tensor) -> None:
    y = torch.tensor([7, 1, 2, 5, 3])
    assert cluster_error(logits, y, representatives(logits, y)) == pytest.approx(40)
    assert cluster_error(logits, torch.tensor([1, 1, 2, 2, 3]), representatives(logits, y)) == 0
    assert cluster_error(logits, y, torch.full((4,), -1)) == 100


def test_empty_clusters_counts_clusters_without_images(logits: Tensor) -> None:
    assert empty_clusters(logits) == 1
    assert empty_clusters(torch.eye(6)) == 0
    assert empty_clusters(torch.eye(6)[:1].repeat(9, 1)) == 5


def saturated(n: int = 400, clusters: int = 12) -> tuple[Tensor, Tensor]:
    """Classes, and logits so large that the float32 softmax of many images is exactly 1."""
    stream = torch.Generator().manual_seed(2)
    logits = 300 * torch.randn(n, clusters, generator=stream)
    return logits, torch.randint(10, (n,), generator=stream)


def test_representatives_of_saturated_softmax_ignore_the_order_of_images() -> None:
    logits, y = saturated()
    assert (logits.softmax(1) == 1).sum(0).min() > 5  # in every cluster
    want = representatives(logits, y)
    for seed in range(5):
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
        assert torch.equal(representatives(logits[order], y[order]), want)
    assert ties(logits) == 0


def test_representatives_of_saturated_softmax_take_the_widest_margin() -> None:
    """Test that log q/(1 − q) is here the distance to the next cluster, within 1e-4 nats."""
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
    """Test against q as fractions of integers: odds order the images as q does, in any cluster."""
    weights = torch.randint(1, 50, (60, 5), generator=torch.Generator().manual_seed(3))
    exact = [[Fraction(w, sum(row)) for w in row] for row in weights.tolist()]
    surest = [max(range(60), key=lambda i: exact[i][k]) for k in range(5)]
    images = torch.arange(60)  # every image is its own class
    assert representatives(weights.double().log(), images).tolist() == surest


def test_representatives_of_equal_images_take_their_most_frequent_class() -> None:
    logits = torch.tensor([[3.0, 0], [3, 0], [3, 0], [0, 1], [0, 2], [0, 2]])
    y = torch.tensor([4, 2, 4, 9, 7, 5])
    assert representatives(logits, y).tolist() == [4, 5]
    assert representatives(logits.flip(0), y.flip(0)).tolist() == [4, 5]
    assert ties(logits) == 3


def test_ties_of_nan_logits_are_zero() -> None:
    assert ties(torch.full((6, 3), torch.nan)) == 0


def test_majorities_minimise_the_error_on_the_images_that_chose_them() -> None:
    stream = torch.Generator().manual_seed(0)
    logits = torch.rand(300, 16, generator=stream)
    y = torch.randint(10, (300,), generator=stream)
    best = cluster_error(logits, y, majorities(logits, y))
    assert best < cluster_error(logits, y, representatives(logits, y))
    for _ in range(20):
        assert best <= cluster_error(logits, y, torch.randint(10, (16,), generator=stream))


def test_cluster_names_follow_any_reordering_of_clusters() -> None:
    stream = torch.Generator().manual_seed(1)
    logits, y = torch.rand(300, 16, generator=stream), torch.randint(10, (300,), generator=stream)
    order = torch.randperm(16, generator=stream)
    for name in (representatives, majorities):
        assert torch.equal(name(logits[:, order], y), name(logits, y)[order])


def test_cluster_error_of_perfect_clusters_is_zero() -> None:
    y = torch.arange(100) % 10
    logits = torch.eye(10)[(y + 3) % 10].log()
    for name in (representatives, majorities):
        assert cluster_error(logits, y, name(logits, y)) == 0
