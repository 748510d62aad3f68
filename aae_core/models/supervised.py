"""Supervised model (figure 6, section 4): the decoder's input is the label and the style z."""

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from aae_core.models.base import Adversarial
from aae_core.networks import Blueprint
from aae_core.priors import CategoricalPrior


class Supervised(Adversarial):
    def __init__(self, plan: Blueprint) -> None:
        super().__init__(plan, decoder_in=plan.classes + plan.config.code_dim)
        self.categorical = CategoricalPrior(plan.classes)

    def decoder_input(self, logits: Tensor, z: Tensor, y: Tensor) -> Tensor:
        return self._input(z, y)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Decode styles (B, L) and classes (B,) to x̂, (B, D).  Raises TypeError without y."""
        if y is None:
            raise TypeError("the supervised decoder needs the classes y as well")
        x: Tensor = self.pixels.inverse(self.image(self._input(z, y)))
        return x

    def reconstruct(
        self, x: Tensor, y: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        return self.decode(self.style(x, generator=generator), y)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Decode n independent draws of style and class, (n, D)."""
        y = self.categorical.sample(n, generator=generator).argmax(-1)
        return self.decode(self.prior.sample(n, generator=generator), y)

    def _input(self, z: Tensor, y: Tensor) -> Tensor:
        return torch.cat([one_hot(y, self.categorical.dim).to(z.dtype), z], dim=-1)
