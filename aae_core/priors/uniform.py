"""Uniform prior on a cube around the origin, in any dimension."""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from aae_core.config import PriorConfig


@dataclass(frozen=True)
class UniformPrior:
    """Uniform prior with every coordinate in ±√3·std, which has the standard deviation `std`."""

    dim: int
    std: float

    @classmethod
    def of(cls, config: PriorConfig, dim: int) -> Self:
        return cls(dim, config.std)

    @property
    def half_side(self) -> float:
        return math.sqrt(3) * self.std

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        size = (n, self.dim)
        unit = torch.rand(size, generator=generator, device=generator.device)
        return self.half_side * (2 * unit - 1)
