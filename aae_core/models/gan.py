"""Generative adversarial network (Goodfellow et al. 2014): a decoder and a pixel discriminator.

For the authors' networks, a maxout discriminator with dropout, see
`sweeps/likelihood_mnist_gan.yaml`.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from aae_core.models.base import Model, Objectives
from aae_core.networks import Blueprint
from aae_core.phases import Adversary, Batch, Costs, State, regularisation_phase
from aae_core.priors import build_prior


class GAN(Model):
    def __init__(self, plan: Blueprint) -> None:
        super().__init__(plan)
        self.code_dim = plan.config.code_dim
        self.prior = build_prior(plan.config.prior, self.code_dim)
        self.decoder = plan.decoder(self.code_dim)
        self.discriminator = plan.mlp(plan.dim, 1)

    def objectives(self) -> Objectives:
        return {
            "discriminator": ("adversarial", (self.discriminator,)),
            "generator": ("adversarial", (self.decoder,)),
        }

    def train_step(self, s: State, batch: Batch) -> Costs:
        return regularisation_phase(s, partial(self.adversaries, s, batch.x))

    def adversaries(self, s: State, x: Tensor) -> Sequence[Adversary]:
        """Return the adversary of the images x and the decoder's images of new prior draws."""
        z = self.prior.sample(x.shape[-2], generator=s.streams["prior"])
        fake = self.output(self.decoder(z))
        discriminator = partial(self.discriminator, noise=s.streams["noise"])
        return [Adversary("x", discriminator, real=x, fake=fake)]

    def decode(self, z: Tensor) -> Tensor:
        """Decode (B, L) to x̂, (B, D)."""
        x: Tensor = self.pixels.inverse(self.output(self.decoder(z)))
        return x

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Decode n draws of the prior, (n, D)."""
        return self.decode(self.prior.sample(n, generator=generator))
