"""Two memorisers whose samples are scored beside a model's: Parzen figures flatter memory.

A memoriser knows the training images, or k-means centroids of them, and nothing else (Theis et al.
2015, arXiv:1511.01844). The figure grows with the number of samples, so a control bears comparison
only with a model that has as many.

Shapes: n training images x, N samples, D pixels.  Units: pixels as the data set has them, or in
[0, 1] for centroids.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from aae_core.data import unit_interval
from aae_core.data.resident import resident
from aae_core.data.splits import permutation
from aae_core.evaluation.kernel_sums import principal_components

ControlKind = Literal["train_images", "kmeans"]

STEPS = 4  # of Lloyd's algorithm: 8 change MNIST's figure by 0.04 nats
_CLUSTERED = 100_000  # images that centroids are computed from: more do not fit as floats
_EACH = 4  # images a centroid, on average, at least: below, k-means repeats the images
_COMPONENTS, _FITTED = 64, 2_000  # that say which centroid is nearest; images that tell them
_TILE = 500  # images at a time: their distances fit a core's cache


def control_sizes(curve: Sequence[int], n_train: int) -> list[tuple[ControlKind, int]]:
    """The control rows for a model that is scored at the numbers of samples in `curve`.

    A row for each of these numbers that the training images can fill: up to all of them, or for
    k-means up to a quarter of the images that it clusters. All training images are a row in any
    case. Where k-means can fill none, it has one row, of a tenth as many centroids as images.
    """
    clustered = min(n_train, _CLUSTERED)
    sizes: dict[ControlKind, set[int]] = {
        "train_images": {n for n in curve if n < n_train} | {n_train},
        "kmeans": {n for n in curve if n <= clustered // _EACH} or {max(1, clustered // 10)},
    }
    return [(kind, n) for kind in sizes for n in sorted(sizes[kind])]


def training_images(x: np.ndarray, n: int) -> np.ndarray:
    """The first n images of a permutation that is always the same: (n, D).

    All images come in their own order, without a copy.
    """
    return x if n >= len(x) else x[permutation(len(x))[:n]]


def clustered_images(x: np.ndarray) -> np.ndarray:
    """The images that k-means clusters, (at most 100,000, D)."""
    return training_images(x, _CLUSTERED)


@torch.no_grad()
def centroids(x: np.ndarray, n: int) -> Tensor:
    """n centroids of images (m, D), m ≥ n: (n, D), float32 in [0, 1].

    Lloyd's algorithm (1982), STEPS steps from n of the images. An image goes to the centroid that
    is nearest in the images' first principal components, which takes a sixth of the time that all
    pixels would; centroids are means of all pixels. One that no image is nearest to stays.
    """
    images = unit_interval(resident(x, "cpu"))
    centre = images.mean(0)
    fitted = images[:_FITTED].double() - centre.double()
    basis = principal_components(fitted)[:, :_COMPONENTS].float()
    plane = images @ basis - centre @ basis
    centroids = images[torch.from_numpy(permutation(len(x))[:n])]
    for _ in range(STEPS):
        nearest = _nearest(plane, (centroids - centre) @ basis)
        sums = torch.zeros_like(centroids).index_add_(0, nearest, images)
        counts = torch.bincount(nearest, minlength=n)[:, None]
        centroids = torch.where(counts > 0, sums / counts.clamp(min=1), centroids)
    return centroids


def _nearest(points: Tensor, centroids: Tensor) -> Tensor:
    """Index of the nearest centroid: (m, k), (n, k) -> (m,)."""
    squares, found = centroids.square().sum(1), []
    for tile in points.split(_TILE):
        distances = torch.addmm(squares, tile, centroids.T, alpha=-2)
        found.append(distances.numpy().argmin(1))  # torch's argmin takes as long as the product
    return torch.from_numpy(np.concatenate(found))
