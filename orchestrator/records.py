"""Types that all modules above the core share: metrics, states, and the record of a trial.

The module imports nothing of the project, so code that shows results needs neither Ray nor torch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Direction = Literal["minimize", "maximize"]
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


Bounds = tuple[float | None, float | None]  # low and high; None: unbounded
OUT_OF_GPU_MEMORY = "out of GPU memory: "  # prefix of such a failure's reason
OUT_OF_HOST_MEMORY = "out of host memory: "
_ADVICE = " If reserved but unallocated memory"  # where torch's advice to developers begins
_CPU_ALLOCATOR = "DefaultCPUAllocator: "
BASELINE = "control (no search)"  # label of the control in every result
SYSTEM = "system/"  # prefix of metrics of the machine, not of the model


@dataclass(frozen=True)
class Metric:
    name: str
    unit: str
    better: Literal["min", "max", "none"]  # "none": a diagnostic, no objective
    meaning: str
    sound: Bounds = (None, None)  # healthy range: a value outside is a warning

    @property
    def direction(self) -> Direction:
        return "maximize" if self.better == "max" else "minimize"


_NOT_COLLAPSED: Bounds = (0.1, None)  # 2 log 2 is chance level; at 0 the generator learns nothing
# half a step inside either edge of the grid from which the value is chosen
_WITHIN_THE_GRID: Bounds = (10 ** (-17 / 18), 10 ** (-1 / 18))
_WITHIN_THE_IW_GRID: Bounds = (10 ** (-23 / 16), 10 ** (-1 / 16))
_WITHIN_THE_STDS: Bounds = (2**-4.5, 2**0.5)


def _on_splits(name: str, *rest: Any) -> list[Metric]:
    return [Metric(f"{split}/{name}", *rest) for split in ("val", "test")]


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in [
        Metric("train/recon", "per image", "min", "half the squared error, mean over images"),
        *[
            metric
            for block, what in {"z": "code", "y": "category", "x": "image"}.items()
            for metric in (
                Metric(
                    f"train/disc_{block}",
                    "nats",
                    "none",
                    f"the {what}'s discriminator",
                    _NOT_COLLAPSED,
                ),
                Metric(f"train/gen_{block}", "nats", "none", f"the {what}'s generator"),
            )
        ],
        Metric("train/class", "nats", "min", "cross-entropy of the labelled images"),
        Metric("train/kl", "nats", "none", "divergence of q(z|x) from the prior"),
        *_on_splits("recon", "per image", "min", "half the squared error, mean over images"),
        *_on_splits("parzen_ll", "nats", "max", "Parzen log-likelihood, sigma from the grid"),
        *_on_splits("parzen_ll_refined", "nats", "max", "the same, sigma refined between"),
        *_on_splits("parzen_se", "nats", "none", "its standard error over points"),
        *_on_splits(
            "parzen_sigma",
            "pixel",
            "none",
            "the kernel's width, chosen on validation",
            _WITHIN_THE_GRID,
        ),
        *_on_splits("error", "%", "min", "images that are classified wrongly"),
        *_on_splits("cluster_error", "%", "min", "the same, clusters named by their surest image"),
        *_on_splits("cluster_error_majority", "%", "min", "the same, named by their majority"),
        *_on_splits(
            "cluster_ties", "", "none", "images as sure as the one that names their cluster"
        ),
        *_on_splits("empty_clusters", "", "none", "clusters that no image is put into"),
        *_on_splits("mode_accuracy", "%", "max", "codes nearest to their own class's mode"),
        *_on_splits("mode_mmd", "", "min", "MMD of codes from their mode, over a fresh sample's"),
        Metric("val/parzen_codes", "nats", "max", "parzen_ll of decoded codes of training images"),
        Metric("val/prior_gap", "nats", "min", "parzen_codes less parzen_ll, 0 where q(z) = p(z)"),
        Metric("test/iw_ll", "nats", "max", "importance-weighted log-likelihood, Gaussian decoder"),
        Metric(
            "test/iw_sigma",
            "pixel",
            "none",
            "the decoder's width in it, chosen on validation",
            _WITHIN_THE_IW_GRID,
        ),
        Metric(
            "test/iw_std",
            "",
            "none",
            "what the proposal's std is multiplied by in it, chosen on validation",
            _WITHIN_THE_STDS,
        ),
        Metric("test/precision", "", "max", "samples among the images (3 neighbours)"),
        Metric("test/recall", "", "max", "images among the samples (3 neighbours)"),
        Metric("test/density", "", "max", "images whose ball a sample is in, over 5"),
        Metric("test/coverage", "", "max", "images with a sample in their ball (5 neighbours)"),
        Metric("val/knn_error", "%", "min", "codes whose 10 neighbours are of another class"),
        Metric("val/head_distance", "", "none", "of the two cluster heads that are closest"),
        Metric(
            "val/latent_mmd",
            "",
            "min",
            "MMD² between codes and prior, 1 at worst",
            (None, 0.1),
        ),
        Metric(
            "val/latent_std",
            "",
            "none",
            "root mean square of the codes over the prior's std",
            (0.5, 2.0),
        ),
    ]
}


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
        f"{name} is {value:.3g}, sound {_spelled(METRICS[name].sound)}"
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
    resumed_from: list[int] = field(default_factory=list)
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
    """Return the reason, one line, if the error is an allocation that failed; None for others.

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
