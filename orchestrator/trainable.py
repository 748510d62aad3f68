"""What runs on a worker: fit, checkpoint, report. It writes nowhere but its own attempt's folder.

Expected ends (complete, diverged, failed) are reported as results, with their reason: an error
that reaches Tune carries none, and means that the worker itself was lost.
"""

import gc
import json
import os
import shutil
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from ray import tune

from aae_core.config import TrialConfig
from aae_core.data import TrainingData
from aae_core.errors import CheckpointError, TrialDiverged
from aae_core.training import EpochMetrics, TrainState, fit
from orchestrator import disk
from orchestrator.drawing import draw_epoch, is_drawn
from orchestrator.provenance import provenance
from orchestrator.records import OUT_OF_GPU_MEMORY
from orchestrator.system_metrics import system_metrics

CHECKPOINT_SECONDS = 0.5  # work that a kill may cost, where epochs are shorter than this
SAVING_SHARE = 0.1  # of the time, at most, goes into checkpoints: large nets save less often


@dataclass(frozen=True)
class Work:
    """One attempt, as it travels to a worker; plain values, absolute paths."""

    stage: str
    number: int
    attempt: int
    config: dict[str, Any]
    folder: str  # of this attempt alone
    resume: str | None
    threads: int
    gpu: bool


@dataclass(frozen=True)
class Report:
    """What an attempt tells the driver: that it has begun, each epoch's metrics, and its end."""

    number: int
    attempt: int
    node: str
    epoch: int
    metrics: dict[str, float]  # none yet when it begins
    resumed_from: int | None = None
    history: list[dict[str, float]] | None = None  # of the checkpoint resumed, when it begins
    checkpoint: str | None = None  # one written since the last report
    end: str | None = None  # complete | diverged | failed; full: its disk
    reason: str | None = None
    seconds: float = 0.0  # of this epoch
    samples_per_second: float = 0.0
    trained: bool = True  # False: the checkpoint was already at its last epoch
    machine: dict[str, str] | None = None  # what it trains with, in the first report of metrics
    system: dict[str, float] = field(default_factory=dict)  # what the machine did in this epoch
    pictures: list[str] = field(default_factory=list)  # of this epoch, files in the own folder


def train(config: Mapping[str, Any], data: TrainingData) -> None:
    """The function that Ray Tune runs; with reused actors it starts clean each time.

    A report is JSON, so that Tune neither flattens nor interprets it.
    """
    work = Work(**config)
    torch.set_num_threads(work.threads)
    if work.gpu:  # what the trial before left in this process, which it may have run full
        gc.collect()
        torch.cuda.empty_cache()
    node = os.environ.get("HOSTNAME") or os.uname().nodename
    past: dict[str, Any] = {}

    def tell(epoch: int, metrics: dict[str, float], **rest: Any) -> None:
        report = Report(work.number, work.attempt, node, epoch, metrics, **past, **rest)
        past.pop("history", None)
        past.pop("machine", None)
        tune.report({"report": json.dumps(asdict(report))})

    state = None
    try:
        state = begin(work, data)
        if state.epoch:
            past.update(resumed_from=state.epoch, history=list(state.history))
        tell(state.epoch, {}, pictures=_pictures(work, state, data))  # they may have been lost
        past.update(machine=provenance(work.threads, gpu=work.gpu))
        system_metrics(gpu=work.gpu)  # from here on counts what the first epoch reports
        if state.epoch >= state.config.training.epochs:
            metrics = _last_metrics(state)
            tell(state.epoch, metrics, end="complete", checkpoint=work.resume, trained=False)
        for epoch, saved in train_with_checkpoints(state, data, Path(work.folder)):
            last = epoch.epoch == state.config.training.epochs
            tell(
                epoch.epoch,
                epoch.metrics,
                checkpoint=str(saved) if saved else None,
                end="complete" if last else None,
                seconds=epoch.seconds,
                samples_per_second=epoch.samples_per_second,
                system=system_metrics(gpu=work.gpu),
                pictures=_pictures(work, state, data),
            )
    except TrialDiverged as diverged:
        tell(diverged.epoch, {}, end="diverged", reason=str(diverged))
    except torch.OutOfMemoryError as error:
        tell(state.epoch if state else 0, {}, end="failed", reason=_out_of_memory(error))
    except Exception as error:  # whatever it is, it ends this trial and no other
        traceback.print_exc()
        epoch_reached = state.epoch if state else 0
        if disk.is_full(error):
            reason = disk.described(Path(work.folder), error)
            tell(epoch_reached, _last_metrics(state), end="full", reason=reason)
        else:
            tell(epoch_reached, {}, end="failed", reason=f"{type(error).__name__}: {error}")


def _pictures(work: Work, state: TrainState, data: TrainingData) -> list[str]:
    """Of the models that are confirmed, in few epochs: training waits meanwhile."""
    if work.stage != "confirm" or not is_drawn(state.epoch, state.config.training.epochs):
        return []
    return [str(path) for path in draw_epoch(state, data, Path(work.folder))]


def _out_of_memory(error: torch.OutOfMemoryError) -> str:
    told = str(error).partition(" If reserved but unallocated memory")[0]  # then for developers
    return f"{OUT_OF_GPU_MEMORY}: {' '.join(told.split())}"


def _last_metrics(state: TrainState | None) -> dict[str, float]:
    row = state.history[-1] if state and state.history else {}
    return {name: value for name, value in row.items() if name != "epoch"}


def begin(work: Work, data: TrainingData) -> TrainState:
    """The state to go on from: the newest good checkpoint that is known, or the start."""
    device = "cuda" if work.gpu else "cpu"
    config = TrialConfig.from_dict(work.config)
    for folder in _to_go_on_from(work):
        try:
            state = TrainState.load(folder, device)
        except CheckpointError:
            traceback.print_exc()
        else:
            if state.config == config:
                return state
    return TrainState.create(config, data, device)


def _to_go_on_from(work: Work) -> list[Path]:
    """The checkpoint that the ledger names, then those of all earlier attempts, the newest first.

    A retried trial's earlier attempts are where its predecessor had them.
    """
    named = [Path(work.resume)] if work.resume else []
    trials = {Path(work.folder).parent, *(path.parent.parent for path in named)}
    attempts = [a for t in trials for a in t.glob("*") if a.name in map(str, range(work.attempt))]
    saved = [path for attempt in attempts for path in attempt.glob("epoch-*")]
    return [*named, *sorted(saved, key=lambda path: path.name, reverse=True)]


def train_with_checkpoints(
    state: TrainState, data: TrainingData, folder: Path
) -> Iterator[tuple[EpochMetrics, Path | None]]:
    """`fit`, with a checkpoint below `folder` where one is due, and always after the last epoch.

    The two newest are kept: the driver may not yet have heard of the newer one.
    """
    saved_at, pause = time.monotonic(), CHECKPOINT_SECONDS
    for epoch in fit(state, data):
        saved = None
        last = epoch.epoch == state.config.training.epochs
        began = time.monotonic()
        if last or began - saved_at >= pause:
            saved = folder / f"epoch-{epoch.epoch:06d}"
            state.save(saved)
            for old in sorted(folder.glob("epoch-*"))[:-2]:
                shutil.rmtree(old)
            saved_at = time.monotonic()
            pause = max(CHECKPOINT_SECONDS, (saved_at - began) / SAVING_SHARE)
        yield epoch, saved
