"""fit(): a generator that trains and yields one EpochMetrics per epoch.

The caller of fit() is responsible for reporting, pruning and checkpoints.
"""

import math
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from torch import Tensor

from aae_core.data import TrainingData
from aae_core.data.resident import Images
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
    began, epoch, training = time.perf_counter(), state.epoch + 1, state.config.training
    _require_finite(costs, epoch)
    metrics = costs
    if epoch % training.validate_every == 0 or epoch == training.epochs or epoch in validate_at:
        model, seed = state.model.eval(), state.config.seed
        metrics = costs | validation_metrics(model, train, valid, seed, epoch, training.metrics)
        _require_finite(metrics, epoch)
    state.epoch = epoch
    state.history.append({"epoch": epoch, **metrics})
    return EpochMetrics(
        epoch=epoch,
        metrics=metrics,
        lr=lr,
        seconds=training_seconds + time.perf_counter() - began,
        samples_per_second=images / training_seconds,
    )


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
