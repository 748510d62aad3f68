"""Standardised pixels: every one over the training images, as the paper's TFD and SVHN are.

Shapes: n images of D pixels; mean and std (D,).  Units: pixels in [0, 1].
"""

import numpy as np
import torch
from torch import Tensor, nn

from aae_core.data.sets import unit_interval

_CHUNK = 1024  # images
_LEAST_STD = float(np.finfo(np.float32).eps)  # what float32 cannot tell from a constant near 1


def pixel_statistics(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of x (n, D), uint8 or in [0, 1]: float32.

    A constant pixel has the std 1, so that standardising can always be undone.
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
    """From images in [0, 1] to what the networks see, and back: the same, or standardised."""

    mean: Tensor | None
    std: Tensor | None

    def __init__(self, dim: int, *, standardise: bool) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim) if standardise else None)
        self.register_buffer("std", torch.ones(dim) if standardise else None)

    def measure(self, x_train: np.ndarray) -> None:
        """Take the statistics of the training images, if these are to be standardised."""
        if self.mean is not None and self.std is not None:
            mean, std = pixel_statistics(x_train)
            self.mean.copy_(torch.from_numpy(mean))
            self.std.copy_(torch.from_numpy(std))

    def forward(self, x: Tensor) -> Tensor:
        return x if self.mean is None or self.std is None else (x - self.mean) / self.std

    def inverse(self, x: Tensor) -> Tensor:
        return x if self.mean is None or self.std is None else x * self.std + self.mean
