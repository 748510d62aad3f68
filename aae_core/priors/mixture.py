"""K two-dimensional Gaussians on a circle: the petals of figures 2 and 4."""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from aae_core.config import PriorConfig


@dataclass(frozen=True)
class MixturePrior:
    """Mixture of K Gaussians; mode k is centred at `radius` in the direction 2πk/K.

    radial_std is the std along this direction, tangential_std the std across this direction.
    """

    modes: int
    radius: float
    radial_std: float
    tangential_std: float

    @classmethod
    def of(cls, config: PriorConfig, dim: int) -> Self:
        return cls(config.modes, config.radius, config.radial_std, config.tangential_std)

    @property
    def dim(self) -> int:
        return 2

    @property
    def std(self) -> float:
        second_moment = self.radius**2 + self.radial_std**2 + self.tangential_std**2
        return math.sqrt(second_moment / 2)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        modes = torch.randint(self.modes, (n,), generator=generator, device=generator.device)
        return self.sample_modes(modes, generator=generator)

    def sample_modes(self, modes: Tensor, *, generator: torch.Generator) -> Tensor:
        size = (len(modes), 2)
        epsilon = torch.randn(size, generator=generator, device=generator.device)
        outwards, sideways = self.axes(modes)
        along = self.radius + self.radial_std * epsilon[:, :1]
        return along * outwards + self.tangential_std * epsilon[:, 1:] * sideways

    def log_density(self, z: Tensor) -> Tensor:
        outwards, sideways = self.axes(torch.arange(self.modes, dtype=z.dtype, device=z.device))
        along = (z @ outwards.T - self.radius) / self.radial_std
        across = z @ sideways.T / self.tangential_std
        log_norm = math.log(2 * math.pi * self.radial_std * self.tangential_std * self.modes)
        return torch.logsumexp(-0.5 * (along.square() + across.square()), dim=-1) - log_norm

    def axes(self, modes: Tensor) -> tuple[Tensor, Tensor]:
        """Return unit vectors outwards and across for each of `modes` (n,): (n, 2) each."""
        angle = 2 * math.pi * modes / self.modes
        cos, sin = angle.cos(), angle.sin()
        return torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)
