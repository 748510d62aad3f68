"""Control rows at each N of a curve, and k-means against known answers."""

import numpy as np
import pytest
import torch

from aae_core.evaluation.controls import centroids, control_sizes, training_images
from aae_core.evaluation.parzen import CURVE


def pixels(n: int, dim: int = 5) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, dim), dtype=np.uint8)


@pytest.mark.parametrize(
    ("curve", "n_train", "images", "kmeans"),
    [
        (CURVE, 50_000, [10_000, 50_000], [10_000]),
        (CURVE[:2], 50_000, [10_000, 50_000], [10_000]),
        (CURVE, 10_000, [10_000], [1_000]),
        (CURVE, 600_000, [10_000, 100_000, 600_000], [10_000]),
        ([10_000, 20_000], 60_000, [10_000, 20_000, 60_000], [10_000]),
        (CURVE, 1_197, [1_197], [119]),
        ([200], 1_197, [200, 1_197], [200]),
        ([300], 1_197, [300, 1_197], [119]),
        (CURVE, 3, [3], [1]),
    ],
)
def test_control_sizes_are_the_curve_sizes_with_enough_images(
    curve: list[int], n_train: int, images: list[int], kmeans: list[int]
) -> None:
    found = control_sizes(curve, n_train)
    assert found == [
        *(("train_images", n) for n in images),
        *(("kmeans", n) for n in kmeans),
    ]


def test_training_images_of_a_smaller_number_begin_a_larger_one() -> None:
    x = np.arange(50)[:, None]
    few, more = training_images(x, 10), training_images(x, 30)
    assert np.array_equal(more[:10], few)
    assert len(np.unique(more)) == 30
    assert not np.array_equal(more, x[:30])  # because the images may be sorted by class
    assert training_images(x, 50) is x


def test_centroids_with_one_centroid_give_the_mean_image() -> None:
    x = pixels(40)
    mean = torch.from_numpy(x.astype(np.float32) / 255).mean(0)
    torch.testing.assert_close(centroids(x, 1)[0], mean)


def test_centroids_as_many_as_images_are_the_images() -> None:
    x = pixels(40)
    found = centroids(x, 40)
    order = np.lexsort(x.T), np.lexsort(found.numpy().T)
    torch.testing.assert_close(
        found[order[1]], torch.from_numpy(x[order[0]].astype(np.float32)) / 255
    )


def test_centroids_of_two_pairs_are_the_means_of_the_pairs() -> None:
    """Test k = 2: Lloyd's algorithm ends at the pairs' means from any two of the four images."""
    x = np.float32([0.0, 0.1, 0.9, 1.0])[:, None] * np.ones((1, 3), np.float32)
    found = centroids(x, 2)
    want = torch.tensor([[0.05], [0.95]]).expand(2, 3)
    torch.testing.assert_close(found.sort(0).values, want)


def test_centroids_without_images_keep_their_position() -> None:
    x = np.full((20, 4), 51, np.uint8)  # all equal: all images go to one centroid
    torch.testing.assert_close(centroids(x, 3), torch.full((3, 4), 0.2))


def test_centroids_lie_nearer_to_images_than_as_many_images_do() -> None:
    x = pixels(2_000)
    images = torch.from_numpy(x).float() / 255
    few = torch.from_numpy(training_images(x, 100)).float() / 255
    distances = [
        torch.cdist(images, c).min(1).values.square().mean() for c in (centroids(x, 100), few)
    ]
    assert distances[0] < 0.85 * distances[1]
