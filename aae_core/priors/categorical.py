"""Cat(K): one-hot vectors with equally likely classes (section 5)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot


@dataclass(frozen=True)
class CategoricalPrior:
    """Uniform prior over one-hot samples, (n, dim); mode k is the k-th unit vector."""

    dim: int

    @property
    def modes(self) -> int:
        return self.dim

    @property
    def std(self) -> float:
        return float(self.dim**-0.5)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        modes = torch.randint(self.dim, (n,), generator=generator, device=generator.device)
        return self.sample_modes(modes, generator=generator)

    def sample_modes(self, modes: Tensor, *, generator: torch.Generator) -> Tensor:
        return one_hot(modes, self.dim).float()
