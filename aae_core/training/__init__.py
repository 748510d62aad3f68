"""Training: the state, and the loop that updates the state."""

from aae_core.training.loop import EpochMetrics, fit, is_validated
from aae_core.training.pack import fit_pack
from aae_core.training.state import TrainState, load_model

__all__ = ["EpochMetrics", "TrainState", "fit", "fit_pack", "is_validated", "load_model"]
