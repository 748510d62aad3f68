"""Two codes, a category and a style (figure 8): what sections 5, 6 and 7 have in common.

The encoder gives q(y|x), a softmax, and z; one discriminator holds y against Cat(K), another z
against its prior.  The decoder sees both.  Labelled images, where there are any, add the
classification phase.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from aae_core.models.base import Adversarial, Objectives
from aae_core.networks import Blueprint
from aae_core.phases import Adversary, Batch, Costs, State, classification_phase
from aae_core.priors import CategoricalPrior


class CategoricalAAE(Adversarial):
    """Shapes: K categories; y (B, K) is q(y|x) in training, one-hot where a figure is drawn."""

    def __init__(self, plan: Blueprint, categories: int, decoder_in: int) -> None:
        super().__init__(plan, categories, decoder_in)
        self.categorical = CategoricalPrior(categories)
        self.discriminator_y = plan.mlp(categories, 1)

    def objectives(self) -> Objectives:
        objectives = super().objectives() | {
            "discriminator": ("adversarial", (self.discriminator, self.discriminator_y))
        }
        if self.sees_labels:
            objectives["classification"] = ("classification", (self.encoder,))
        return objectives

    def train_step(self, s: State, batch: Batch) -> Costs:
        costs = super().train_step(s, batch)
        if batch.labelled is not None:
            x, y = batch.labelled
            costs |= classification_phase(s, self.encoder(x, s.streams["noise"])[0], y)
        return costs

    def decoder_input(self, logits: Tensor, z: Tensor, y: Tensor) -> Tensor:
        return self.code(logits.softmax(-1), z)

    def adversaries(self, s: State, logits: Tensor, z: Tensor, y: Tensor) -> Sequence[Adversary]:
        return [self._against_categorical(s, logits), *super().adversaries(s, logits, z, y)]

    def code(self, y: Tensor, z: Tensor) -> Tensor:
        """What the decoder sees of category (B, K) and style (B, L)."""
        return torch.cat([y, z], dim=-1)

    def classify(self, x: Tensor) -> Tensor:
        """(B, D) -> q(y|x), (B, K)."""
        return self.logits(x).softmax(-1)

    def logits(self, x: Tensor) -> Tensor:
        """(B, D) -> the logits of q(y|x), (B, K): they tell images apart whose q rounds to 1."""
        logits: Tensor = self.encoder(self.pixels(x), None)[0]
        return logits

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Styles (B, L) and categories (B, K), most often one-hot -> x̂, (B, D)."""
        if y is None:
            raise TypeError("this decoder needs the categories y as well")
        x: Tensor = self.pixels.inverse(self.image(self.code(y, z)))
        return x

    def reconstruct(
        self, x: Tensor, y: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """From q(y|x) and z, whatever the true classes are."""
        logits, z = self.encoder(self.pixels(x), generator)
        return self.decode(z, logits.softmax(-1))

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Any style with any category, (n, D)."""
        y = self.categorical.sample(n, generator=generator)
        return self.decode(self.prior.sample(n, generator=generator), y)

    def _against_categorical(self, s: State, logits: Tensor) -> Adversary:
        y_p = self.categorical.sample(logits.shape[-2], generator=s.streams["prior"])
        discriminator = partial(self.discriminator_y, noise=s.streams["noise"])
        return Adversary("y", discriminator, real=y_p, fake=logits.softmax(-1))
