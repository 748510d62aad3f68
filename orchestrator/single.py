"""One configuration, trained in this process: no Ray, no MLflow."""

import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from aae_core.data import load_test_data, load_training_data, open_data_set
from aae_core.errors import TrialDiverged
from aae_core.evaluation.scores import test_metrics
from aae_core.training import TrainState, fit
from aae_core.training.loop import resident
from orchestrator.settings import Settings
from orchestrator.spec import SweepSpec


def train(
    spec: SweepSpec, seed: int, settings: Settings, threads: int, *, evaluate: bool
) -> Iterator[dict[str, Any]]:
    """The events start, epoch …, end of `aae-sweep train --json`."""
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = spec.trial_config({}, seed)
    data = load_training_data(config.data, settings.data)
    if evaluate:  # files that cannot be had are missed now, not after the training
        open_data_set(config.data, settings.data).fetch("test")
    state = TrainState.create(config, data.image_shape, data.sha256, device)
    yield {
        "event": "start",
        "seed": seed,
        "device": str(device),
        "threads": threads,
        "labelled_indices": None,
        "config_hash": config.config_hash,
        "data_sha256": data.sha256,
    }
    metrics: dict[str, float] = {}
    try:
        for epoch in fit(state, data):
            metrics = epoch.metrics
            yield {"event": "epoch", **asdict(epoch)}
    except TrialDiverged as diverged:
        yield {
            "event": "end",
            "state": "diverged",
            "reason": str(diverged),
            "metrics": metrics,
            "checkpoint": None,
        }
        return
    folder = settings.home / "train" / f"{spec.name}-{config.config_hash}-seed{seed}"
    checkpoint = _save(state, folder)
    if evaluate:
        test = load_test_data(config.data, settings.data)
        x_valid, x_test = resident(data.x_valid, device), resident(test.x, device)
        metrics = metrics | test_metrics(state.model, x_valid, x_test, seed, state.epoch)
    yield {
        "event": "end",
        "state": "complete",
        "metrics": metrics,
        "checkpoint": str(checkpoint),
    }


def _save(state: TrainState, folder: Path) -> Path:
    """The newest training of a configuration and seed takes the place of the one before."""
    shutil.rmtree(folder, ignore_errors=True)
    checkpoint = folder / f"epoch-{state.epoch:06d}"
    state.save(checkpoint)
    return checkpoint
