"""Commands that control a sweep: stop, pause, resume, retry, extend, enqueue and logs."""

import time
from contextlib import suppress
from json import dumps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import common
from orchestrator.cli.common import AsJson, SweepName, say
from orchestrator.cli.inspect import pick
from orchestrator.cli.run import stored
from orchestrator.errors import SweepLocked, UsageError
from orchestrator.text import count

if TYPE_CHECKING:
    from orchestrator.records import RunRecord
    from orchestrator.results.reader import ResultsReader
    from orchestrator.settings import Settings
    from orchestrator.study.state import ControlRequest
    from orchestrator.study.study import StageStudy
    from orchestrator.sweepfile.spec import SearchSpec, SweepSpec

_LOOKING_SECONDS = 0.5
_LAST_WORDS_SECONDS = 2.0  # a driver prints its summary after releasing the lock


def stop(
    sweep: SweepName = "latest",
    trial: Annotated[
        str | None,
        typer.Argument(
            help="The number of a trial: stop only this trial of the search.", show_default=False
        ),
    ] = None,
    now: Annotated[
        bool, typer.Option("--now", help="Exit at once; trials resume from their last checkpoints.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for the driver to exit.")
    ] = 300,
    json: AsJson = False,
) -> None:
    """Drain a sweep: finish the current epochs, save checkpoints and exit.

    Works from any host. `aae-sweep run` resumes the sweep. With a trial, only that trial of the
    search ends, after its current epoch; it counts as pruned.
    """
    from orchestrator.study.lock import is_held

    reader = common.reader()
    name = reader.resolve(sweep)
    if trial is not None:
        if now:
            raise UsageError("--now stops a whole sweep: leave out the trial")
        _stop_trial(reader, name, trial, json)
        return
    if is_held(reader.settings, name):
        _stop(reader.settings, name, "now" if now else "drain", timeout)
    else:
        say(f"no driver runs {name}; there is nothing to stop")
    status = reader.status(name)
    if json:
        common.emit(status)
    elif status["state"] == "done":
        print(f"{name} is done")
    else:
        common.tell(f"{name} is {status['state']}. Resume with: {status['resume']}")


def _stop_trial(reader: "ResultsReader", name: str, trial: str, json: bool) -> None:
    """Request the end of one trial of the search."""
    record = pick(reader.trials(name), trial)
    if record.stage != "search":
        raise UsageError("a candidate needs all its seeds, so no confirmation is stopped alone")
    if record.state not in ("running", "waiting"):
        raise UsageError(f"search-{record.number} has ended: {record.state}")
    study = _search(reader.settings, name)
    study.note(stopped=sorted({*study.state.stopped, record.number}))
    if json:
        common.emit({"sweep": name, "stage": "search", "trial": record.number})
    else:
        print(f"stop of search-{record.number} requested: it ends as pruned after its next epoch")


def pause(sweep: SweepName = "latest", json: AsJson = False) -> None:
    """Pause a sweep: finish the current epochs, save, and wait for `aae-sweep resume`.

    The driver keeps the sweep's lock and its place on the cluster. The CPUs and GPUs are free.
    """
    _send_request(sweep, "pause", json=json)


def resume(sweep: SweepName = "latest", json: AsJson = False) -> None:
    """Resume a paused sweep."""
    _send_request(sweep, None, json=json)


def retry(
    sweep: SweepName = "latest",
    out_of_memory: Annotated[
        bool, typer.Option("--out-of-memory", help="Also retry trials that ran out of memory.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Queue a sweep's failed trials again, each from its last good checkpoint.

    Diverged and pruned trials are results and are not retried. Nor are trials that ran out of GPU
    memory, unless --out-of-memory is given.
    """
    from orchestrator.study.lock import held
    from orchestrator.study.study import StageStudy, open_storage

    settings = common.settings()
    name, storage = common.reader().resolve(sweep), open_storage(settings)
    queued: list[dict[str, Any]] = []
    waiting = False
    with held(settings, name):
        for stage in ("search", "confirm"):
            study = StageStudy.read(storage, name, stage)
            again = study.retry(out_of_memory=out_of_memory) if study else {}
            waiting |= bool(study and study.unfinished())  # also after a killed retry
            queued += [
                {"stage": stage, "trial": old, "retried_as": new} for old, new in again.items()
            ]
        if waiting:
            _reopen(_search(settings, name))
    resume = f"aae-sweep run {name}"
    if json:
        common.emit({"sweep": name, "retried": queued, "resume": resume})
        return
    for trial in queued:
        print("{stage}-{trial} is queued again, as {stage}-{retried_as}".format(**trial))
    left = common.reader().status(name)["trials"]["failed"]
    if left:
        print(f"not queued: {count(left, 'trial')} out of memory; queue them with: --out-of-memory")
    elif not queued:
        print(f"no trial of {name} has failed")
    if queued:
        common.tell(f"Resume with: {resume}")


def extend(
    sweep: SweepName = "latest",
    trial: Annotated[
        str | None, typer.Argument(help="With --epochs: only this confirmation, such as confirm-3.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Trials of the search, in total.", show_default=False)
    ] = None,
    hours: Annotated[
        float | None, typer.Option(min=0, help="Hours of the search, in total.", show_default=False)
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Epochs of the confirmations, in total.", show_default=False),
    ] = None,
    json: AsJson = False,
) -> None:
    """Give a sweep's search more trials or hours, or its confirmations more epochs.

    --trials and --hours do the same as larger numbers in the file. With --epochs, the finished
    confirmations, the control included, train on from their checkpoints.
    """
    settings = common.settings()
    name = common.reader().resolve(sweep)
    if epochs is not None:
        if trials or hours:
            raise UsageError(
                "--epochs extends confirmations, --trials and --hours the search: give one kind"
            )
        _train_on(settings, name, trial, epochs, json)
        return
    if trial is not None:
        raise UsageError("--trials and --hours extend the whole search; leave out the trial")
    study = _search(settings, name)
    spec = stored(name).extended(**study.state.extended)
    _grow(settings, name, study, _longer(spec, trials or 0, hours or 0.0), json)


def enqueue(
    sweep: SweepName = "latest",
    set_: common.Overrides = [],  # noqa: B006
    json: AsJson = False,
) -> None:
    """Queue one configuration for a sweep's search, which tries it next.

    --set gives values for settings of the search space; the sampler chooses the others. The search
    gets one trial more.
    """
    settings = common.settings()
    name = common.reader().resolve(sweep)
    study = _search(settings, name)
    spec = stored(name).extended(**study.state.extended)
    params = _configuration(spec, set_)
    search = _longer(spec, spec.search.planned + 1 if spec.search else 1, 0.0)
    study.note(enqueued=[*study.state.enqueued, params])
    _grow(settings, name, study, search, json, enqueued=params)


def _train_on(settings: "Settings", name: str, trial: str | None, epochs: int, json: bool) -> None:
    """Queue finished confirmations for more epochs, and print the next command."""
    from orchestrator.study.lock import held
    from orchestrator.study.study import StageStudy, open_storage

    with held(settings, name):
        study = StageStudy.read(open_storage(settings), name, "confirm")
        records = study.records() if study else []
        begun = {record.extends for record in records}
        finished = [r for r in records if r.state == "complete" and r.number not in begun]
        if study is None or not finished:
            raise UsageError(
                f"{name} has no finished confirmation that is not already being extended. "
                f"Run: aae-sweep run {name}"
            )
        chosen = finished if trial is None else [pick(finished, trial)]
        shorter = [record for record in chosen if record.epochs < epochs]
        if not shorter:
            reached = min(record.epochs for record in chosen)
            raise UsageError(f"--epochs is a total; give more than {reached}")
        notes = _extended_schedules(stored(name), shorter[0], epochs)
        study.extend(shorter, epochs)
        extensions = {record.extends: record.number for record in study.records()}
        _reopen(_search(settings, name))
    resume = f"aae-sweep run {name}"
    queued = [
        {"trial": r.number, "extended_as": extensions[r.number], "from": r.epochs, "to": epochs}
        for r in shorter
    ]
    if json:
        common.emit({"sweep": name, "extended": queued, "notes": notes, "resume": resume})
        return
    for each in queued:
        says = "confirm-{trial} trains on from epoch {from} to {to}, as confirm-{extended_as}"
        print(says.format(**each))
    for note in notes:
        print(note)
    common.tell(f"Resume with: {resume}")


def _extended_schedules(spec: "SweepSpec", record: "RunRecord", epochs: int) -> list[str]:
    """Describe each schedule that depends on the number of epochs, and so changes with it.

    Raises SpecError if the configuration cannot have so many epochs.
    """
    from aae_core.errors import ConfigError
    from aae_core.training.schedules import multiplier
    from orchestrator.errors import Problem, SpecError

    config = spec.stage_config("confirm", record.params, record.seed)
    try:
        training = config.extended(*record.extended_to, epochs).training
    except ConfigError as error:
        problems = [Problem(path, None, message) for path, message in error.problems.items()]
        raise SpecError(f"--epochs {epochs}", problems) from error
    notes, last = [], training.extended_from[-1]
    for path, schedule in training.schedules.items():
        if schedule.kind in ("cosine", "exponential"):
            before = multiplier(schedule, last, last)
            after = multiplier(schedule, last + 1, epochs)
            notes.append(
                f"{path}: from epoch {last + 1} on, the {schedule.kind} schedule is that of "
                f"{epochs} epochs: the rates' factor is {before:.2g} before, {after:.2g} after"
            )
    return notes


def _grow(
    settings: "Settings",
    name: str,
    study: "StageStudy",
    search: "SearchSpec",
    json: bool,
    **about: Any,
) -> None:
    """Record the larger limits of a search, and print the next command."""
    from orchestrator.study.lock import held

    hours = (search.budget.hours if search.budget else None) or 0.0
    numbers = {"trials": search.trials, "hours": hours}
    searching = study.state.stage == "search"
    study.note(extended=numbers)
    running = True
    with suppress(SweepLocked), held(settings, name):
        _reopen(study)
        study.note(planned=study.state.planned | {"search": search.planned})
        running = False
    resume = f"aae-sweep run {name}"
    if json:
        common.emit({"sweep": name, **about, **numbers, "running": running, "resume": resume})
    elif running and searching:
        print(f"{name}: {search.span}; the running driver continues to these limits")
    else:
        once = "after the driver has exited, " if running else ""
        common.tell(f"{name}: {search.span}; {once}resume with: {resume}")


def _configuration(spec: "SweepSpec", given: list[str]) -> dict[str, Any]:
    """Return the parameters of `--set path=value`. Raises SpecError if a trial rejects them."""
    from orchestrator.sweepfile.loader import parse_sweep

    if not given or not all("=" in each for each in given):
        raise UsageError("give at least one --set setting=value of the search space")
    if spec.search is None:
        raise UsageError(f"{spec.sweep_id} has no search; raise confirm.seeds in its file")
    pairs = (each.partition("=") for each in given)
    written = ", ".join(f"{path.strip()}: {value}" for path, _, value in pairs)
    text = dumps(spec.resolved())
    tried = parse_sweep(text, spec.sweep_id, [f"search.initial_trials=[{{{written}}}]"])
    assert tried.search is not None
    return tried.search.initial_trials[0]


def logs(
    sweep: SweepName = "latest",
    trial: Annotated[
        str | None,
        typer.Argument(help="Print the logs of one trial: 7 of the search, or confirm-7."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Follow the log until the driver exits.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Print the log of a detached sweep (`run -d`), or the logs of a trial's attempts."""
    from orchestrator.study.lock import is_held

    reader = common.reader()
    name = reader.resolve(sweep)
    if trial is not None:
        if follow:
            raise UsageError("--follow is for the driver's log: leave out the trial")
        _print_trial_logs(reader, name, trial, json=json)
        return
    path = reader.settings.driver_log(name)
    if not path.exists():
        raise UsageError(
            f"{name} has no log: only a driver in the background writes one (aae-sweep run FILE -d)"
        )
    with path.open(encoding="utf-8", errors="replace") as log:
        if json:
            common.emit({"sweep": name, "log": str(path), "lines": log.read().splitlines()})
            return
        print(log.read(), end="", flush=True)
        while follow:
            follow = is_held(reader.settings, name)
            time.sleep(_LOOKING_SECONDS if follow else _LAST_WORDS_SECONDS)
            print(log.read(), end="", flush=True)


def _print_trial_logs(reader: "ResultsReader", sweep: str, trial: str, *, json: bool) -> None:
    record = pick(reader.trials(sweep), trial)
    logs = reader.settings.attempt_logs(sweep, record.stage, record.number)
    texts = {int(log.parent.name): log.read_text(errors="replace") for log in logs}
    if json:
        attempts = [{"attempt": n, "lines": text.splitlines()} for n, text in texts.items()]
        common.emit({"sweep": sweep, "trial": trial, "attempts": attempts})
        return
    if not texts:
        raise UsageError(f"no worker of {record.stage}-{record.number} printed anything here")
    for attempt, text in texts.items():
        loss = record.lost.get(str(attempt))
        print(f"attempt {attempt}" + (f", lost: {loss}" if loss else ""))
        print(text, end="" if text.endswith("\n") else "\n")


COMMANDS = (stop, pause, resume, retry, extend, enqueue, logs)


def _send_request(sweep: str, request: "ControlRequest | None", *, json: bool) -> None:
    """Send a control request to the running driver. Raises UsageError if there is none."""
    from orchestrator.study.lock import is_held
    from orchestrator.study.state import CONTROL_REQUESTS

    reader = common.reader()
    name = reader.resolve(sweep)
    if not is_held(reader.settings, name):
        again = reader.status(name)["resume"]
        raise UsageError(f"no driver runs {name}. Resume with: {again}")
    _search(reader.settings, name).note(request=request)
    if json:
        common.emit(reader.status(name))
    elif request is None:
        print(f"resume of {name} requested")
    else:
        print(f"pause of {name} requested: {CONTROL_REQUESTS[request]}")
        common.tell(f"Resume with: aae-sweep resume {name}")


def _stop(settings: "Settings", sweep: str, request: "ControlRequest", timeout: float) -> None:
    from orchestrator.study.lock import is_held
    from orchestrator.study.state import CONTROL_REQUESTS

    study, deadline = _search(settings, sweep), time.monotonic() + timeout
    study.note(request=request)
    say(f"stop of {sweep} requested: {CONTROL_REQUESTS[request]}")
    while is_held(settings, sweep):
        if time.monotonic() > deadline:
            raise SweepLocked(
                f"{sweep} still runs after {timeout:g} s; it exits after the current epochs. "
                f"See: aae-sweep status {sweep}. "
                f"To exit without these epochs: aae-sweep stop {sweep} --now"
            )
        if study.state.request is None:  # a starting driver has cleared the request
            study.note(request=request)
        time.sleep(_LOOKING_SECONDS)


def _search(settings: "Settings", sweep: str) -> "StageStudy":
    """Open the search's study for writing."""
    from orchestrator.study.study import StageStudy, open_storage

    study = StageStudy.read(open_storage(settings), sweep, "search")
    assert study is not None
    return study


def _reopen(search: "StageStudy") -> None:
    """Mark the sweep as unfinished, so that `aae-sweep run` runs its stages again."""
    search.note(done=None, stage="search", state="stopped")


def _longer(spec: "SweepSpec", trials: int, hours: float) -> "SearchSpec":
    """Return the extended search. Raises UsageError if a given limit would not grow."""
    before, after = spec.search, spec.extended(trials=trials, hours=hours).search
    if before is None or after is None:
        raise UsageError(f"{spec.sweep_id} has no search; raise confirm.seeds in its file")
    idle_trials = trials and after.planned == before.planned
    idle_hours = hours and after.budget == before.budget
    if idle_trials or idle_hours or not (trials or hours):
        raise UsageError(
            f"{spec.sweep_id}: {before.span}; --trials and --hours are totals; give larger ones"
        )
    return after
