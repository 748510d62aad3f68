"""The paper's architectures, one file each."""

import torch

from aae_core.config import ModelConfig
from aae_core.models.aae import AAE

__all__ = ["AAE", "build_model"]


def build_model(config: ModelConfig, dim: int, *, generator: torch.Generator) -> AAE:
    """A freshly initialised model for images of `dim` pixels."""
    return AAE(config, dim, generator=generator)
