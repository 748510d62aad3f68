"""Base classes of the architectures: pixels in and out, encoder, decoder, the code's adversary.

Shapes: B batch, D pixels, L code.  Public methods take and return images in [0, 1].  A training
step uses images in the networks' scale (`Pixels`).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from aae_core.data.normalise import Pixels
from aae_core.networks import Blueprint
from aae_core.phases import (
    Adversary,
    Batch,
    Costs,
    State,
    joint_phase,
    reconstruction_phase,
    regularisation_phase,
)
from aae_core.posteriors import build_posterior
from aae_core.priors import Prior, build_prior

Objectives = dict[str, tuple[str, tuple[nn.Module, ...]]]


class Model(nn.Module, ABC):
    def __init__(self, plan: Blueprint) -> None:
        super().__init__()
        self.kind = plan.config.kind
        self.dim = plan.dim
        self.sees_labels = plan.classes > 0
        self.sigmoid = plan.config.output == "sigmoid"
        self.pixels = Pixels(plan.dim, standardise=plan.standardise)

    @abstractmethod
    def objectives(self) -> Objectives:
        """Map each optimiser to the settings with its rates and to the nets that it updates."""

    @abstractmethod
    def train_step(self, s: State, batch: Batch) -> Costs: ...

    def output(self, x: Tensor) -> Tensor:
        """Turn the decoder's last layer into an image in the networks' scale."""
        return torch.sigmoid(x) if self.sigmoid else x


class Autoencoder(Model):
    """Encoder q(z|x), decoder p(x|z), and the target distribution of the codes, the prior."""

    prior: Prior

    def __init__(self, plan: Blueprint, categories: int = 0, decoder_in: int | None = None) -> None:
        super().__init__(plan)
        config = plan.config
        self.code_dim = config.code_dim
        self.prior = build_prior(config.prior, config.code_dim)
        self.encoder = build_posterior(config.encoder, plan, config.code_dim, categories)
        self.decoder = plan.decoder(config.code_dim if decoder_in is None else decoder_in)

    def style(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Encode (B, D) to the regularised z ~ q(z|x), (B, L); without generator a fixed code."""
        z: Tensor = self.encoder(self.pixels(x), generator)[1]
        return z

    def encode(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Encode images (B, D) to codes (B, L)."""
        return self.style(x, generator=generator)

    def decode(self, z: Tensor) -> Tensor:
        """Decode codes (B, L) to x̂, (B, D)."""
        x: Tensor = self.pixels.inverse(self.image(z))
        return x

    def reconstruct(
        self, x: Tensor, y: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Reconstruct (B, D) as x̂, (B, D); only `Supervised` uses the classes y (B,)."""
        return self.decode(self.encode(x, generator=generator))

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Decode n draws of the prior, (n, D)."""
        return self.decode(self.prior.sample(n, generator=generator))

    def image(self, code: Tensor) -> Tensor:
        """Decode the decoder's input to images in the networks' scale."""
        return self.output(self.decoder(code))


class Adversarial(Autoencoder):
    """An autoencoder whose codes a discriminator compares with the prior (section 2).

    `logits` are the logits of q(y|x), (B, K), with K = 0 for models without q(y|x).
    """

    def __init__(
        self,
        plan: Blueprint,
        categories: int = 0,
        decoder_in: int | None = None,
        discriminator_extra: int = 0,
    ) -> None:
        super().__init__(plan, categories, decoder_in)
        self.discriminator = plan.mlp(self.code_dim + discriminator_extra, 1)
        self.shares_optimizer = plan.shares_optimizer

    def objectives(self) -> Objectives:
        objectives: Objectives = {
            "reconstruction": ("reconstruction", (self.encoder, self.decoder)),
            "discriminator": ("adversarial", (self.discriminator,)),
        }
        if not self.shares_optimizer:
            objectives["generator"] = ("adversarial", (self.encoder,))
        return objectives

    def train_step(self, s: State, batch: Batch) -> Costs:
        logits, z = self.encoder(batch.noisy, s.streams["noise"])
        x_hat, penalty = self.image(self.decoder_input(logits, z, batch.y)), self.penalty()
        if s.training.phases == "joint":
            game = partial(self.adversaries, s, logits, z, batch.y)
            return joint_phase(s, x_hat, batch.x, game, penalty)
        costs = reconstruction_phase(s, x_hat, batch.x, penalty)
        logits, z = self.encoder(batch.noisy, s.streams["noise"])  # serves both adversarial phases
        return costs | regularisation_phase(s, partial(self.adversaries, s, logits, z, batch.y))

    def decoder_input(self, logits: Tensor, z: Tensor, y: Tensor) -> Tensor:
        """Return the decoder's input in training: here only the code z."""
        return z

    def adversaries(self, s: State, logits: Tensor, z: Tensor, y: Tensor) -> Sequence[Adversary]:
        return [self.against_prior(s, z)]

    def penalty(self) -> Tensor | None:
        """Return an extra cost of the reconstruction, or None."""
        return None

    def against_prior(self, s: State, z: Tensor) -> Adversary:
        z_p = self.prior.sample(z.shape[-2], generator=s.streams["prior"])
        discriminator = partial(self.discriminator, noise=s.streams["noise"])
        return Adversary("z", discriminator, real=z_p, fake=z)
