"""The cost of each stage of a sweep, from the cost of one epoch. Pure, and the same for each call.

Units: seconds of wall clock, bytes.  A plain figure is an upper bound, an expected one an estimate.
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
from orchestrator.study.samplers import build_pruner
from orchestrator.sweepfile.spec import BudgetSpec, ParzenSpec, SweepSpec

ASSUMPTION = (
    "expected figures apply search.pruner's own rules to trials of random quality; each trial "
    "keeps its rank from epoch to epoch, and the sampler does not learn"
)
KEPT_CHECKPOINTS = 2  # of every trial, until `aae-sweep gc`
_PLAYS = 20  # of a search, of which the mean is taken
_PLAYED_TRIALS = 300  # of one play at most; longer searches repeat them


@dataclass(frozen=True)
class Pace:
    """Speed of a stage's training."""

    at_once: int  # trials
    epoch_seconds: float  # of each of them


@dataclass(frozen=True)
class Cost:
    """Trials, epochs and seconds of a stage, at most and expected."""

    trials: int
    trials_expected: int
    epochs: int
    epochs_expected: int
    seconds: float
    seconds_expected: float


NOTHING = Cost(0, 0, 0, 0, 0.0, 0.0)


def search_cost(spec: SweepSpec, pace: Pace, gpu: float) -> Cost:
    """Cost of the search, within its budget.  gpu: what each trial holds of one.

    At most, no trial is pruned; those that run as a budget ends go on to their own ends.
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
    """Cost of `confirm`, which prunes nothing; a race (`confirm.race`) may only save."""
    trials = spec.confirmations
    epochs = trials * spec.confirm_epochs
    seconds = math.ceil(trials / pace.at_once) * spec.confirm_epochs * pace.epoch_seconds
    return Cost(trials, trials, epochs, epochs, seconds, seconds)


def parzen_seconds(samples: int, block_seconds: Sequence[float], actors: int) -> float:
    """Time to score so many samples.

    block_seconds: of the first block, then of one of blocks 2 to 10, of 11 to 100, and so on: each
    decade knows better what lies within reach. The last one stands for those that are missing.
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
    block_seconds: Sequence[float],
    actors: int,
    train_images: int,
) -> float:
    """Time of `evaluate`: metrics and pictures of each model, its Parzen score, and the controls.

    block_seconds: none where the models are not judged by Parzen likelihood.
    """
    total = confirmations * per_model
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
    """Bytes at the most, and those left by `aae-sweep gc`; MLflow has each confirmed model, too."""
    confirmed = spec.confirmations
    copies = KEPT_CHECKPOINTS * (searched + confirmed)
    if spec.resources.disk_gb is not None:  # kept as trials end, by passes that become rarer
        late = at_once + 1 + searched // 50
        within = 1e9 * spec.resources.disk_gb / max(1, checkpoint)
        copies = min(copies, math.ceil(within) + KEPT_CHECKPOINTS * late)
    contenders = math.ceil(confirmed / spec.confirm.seeds) if spec.search else 0
    return {
        "peak": checkpoint * (copies + confirmed),
        "kept": checkpoint * (contenders + 2 * confirmed),
    }


def _limits(budget: BudgetSpec | None, pace: Pace, gpu: float) -> list[float]:
    """Seconds after which no trial starts."""
    limits = []
    if budget and budget.hours:
        limits.append(3600 * budget.hours)
    if budget and budget.gpu_hours and gpu:
        limits.append(3600 * budget.gpu_hours / (gpu * pace.at_once))
    return limits


def _play(spec: SweepSpec, pace: Pace, gpu: float, seed: int) -> tuple[int, int, float]:
    """Trials started, epochs trained, and the time at which the last trial ends."""
    assert spec.search is not None
    limit = min(_limits(spec.search.budget, pace, gpu), default=math.inf)
    free = [0.0] * pace.at_once  # when each place is
    trials = epochs = 0
    played = fates(spec, min(spec.search.planned, _PLAYED_TRIALS), seed)
    for fate in islice(cycle(played), spec.search.planned):
        if free[0] >= limit:
            break
        heapq.heapreplace(free, free[0] + fate * pace.epoch_seconds)
        trials, epochs = trials + 1, epochs + fate
    return trials, epochs, max(free)


def fates(spec: SweepSpec, trials: int, seed: int) -> list[int]:
    """Epochs that each trial trains, in the order of their starts; the pruner may end it early.

    The pruner sees the same random value of a trial at each of its epochs, greater is better.
    """
    study = optuna.create_study(
        study_name=f"play-{seed}",  # hyperband draws a trial's bracket by it
        direction="maximize",
        sampler=RandomSampler(seed=0),
        pruner=build_pruner(spec),
    )
    decisions = _decisions(spec)
    found = []
    for value in np.random.default_rng(seed).random(trials).tolist():
        trial = study.ask()
        for epoch in decisions:
            trial.report(value, epoch)
            if trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                found.append(epoch)
                break
        else:
            study.tell(trial, value)
            found.append(spec.max_epochs)
    return found


def _decisions(spec: SweepSpec) -> list[int]:
    """The epochs after which the pruner's verdict on a trial can change."""
    pruner = spec.pruner
    match pruner.kind:
        case "none":
            return []
        case "median":
            epochs = [pruner.grace_epochs]
        case _:
            epochs = [pruner.grace_epochs * pruner.reduction_factor**rung for rung in range(64)]
    return [epoch for epoch in epochs if epoch < spec.max_epochs]
