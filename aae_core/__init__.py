"""Adversarial autoencoders (Makhzani et al. 2015, arXiv:1511.05644): models and training."""

from pathlib import Path
from typing import TYPE_CHECKING

from aae_core.errors import AAEError, CheckpointError, ConfigError, DataError, TrialDiverged

if TYPE_CHECKING:
    from aae_core.models import Model

__all__ = ["AAEError", "CheckpointError", "ConfigError", "DataError", "TrialDiverged", "load"]


def load(checkpoint: str | Path, device: str = "cpu") -> "Model":
    """Load the model of a checkpoint folder, with `encode`, `decode`, `sample`, `classify` by kind.

    Raises CheckpointError for a missing or damaged checkpoint, or one of another version.

    >>> model = aae_core.load("…/epoch-0050")  # doctest: +SKIP
    >>> x = model.sample(16, generator=torch.Generator().manual_seed(0))  # doctest: +SKIP
    """
    from aae_core.training.state import load_model  # torch is slow to import

    return load_model(Path(checkpoint), device)
