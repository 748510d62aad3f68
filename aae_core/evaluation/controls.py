"""Two memorising controls, scored beside a model, since Parzen figures reward memorising.

A control's samples are training images or their k-means centroids (Theis et al. 2015,
arXiv:1511.01844). The figure grows with the number of samples, so compare a control only with a
model that has the same number of samples.

Shapes: n training images x, N samples, D pixels.  Units: pixels as in the data set, or in [0, 1]
for centroids.
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

STEPS = 4  # of Lloyd's algorithm: 8 steps change MNIST's figure by 0.04 nats
_CLUSTERED = 100_000  # images to cluster: more do not fit in memory as floats
_EACH = 4  # least mean number of images a centroid: with fewer, k-means repeats images
_COMPONENTS, _FITTED = 64, 2_000  # to find the nearest centroid; images they are fitted to
_TILE = 500  # images at a time, whose distances fit a core's cache


def control_sizes(curve: Sequence[int], n_train: int) -> list[tuple[ControlKind, int]]:
    """Return the control rows for a model that is scored at the numbers of samples in `curve`.

    Training images have a row for each number below n_train, and one for all images. k-means has a
    row for each number up to a quarter of the clustered images. If no number is that small, k-means
    has one row, with a tenth as many centroids as images.
    """
    clustered = min(n_train, _CLUSTERED)
    sizes: dict[ControlKind, set[int]] = {
        "train_images": {n for n in curve if n < n_train} | {n_train},
        "kmeans": {n for n in curve if n <= clustered // _EACH} or {max(1, clustered // 10)},
    }
    return [(kind, n) for kind in sizes for n in sorted(sizes[kind])]


def training_images(x: np.ndarray, n: int) -> np.ndarray:
    """Return the first n images of a fixed permutation, (n, D).

    If n covers all images, return x itself, in its own order and without a copy.
    """
    return x if n >= len(x) else x[permutation(len(x))[:n]]


def clustered_images(x: np.ndarray) -> np.ndarray:
    """Return the images that k-means clusters, (at most 100,000, D)."""
    return training_images(x, _CLUSTERED)


@torch.no_grad()
def centroids(x: np.ndarray, n: int) -> Tensor:
    """Compute n centroids of images (m, D), m ≥ n: (n, D), float32 in [0, 1].

    Lloyd's algorithm (1982) takes STEPS steps from n of the images. Each image is assigned to the
    nearest centroid in the first principal components, in a sixth of the time of all pixels.
    Centroids are means of all pixels. A centroid without images does not move.
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
    """Return the index of the nearest centroid: (m, k), (n, k) -> (m,)."""
    squares, found = centroids.square().sum(1), []
    for tile in points.split(_TILE):
        distances = torch.addmm(squares, tile, centroids.T, alpha=-2)
        found.append(distances.numpy().argmin(1))  # torch's argmin takes as long as the product
    return torch.from_numpy(np.concatenate(found))
