"""A prior on a circle; the sliced-Wasserstein autoencoder (Kolouri et al., arXiv:1804.01947)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from aae_core.config import PriorConfig
from aae_core.declarations import Architecture, PriorDeclaration
from aae_core.models import Autoencoder
from aae_core.models.base import Objectives
from aae_core.networks import Blueprint
from aae_core.phases import Batch, Costs, State, reconstruction_phase


@dataclass(frozen=True)
class RingSettings:
    width: float = 0.1  # std of the radius


@dataclass(frozen=True)
class Ring:
    radius: float
    width: float
    dim: int = 2

    @classmethod
    def of(cls, config: PriorConfig, dim: int) -> "Ring":
        return cls(config.radius, config.settings.width)

    @property
    def std(self) -> float:
        return ((self.radius**2 + self.width**2) / 2) ** 0.5

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        noise = torch.randn(n, 3, generator=generator, device=generator.device)
        return (self.radius + self.width * noise[:, :1]) * normalize(noise[:, 1:])


@dataclass(frozen=True)
class SlicedSettings:
    projections: int = 50  # random directions a batch
    weight: float = 1.0  # of the distance, beside the reconstruction


class SlicedWasserstein(Autoencoder):
    def __init__(self, plan: Blueprint) -> None:
        super().__init__(plan)
        self.settings = plan.config.settings

    def objectives(self) -> Objectives:
        return {"reconstruction": ("reconstruction", (self.encoder, self.decoder))}

    def train_step(self, s: State, batch: Batch) -> Costs:
        _, z = self.encoder(batch.noisy, s.streams["noise"])
        wanted = self.prior.sample(len(z), generator=s.streams["prior"])
        size = (z.shape[1], self.settings.projections)
        noise = torch.randn(size, generator=s.streams["noise"], device=z.device)
        ours, theirs = (x @ normalize(noise, dim=0) for x in (z, wanted))
        distance = (ours.sort(0).values - theirs.sort(0).values).square().mean()
        costs = reconstruction_phase(s, self.image(z), batch.x, self.settings.weight * distance)
        return costs | {"train/sliced": distance.detach()}


RING = PriorDeclaration("ring", "aae_example:Ring.of", flat=True, settings=RingSettings)
SLICED_WASSERSTEIN = Architecture(
    "sliced-Wasserstein autoencoder",
    model="aae_example:SlicedWasserstein",
    objective="parzen_ll",
    metrics=(
        *("recon", "parzen_ll", "parzen_ll_refined", "parzen_se", "parzen_sigma"),
        *("latent_mmd", "latent_std"),
    ),
    adversaries=(),
    networks=("encoder", "decoder"),
    settings=SlicedSettings,
)
