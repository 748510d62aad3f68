"""Cost of each stage of a sweep, from the cost of one epoch. Pure and deterministic.

Units: seconds of wall clock, bytes.  Plain figures are upper bounds, expected ones are estimates.
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, cycle, islice
from statistics import fmean

import numpy as np
import optuna
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from aae_core.evaluation.controls import control_sizes
from aae_core.evaluation.parzen import CURVE, block_count
from orchestrator.study.pruners import report, should_prune
from orchestrator.study.samplers import build_pruner
from orchestrator.sweepfile.spec import BudgetSpec, ParzenSpec, SweepSpec

ASSUMPTION = (
    "expected figures apply search.pruner's own rules to trials of random quality; each trial "
    "keeps its rank from epoch to epoch, and the sampler does not learn"
)
KEPT_CHECKPOINTS = 2  # per trial, until `aae-sweep gc`
_PLAYS = 20  # simulations of a search, which are averaged
_PLAYED_TRIALS = 300  # per simulation at most; a longer search repeats them


@dataclass(frozen=True)
class Pace:
    """Speed of a stage's training."""

    at_once: int  # trials
    epoch_seconds: float  # per trial


@dataclass(frozen=True)
class Cost:
    """Maximum and expected trials, epochs and seconds of a stage."""

    trials: int
    trials_expected: int
    epochs: int
    epochs_expected: int
    seconds: float
    seconds_expected: float


NOTHING = Cost(0, 0, 0, 0, 0.0, 0.0)


def search_cost(spec: SweepSpec, pace: Pace, gpu: float) -> Cost:
    """Return the cost of the search within its budget.  gpu: GPUs per trial.

    The maximum assumes that no trial is pruned.  Trials that run when a budget ends are completed.
    """
    search = spec.search
    if search is None:
        return NOTHING
    longest = spec.max_epochs * pace.epoch_seconds
    seconds = math.ceil(search.planned / pace.at_once) * longest
    epochs = search.planned * spec.max_epochs
    for limit in _limits(search.budget, pace, gpu):
        seconds = min(seconds, limit + longest)
        reached = math.floor(limit / pace.epoch_seconds) + spec.max_epochs
        epochs = min(epochs, pace.at_once * reached)
    played = [_play(spec, pace, gpu, seed) for seed in range(_PLAYS)]
    trials, expected, ended = (fmean(figures) for figures in zip(*played, strict=True))
    return Cost(
        trials=search.planned,
        trials_expected=round(trials),
        epochs=epochs,
        epochs_expected=round(expected),
        seconds=seconds,
        seconds_expected=ended,
    )


def confirm_cost(spec: SweepSpec, pace: Pace) -> Cost:
    """Return the cost of `confirm`, which prunes nothing; `confirm.race` can only save trials."""
    trials = spec.confirmations
    epochs = trials * spec.confirm_epochs
    seconds = math.ceil(trials / pace.at_once) * spec.confirm_epochs * pace.epoch_seconds
    return Cost(trials, trials, epochs, epochs, seconds, seconds)


def parzen_seconds(samples: int, block_seconds: Sequence[float], actors: int) -> float:
    """Return the time to score `samples` samples.

    block_seconds: time of the first block, then of one of blocks 2 to 10, 11 to 100, and so on.
    The reach is recomputed for each of these decades.  The last figure stands for missing ones.
    """
    blocks, scored, total = block_count(samples), 0, 0.0
    for decade in count():
        if scored == blocks:
            break
        last = min(blocks, 10**decade)
        each = block_seconds[min(decade, len(block_seconds) - 1)]
        total += math.ceil((last - scored) / actors) * each
        scored = last
    return total


def evaluate_seconds(
    confirmations: int,
    parzen: ParzenSpec,
    *,
    per_model: float,
    at_once: int,
    block_seconds: Sequence[float],
    actors: int,
    train_images: int,
) -> float:
    """Return the time of `evaluate`: metrics, pictures and Parzen score per model, and controls.

    per_model: seconds of one model's metrics and pictures, with `at_once` models side by side.
    block_seconds: empty if the models are not judged by Parzen likelihood.
    """
    total = math.ceil(confirmations / at_once) * per_model
    if block_seconds:
        full = min(parzen.models, confirmations)
        screened = min(parzen.screen_samples, parzen.samples)
        models = [parzen.samples] * full + [screened] * (confirmations - full)
        curve = [n for n in CURVE if n <= parzen.samples]
        controls = [n for _, n in control_sizes(curve, train_images)]
        sizes = models + controls
        total += sum(parzen_seconds(size, block_seconds, actors) for size in sizes)
    return total


def disk_bytes(spec: SweepSpec, searched: int, at_once: int, checkpoint: int) -> dict[str, int]:
    """Return the peak bytes and the bytes after `aae-sweep gc`.

    Both include the copy of each confirmed model in MLflow.
    """
    confirmed = spec.confirmations
    copies = KEPT_CHECKPOINTS * (searched + confirmed)
    if spec.resources.disk_gb is not None:  # enforced as trials end, in ever rarer passes
        late = at_once + 1 + searched // 50
        within = 1e9 * spec.resources.disk_gb / max(1, checkpoint)
        copies = min(copies, math.ceil(within) + KEPT_CHECKPOINTS * late)
    candidates = math.ceil(confirmed / spec.confirm.seeds) - spec.confirm.baseline
    chosen = candidates if spec.search else 0  # the control is no trial of the search
    return {
        "peak": checkpoint * (copies + confirmed),
        "kept": checkpoint * (chosen + 2 * confirmed),
    }


def _limits(budget: BudgetSpec | None, pace: Pace, gpu: float) -> list[float]:
    """Return the seconds after which no trial starts, one limit per budget."""
    limits = []
    if budget and budget.hours:
        limits.append(3600 * budget.hours)
    if budget and budget.gpu_hours and gpu:
        limits.append(3600 * budget.gpu_hours / (gpu * pace.at_once))
    return limits


def _play(spec: SweepSpec, pace: Pace, gpu: float, seed: int) -> tuple[int, int, float]:
    """Simulate a search; return its trials, its epochs and the end time of the last trial."""
    assert spec.search is not None
    limit = min(_limits(spec.search.budget, pace, gpu), default=math.inf)
    free = [0.0] * pace.at_once  # time at which each place is free
    trials = epochs = 0
    played = fates(spec, min(spec.search.planned, _PLAYED_TRIALS), seed)
    for fate in islice(cycle(played), spec.search.planned):
        if free[0] >= limit:
            break
        heapq.heapreplace(free, free[0] + fate * pace.epoch_seconds)
        trials, epochs = trials + 1, epochs + fate
    return trials, epochs, max(free)


def fates(spec: SweepSpec, trials: int, seed: int) -> list[int]:
    """Return the epochs that each trial trains, in order of start; the pruner may end trials early.

    A trial reports the same random objectives to the pruner at each of its epochs; greater is
    better.
    """
    study = optuna.create_study(
        study_name=f"play-{seed}",  # hyperband derives a trial's bracket from the name
        directions=["maximize"] * len(spec.objectives),
        sampler=RandomSampler(seed=0),
        pruner=build_pruner(spec),
    )
    decisions = _decisions(spec)
    found = []
    for values in np.random.default_rng(seed).random((trials, len(spec.objectives))).tolist():
        trial = study.ask()
        for epoch in decisions:
            report(trial, values, epoch)
            if should_prune(trial):
                study.tell(trial, state=TrialState.PRUNED)
                found.append(epoch)
                break
        else:
            study.tell(trial, values)
            found.append(spec.max_epochs)
    return found


def _decisions(spec: SweepSpec) -> list[int]:
    """Return the epochs after which the pruner's decision on a trial can change."""
    pruner = spec.pruner
    match pruner.kind:
        case "none":
            return []
        case "median":
            epochs = [pruner.grace_epochs]
        case _:
            epochs = [pruner.grace_epochs * pruner.reduction_factor**rung for rung in range(64)]
    return [epoch for epoch in epochs if epoch < spec.max_epochs]
