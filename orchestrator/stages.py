"""search -> confirm -> evaluate; each is skipped where it has been done.

Search and confirm are handed TrainingData, which has no test member.  The winner is fixed on
validation, and written down, before the test split is opened.
"""

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from aae_core.config import digest
from aae_core.data import TestData, TrainingData, load_test_data, load_training_data
from aae_core.errors import DataError
from orchestrator import cluster, selection
from orchestrator.errors import EnvironmentUnusable, Interrupted, SweepError
from orchestrator.history import History, evaluation_path, run_key
from orchestrator.records import RunRecord, Stage, TrialState
from orchestrator.scoring import Scorer, draw_pictures, planned_samples, write_json
from orchestrator.settings import Settings
from orchestrator.spec import EvaluateSpec, ParzenSpec, SweepSpec
from orchestrator.spool import EndStatus, Spool
from orchestrator.study import Assignment, Ledger, confirm_seed, held, open_storage
from orchestrator.tracking import MlflowWriter
from orchestrator.trainable import Report
from orchestrator.tuner import StageDriver, run_stage

_MLFLOW_STATUS = {"complete": "FINISHED", "pruned": "KILLED", "stopped": "KILLED"}


class Observer(Protocol):
    """Who watches a sweep; the terminal, mostly."""

    def stage_began(self, stage: str, planned: int, known: Iterable[RunRecord]) -> None: ...

    def trial_started(self, assignment: Assignment) -> None: ...

    def trial_epoch(self, stage: Stage, report: Report) -> None: ...

    def trial_ended(
        self, stage: Stage, number: int, state: TrialState, reason: str | None
    ) -> None: ...

    def scoring(self, what: str, done: int, total: int) -> None: ...

    def note(self, message: str) -> None: ...


@dataclass(frozen=True)
class Request:
    """What somebody asked to have run, and how to ask it again."""

    spec: SweepSpec
    spec_text: str
    resume: str  # the command that carries on


@dataclass
class Sweep:
    """One sweep in the hands of its driver."""

    request: Request
    settings: Settings
    observer: Observer
    draining: threading.Event
    search: Ledger
    confirm: Ledger
    spool: Spool
    began: float = field(default_factory=time.monotonic)
    elapsed_before: float = 0.0

    @property
    def spec(self) -> SweepSpec:
        return self.request.spec

    @property
    def id(self) -> str:
        return self.spec.sweep_id

    def folder_of(self, assignment: Assignment) -> Path:
        trial = self.settings.trial_folder(self.id, assignment.stage, assignment.number)
        return trial / str(assignment.attempt)

    def ledger(self, stage: Stage) -> Ledger:
        return self.search if stage == "search" else self.confirm

    def note(self, **attributes: Any) -> None:
        for name, value in attributes.items():
            self.search.set_attribute(name, value)

    def note_time(self) -> None:
        elapsed = self.elapsed_before + time.monotonic() - self.began
        self.note(elapsed=elapsed, touched=_now())


def run(
    request: Request,
    settings: Settings,
    observer: Observer,
    draining: threading.Event,
    write_report: Callable[[str], Path],
) -> None:
    """Carry the sweep to its end, from wherever it stands; `write_report` is the last step.

    Raises EnvironmentUnusable, SweepHeld, and Interrupted once `draining` was set.
    """
    spec = request.spec
    cluster.preflight(settings, spec.resources)
    data = _training_data(settings, spec)
    with held(settings, spec.sweep_id), _opened(request, settings, observer, draining) as sweep:
        _require_same_data(sweep, data)
        _describe(sweep)
        with _tracked(sweep):
            with cluster.connected(settings):
                share = cluster.share(spec.resources)
                _search(sweep, data, share)
                _confirm(sweep, data, share)
                _evaluate(sweep, data)
            sweep.note(done=digest(spec.resolved()), state="done")
            _show(sweep, write_report)


@contextmanager
def _tracked(sweep: Sweep) -> Iterator[None]:
    """MLflow follows for the length of a `with`; how that ends is how the sweep's run ends."""
    writer = MlflowWriter(
        sweep.spool, sweep.settings.tracking_uri, sweep.settings.mlflow_artifacts, sweep.id
    )
    writer.start()
    try:
        yield
        sweep.spool.close_run(sweep.id, "FINISHED")
    except BaseException as error:
        interrupted = isinstance(error, Interrupted | KeyboardInterrupt)
        sweep.note(state="interrupted" if interrupted else "failed")
        _close_runs(sweep, "KILLED" if interrupted else "FAILED")
        raise
    finally:
        sweep.note_time()
        if not writer.stop(timeout=30):
            sweep.observer.note(
                f"MLflow has not everything yet ({writer.error or 'it is slow'}); "
                "nothing is lost, the next run sends the rest"
            )


def _close_runs(sweep: Sweep, status: EndStatus) -> None:
    """Also of the trials under way: MLflow would show them as running for ever."""
    for run in sweep.spool.runs(sweep.id):
        if run.status == "RUNNING":
            sweep.spool.close_run(run.key, status)


# -- opening ---------------------------------------------------------------------------------


@contextmanager
def _opened(
    request: Request, settings: Settings, observer: Observer, draining: threading.Event
) -> Iterator[Sweep]:
    storage = open_storage(settings)
    search = Ledger.create(storage, request.spec, "search")
    confirm = Ledger.create(storage, request.spec, "confirm")
    with Spool(settings.spool) as spool:
        sweep = Sweep(request, settings, observer, draining, search, confirm, spool)
        sweep.elapsed_before = search.attribute("elapsed", 0.0)
        yield sweep


def _describe(sweep: Sweep) -> None:
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
        state="running",
        done=None,
        touched=_now(),
    )
    sweep.spool.open_run(
        sweep.id,
        sweep_id=sweep.id,
        experiment=spec.name,
        name=sweep.id,
        tags={"aae.stage": "sweep", "aae.sweep": sweep.id, "aae.resume": sweep.request.resume},
    )
    file = sweep.settings.sweep_folder(sweep.id) / "sweep.json"
    file.write_text(json.dumps(spec.resolved(), indent=2))
    sweep.spool.attach(sweep.id, file)


def _training_data(settings: Settings, spec: SweepSpec) -> TrainingData:
    try:
        return load_training_data(spec.data, settings.data)
    except DataError as error:
        raise EnvironmentUnusable(str(error)) from error


def _require_same_data(sweep: Sweep, data: TrainingData) -> None:
    known = sweep.search.attribute("data_sha256")
    if known is not None and known != data.sha256:
        raise EnvironmentUnusable(
            f"the data are not those that {sweep.id} began with: sha256 {data.sha256[:12]}…, "
            f"then {known[:12]}…; put the old files back, or give the sweep another name"
        )
    sweep.note(data_sha256=data.sha256)


# -- search and confirm ----------------------------------------------------------------------


def _search(sweep: Sweep, data: TrainingData, share: cluster.Share) -> None:
    if sweep.spec.search is None:
        return
    spec, search = sweep.spec, sweep.spec.search

    def next_trial() -> Assignment | None:
        out_of_time = search.budget is not None and _hours(sweep) >= search.budget.hours
        if out_of_time or sweep.search.asked() >= search.planned:
            return None
        return sweep.search.ask(spec)

    _train(sweep, "search", search.planned, data, share, next_trial)


def _confirm(sweep: Sweep, data: TrainingData, share: cluster.Share) -> None:
    """Train the search's winners again, with seeds that the search has never used."""
    spec = sweep.spec
    seeds = [confirm_seed(spec.seed, index) for index in range(spec.confirm.seeds)]
    chosen = [record.params for record in _contenders(sweep)] if spec.search else [{}]
    if not chosen:
        raise SweepError(
            "no trial of the search has a result to confirm; the reasons: "
            f"aae-sweep show {sweep.id}"
        )
    sweep.confirm.enqueue({"params": p, "seed": s} for s in seeds for p in chosen)
    planned = len(sweep.confirm.records())
    sweep.note(planned=sweep.search.attribute("planned") | {"confirm": planned})
    _train(sweep, "confirm", planned, data, share, lambda: sweep.confirm.pop(spec))


def _contenders(sweep: Sweep) -> list[RunRecord]:
    objective = sweep.spec.objective
    return selection.contenders(
        sweep.search.records(),
        objective.metric,
        objective.direction,
        top=sweep.spec.confirm.top,
        per=sweep.spec.confirm.per,
    )


def _train(
    sweep: Sweep,
    stage: Stage,
    planned: int,
    data: TrainingData,
    share: cluster.Share,
    next_assignment: Callable[[], Assignment | None],
) -> None:
    ledger = sweep.ledger(stage)
    sweep.note(stage=stage)
    ledger.settle(sweep.spec)
    sweep.observer.stage_began(stage, planned, ledger.records())
    if ledger.count_ended() >= planned and not ledger.unfinished():
        return
    driver = StageDriver(
        sweep.spec,
        ledger,
        sweep.folder_of,
        share,
        Recorder(sweep),
        next_assignment,
        sweep.draining,
    )
    scratch = sweep.settings.sweep_folder(sweep.id) / ".tune"
    run_stage(driver, data, share, scratch)
    if sweep.draining.is_set():
        raise _interrupted(sweep)


def _interrupted(sweep: Sweep) -> Interrupted:
    return Interrupted(f"{sweep.id} was interrupted; carry on with: {sweep.request.resume}")


@dataclass
class Recorder:
    """Writes what happens into the spool, and passes it on."""

    sweep: Sweep

    def trial_started(self, assignment: Assignment) -> None:
        sweep, config = self.sweep, assignment.config
        folder = sweep.settings.trial_folder(sweep.id, assignment.stage, assignment.number)
        folder.mkdir(parents=True, exist_ok=True)
        resolved = folder / "config.json"
        resolved.write_text(json.dumps(config.to_dict(), indent=2))
        key = run_key(sweep.id, assignment.stage, assignment.number)
        sweep.spool.open_run(
            key,
            sweep_id=sweep.id,
            experiment=sweep.spec.name,
            parent=sweep.id,
            name=f"{assignment.stage}-{assignment.number:04d}",
            params=_flat(config.to_dict()),
            tags={
                "aae.stage": assignment.stage,
                "aae.sweep": sweep.id,
                "aae.config_hash": config.config_hash,
                "aae.seed": config.seed,
                "aae.attempt": assignment.attempt,
            },
        )
        sweep.spool.attach(key, resolved)
        sweep.observer.trial_started(assignment)

    def trial_epoch(self, stage: Stage, report: Report) -> None:
        key = run_key(self.sweep.id, stage, report.number)
        for row in report.history or []:
            self.sweep.spool.log(key, int(row["epoch"]), _without_epoch(row))
        self.sweep.spool.log(key, report.epoch, report.metrics)
        self.sweep.observer.trial_epoch(stage, report)

    def trial_ended(self, stage: Stage, number: int, state: TrialState, reason: str | None) -> None:
        key = run_key(self.sweep.id, stage, number)
        self.sweep.spool.set_tags(key, {"aae.state": state, "aae.reason": reason or ""})
        self.sweep.spool.close_run(key, _MLFLOW_STATUS.get(state, "FAILED"))  # type: ignore[arg-type]
        self.sweep.note_time()
        self.sweep.observer.trial_ended(stage, number, state, reason)


# -- evaluate --------------------------------------------------------------------------------


def evaluate(
    settings: Settings, sweep: str, parzen: ParzenSpec | None, observer: Observer
) -> dict[str, Any]:
    """Score a sweep's confirmed models again, perhaps with other numbers of samples."""
    storage = open_storage(settings)
    search = Ledger.read(storage, sweep, "search")
    assert search is not None
    spec = SweepSpec.model_validate_json(json.dumps(search.attribute("spec")))
    if parzen is not None:
        spec = spec.model_copy(update={"evaluate": EvaluateSpec(parzen=parzen)})
    request = Request(spec, search.attribute("spec_text"), search.attribute("resume"))
    never = threading.Event()
    with held(settings, sweep), _opened(request, settings, observer, never) as opened:
        data = _training_data(settings, spec)
        _require_same_data(opened, data)
        with _tracked(opened), cluster.connected(settings):
            return _evaluate(opened, data)


def _evaluate(sweep: Sweep, data: TrainingData) -> dict[str, Any]:
    """Fix the winner on validation, write that down, and only then open the test split."""
    objective = sweep.spec.objective
    found = selection.candidates(sweep.confirm.records())
    ranked = selection.rank(found, objective.metric, objective.direction)
    if not ranked:
        raise SweepError(f"no confirmation has finished; the reasons: aae-sweep show {sweep.id}")
    sweep.confirm.set_attribute("winner", ranked[0].config_hash)
    sweep.note(stage="evaluate")
    test = _test_data(sweep)
    folder = sweep.settings.sweep_folder(sweep.id)
    scorer = Scorer(data, test, folder / "evaluation", partial(_scoring, sweep))
    planned = list(planned_samples(ranked, sweep.spec.evaluate.parzen))
    sweep.observer.stage_began("evaluate", len(planned), ())
    models = []
    for run, samples in planned:
        scored = scorer.score(run, samples)
        models.append(
            {
                "trial": run.number,
                "seed": run.seed,
                "config_hash": run.config_hash,
                "group": run.params.get(sweep.spec.confirm.per or ""),
                "checkpoint": run.checkpoint,
                **scored,
                "controls": scorer.controls(),
            }
        )
        pictures = _record_scores(sweep, run, models[-1], data)
        if len(models) == 1:
            _show_in_front(sweep, pictures)
    document = {"sweep": sweep.id, "winner": ranked[0].config_hash, "models": models}
    path = evaluation_path(sweep.settings, sweep.id)
    write_json(path, document)
    sweep.spool.attach(sweep.id, path)
    return document


def _show(sweep: Sweep, write_report: Callable[[str], Path]) -> None:
    """The sweep's own run in MLflow carries the winner's figures and the report."""
    best = History(sweep.settings).best(sweep.id)
    assert best is not None
    trials = sweep.search.count_ended() + sweep.confirm.count_ended()
    sweep.spool.log(sweep.id, trials, {name: m["mean"] for name, m in best["metrics"].items()})
    sweep.note_time()
    report = write_report(sweep.id)
    sweep.note(report=str(report))
    sweep.spool.attach(sweep.id, report)


def _scoring(sweep: Sweep, what: str, done: int, total: int) -> None:
    if sweep.draining.is_set():
        raise _interrupted(sweep)
    sweep.observer.scoring(what, done, total)


def _test_data(sweep: Sweep) -> TestData:
    try:
        return load_test_data(sweep.spec.data, sweep.settings.data)
    except DataError as error:
        raise EnvironmentUnusable(
            f"{error}\nsearch and confirm are done and kept; "
            f"once the test files are there: {sweep.request.resume}"
        ) from error


def _record_scores(
    sweep: Sweep, run: RunRecord, document: dict[str, Any], data: TrainingData
) -> list[Path]:
    """Into the run's own place in MLflow; returns its pictures."""
    key = run_key(sweep.id, run.stage, run.number)
    folder = sweep.settings.trial_folder(sweep.id, run.stage, run.number)
    sweep.spool.log(key, run.epochs, document["metrics"])
    write_json(folder / "parzen.json", document)
    pictures = draw_pictures(run, data, folder)
    for path in (folder / "parzen.json", *pictures):
        sweep.spool.attach(key, path)
    sweep.spool.attach(key, Path(document["checkpoint"]), "checkpoint")
    return pictures


def _show_in_front(sweep: Sweep, pictures: list[Path]) -> None:
    """The winner's pictures are the sweep's."""
    folder = sweep.settings.sweep_folder(sweep.id) / "pictures"
    folder.mkdir(exist_ok=True)
    for path in pictures:
        shutil.copy(path, folder)
        sweep.spool.attach(sweep.id, folder / path.name)


def _flat(document: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"model": {"code_dim": 8}} -> {"model.code_dim": 8}."""
    flat: dict[str, Any] = {}
    for key, value in document.items():
        path = f"{prefix}{key}"
        flat |= _flat(value, f"{path}.") if isinstance(value, dict) else {path: value}
    return flat


def _without_epoch(row: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name != "epoch"}


def _hours(sweep: Sweep) -> float:
    return (sweep.elapsed_before + time.monotonic() - sweep.began) / 3600


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
