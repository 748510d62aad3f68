"""N(0, s²I) in any dimension."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class GaussianPrior:
    dim: int
    std: float

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        size = (n, self.dim)
        return self.std * torch.randn(size, generator=generator, device=generator.device)
