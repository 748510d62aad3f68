"""What a sweep will cost, from one epoch of its own configuration."""

import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from aae_core.data import load_training_data
from aae_core.training import TrainState, fit
from orchestrator.cluster import Share, usable_cpus
from orchestrator.compatibility import require_compatible
from orchestrator.settings import Settings
from orchestrator.spec import SweepSpec

_KEPT_CHECKPOINTS = 2  # of every trial


def estimate(spec: SweepSpec, settings: Settings) -> dict[str, Any]:
    """Upper bounds: pruning and early ends only save. Evaluation is not counted."""
    share = Share(cpu=spec.resources.cpu, gpu=0.0)
    torch.set_num_threads(share.threads)
    config = spec.trial_config({}, spec.seed)
    data = load_training_data(config.data, settings.data)
    require_compatible(spec, data)
    state = TrainState.create(config, data)
    epoch = next(fit(state, data))
    with TemporaryDirectory() as folder:
        state.save(Path(folder) / "epoch-1")
        checkpoint_bytes = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file())

    trials = spec.search.planned if spec.search else 0
    confirmations = spec.confirmations
    epochs = (trials + confirmations) * spec.max_epochs
    parallel = max(1, math.floor(usable_cpus() / share.cpu))
    seconds = epochs * epoch.seconds / parallel
    if spec.search and spec.search.budget and spec.search.budget.hours:
        confirming = confirmations * spec.max_epochs * epoch.seconds / parallel
        seconds = min(seconds, 3600 * spec.search.budget.hours + confirming)
    return {
        "sweep": spec.sweep_id,
        "trials": trials,
        "confirmations": confirmations,
        "epochs": epochs,
        "epoch_seconds": epoch.seconds,
        "samples_per_second": epoch.samples_per_second,
        "parallel": parallel,
        "seconds": seconds,
        "checkpoint_bytes": checkpoint_bytes,
        "disk_bytes": checkpoint_bytes * _KEPT_CHECKPOINTS * (trials + confirmations),
    }
