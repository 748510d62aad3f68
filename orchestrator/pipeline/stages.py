"""Run a sweep from its present state to its end: search -> confirm -> evaluate.

Completed stages are skipped.  The driver handles failures and control requests meanwhile.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from optuna.exceptions import StorageInternalError

from aae_core.data import TrainingData, load_training_data, open_data_set
from aae_core.errors import DataError
from aae_core.reading import digest
from orchestrator import disk
from orchestrator.documents import Evaluation
from orchestrator.errors import DiskFull, EnvironmentUnusable, Interrupted, StudyLost
from orchestrator.execution import cluster
from orchestrator.pipeline import evaluate, gc, search
from orchestrator.pipeline.context import (
    Observer,
    Request,
    SweepContext,
    describe,
    interrupted,
    opened,
    recorded,
    tracked,
)
from orchestrator.pipeline.notify import Notifier
from orchestrator.pipeline.turns import taking_turns
from orchestrator.results import warm_start
from orchestrator.results.reader import ResultsReader, summary
from orchestrator.settings import Settings
from orchestrator.study.lock import held
from orchestrator.study.state import CONTROL_REQUESTS, ControlRequest
from orchestrator.study.study import StageStudy, open_storage
from orchestrator.sweepfile.checks import data_notes, require_compatible, require_same_data
from orchestrator.sweepfile.spec import EvaluateSpec, ParzenSpec, SweepSpec

_LISTENING_SECONDS = 1.0  # between two reads of the control request
_WATCH_SECONDS, _IDLE_WATCHES = 0.1, 5  # until a drain without epochs interrupts the driver
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds between two tries to reach a study's server
_STUDY_SECONDS = 3600.0  # longest wait for that server


def run(
    request: Request,
    settings: Settings,
    observer: Observer,
    draining: threading.Event,
    write_report: Callable[[str], Path],
) -> None:
    """Run the sweep from its present state to its end; `write_report` is the last step.

    If the study's server goes away, the driver waits, then resumes as after a driver's death.

    Raises SpecError if the sweep does not fit its data, EnvironmentUnusable, SweepLocked, and
    Interrupted once `draining` is set.
    """
    spec = request.spec
    cluster.preflight(settings, spec.resources)
    data = _training_data(settings, spec)
    require_compatible(spec, data)
    for note in [*data_notes(spec, data), *_unfetched(settings, spec)]:
        observer.note(note)
    notifier = Notifier(spec, settings, observer.note)
    with notifier.sending_the_end():
        while True:
            try:
                return _drive(request, settings, observer, draining, write_report, data, notifier)
            except StudyLost as lost:
                observer.note(
                    f"{lost}; the sweep resumes from its last checkpoints once the server answers"
                )
                _await_study(request, settings, draining)
            except DiskFull as full:
                if not _made_room(settings, spec.sweep_id):
                    raise DiskFull(
                        f"{full}\nNothing is lost. Free at least 1 MB there, then run "
                        f"`aae-sweep gc`. Resume with: {request.resume}"
                    ) from full
                observer.note(f"{full}; removed unneeded checkpoints and resumed")


def _drive(
    request: Request,
    settings: Settings,
    observer: Observer,
    draining: threading.Event,
    write_report: Callable[[str], Path],
    data: TrainingData,
    notifier: Notifier,
) -> None:
    spec = request.spec
    with (
        disk.explaining(settings.home),
        held(settings, spec.sweep_id) as lock,
        opened(request, settings, observer, draining, notifier) as sweep,
    ):
        _require_same_data(sweep, data)
        _learn(sweep)
        describe(sweep, data, data_notes(spec, data))
        notifier.began = True
        with (
            _obeying_requests(sweep),
            tracked(sweep),
            disk.explaining(settings.home),
            lock.watched(),
        ):
            # recorded first: Ray's shutdown takes seconds, and a kill may come earlier
            with cluster.connected(settings), recorded(sweep), _leaving_soon(sweep):
                resources = cluster.trial_resources(spec.resources)
                with taking_turns(sweep, resources):
                    search.search(sweep, data, resources)
                    search.confirm(sweep, data, resources)
                    evaluate.evaluate(sweep, data)
            sweep.note(done=digest(sweep.spec.resolved()), state="done")
            try:
                with _leaving_soon(sweep):
                    _show(sweep, write_report)
            except BaseException:
                sweep.note(done=None)  # the next run writes the report
                raise


def _await_study(request: Request, settings: Settings, draining: threading.Event) -> None:
    pause, deadline = _FIRST_PAUSE, time.monotonic() + _STUDY_SECONDS
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
        with disk.explaining(settings.home):
            return bool(gc.clean(settings, open_storage(settings), sweep, keep_failed=True))
    except DiskFull:  # the disk is too full to read the study
        return False


def _training_data(settings: Settings, spec: SweepSpec) -> TrainingData:
    try:
        return load_training_data(spec.data, settings.data)
    except DataError as error:
        raise EnvironmentUnusable(str(error)) from error


def _unfetched(settings: Settings, spec: SweepSpec) -> list[str]:
    """Fetch missing test files before hours of search; return a note if that is impossible."""
    try:
        open_data_set(spec.data, settings.data).fetch("test")
    except DataError as error:
        return [f"{error}\nonly evaluate needs this file; search and confirm start without it"]
    return []


def _require_same_data(sweep: SweepContext, data: TrainingData) -> None:
    known = sweep.search.state.data_sha256
    require_same_data(data, known, sweep.id, "give the sweep another name")
    sweep.note(data_sha256=data.sha256)


def _learn(sweep: SweepContext) -> None:
    """Give the sampler another sweep's finished trials, before its first suggestion."""
    if sweep.search.state.warm_trials is not None:
        return
    found = warm_start.read(sweep.spec, sweep.settings, sweep.search.state.data_sha256)
    if found is not None:
        taken = sweep.search.warm_start(found.sweep, found.known, sweep.spec)
        sweep.note(warm_trials=taken)
        sweep.observer.note(found.summary)


@contextmanager
def _obeying_requests(sweep: SweepContext) -> Iterator[None]:
    """Carry out the control requests of `aae-sweep stop` and `pause`, sent from any machine.

    A control request is an attribute of the search's study.  The driver clears the attribute when
    it starts and when it ends.  The list of single trials to stop is another attribute, which is
    kept.
    """
    over = threading.Event()
    seen: list[ControlRequest | None] = [None]
    main_thread = threading.main_thread().ident
    assert main_thread is not None

    def listen() -> None:
        while not over.wait(_LISTENING_SECONDS):
            request = seen[-1]
            with suppress(StorageInternalError):  # server briefly away: read again
                state = sweep.search.state
                request = state.request
                for number in state.stopped:
                    if number not in sweep.stopped:
                        sweep.stopped.add(number)
                        sweep.observer.note(f"stop of search-{number} requested")
            if request == seen[-1]:
                continue
            seen.append(request)
            if request is None:
                sweep.paused.clear()
                sweep.observer.note("resume requested")
                continue
            leaving = sweep.paused if request == "pause" else sweep.draining
            leaving.set()
            verb = "pause" if request == "pause" else "stop"
            sweep.observer.note(f"{verb} requested: {CONTROL_REQUESTS[request]}")
            if request == "now":
                signal.pthread_kill(main_thread, signal.SIGINT)  # like a second Ctrl-C

    sweep.note(request=None)
    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield
    except (Interrupted, KeyboardInterrupt) as leaving:
        if seen[-1] in (None, "pause"):
            raise interrupted(sweep) from leaving
        sweep.note(state="stopped")
        raise interrupted(sweep, "stopped") from leaving
    finally:
        over.set()
        listener.join()
        sweep.note(request=None)


@contextmanager
def _leaving_soon(sweep: SweepContext) -> Iterator[None]:
    """Interrupt the main thread during a `with` once a drain has no epoch to wait for.

    Other work of the driver may take long; the next driver repeats or resumes that work.  The
    interrupt is repeated until the `with` ends, because Python drops an interrupt in a destructor
    and pydantic turns one into a warning.
    """
    over, main_thread = threading.Event(), threading.main_thread().ident
    assert main_thread is not None

    def watch() -> None:
        idle = 0
        while not over.wait(_WATCH_SECONDS):
            waits = not sweep.draining.is_set() or sweep.is_training()
            idle = 0 if waits else idle + 1
            if idle == _IDLE_WATCHES and not over.is_set():
                idle = 0
                signal.pthread_kill(main_thread, signal.SIGINT)  # like a second Ctrl-C

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def evaluate_again(
    settings: Settings, sweep: str, parzen: ParzenSpec | None, resume: str, observer: Observer
) -> Evaluation:
    """Score a sweep's confirmed models again, perhaps with other numbers of samples.

    `resume` is the command that repeats this evaluation.
    """
    storage = open_storage(settings)
    search = StageStudy.read(storage, sweep, "search")
    assert search is not None
    spec = SweepSpec.of(search.state.spec)
    if parzen is not None:
        spec = spec.model_copy(update={"evaluate": EvaluateSpec(parzen=parzen)})
    request = Request(spec, search.state.spec_text, resume)
    never = threading.Event()
    with held(settings, sweep) as lock, opened(request, settings, observer, never) as again:
        data = _training_data(settings, spec)
        _require_same_data(again, data)
        with (
            _obeying_requests(again),
            tracked(again),
            lock.watched(),
            cluster.connected(settings),
            recorded(again),
            _leaving_soon(again),
        ):
            return evaluate.evaluate(again, data)


def _show(sweep: SweepContext, write_report: Callable[[str], Path]) -> None:
    """Add the winner's metrics and name, and the report, to the sweep's own run in MLflow."""
    best = ResultsReader(sweep.settings).best(sweep.id)
    assert best is not None
    # a step used before would keep its old figures, so the step counts all trials ever
    trials = sum(len(study.optuna_study.trials) for study in (sweep.search, sweep.confirm))
    means = {name: figures["mean"] for name, figures in best["metrics"].items()}
    sweep.outbox.log(sweep.id, trials, evaluate.numbers(means))
    winner = f"confirm-{best['trials'][0]:04d}"
    sweep.outbox.set_tags(sweep.id, {"aae.winner": winner, "mlflow.note.content": summary(best)})
    sweep.note_time()
    report = write_report(sweep.id)
    sweep.note(report=str(report))
    sweep.outbox.attach(sweep.id, report)
