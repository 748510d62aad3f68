"""The platform: sweeps over adversarial autoencoders, on Ray, Optuna and MLflow.

From Python, a sweep is run and read with three names (docs/python.md):

>>> from orchestrator import SweepReader, load_sweep, run
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from orchestrator.errors import Interrupted, SpecError, SweepError

if TYPE_CHECKING:
    from orchestrator.api import SweepReader, SweepSpec, load_sweep, run

__all__ = [
    "Interrupted",
    "SpecError",
    "SweepError",
    "SweepReader",
    "SweepSpec",
    "load_sweep",
    "run",
]


def __getattr__(name: str) -> Any:
    """Import the interface when it is first used: its libraries take a second."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("orchestrator.api"), name)
