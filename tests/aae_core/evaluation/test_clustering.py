import pytest
import torch
from torch import Tensor

from aae_core.evaluation.clustering import (
    cluster_error,
    empty_clusters,
    majorities,
    representatives,
)


@pytest.fixture
def q() -> Tensor:
    """Five images; clusters 0 and 2 have two each, cluster 1 has one, cluster 3 none."""
    return torch.tensor(
        [
            [0.6, 0.1, 0.1, 0.2],
            [0.9, 0.0, 0.0, 0.1],
            [0.1, 0.2, 0.6, 0.1],
            [0.2, 0.1, 0.4, 0.3],
            [0.2, 0.7, 0.1, 0.0],
        ]
    )


def test_the_surest_image_names_a_cluster(q: Tensor) -> None:
    assert representatives(q, torch.tensor([7, 1, 2, 5, 3])).tolist() == [1, 3, 2, 5]


def test_the_most_frequent_class_names_a_cluster(q: Tensor) -> None:
    with_third = torch.cat([q, q[:1]])
    names = majorities(with_third, torch.tensor([7, 1, 2, 2, 3, 7]))
    assert names.tolist() == [7, 3, 2, -1]


def test_of_equally_frequent_classes_the_lowest_counts(q: Tensor) -> None:
    assert majorities(q, torch.tensor([7, 1, 2, 5, 0])).tolist() == [1, 0, 2, -1]


def test_error_counts_images_under_another_name(q: Tensor) -> None:
    y = torch.tensor([7, 1, 2, 5, 3])
    assert cluster_error(q, y, representatives(q, y)) == pytest.approx(40)
    assert cluster_error(q, torch.tensor([1, 1, 2, 2, 3]), representatives(q, y)) == 0
    assert cluster_error(q, y, torch.full((4,), -1)) == 100


def test_empty_clusters(q: Tensor) -> None:
    assert empty_clusters(q) == 1
    assert empty_clusters(torch.eye(6)) == 0
    assert empty_clusters(torch.eye(6)[:1].repeat(9, 1)) == 5


def test_no_other_names_are_better_on_the_images_that_chose_them_than_the_majority() -> None:
    stream = torch.Generator().manual_seed(0)
    q = torch.rand(300, 16, generator=stream).softmax(1)
    y = torch.randint(10, (300,), generator=stream)
    best = cluster_error(q, y, majorities(q, y))
    assert best < cluster_error(q, y, representatives(q, y))
    for _ in range(20):
        assert best <= cluster_error(q, y, torch.randint(10, (16,), generator=stream))


def test_the_order_of_clusters_does_not_matter() -> None:
    stream = torch.Generator().manual_seed(1)
    q, y = torch.rand(300, 16, generator=stream), torch.randint(10, (300,), generator=stream)
    order = torch.randperm(16, generator=stream)
    for name in (representatives, majorities):
        assert torch.equal(name(q[:, order], y), name(q, y)[order])


def test_perfect_clusters_are_never_wrong_under_any_order() -> None:
    y = torch.arange(100) % 10
    q = torch.eye(10)[(y + 3) % 10]
    for name in (representatives, majorities):
        assert cluster_error(q, y, name(q, y)) == 0
