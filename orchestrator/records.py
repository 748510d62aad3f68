"""Types that all modules of the platform share: states, and the record of a trial.

The module needs neither Ray nor torch, so code that shows results can import it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from aae_core.metrics import METRICS, Bounds

Stage = Literal["search", "confirm"]
SweepRunState = Literal["running", "done", "failed", "interrupted", "stopped"]
Event = Literal["done", "failed", "interrupted", "budget"]  # of a sweep, for notifications
EVENTS: tuple[Event, ...] = ("done", "failed", "interrupted", "budget")
TrialState = Literal["complete", "pruned", "diverged", "failed", "stopped", "running", "waiting"]

TRIAL_STATES: tuple[TrialState, ...] = (
    "complete",
    "pruned",
    "diverged",
    "failed",
    "running",
    "waiting",
)


OUT_OF_GPU_MEMORY = "out of GPU memory: "  # prefix of such a failure's reason
OUT_OF_HOST_MEMORY = "out of host memory: "
_ADVICE = " If reserved but unallocated memory"  # where torch's advice to developers begins
_CPU_ALLOCATOR = "DefaultCPUAllocator: "
BASELINE = "control (no search)"  # label of the control in every result
SYSTEM = "system/"  # prefix of metrics of the machine, not of the model
ENERGY = f"{SYSTEM}energy_joules"  # of a trial's epoch; absent where the machine counts none


def violation(value: float, bounds: Bounds) -> float:
    """Return how far a value lies outside its bounds: at most 0 inside the bounds, ∞ for NaN."""
    low, high = bounds
    if math.isnan(value):
        return math.inf
    return max(
        -math.inf if low is None else low - value, -math.inf if high is None else value - high
    )


def conditions(metrics: Mapping[str, float]) -> list[str]:
    """Return a warning for each metric outside its healthy range.

    Examples: a collapsed discriminator, codes far from their prior, σ at an edge of the grid.
    """
    return [
        f"{name} is {value:.3g}, healthy {_spelled(METRICS[name].sound)}"
        for name, value in metrics.items()
        if name in METRICS
        and METRICS[name].sound != (None, None)  # else NaN would warn, without a range to show
        and violation(value, METRICS[name].sound) > 0
    ]


def _spelled(bounds: Bounds) -> str:
    low, high = bounds
    if high is None:
        return f"above {low:.3g}"
    return f"below {high:.3g}" if low is None else f"from {low:.3g} to {high:.3g}"


@dataclass(frozen=True)
class RunRecord:
    """One trial of a sweep, as `aae-sweep show --json` prints it."""

    number: int
    stage: Stage
    state: TrialState
    seed: int
    config_hash: str
    params: dict[str, Any]  # suggested by the search, by path
    reason: str | None = None  # why the trial ended, unless complete
    attempts: int = 0
    lost: dict[str, str] = field(default_factory=dict)  # cause of each loss, by attempt
    epochs: int = 0  # the last epoch reported
    epochs_computed: int = 0  # all trained epochs, including repeated ones
    train_seconds: float = 0.0  # of these epochs, with validation; packed trials share the time
    energy_joules: float | None = None  # of these epochs; None where the machine counts none
    resumed_from: list[int] = field(default_factory=list)
    extends: int | None = None  # number of the confirmation that this one trains on
    extended_to: list[int] = field(default_factory=list)  # last epoch of each extension
    metrics: dict[str, float] = field(default_factory=dict)  # of the last epoch
    violated: list[str] = field(default_factory=list)  # metrics that violate a constraint
    checkpoint: str | None = None
    node: str | None = None
    run_id: str | None = None
    started: str | None = None  # ISO 8601, UTC
    seconds: float | None = None


def is_baseline(record: RunRecord, *, searched: bool) -> bool:
    """Return True for the control: a confirmation of the file's own configuration after a search.

    Every suggestion of a search names at least one parameter.  A sweep without a search
    (`searched` false) has no control: its own configuration is its only candidate.
    """
    return searched and record.stage == "confirm" and not record.params


def failed_allocation(error: BaseException) -> str | None:
    """Return the reason, one line, if the error is a failed allocation; None for others.

    On the host, Python and numpy raise MemoryError, and torch a RuntimeError. The class for GPUs is
    known by its name, since this module does not import torch.
    """
    text = " ".join(str(error).partition(_ADVICE)[0].split())
    _, host, refused = text.partition(_CPU_ALLOCATOR)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and host):
        return OUT_OF_HOST_MEMORY + (refused or text or "an allocation failed")
    if isinstance(error, RuntimeError) and type(error).__name__ == "OutOfMemoryError":
        return OUT_OF_GPU_MEMORY + text
    return None
