"""A sweep while its driver runs it: the request, the two studies, and the runs in MLflow."""

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from aae_core.data import TrainingData
from orchestrator import disk
from orchestrator.errors import DiskFull, Interrupted, StudyLost
from orchestrator.execution.tune_driver import Listener
from orchestrator.execution.worker import Report
from orchestrator.pipeline import gc
from orchestrator.pipeline.notify import Notifier
from orchestrator.records import RunRecord, Stage, TrialState, conditions
from orchestrator.results.figures import dated
from orchestrator.results.reader import DEPARTURES, run_key
from orchestrator.settings import Settings
from orchestrator.study.study import StageStudy, TrialAttempt, open_storage
from orchestrator.sweepfile.spec import SweepSpec
from orchestrator.tracking.mlflow_writer import MlflowWriter
from orchestrator.tracking.outbox import EndStatus, Outbox
from orchestrator.tracking.provenance import DATA, dataset, params_of, succession

_LAST_PASS_SECONDS = 30.0  # for MLflow to receive the rest at the end of a sweep
_MLFLOW_STATUS = {"complete": "FINISHED", "pruned": "KILLED", "stopped": "KILLED"}


class Observer(Listener, Protocol):
    """Receiver of a sweep's progress; usually the terminal."""

    def stage_began(self, stage: str, planned: int, known: Iterable[RunRecord]) -> None: ...

    def scoring(self, what: str, done: int, total: int) -> None: ...

    def note(self, message: str) -> None: ...


@dataclass(frozen=True)
class Request:
    """The sweep that a user wants to run, and the command that resumes the sweep."""

    spec: SweepSpec
    spec_text: str
    resume: str  # the command that resumes the sweep
    priority: int | None = None  # in the queue; None: the sweep is not queued


@dataclass
class SweepContext:
    """A sweep while its driver runs it."""

    request: Request
    settings: Settings
    observer: Observer
    draining: threading.Event  # trials finish their epochs, then the driver exits
    notifier: Notifier
    search: StageStudy
    confirm: StageStudy
    outbox: Outbox
    paused: threading.Event = field(default_factory=threading.Event)  # the driver waits instead
    stopped: set[int] = field(default_factory=set)  # trials of the search that a user stops
    allowed: int | None = None  # trials that may train at once beside other sweeps; None: all
    is_training: Callable[[], bool] = lambda: False  # epochs are under way, for which a drain waits
    began: float = field(default_factory=time.monotonic)
    elapsed_before: float = 0.0

    @property
    def spec(self) -> SweepSpec:
        return self.request.spec

    @cached_property
    def id(self) -> str:
        return self.spec.sweep_id  # hashes the whole file; an extension does not change it

    @cached_property
    def data_sha256(self) -> str | None:
        return self.search.state.data_sha256

    def folder_of(self, attempt: TrialAttempt) -> Path:
        return self.settings.attempt_folder(self.id, attempt.stage, attempt.number, attempt.attempt)

    def study(self, stage: Stage) -> StageStudy:
        return self.search if stage == "search" else self.confirm

    def note(self, **changes: Any) -> None:
        """Write fields of the sweep's state."""
        self.search.note(**changes)

    @property
    def elapsed(self) -> float:
        """Seconds of driver time, including earlier drivers."""
        return self.elapsed_before + time.monotonic() - self.began

    def note_time(self) -> None:
        self.note(elapsed=self.elapsed, touched=_now())


@contextmanager
def opened(
    request: Request,
    settings: Settings,
    observer: Observer,
    draining: threading.Event,
    notifier: Notifier | None = None,
) -> Iterator[SweepContext]:
    storage = open_storage(settings)
    search = StageStudy.create(storage, request.spec, "search")
    confirm = StageStudy.create(storage, request.spec, "confirm")
    with Outbox(settings.outbox) as outbox:
        notifier = notifier or Notifier(request.spec, settings, observer.note)
        sweep = SweepContext(
            request, settings, observer, draining, notifier, search, confirm, outbox
        )
        sweep.elapsed_before = search.state.elapsed
        yield sweep


def interrupted(sweep: SweepContext, how: str = "interrupted") -> Interrupted:
    return Interrupted(f"{sweep.id} was {how}. Resume with: {sweep.request.resume}")


def describe(sweep: SweepContext, data: TrainingData, notes: Iterable[str] = ()) -> None:
    """Record the request in the study, and queue the sweep's run for MLflow, with data notes."""
    spec = sweep.spec
    planned = {
        "search": spec.search.planned if spec.search else 0,
        "confirm": spec.confirmations,
    }
    sweep.note(
        name=spec.name,
        spec=spec.resolved(),
        spec_text=sweep.request.spec_text,
        resume=sweep.request.resume,
        planned=planned,
        code_version=version("aae-sweep"),
        drivers=sweep.search.state.drivers + 1,
        queue=None,
        state="running",
        done=None,
        touched=_now(),
    )
    sweep.outbox.set_dataset(sweep.id, dataset(spec.resolved()["data"], data))
    sweep.outbox.open_run(
        sweep.id,
        sweep_id=sweep.id,
        experiment=spec.name,
        name=sweep.id,
        tags={
            "aae.stage": "sweep",
            "aae.sweep": sweep.id,
            "aae.resume": sweep.request.resume,
            DATA: data.sha256,
            "aae.data_notes": "; ".join(notes),
        },
    )
    file = sweep.settings.resolved_file(sweep.id)
    file.write_text(json.dumps(spec.resolved(), indent=2))
    sweep.outbox.attach(sweep.id, file)


@contextmanager
def tracked(sweep: SweepContext) -> Iterator[None]:
    """Send the outbox to MLflow during a `with`, whose outcome is the status of the sweep's run."""
    writer = MlflowWriter(
        sweep.outbox, sweep.settings.tracking_uri, sweep.settings.mlflow_artifacts, sweep.id
    )
    writer.start()
    hurry = sweep.draining
    try:
        with recorded(sweep):
            yield
        sweep.outbox.close_run(sweep.id, "FINISHED")
        sweep.note_time()
    except (Interrupted, KeyboardInterrupt):
        hurry = threading.Event()
        hurry.set()
        raise
    finally:
        writer.stop(_LAST_PASS_SECONDS, hurry)
        for note in writer.notes():
            sweep.observer.note(note)


@contextmanager
def recorded(sweep: SweepContext) -> Iterator[None]:
    """Record an error or interruption of a `with` in the sweep's state and runs."""
    try:
        yield
    except StudyLost:  # another driver may own the study by now: do not write to it
        _close_runs(sweep, "KILLED")
        raise
    except BaseException as error:
        interrupted = isinstance(error, Interrupted | KeyboardInterrupt | DiskFull)
        with _if_there_is_room(error):
            sweep.note(state="interrupted" if interrupted else "failed")
            _close_runs(sweep, "KILLED" if interrupted else "FAILED")
            sweep.note_time()
        raise


@contextmanager
def _if_there_is_room(error: BaseException) -> Iterator[None]:
    """Ignore a disk-full error while recording an earlier one, which is raised anyway."""
    try:
        yield
    except Exception as another:
        if not (disk.is_full(error) and disk.is_full(another)):
            raise


def _close_runs(sweep: SweepContext, status: EndStatus) -> None:
    """Close all open runs, including trials' runs, which MLflow would show as running for ever."""
    for run in sweep.outbox.runs(sweep.id):
        if run.status == "RUNNING":
            sweep.outbox.close_run(run.key, status)


@dataclass
class Recorder:
    """Write trial events to the outbox and forward the events to the observer."""

    sweep: SweepContext

    def trial_started(self, attempt: TrialAttempt) -> None:
        sweep, config = self.sweep, attempt.config
        folder = sweep.settings.trial_folder(sweep.id, attempt.stage, attempt.number)
        folder.mkdir(parents=True, exist_ok=True)
        resolved = folder / "config.json"
        resolved.write_text(json.dumps(config.to_dict(), indent=2))
        key = run_key(sweep.id, attempt.stage, attempt.number)
        sweep.outbox.open_run(
            key,
            sweep_id=sweep.id,
            experiment=sweep.spec.name,
            parent=sweep.id,
            name=f"{attempt.stage}-{attempt.number:04d}",
            params=params_of(config),
            tags={
                "aae.stage": attempt.stage,
                "aae.sweep": sweep.id,
                "aae.config_hash": config.config_hash,
                "aae.seed": config.seed,
                DEPARTURES: "; ".join(config.departures),
                "aae.attempt": attempt.attempt,
                DATA: str(sweep.data_sha256),
                **({"aae.baseline": True} if _is_control(sweep.spec, attempt) else {}),
            },
        )
        sweep.outbox.attach(key, resolved)
        sweep.observer.trial_started(attempt)

    def trial_begun(self, stage: Stage, report: Report) -> None:
        key = run_key(self.sweep.id, stage, report.number)
        earlier = self.sweep.outbox.run(key)
        tags = succession(earlier.tags if earlier else {}, report.machine or {})
        self.sweep.outbox.set_tags(key, tags)
        for row in report.history or []:
            self.sweep.outbox.log(key, int(row["epoch"]), _without_epoch(row))
        self._show(key, stage, report)
        self.sweep.observer.trial_begun(stage, report)

    def trial_epoch(self, stage: Stage, report: Report) -> None:
        key = run_key(self.sweep.id, stage, report.number)
        self.sweep.outbox.log(key, report.epoch, report.metrics | report.system)
        self._show(key, stage, report)
        self.sweep.observer.trial_epoch(stage, report)

    def trial_ended(self, stage: Stage, number: int, state: TrialState, reason: str | None) -> None:
        sweep = self.sweep
        key = run_key(sweep.id, stage, number)
        unsound = "; ".join(conditions(sweep.outbox.last(key)))
        tags = {"aae.state": state, "aae.reason": reason or "", "aae.conditions": unsound}
        sweep.outbox.set_tags(key, tags)
        if state == "failed":
            for log in sweep.settings.attempt_logs(sweep.id, stage, number):
                sweep.outbox.attach(key, log, "logs")
        sweep.outbox.close_run(key, _MLFLOW_STATUS.get(state, "FAILED"))  # type: ignore[arg-type]
        sweep.note_time()
        sweep.observer.trial_ended(stage, number, state, reason)
        studies = sweep.search, sweep.confirm
        disk_gb = sweep.spec.resources.disk_gb
        gc.after_trial(sweep.settings, sweep.id, *studies, number, disk_gb)

    def save(self) -> None:
        self.sweep.outbox.save()

    def _show(self, key: str, stage: Stage, report: Report) -> None:
        """Queue the epoch's pictures, named as MLflow names images by step.

        Pictures carry the time of the epoch's metrics: a repeated epoch overwrites its pictures.
        """
        sweep = self.sweep
        if not report.pictures:
            return
        folder = sweep.settings.trial_folder(sweep.id, stage, report.number) / "images"
        folder.mkdir(exist_ok=True)
        time = sweep.outbox.time_of(key, report.epoch)
        for drawn in map(Path, report.pictures):
            path = drawn.replace(folder / dated(drawn.name, time))
            sweep.outbox.attach(key, path, folder.name)
        sweep.outbox.set_tags(key, {"mlflow.loggedImages": True})


def _is_control(spec: SweepSpec, attempt: TrialAttempt) -> bool:
    return spec.search is not None and attempt.stage == "confirm" and not attempt.params


def _without_epoch(row: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name != "epoch"}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
