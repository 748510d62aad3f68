"""Priors p(z). A prior only has to sample: no density is ever asked for (section 2)."""

from typing import Protocol

import torch
from torch import Tensor

from aae_core.config import PriorConfig
from aae_core.priors.gaussian import GaussianPrior


class Prior(Protocol):
    @property
    def dim(self) -> int: ...

    @property
    def std(self) -> float:
        """Root mean square of a coordinate: the scale that codes are measured in."""

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Draw z ~ p(z), shape (n, dim), float32, on the generator's device."""


def build_prior(config: PriorConfig, code_dim: int) -> Prior:
    return GaussianPrior(code_dim, config.std)
