"""Dimensionality reduction (figure 10, section 7): the code y·W_C + z, category head plus style.

With labels y is the class, without labels y is a cluster.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import pdist

from aae_core.config import HeadsConfig
from aae_core.errors import ConfigError
from aae_core.models.base import Objectives
from aae_core.models.categorical import CategoricalAAE
from aae_core.networks import Blueprint


class DimensionalityReduction(CategoricalAAE):
    def __init__(self, plan: Blueprint) -> None:
        config = plan.config
        categories = plan.classes or config.clusters
        if config.heads.kind == "fixed" and config.code_dim != categories:
            raise ConfigError(
                {"model.code_dim": f"fixed heads span {categories} dimensions, one per category"}
            )
        super().__init__(plan, categories, decoder_in=config.code_dim)
        self.heads = Heads(config.heads, categories, config.code_dim, plan.generator)

    def objectives(self) -> Objectives:
        moved = (self.encoder, self.decoder, self.heads)
        return super().objectives() | {"reconstruction": ("reconstruction", moved)}

    def code(self, y: Tensor, z: Tensor) -> Tensor:
        return y @ self.heads.weight + z

    def penalty(self) -> Tensor | None:
        return self.heads.crowding()

    def encode(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Encode images (B, D) to y·W_C + z, (B, L)."""
        logits, z = self.encoder(self.pixels(x), generator)
        return self.code(logits.softmax(-1), z)


class Heads(nn.Module):
    """W_C, (K, L): positions of the categories, learned or fixed at scale·I."""

    def __init__(
        self, config: HeadsConfig, categories: int, code_dim: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.distance = config.distance
        self.learned = config.kind == "learned"
        if self.learned:
            start = config.distance * torch.randn((categories, code_dim), generator=generator)
            self.weight = nn.Parameter(start)
        else:
            self.register_buffer("weight", config.scale * torch.eye(categories))

    def crowding(self) -> Tensor | None:
        """Return Σ max(0, η − ‖w_i − w_j‖) over all pairs of heads; None for fixed heads."""
        if not self.learned:
            return None
        return torch.relu(self.distance - pdist(self.weight)).sum()

    def closest(self) -> float:
        """Return the smallest distance between two heads."""
        return float(pdist(self.weight.detach()).min())
