"""fit(): a generator that trains and yields one EpochMetrics an epoch.

It knows nothing of who listens: reporting, pruning and checkpoints are the caller's.
"""

import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aae_core.data import TrainingData, unit_interval
from aae_core.errors import TrialDiverged
from aae_core.evaluation.scores import validation_metrics
from aae_core.training.schedules import multiplier
from aae_core.training.state import TrainState


@dataclass(frozen=True)
class EpochMetrics:
    epoch: int  # counted from 1
    metrics: dict[str, float]
    lr: dict[str, float]  # by group of settings
    seconds: float  # training and validation
    samples_per_second: float  # of training alone


def fit(state: TrainState, data: TrainingData) -> Iterator[EpochMetrics]:
    """Train from `state` to the configured number of epochs; `state` is moved in place.

    A last batch that is not full is left out: each epoch permutes the images anew.

    Raises TrialDiverged as soon as a cost or a validation metric is no longer finite.
    """
    x_train = resident(data.x_train, state.device)
    x_valid = resident(data.x_valid, state.device)
    for epoch in range(state.epoch + 1, state.config.training.epochs + 1):
        began = time.perf_counter()
        lr = state.set_rates(
            multiplier(state.config.training.schedule, epoch, state.config.training.epochs)
        )
        trained, costs = _train_epoch(state, x_train, epoch)
        training_seconds = time.perf_counter() - began
        metrics = costs | validation_metrics(state.model, x_valid, state.config.seed, epoch)
        _require_finite(metrics, epoch)
        state.epoch = epoch
        state.history.append({"epoch": epoch, **metrics})
        yield EpochMetrics(
            epoch=epoch,
            metrics=metrics,
            lr=lr,
            seconds=time.perf_counter() - began,
            samples_per_second=trained / training_seconds,
        )


def resident(x: np.ndarray, device: torch.device) -> Tensor:
    """The whole array on the device, as it is; on a CPU it shares the array's memory."""
    with warnings.catch_warnings():  # arrays from Ray's object store are read-only, and so are we
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(x).to(device)


def _train_epoch(state: TrainState, x_train: Tensor, epoch: int) -> tuple[int, dict[str, float]]:
    """Number of images trained on, and each cost's mean over the epoch's batches."""
    batches = _batches(len(x_train), state)
    sums: dict[str, Tensor] = {}
    for indices in batches:
        costs = state.model.train_step(state, unit_interval(x_train[indices]))
        for name, cost in costs.items():
            sums[name] = sums[name] + cost if name in sums else cost.double()
        if state.device.type == "cpu":  # elsewhere a look would wait for the device
            _require_finite(costs, epoch)
    means = {name: float(total) / len(batches) for name, total in sums.items()}
    _require_finite(means, epoch)
    return sum(len(indices) for indices in batches), means


def _batches(n: int, state: TrainState) -> list[Tensor]:
    size = min(state.config.training.batch_size, n)
    stream = state.streams["batches"]
    order = torch.randperm(n, generator=stream, device=stream.device)
    return list(order[: n - n % size].split(size))


def _require_finite(values: dict[str, Tensor] | dict[str, float], epoch: int) -> None:
    for name, value in values.items():
        if not np.isfinite(float(value)):
            raise TrialDiverged(name, epoch)
