"""The worker's code: fit, checkpoint, report. A worker writes only to its attempt's folder.

Expected ends (complete, diverged, failed) are reported as results, with their reason. An error
that reaches Tune carries no reason, and means that the worker itself was lost.
"""

import gc
import json
import os
import shutil
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune

from aae_core.config import TrialConfig
from aae_core.data import TrainingData
from aae_core.errors import CheckpointError, TrialDiverged
from aae_core.training import EpochMetrics, TrainState, fit_pack
from orchestrator import disk
from orchestrator.execution.attempt_log import AttemptLog, printing_to
from orchestrator.execution.energy import EnergyMeter
from orchestrator.execution.system_metrics import system_metrics
from orchestrator.records import ENERGY, failed_allocation
from orchestrator.results.figures import draw_epoch, is_drawn
from orchestrator.text import one_line
from orchestrator.tracking.provenance import plugins, provenance

CHECKPOINT_SECONDS = 0.5  # work that a kill may cost, if epochs are shorter
SAVING_SHARE = 0.1  # of the time, at most, goes into checkpoints: large networks save less often
LEAVE = "leave"  # file in an attempt's folder: its trial has ended, its pack continues


@dataclass(frozen=True)
class TrialTask:
    """One attempt, as sent to a worker: plain values, absolute paths."""

    stage: str
    number: int
    attempt: int
    config: dict[str, Any]
    folder: str  # used by this attempt alone
    resume: str | None
    threads: int
    gpu: float  # GPUs, or the part of one
    validate_at: list[int] = field(default_factory=list)  # epochs, besides the configuration's


@dataclass(frozen=True)
class Report:
    """A message from an attempt to the driver: its start, an epoch's metrics, or its end."""

    number: int
    attempt: int
    node: str
    epoch: int
    metrics: dict[str, float]  # empty at the start; without objectives if not validated
    resumed_from: int | None = None
    history: list[dict[str, float]] | None = None  # of the resumed checkpoint, at the start
    checkpoint: str | None = None  # one written since the last report
    end: str | None = None  # complete | diverged | failed | full (its disk)
    reason: str | None = None
    seconds: float = 0.0  # of this epoch
    samples_per_second: float = 0.0
    trained: bool = True  # False: the checkpoint was already at the last epoch
    machine: dict[str, str] | None = None  # provenance tags, at the start
    system: dict[str, float] = field(default_factory=dict)  # of this epoch
    pictures: list[str] = field(default_factory=list)  # of this epoch, in the attempt's folder


def train(config: Mapping[str, Any], data: TrainingData) -> None:
    """Train one attempt or a pack of attempts. Ray Tune runs this function.

    In a reused actor, each call starts clean.  Tasks and reports are JSON, so that Tune neither
    flattens nor interprets them.
    """
    # first: the driver kills this process if it hangs
    tune.report({"process": [ray.get_runtime_context().get_node_id(), os.getpid()]})
    tasks = [TrialTask(**task) for task in json.loads(config["tasks"])]
    with ExitStack() as stack:
        log = None
        with suppress(OSError):  # a full disk ends the attempt at its first checkpoint, in words
            log = stack.enter_context(printing_to([Path(task.folder) for task in tasks]))
        train_pack(tasks, data, log)


def train_pack(
    tasks: Sequence[TrialTask], data: TrainingData, log: AttemptLog | None = None
) -> None:
    """Train attempts as one pack, and report to Tune."""
    gpu = tasks[0].gpu > 0
    torch.set_num_threads(tasks[0].threads)
    if gpu:  # the trial before may have filled the GPU's memory in this process
        gc.collect()
        torch.cuda.empty_cache()
    attempts = {task.number: AttemptReporter(task, data, len(tasks)) for task in tasks}

    def tell(reports: list[Report]) -> None:
        tune.report({"reports": json.dumps([asdict(report) for report in reports])})
        for report in reports:
            if report.end is not None:
                del attempts[report.number]
        if log is not None:
            log.trim()

    try:
        for attempt in list(attempts.values()):
            tell([attempt.begun()])
        for attempt in [attempt for attempt in attempts.values() if attempt.is_done]:
            tell([attempt.done_before()])
        states = {number: attempt.state for number, attempt in attempts.items()}
        meter = EnergyMeter(gpu=tasks[0].gpu)
        system_metrics(gpu=gpu)  # the first epoch's CPU use counts from here
        for epoch in fit_pack(states, data, tasks[0].validate_at):
            system = system_metrics(gpu=gpu)
            if (joules := meter.joules()) is not None:
                system[ENERGY] = joules / len(epoch)
            tell([attempts[number].after(said, system) for number, said in epoch.items()])
            for number in [number for number in states if attempts[number].is_to_leave]:
                del states[number], attempts[number]
    except Exception as error:  # any error ends this trial only
        if len(attempts) > 1 and not disk.is_full(error):
            raise  # the next attempt of each trial is alone
        _print_traceback()
        tell([attempt.failed(error) for attempt in attempts.values()])


class AttemptReporter:
    """One attempt at one trial: its training state and its reports to the driver."""

    state: TrainState

    def __init__(self, task: TrialTask, data: TrainingData, pack: int) -> None:
        self._task, self._data, self._pack = task, data, pack
        self._checkpoints = Checkpoints(Path(task.folder), pack)
        self._node = os.environ.get("HOSTNAME") or os.uname().nodename
        self._past: dict[str, Any] = {}

    @property
    def is_done(self) -> bool:
        return self.state.epoch >= self.state.config.training.epochs

    @property
    def is_to_leave(self) -> bool:
        """Return True if the driver has ended this trial while its pack continues."""
        return self._pack > 1 and (Path(self._task.folder) / LEAVE).exists()

    def begun(self) -> Report:
        self.state = begin(self._task, self._data)
        if self.state.epoch:
            self._past.update(resumed_from=self.state.epoch, history=list(self.state.history))
        made_by = provenance(self._task.threads, gpu=self._task.gpu > 0, pack=self._pack)
        made_by |= plugins(self.state.config)
        pictures = self._pictures()  # those of an earlier attempt may be lost
        return self._report(self.state.epoch, {}, machine=made_by, pictures=pictures)

    def done_before(self) -> Report:
        """Report the end of a trial whose resumed checkpoint is of the last epoch."""
        metrics, checkpoint = _last_metrics(self.state), self._task.resume
        return self._report(
            self.state.epoch, metrics, end="complete", checkpoint=checkpoint, trained=False
        )

    def after(self, epoch: EpochMetrics | TrialDiverged, system: dict[str, float]) -> Report:
        if isinstance(epoch, TrialDiverged):
            return self._report(epoch.epoch, {}, end="diverged", reason=str(epoch))
        saved = self._checkpoints.after(self.state)
        return self._report(
            epoch.epoch,
            epoch.metrics,
            checkpoint=str(saved) if saved else None,
            end="complete" if self.is_done else None,
            seconds=epoch.seconds,
            samples_per_second=epoch.samples_per_second,
            system=system,
            pictures=self._pictures(),
        )

    def failed(self, error: Exception) -> Report:
        state = getattr(self, "state", None)
        epoch = state.epoch if state else 0
        if disk.is_full(error):
            reason = disk.described(Path(self._task.folder), error)
            return self._report(epoch, _last_metrics(state), end="full", reason=reason)
        reason = failed_allocation(error) or one_line(error)
        return self._report(epoch, {}, end="failed", reason=reason)

    def _report(self, epoch: int, metrics: dict[str, float], **rest: Any) -> Report:
        task = self._task
        report = Report(task.number, task.attempt, self._node, epoch, metrics, **self._past, **rest)
        self._past.pop("history", None)
        return report

    def _pictures(self) -> list[str]:
        """Draw a confirmation's model, in a few epochs only, because training waits meanwhile."""
        epoch, epochs = self.state.epoch, self.state.config.training.epochs
        if self._task.stage != "confirm" or not is_drawn(epoch, epochs):
            return []
        drawn = draw_epoch(self.state, self._data, Path(self._task.folder))
        return [str(path) for path in drawn]


class Checkpoints:
    """Checkpoints in an attempt's `folder`: saved when due, and always after the last epoch.

    The two newest are kept: the driver may not yet have received the newer one's report.
    """

    def __init__(self, folder: Path, pack: int = 1) -> None:
        self._folder, self._pack = folder, pack
        self._saved_at, self._pause = time.monotonic(), CHECKPOINT_SECONDS

    def after(self, state: TrainState) -> Path | None:
        """Save the finished epoch if a checkpoint is due; return its folder."""
        began = time.monotonic()
        if state.epoch < state.config.training.epochs and began - self._saved_at < self._pause:
            return None
        saved = self._folder / f"epoch-{state.epoch:06d}"
        state.save(saved)
        for old in sorted(self._folder.glob("epoch-*"))[:-2]:
            shutil.rmtree(old)
        self._saved_at = time.monotonic()
        took = self._pack * (self._saved_at - began)  # the whole pack waits
        self._pause = max(CHECKPOINT_SECONDS, took / SAVING_SHARE)
        return saved


def _print_traceback() -> None:
    with suppress(OSError):  # the log's disk may be full
        traceback.print_exc()


def _last_metrics(state: TrainState | None) -> dict[str, float]:
    row = state.history[-1] if state and state.history else {}
    return {name: value for name, value in row.items() if name != "epoch"}


def begin(task: TrialTask, data: TrainingData) -> TrainState:
    """Return the state of the newest good checkpoint, or the initial state if there is none."""
    device = "cuda" if task.gpu else "cpu"
    config = TrialConfig.from_dict(task.config)
    for folder in _resumable(task):
        try:
            state = TrainState.load(folder, device)
        except CheckpointError:
            _print_traceback()
        else:
            if state.config in config.lineage:
                state.config = config
                return state
    return TrainState.create(config, data, device)


def _resumable(task: TrialTask) -> list[Path]:
    """Return the study's checkpoint, then those of all earlier attempts, the newest first.

    A retry's earlier attempts are in the folder of the trial that the retry replaces.
    """
    named = [Path(task.resume)] if task.resume else []
    trials = {Path(task.folder).parent, *(path.parent.parent for path in named)}
    attempts = [a for t in trials for a in t.glob("*") if a.name in map(str, range(task.attempt))]
    saved = [path for attempt in attempts for path in attempt.glob("epoch-*")]
    return [*named, *sorted(saved, key=lambda path: path.name, reverse=True)]
