"""Pixels standardised by training statistics, as the paper does for TFD and SVHN.

Shapes: n images of D pixels; mean and std (D,).  Units: pixels in [0, 1].
"""

import numpy as np
import torch
from torch import Tensor, nn

from aae_core.data.sets import unit_interval

_CHUNK = 1024  # images
_LEAST_STD = float(np.finfo(np.float32).eps)  # float32's resolution near 1


def pixel_statistics(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each pixel of x (n, D), uint8 or in [0, 1]: float32, (D,).

    A constant pixel gets the std 1, which keeps standardising invertible.
    """
    first = unit_interval(x[0], "float64")
    total, squares = np.zeros_like(first), np.zeros_like(first)
    for start in range(0, len(x), _CHUNK):
        from_first = unit_interval(x[start : start + _CHUNK], "float64") - first  # 0 if constant
        total += from_first.sum(0)
        squares += np.square(from_first).sum(0)
    mean = total / len(x)
    std = np.sqrt(np.maximum(squares / len(x) - mean**2, 0))
    std[std < _LEAST_STD] = 1
    return (first + mean).astype(np.float32), std.astype(np.float32)


class Pixels(nn.Module):
    """Conversion of images in [0, 1] to the networks' scale and back: identity or standardising."""

    mean: Tensor | None
    std: Tensor | None

    def __init__(self, dim: int, *, standardise: bool) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim) if standardise else None)
        self.register_buffer("std", torch.ones(dim) if standardise else None)

    def measure(self, x_train: np.ndarray) -> None:
        """Compute the statistics of the training images if pixels are standardised."""
        if self.mean is not None and self.std is not None:
            mean, std = pixel_statistics(x_train)
            self.mean.copy_(torch.from_numpy(mean))
            self.std.copy_(torch.from_numpy(std))

    def forward(self, x: Tensor) -> Tensor:
        return x if self.mean is None or self.std is None else (x - self.mean) / self.std

    def inverse(self, x: Tensor) -> Tensor:
        return x if self.mean is None or self.std is None else x * self.std + self.mean
