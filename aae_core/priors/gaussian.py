"""Gaussian prior N(0, s²I) in any dimension."""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from aae_core.config import PriorConfig


@dataclass(frozen=True)
class GaussianPrior:
    dim: int
    std: float

    @classmethod
    def of(cls, config: PriorConfig, dim: int) -> Self:
        return cls(dim, config.std)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        size = (n, self.dim)
        return self.std * torch.randn(size, generator=generator, device=generator.device)

    def log_density(self, z: Tensor) -> Tensor:
        log_norm = self.dim * math.log(self.std * math.sqrt(2 * math.pi))
        return -0.5 * (z / self.std).square().sum(-1) - log_norm
