"""Priors p(z). A prior only has to sample: the AAE needs no density (section 2)."""

from pkgutil import resolve_name
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from aae_core.config import PriorConfig
from aae_core.declarations import PRIORS
from aae_core.priors.categorical import CategoricalPrior
from aae_core.priors.gaussian import GaussianPrior
from aae_core.priors.mixture import MixturePrior
from aae_core.priors.swiss_roll import SwissRollPrior
from aae_core.priors.uniform import UniformPrior

__all__ = [
    "CategoricalPrior",
    "DensePrior",
    "GaussianPrior",
    "LabelledPrior",
    "MixturePrior",
    "Prior",
    "SwissRollPrior",
    "UniformPrior",
    "build_prior",
]


class Prior(Protocol):
    @property
    def dim(self) -> int: ...

    @property
    def std(self) -> float:
        """Root mean square of a coordinate, the unit for the scale of codes."""

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Draw z ~ p(z), shape (n, dim), float32, on the generator's device."""


@runtime_checkable
class LabelledPrior(Prior, Protocol):
    """A prior with several modes, each of which may belong to a class (section 2.3)."""

    @property
    def modes(self) -> int: ...

    def sample_modes(self, modes: Tensor, *, generator: torch.Generator) -> Tensor:
        """Draw z ~ p(z | mode) for each of `modes`, (n,) in 0 … modes−1; shape (n, dim).

        Modes drawn uniformly give p(z).
        """


@runtime_checkable
class DensePrior(Prior, Protocol):
    """A prior with a density in closed form, which the VAE needs and the AAE does not."""

    def log_density(self, z: Tensor) -> Tensor:
        """Return log p(z) in nats, (n, dim) -> (n,)."""


def build_prior(config: PriorConfig, code_dim: int) -> Prior:
    prior: Prior = resolve_name(PRIORS[config.kind].build)(config, code_dim)
    return prior
