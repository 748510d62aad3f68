"""Base of sections 5, 6 and 7: two codes, a category y and a style z (figure 8).

The encoder returns q(y|x), a softmax, and z.  One discriminator compares y with Cat(K), another
compares z with its prior.  The decoder's input is y and z.  Labelled images, if any, add the
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
    """Shapes: K categories; y (B, K) is q(y|x) in training, one-hot in figures."""

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
        """Combine category (B, K) and style (B, L) into the decoder's input."""
        return torch.cat([y, z], dim=-1)

    def classify(self, x: Tensor) -> Tensor:
        """Return q(y|x), (B, K), of images (B, D)."""
        return self.logits(x).softmax(-1)

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits of q(y|x), (B, K), of (B, D); logits differ even if q rounds to 1."""
        logits: Tensor = self.encoder(self.pixels(x), None)[0]
        return logits

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Decode styles (B, L) and categories (B, K), usually one-hot, to x̂, (B, D).

        Raises TypeError without y.
        """
        if y is None:
            raise TypeError("this decoder needs the categories y as well")
        x: Tensor = self.pixels.inverse(self.image(self.code(y, z)))
        return x

    def reconstruct(
        self, x: Tensor, y: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Reconstruct (B, D) from q(y|x) and z; `y` is ignored."""
        logits, z = self.encoder(self.pixels(x), generator)
        return self.decode(z, logits.softmax(-1))

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Decode n independent draws of style and category, (n, D)."""
        y = self.categorical.sample(n, generator=generator)
        return self.decode(self.prior.sample(n, generator=generator), y)

    def _against_categorical(self, s: State, logits: Tensor) -> Adversary:
        y_p = self.categorical.sample(logits.shape[-2], generator=s.streams["prior"])
        discriminator = partial(self.discriminator_y, noise=s.streams["noise"])
        return Adversary("y", discriminator, real=y_p, fake=logits.softmax(-1))
