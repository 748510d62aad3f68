"""search -> confirm -> evaluate; each is skipped where it has been done.

Search and confirm are handed TrainingData, which has no test member.  The winner is fixed on
validation, and written down, before the test split is opened.
"""

import math
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from optuna.exceptions import StorageInternalError

from aae_core.config import digest
from aae_core.data import TestData, TrainingData, load_test_data, load_training_data
from aae_core.errors import DataError
from orchestrator import cleaning, cluster, disk, selection, space
from orchestrator.compatibility import require_compatible, require_known_classes
from orchestrator.drawing import draw_pictures
from orchestrator.errors import (
    DiskFull,
    EnvironmentUnusable,
    Interrupted,
    LedgerLost,
    SweepError,
    UsageError,
)
from orchestrator.history import History, evaluation_path, run_key, summary
from orchestrator.lease import held
from orchestrator.parzen_job import ParzenPool
from orchestrator.records import RunRecord, Stage
from orchestrator.repeats import MAX_IN_A_ROW
from orchestrator.scoring import Scorer, planned_samples, write_json
from orchestrator.settings import Settings
from orchestrator.spec import EvaluateSpec, ParzenSpec, SweepSpec
from orchestrator.study import WISHES, Assignment, Ledger, confirm_seed, open_storage
from orchestrator.sweep import Observer, Recorder, Request, Sweep, describe, opened, tracked
from orchestrator.tuner import StageDriver, run_stage

_LISTENING_SECONDS = 1.0  # between two looks for a wish to stop
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds between two looks for a study's server
_LEDGER_SECONDS = 3600.0  # how long it is waited for


def run(
    request: Request,
    settings: Settings,
    observer: Observer,
    draining: threading.Event,
    write_report: Callable[[str], Path],
) -> None:
    """Carry the sweep to its end, from wherever it stands; `write_report` is the last step.

    A study whose server goes away is waited for, and then taken up as after a driver's death.

    Raises SpecError where the sweep does not go with its data, EnvironmentUnusable, SweepHeld, and
    Interrupted once `draining` was set.
    """
    spec = request.spec
    cluster.preflight(settings, spec.resources)
    data = _training_data(settings, spec)
    require_compatible(spec, data)
    while True:
        try:
            return _drive(request, settings, observer, draining, write_report, data)
        except LedgerLost as lost:
            observer.note(f"{lost}; once it answers, all goes on from the last checkpoints")
            _await_ledger(request, settings, draining)
        except DiskFull as full:
            if not _made_room(settings, spec.sweep_id):
                raise DiskFull(
                    f"{full}\nNothing is lost. Make room there (of a megabyte, aae-sweep gc makes "
                    f"more where it can), then carry on with: {request.resume}"
                ) from full
            observer.note(f"{full}; what the sweep needs no more is removed, and it goes on")


def _drive(
    request: Request,
    settings: Settings,
    observer: Observer,
    draining: threading.Event,
    write_report: Callable[[str], Path],
    data: TrainingData,
) -> None:
    spec = request.spec
    with (
        disk.told(settings.home),
        held(settings, spec.sweep_id) as lease,
        opened(request, settings, observer, draining) as sweep,
    ):
        _require_same_data(sweep, data)
        _learn(sweep)
        describe(sweep, data)
        with _heeding(sweep), tracked(sweep), disk.told(settings.home), lease.watched():
            with cluster.connected(settings):
                share = cluster.share(spec.resources)
                _search(sweep, data, share)
                _confirm(sweep, data, share)
                _evaluate(sweep, data)
            sweep.note(done=digest(sweep.spec.resolved()), state="done")
            _show(sweep, write_report)


def _await_ledger(request: Request, settings: Settings, draining: threading.Event) -> None:
    pause, deadline = _FIRST_PAUSE, time.monotonic() + _LEDGER_SECONDS
    while not draining.wait(pause):
        pause = min(2 * pause, _LONGEST_PAUSE)
        try:
            open_storage(settings).engine.dispose()
        except EnvironmentUnusable as error:
            if time.monotonic() > deadline:
                raise EnvironmentUnusable(
                    f"{error}\nnothing is lost; once it answers, carry on with: {request.resume}"
                ) from error
        else:
            return
    raise Interrupted(f"{request.spec.sweep_id} was interrupted; carry on with: {request.resume}")


def _made_room(settings: Settings, sweep: str) -> bool:
    try:
        with disk.told(settings.home):
            return bool(cleaning.clean(settings, open_storage(settings), sweep, keep_failed=True))
    except DiskFull:  # too full to read the study
        return False


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


def _learn(sweep: Sweep) -> None:
    """Tell the sampler, before it is first asked, what another sweep has found.

    Taken over are the finished trials whose very configurations this sweep's space has, too.
    """
    search = sweep.spec.search
    if search is None or search.learn_from is None or sweep.search.attribute("learned") is not None:
        return
    history = History(sweep.settings)
    other = history.resolve(search.learn_from)
    if other == sweep.id or history.data_sha256(other) != sweep.search.attribute("data_sha256"):
        raise UsageError(f"search.learn_from: {other} is not another sweep on the same data")
    theirs = SweepSpec.of(history.spec(other))
    known = [
        replace(record, params=params)
        for record in history.trials(other, "search")
        if record.state == "complete"
        and all(math.isfinite(record.metrics.get(name, math.nan)) for name in sweep.spec.goals)
        and (params := space.locate(theirs.trial_config(record.params, 0), sweep.spec)) is not None
    ]
    if not known:
        raise UsageError(
            f"search.learn_from: no finished trial of {other} has a configuration of this space"
        )
    sweep.note(learned=sweep.search.learn(other, known, sweep.spec))
    sweep.observer.note(f"search: the sampler knows {len(known)} trials of {other}")


@contextmanager
def _heeding(sweep: Sweep) -> Iterator[None]:
    """Do what `aae-sweep stop` and `pause` wish for, on whichever machine.

    A wish is an attribute of the search's study, and lives no longer than the driver it is for.
    """
    over = threading.Event()
    heard: list[str | None] = [None]
    main_thread = threading.main_thread().ident
    assert main_thread is not None

    def listen() -> None:
        while not over.wait(_LISTENING_SECONDS):
            wish = heard[-1]
            with suppress(StorageInternalError):  # away for a moment: asked again
                wish = sweep.search.attribute("wish")
            if wish == heard[-1]:
                continue
            heard.append(wish)
            if wish is None:
                sweep.paused.clear()
                sweep.observer.note("asked to go on")
                continue
            leaving = sweep.paused if wish == "pause" else sweep.draining
            leaving.set()
            verb = "pause" if wish == "pause" else "stop"
            sweep.observer.note(f"asked to {verb}: {WISHES[wish]}")
            if wish == "now":
                signal.pthread_kill(main_thread, signal.SIGINT)  # as a second Ctrl-C

    sweep.search.set_attribute("wish", None)
    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield
    except (Interrupted, KeyboardInterrupt) as leaving:
        if heard[-1] in (None, "pause"):
            raise _interrupted(sweep) from leaving
        sweep.note(state="stopped")
        raise _interrupted(sweep, "stopped") from leaving
    finally:
        over.set()
        listener.join()
        sweep.search.set_attribute("wish", None)


# -- search and confirm ----------------------------------------------------------------------


def _search(sweep: Sweep, data: TrainingData, share: cluster.Share) -> None:
    if sweep.spec.search is None:
        return

    def next_trial() -> Assignment | None:
        assignment = None
        while assignment is None:
            if _enough(sweep):
                _extend(sweep)
                if _enough(sweep):
                    return None
            assignment = sweep.search.ask(sweep.spec)
        return assignment

    _train(sweep, "search", sweep.spec.search.planned, data, share, next_trial)
    asked = sweep.search.asked()
    if asked < sweep.spec.search.planned:
        _plan(sweep, asked)
        sweep.observer.note(f"search: ended after {asked} trials: {_enough(sweep)}")


def _enough(sweep: Sweep) -> str | None:
    """Why no further trial is asked for."""
    search = sweep.spec.search
    assert search is not None
    if sweep.search.asked() >= search.planned:
        return f"all {search.planned} have been asked for"
    budget = search.budget
    if budget and budget.hours and sweep.elapsed >= 3600 * budget.hours:
        return f"its {budget.hours:g} h are over"
    if budget and budget.gpu_hours and sweep.search.gpu_hours() >= budget.gpu_hours:
        return f"its {budget.gpu_hours:g} GPU-hours are used up"
    if search.patience is not None and sweep.search.since_best() >= search.patience:
        return f"the best has not moved for {search.patience} trials"
    if sweep.search.repeats.in_a_row >= MAX_IN_A_ROW:
        return f"the last {MAX_IN_A_ROW} suggestions had all been tried before"
    return None


def _extend(sweep: Sweep) -> None:
    """Take up what `aae-sweep extend` has asked for meanwhile."""
    spec = sweep.spec.extended(**sweep.search.attribute("extended", {}))
    if spec != sweep.spec and spec.search is not None:
        sweep.request = replace(sweep.request, spec=spec)
        sweep.note(spec=spec.resolved())
        _plan(sweep, spec.search.planned)
        sweep.observer.note(f"search: extended, now {spec.search.span}")


def _plan(sweep: Sweep, trials: int) -> None:
    sweep.note(planned=sweep.search.attribute("planned") | {"search": trials})


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
    for before, now in pairwise([0, *spec.confirm.heats]):
        if before:
            chosen = _unbeaten(sweep, chosen, seeds[:before])
        sweep.confirm.enqueue({"params": p, "seed": s} for s in seeds[:now] for p in chosen)
        planned = len(sweep.confirm.records())
        sweep.note(planned=sweep.search.attribute("planned") | {"confirm": planned})
        _train(sweep, "confirm", planned, data, share, lambda: sweep.confirm.pop(spec))


def _unbeaten(sweep: Sweep, racing: list[dict[str, Any]], seeds: list[int]) -> list[dict[str, Any]]:
    """Who goes on to the next heat, by the seeds of the heats so far: a restart finds the same."""
    objective, confirm = sweep.spec.objective, sweep.spec.confirm
    records = (r for r in sweep.confirm.records() if r.seed in seeds and r.params in racing)
    left = selection.unbeaten(
        selection.candidates(records),
        objective.metric,
        objective.direction,
        per=confirm.per,
        looks=len(confirm.heats) - 1,
    )
    sweep.observer.note(f"confirm: {len(left)} of {len(racing)} go on to more seeds")
    return [candidate.params for candidate in left]


def _contenders(sweep: Sweep) -> list[RunRecord]:
    return selection.contenders(
        sweep.search.records(),
        sweep.spec.goals,
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
        sweep.paused,
    )
    scratch = sweep.settings.sweep_folder(sweep.id) / ".tune"
    run_stage(driver, data, share, scratch)
    if driver.full is not None:
        raise DiskFull(driver.full)
    if sweep.draining.is_set():
        raise _interrupted(sweep)


def _interrupted(sweep: Sweep, how: str = "interrupted") -> Interrupted:
    return Interrupted(f"{sweep.id} was {how}; carry on with: {sweep.request.resume}")


# -- evaluate --------------------------------------------------------------------------------


def evaluate(
    settings: Settings, sweep: str, parzen: ParzenSpec | None, resume: str, observer: Observer
) -> dict[str, Any]:
    """Score a sweep's confirmed models again, perhaps with other numbers of samples; `resume` is
    the command that does so."""
    storage = open_storage(settings)
    search = Ledger.read(storage, sweep, "search")
    assert search is not None
    spec = SweepSpec.of(search.attribute("spec"))
    if parzen is not None:
        spec = spec.model_copy(update={"evaluate": EvaluateSpec(parzen=parzen)})
    request = Request(spec, search.attribute("spec_text"), resume)
    never = threading.Event()
    with held(settings, sweep) as lease, opened(request, settings, observer, never) as again:
        data = _training_data(settings, spec)
        _require_same_data(again, data)
        connected = cluster.connected(settings) if spec.has_parzen else nullcontext()
        with _heeding(again), tracked(again), lease.watched(), connected:
            return _evaluate(again, data)


def _evaluate(sweep: Sweep, data: TrainingData) -> dict[str, Any]:
    """Fix the winner on validation, write that down, and only then open the test split."""
    objective = sweep.spec.objective
    found = selection.candidates(sweep.confirm.records())
    ranked = selection.rank(
        found, objective.metric, objective.direction, seeds=sweep.spec.confirm.seeds
    )
    if not ranked:
        raise SweepError(f"no confirmation has finished; the reasons: aae-sweep show {sweep.id}")
    sweep.confirm.set_attribute("winner", ranked[0].config_hash)
    sweep.note(stage="evaluate")
    test = _test_data(sweep, data)
    planned = list(planned_samples(ranked, sweep.spec.evaluate.parzen))
    sweep.observer.stage_began("evaluate", len(planned), ())
    folder = sweep.settings.sweep_folder(sweep.id) / "evaluation"
    with ParzenPool(cluster.cpus() if sweep.spec.has_parzen else 0) as pool:
        scorer = Scorer(data, test, folder, pool, partial(_scoring, sweep))
        models = [_score(sweep, scorer, run, samples) for run, samples in planned]
    _show_in_front(sweep, planned[0][0])
    document = {"sweep": sweep.id, "winner": ranked[0].config_hash, "models": models}
    path = evaluation_path(sweep.settings, sweep.id)
    write_json(path, document)
    sweep.spool.attach(sweep.id, path)
    return document


def _show(sweep: Sweep, write_report: Callable[[str], Path]) -> None:
    """The sweep's own run in MLflow carries the winner's figures and name, and the report."""
    best = History(sweep.settings).best(sweep.id)
    assert best is not None
    # all there ever were: a step that was there before would keep its old figures
    trials = sum(len(ledger.study.trials) for ledger in (sweep.search, sweep.confirm))
    means = {name: figures["mean"] for name, figures in best["metrics"].items()}
    sweep.spool.log(sweep.id, trials, _numbers(means))
    winner = f"confirm-{best['trials'][0]:04d}"
    sweep.spool.set_tags(sweep.id, {"aae.winner": winner, "mlflow.note.content": summary(best)})
    sweep.note_time()
    report = write_report(sweep.id)
    sweep.note(report=str(report))
    sweep.spool.attach(sweep.id, report)


def _scoring(sweep: Sweep, what: str, done: int, total: int) -> None:
    while sweep.paused.is_set() and not sweep.draining.is_set():
        time.sleep(_LISTENING_SECONDS)
    if sweep.draining.is_set():
        raise _interrupted(sweep)
    sweep.observer.scoring(what, done, total)


def _test_data(sweep: Sweep, data: TrainingData) -> TestData:
    try:
        test = load_test_data(sweep.spec.data, sweep.settings.data)
        require_known_classes(sweep.spec, data, test)
    except DataError as error:
        raise EnvironmentUnusable(
            f"{error}\nsearch and confirm are done and kept; "
            f"once the test files are there: {sweep.request.resume}"
        ) from error
    return test


def _score(sweep: Sweep, scorer: Scorer, run: RunRecord, samples: int) -> dict[str, Any]:
    """One model's document, put with its pictures into the run's own place in MLflow."""
    document = {
        "trial": run.number,
        "seed": run.seed,
        "config_hash": run.config_hash,
        "group": run.params.get(sweep.spec.compared or ""),
        "checkpoint": run.checkpoint,
        **scorer.score(run, samples),
    }
    key = run_key(sweep.id, run.stage, run.number)
    folder = sweep.settings.trial_folder(sweep.id, run.stage, run.number)
    sweep.spool.log(key, run.epochs, _numbers(document["metrics"]))
    write_json(folder / "evaluation.json", document)
    for path in (folder / "evaluation.json", *draw_pictures(run, scorer.data, folder)):
        sweep.spool.attach(key, path)
    sweep.spool.attach(key, Path(document["checkpoint"]), "checkpoint")
    return document


def _numbers(figures: dict[str, float | None]) -> dict[str, float]:
    """Back from JSON, which has no word for what is not finite."""
    return {name: math.nan if value is None else value for name, value in figures.items()}


def _show_in_front(sweep: Sweep, winner: RunRecord) -> None:
    """The pictures of the winner's first model are the sweep's."""
    folder = sweep.settings.sweep_folder(sweep.id) / "pictures"
    folder.mkdir(exist_ok=True)
    drawn = sweep.settings.trial_folder(sweep.id, winner.stage, winner.number)
    for path in sorted(p for p in drawn.iterdir() if p.suffix in (".png", ".gif", ".html")):
        shutil.copy(path, folder)
        sweep.spool.attach(sweep.id, folder / path.name)
