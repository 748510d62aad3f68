"""Run a sweep from its present state to its end: search -> confirm -> evaluate.

Completed stages are skipped.  The driver handles failures and control requests meanwhile.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from optuna.exceptions import StorageInternalError

from aae_core.config import digest
from aae_core.data import TrainingData, load_training_data
from aae_core.errors import DataError
from orchestrator import disk
from orchestrator.errors import DiskFull, EnvironmentUnusable, Interrupted, LedgerLost, UsageError
from orchestrator.execution import cluster
from orchestrator.pipeline import evaluate, gc, search
from orchestrator.pipeline.context import (
    Observer,
    Request,
    Sweep,
    describe,
    interrupted,
    opened,
    tracked,
)
from orchestrator.results.reader import History, summary
from orchestrator.settings import Settings
from orchestrator.study.lock import held
from orchestrator.study.study import WISHES, Ledger, open_storage
from orchestrator.sweepfile import space
from orchestrator.sweepfile.checks import require_compatible
from orchestrator.sweepfile.spec import EvaluateSpec, ParzenSpec, SweepSpec

_LISTENING_SECONDS = 1.0  # between two reads of the control request
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds between two tries to reach a study's server
_LEDGER_SECONDS = 3600.0  # longest wait for that server


def run(
    request: Request,
    settings: Settings,
    observer: Observer,
    draining: threading.Event,
    write_report: Callable[[str], Path],
) -> None:
    """Run the sweep from its present state to its end; `write_report` is the last step.

    If the study's server goes away, the driver waits, then resumes as after a driver's death.

    Raises SpecError if the sweep does not fit its data, EnvironmentUnusable, SweepHeld, and
    Interrupted once `draining` is set.
    """
    spec = request.spec
    cluster.preflight(settings, spec.resources)
    data = _training_data(settings, spec)
    require_compatible(spec, data)
    while True:
        try:
            return _drive(request, settings, observer, draining, write_report, data)
        except LedgerLost as lost:
            observer.note(f"{lost}; the sweep resumes from its last checkpoints once it answers")
            _await_ledger(request, settings, draining)
        except DiskFull as full:
            if not _made_room(settings, spec.sweep_id):
                raise DiskFull(
                    f"{full}\nNothing is lost. Free at least 1 MB there, then run `aae-sweep gc`. "
                    f"Resume with: {request.resume}"
                ) from full
            observer.note(f"{full}; removed the checkpoints that nothing needs, and resumed")


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
                search.search(sweep, data, share)
                search.confirm(sweep, data, share)
                evaluate.evaluate(sweep, data)
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
                    f"{error}\nnothing is lost; once it answers, resume with: {request.resume}"
                ) from error
        else:
            return
    raise Interrupted(f"{request.spec.sweep_id} was interrupted. Resume with: {request.resume}")


def _made_room(settings: Settings, sweep: str) -> bool:
    try:
        with disk.told(settings.home):
            return bool(gc.clean(settings, open_storage(settings), sweep, keep_failed=True))
    except DiskFull:  # the disk is too full to read the study
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
    """Give the sampler another sweep's finished trials, before its first suggestion.

    Only trials whose configurations also lie in this sweep's space are used.
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
    """Carry out the control requests of `aae-sweep stop` and `pause`, sent from any machine.

    A control request is an attribute of the search's study.  The driver clears the attribute when
    it starts and when it ends.
    """
    over = threading.Event()
    heard: list[str | None] = [None]
    main_thread = threading.main_thread().ident
    assert main_thread is not None

    def listen() -> None:
        while not over.wait(_LISTENING_SECONDS):
            wish = heard[-1]
            with suppress(StorageInternalError):  # server briefly away: read again
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
                signal.pthread_kill(main_thread, signal.SIGINT)  # like a second Ctrl-C

    sweep.search.set_attribute("wish", None)
    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield
    except (Interrupted, KeyboardInterrupt) as leaving:
        if heard[-1] in (None, "pause"):
            raise interrupted(sweep) from leaving
        sweep.note(state="stopped")
        raise interrupted(sweep, "stopped") from leaving
    finally:
        over.set()
        listener.join()
        sweep.search.set_attribute("wish", None)


def evaluate_again(
    settings: Settings, sweep: str, parzen: ParzenSpec | None, resume: str, observer: Observer
) -> dict[str, Any]:
    """Score a sweep's confirmed models again, perhaps with other numbers of samples.

    `resume` is the command that repeats this evaluation.
    """
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
            return evaluate.evaluate(again, data)


def _show(sweep: Sweep, write_report: Callable[[str], Path]) -> None:
    """Add the winner's metrics and name, and the report, to the sweep's own run in MLflow."""
    best = History(sweep.settings).best(sweep.id)
    assert best is not None
    # a step used before would keep its old figures, so the step counts all trials ever
    trials = sum(len(ledger.study.trials) for ledger in (sweep.search, sweep.confirm))
    means = {name: figures["mean"] for name, figures in best["metrics"].items()}
    sweep.spool.log(sweep.id, trials, evaluate.numbers(means))
    winner = f"confirm-{best['trials'][0]:04d}"
    sweep.spool.set_tags(sweep.id, {"aae.winner": winner, "mlflow.note.content": summary(best)})
    sweep.note_time()
    report = write_report(sweep.id)
    sweep.note(report=str(report))
    sweep.spool.attach(sweep.id, report)
