"""fit(): a generator that trains and yields one EpochMetrics per epoch.

The caller of fit() is responsible for reporting, pruning and checkpoints.
"""

import math
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pkgutil import resolve_name

from torch import Tensor

from aae_core.data import TrainingData
from aae_core.data.resident import Images
from aae_core.declarations import ARCHITECTURES
from aae_core.errors import TrialDiverged
from aae_core.evaluation.scores import validation_metrics
from aae_core.training.batches import BatchSource
from aae_core.training.memory import keep_freed_memory
from aae_core.training.state import TrainState


@dataclass(frozen=True)
class EpochMetrics:
    epoch: int  # counted from 1
    metrics: dict[str, float]  # costs, plus validation metrics if validated
    lr: dict[str, float]  # for each group of settings
    seconds: float  # training and validation
    samples_per_second: float  # training only, without validation


def fit(
    state: TrainState, data: TrainingData, validate_at: Collection[int] = ()
) -> Iterator[EpochMetrics]:
    """Train from `state` to the configured number of epochs; update `state` in place.

    The metrics include validation every `validate_every` epochs, in the last epoch and in the
    epochs `validate_at`.  Validation changes no state, so these choices affect no other number.

    Raises TrialDiverged as soon as a cost or a validation metric is no longer finite.
    """
    keep_freed_memory()
    own = ARCHITECTURES[state.config.model.kind].fit
    if own is not None:
        yield from _counted(state, resolve_name(own)(state, data, validate_at), validate_at)
        return
    supply = BatchSource.of(state, data)
    valid = Images.of(data.x_valid, data.y_valid, state.device)
    for epoch in range(state.epoch + 1, state.config.training.epochs + 1):
        began = time.perf_counter()
        lr = state.set_rates()
        trained, costs = _train_epoch(state, supply, epoch)
        seconds = time.perf_counter() - began
        yield finish_epoch(state, supply.x, valid, costs, lr, trained, seconds, validate_at)


def finish_epoch(
    state: TrainState,
    train: Tensor,
    valid: Images,
    costs: dict[str, float],
    lr: dict[str, float],
    images: int,
    training_seconds: float,
    validate_at: Collection[int],
) -> EpochMetrics:
    """Count an epoch as finished and validate its model if validation is due.

    The epoch trained on `images` images of `train`.
    """
    began, epoch = time.perf_counter(), state.epoch + 1
    _require_finite(costs, epoch)
    metrics = costs
    if is_validated(state, epoch, validate_at):
        model, seed = state.model.eval(), state.config.seed
        further = state.config.training.metrics
        metrics = costs | validation_metrics(model, train, valid, seed, epoch, further)
        _require_finite(metrics, epoch)
    _count(state, epoch, metrics)
    return EpochMetrics(
        epoch=epoch,
        metrics=metrics,
        lr=lr,
        seconds=training_seconds + time.perf_counter() - began,
        samples_per_second=images / training_seconds,
    )


def is_validated(state: TrainState, epoch: int, validate_at: Collection[int]) -> bool:
    """Return whether an epoch's metrics include validation."""
    training = state.config.training
    due = epoch % training.validate_every == 0 or epoch in training.ends
    return due or epoch in validate_at


def _counted(
    state: TrainState, epochs: Iterator[EpochMetrics], validate_at: Collection[int]
) -> Iterator[EpochMetrics]:
    """Check the epochs of another package's `fit`, and count each as finished."""
    kind, objective = state.config.model.kind, ARCHITECTURES[state.config.model.kind].objective
    for epoch in epochs:
        if epoch.epoch != state.epoch + 1:
            raise ValueError(f"{kind}: fit yields epoch {epoch.epoch} after {state.epoch}")
        _require_finite(epoch.metrics, epoch.epoch)
        if is_validated(state, epoch.epoch, validate_at) and (
            f"val/{objective}" not in epoch.metrics
        ):
            raise ValueError(f"{kind}: fit yields no val/{objective} in epoch {epoch.epoch}")
        _count(state, epoch.epoch, epoch.metrics)
        yield epoch


def _count(state: TrainState, epoch: int, metrics: dict[str, float]) -> None:
    state.epoch = epoch
    state.history.append({"epoch": epoch, **metrics})


def _train_epoch(
    state: TrainState, supply: BatchSource, epoch: int
) -> tuple[int, dict[str, float]]:
    """Return the number of images trained on, and each cost's mean over the epoch's batches."""
    state.model.train()
    sums: dict[str, Tensor] = {}
    images = batches = 0
    for batch in supply.batches(state):
        costs = state.model.train_step(state, batch)
        for name, cost in costs.items():
            sums[name] = sums[name] + cost if name in sums else cost.double()
        if state.device.type == "cpu":  # on a GPU, reading a cost would wait for the device
            _require_finite(costs, epoch)
        images, batches = images + len(batch.x), batches + 1
    return images, {name: float(total) / batches for name, total in sums.items()}


def _require_finite(values: dict[str, Tensor] | dict[str, float], epoch: int) -> None:
    for name, value in values.items():
        if not math.isfinite(float(value)):
            raise TrialDiverged(name, epoch)
