"""Samples beside their nearest training images: Figure 5, which shows memorised images.

A canvas is uint8, (H', W') or, for colour images, (H', W', 3).  Images of (D,) are drawn as strips
one pixel high.  Images with other than 1 or 3 channels are drawn as the mean of their channels.

Shapes: n samples x, m training images, D = H·W·C pixels.  Units: uint8, or floats in [0, 1].
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from aae_core.data import unit_interval

_TILE = 4_096
GAP = 128  # grey, since most images have a black or white background
_PANEL_GAP = 4  # pixels


def nearest(x: Tensor, train: Tensor) -> Tensor:
    """Return the index of the nearest training image (Euclidean): (n, D), (m, D) -> (n,)."""
    return torch.cat([_nearest(unit_interval(tile), train) for tile in torch.split(x, _TILE)])


def sample_grid(
    samples: Tensor, train: Tensor, rows: int, columns: int, image_shape: tuple[int, ...]
) -> np.ndarray:
    """Draw Figure 5: `columns` samples per row, then the training image nearest the last sample.

    Raises ValueError for fewer than rows·columns samples, or another number of pixels.
    """
    if len(samples) < rows * columns or samples.shape[1] != math.prod(image_shape):
        raise ValueError(
            f"samples: {tuple(samples.shape)}; a grid of {rows} x {columns} images of "
            f"{image_shape} takes at least ({rows * columns}, {math.prod(image_shape)})"
        )
    drawn = unit_interval(samples[: rows * columns]).reshape(rows, columns, -1)
    neighbours = unit_interval(train[nearest(drawn[:, -1], train)])
    images = torch.cat([drawn, neighbours[:, None]], dim=1)
    return image_grid(images, image_shape)


def image_grid(images: Tensor, image_shape: tuple[int, ...]) -> np.ndarray:
    """Draw images (R, C, D) in R rows, C columns with 1-pixel gaps; clip pixels to [0, 1]."""
    rows, columns, _ = images.shape
    return _canvas(_to_bytes(images).reshape(rows, columns, *_height_width(image_shape)))


def side_by_side(canvases: Sequence[np.ndarray]) -> np.ndarray:
    """Draw canvases of one height in a row, with wider gaps than inside a canvas."""
    between = np.full_like(canvases[0][:, :_PANEL_GAP], GAP)
    parts = [part for canvas in canvases for part in (between, canvas)]
    return np.concatenate(parts[1:], axis=1)


def _nearest(x: Tensor, train: Tensor) -> Tensor:
    per_tile = [_distances(x, tile).min(1) for tile in torch.split(train, _TILE)]
    best = torch.stack([distance for distance, _ in per_tile]).argmin(0)  # tile of each sample
    within = torch.stack([index for _, index in per_tile]).gather(0, best[None])[0]
    return best * _TILE + within


def _distances(x: Tensor, tile: Tensor) -> Tensor:
    # Differences are exact for near duplicates; the product form cancels.
    return torch.cdist(x, unit_interval(tile), compute_mode="donot_use_mm_for_euclid_dist")


def _height_width(image_shape: tuple[int, ...]) -> tuple[int, ...]:
    return (1, *image_shape) if len(image_shape) == 1 else image_shape


def _to_bytes(x: Tensor) -> np.ndarray:
    return (x.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def _canvas(images: np.ndarray) -> np.ndarray:
    """Arrange (R, C, H, W) or (R, C, H, W, channels) bytes in rows and columns."""
    if images.ndim == 5 and images.shape[-1] != 3:
        images = images.mean(-1).astype(np.uint8)
    right_and_below = [(0, 0), (0, 0), (0, 1), (0, 1), (0, 0)][: images.ndim]
    padded = np.pad(images, right_and_below, constant_values=GAP)
    rows, columns, height, width, *channels = padded.shape
    canvas = padded.swapaxes(1, 2).reshape(rows * height, columns * width, *channels)
    return canvas[:-1, :-1]
