"""Train one configuration in this process, without Ray or MLflow."""

import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

import torch

from aae_core.data import TrainingData, load_test_data, load_training_data
from aae_core.data.resident import Images
from aae_core.errors import TrialDiverged
from aae_core.evaluation.scores import test_metrics
from aae_core.training import TrainState, fit
from aae_core.training.batches import visible_labels
from orchestrator.documents import Ended, EpochEnded, TrainEvent
from orchestrator.results.reader import finite
from orchestrator.settings import Settings
from orchestrator.sweepfile.checks import data_notes, require_compatible, require_known_classes
from orchestrator.sweepfile.spec import SweepSpec


def train(
    spec: SweepSpec, seed: int, settings: Settings, threads: int, *, evaluate: bool
) -> Iterator[TrainEvent]:
    """Yield the events start, epoch …, end of `aae-sweep train --json`."""
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = spec.trial_config({}, seed)
    data = load_training_data(config.data, settings.data)
    require_compatible(spec, data)
    test = None
    if evaluate:  # unusable test images must fail before the training, not after
        test = load_test_data(config.data, settings.data)
        require_known_classes(spec, data, test)
    labelled = visible_labels(config, data) if config.data.labels is not None else None
    state = TrainState.create(config, data, device)
    yield {
        "event": "start",
        "seed": seed,
        "device": str(device),
        "threads": threads,
        "labelled_indices": labelled,
        "config_hash": config.config_hash,
        "data_sha256": data.sha256,
        "notes": data_notes(spec, data, evaluated=evaluate),
    }
    metrics: dict[str, float] = {}
    for event in epochs(state, data):
        yield event
        if event["event"] == "end":
            return
        metrics = event["metrics"]
    folder = settings.training_folder(f"{spec.name}-{config.config_hash}-seed{seed}")
    checkpoint = _save(state, folder)
    if test is not None:
        metrics = metrics | test_metrics(
            state.model,
            Images.of(data.x_valid, data.y_valid, device),
            Images.of(test.x, test.y, device),
            seed,
            state.epoch,
            config.training.metrics,
        )
    yield {
        "event": "end",
        "state": "complete",
        "metrics": finite(metrics),
        "checkpoint": str(checkpoint),
    }


def epochs(
    state: TrainState, data: TrainingData, validate_at: Collection[int] = ()
) -> Iterator[EpochEnded | Ended]:
    """Yield one event per epoch, and an end event if the training diverges."""
    metrics: dict[str, float] = {}
    try:
        for epoch in fit(state, data, validate_at):
            metrics = epoch.metrics
            yield {
                "event": "epoch",
                "epoch": epoch.epoch,
                "metrics": metrics,
                "lr": epoch.lr,
                "seconds": epoch.seconds,
                "samples_per_second": epoch.samples_per_second,
            }
    except TrialDiverged as diverged:
        yield {
            "event": "end",
            "state": "diverged",
            "reason": str(diverged),
            "metrics": finite(metrics),
            "checkpoint": None,
        }


def _save(state: TrainState, folder: Path) -> Path:
    """Save the state in place of an earlier training of the same configuration and seed."""
    shutil.rmtree(folder, ignore_errors=True)
    checkpoint = folder / f"epoch-{state.epoch:06d}"
    state.save(checkpoint)
    return checkpoint
