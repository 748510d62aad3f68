"""A Gaussian whose mean is uniform along a spiral: the swiss roll of figure 4 (section 2.3)."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from aae_core.config import PriorConfig

_KNOTS = 4_097  # size of the table from length along the roll to angle


@dataclass(frozen=True)
class SwissRollPrior:
    """Archimedean spiral from the origin to `radius` in `turns` turns, with noise of std `width`.

    Mode k is the k-th of `modes` parts of equal length along the spiral.
    """

    modes: int
    radius: float
    turns: float
    width: float

    @classmethod
    def of(cls, config: PriorConfig, dim: int) -> Self:
        return cls(config.modes, config.radius, config.turns, config.width)

    @property
    def dim(self) -> int:
        return 2

    @cached_property
    def std(self) -> float:
        distance = self.mean(torch.linspace(0, 1, _KNOTS, dtype=torch.float64)).norm(dim=-1)
        return math.sqrt(float(distance.square().mean()) / 2 + self.width**2)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        modes = torch.randint(self.modes, (n,), generator=generator, device=generator.device)
        return self.sample_modes(modes, generator=generator)

    def sample_modes(self, modes: Tensor, *, generator: torch.Generator) -> Tensor:
        device, n = generator.device, len(modes)
        within = torch.rand(n, generator=generator, device=device)
        noise = torch.randn((n, 2), generator=generator, device=device)
        return self.mean((modes + within) / self.modes) + self.width * noise

    def mean(self, along: Tensor) -> Tensor:
        """Return the spiral's point at a share `along` in [0, 1] of its length, (…) -> (…, 2)."""
        full = 2 * math.pi * self.turns
        angles = torch.linspace(0, full, _KNOTS, dtype=torch.float64, device=along.device)
        lengths = angles * (1 + angles.square()).sqrt() + angles.asinh()  # twice those of r = θ
        wanted = along.double() * lengths[-1]
        right = torch.searchsorted(lengths, wanted).clamp(1, _KNOTS - 1)
        left = right - 1
        share = (wanted - lengths[left]) / (lengths[right] - lengths[left])
        angle = torch.lerp(angles[left], angles[right], share)
        distance = self.radius / full * angle
        point = torch.stack([distance * angle.cos(), distance * angle.sin()], -1)
        return point.to(along.dtype)
