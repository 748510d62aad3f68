"""Commands run, plan and train."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import common, on_host
from orchestrator.cli.common import AsJson, Overrides, SweepFile, say
from orchestrator.errors import UsageError
from orchestrator.text import count, duration, money, number

if TYPE_CHECKING:
    from orchestrator.documents import Best, Evaluation, Status, TrainEvent
    from orchestrator.results.reader import ResultsReader
    from orchestrator.sweepfile.spec import SweepSpec

_NATIVE_SECONDS = 2.0  # for the main thread to leave native code after a signal
_DRIVER = (sys.executable, "-P", "-c", "from orchestrator.cli import main; main()")
FileOrSweep = Annotated[
    Path,
    typer.Argument(
        help="The sweep file, YAML; a shipped sweep's name; or a sweep as it was run.",
        show_default=False,
        autocompletion=common.shipped_names,
    ),
]
Smoke = Annotated[
    bool,
    typer.Option(
        "--smoke", help="Run a tiny version under another name, to check that everything works."
    ),
]


def run(
    file: FileOrSweep,
    set_: Overrides = [],  # noqa: B006
    smoke: Smoke = False,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Run in the background, with a log.")
    ] = False,
    queue: Annotated[
        bool, typer.Option("--queue", help="Share the cluster with the other queued sweeps.")
    ] = False,
    priority: Annotated[
        int, typer.Option(help="Place in the queue: higher numbers first, equal numbers share.")
    ] = 0,
    json: AsJson = False,
) -> None:
    """Run a sweep to its end, or resume it.

    The same file is the same sweep. The first Ctrl-C finishes the current epochs and saves, the
    second exits at once. The same command resumes.
    """
    if priority and not queue:
        raise UsageError("--priority needs --queue")
    spec, text, resume = _wanted(file, set_, smoke)
    if queue:
        resume += f" --queue --priority={priority}" if priority else " --queue"
    if common.reader().is_done(spec):
        say(f"{spec.sweep_id} is done; nothing to run")
    elif detach:
        _leave_running(spec, resume, json)
        return
    else:
        carry_out(spec, text, resume, priority if queue else None)
    reader = common.reader()
    status = reader.status(spec.sweep_id)
    if json:
        common.emit(status)
    else:
        _summarise(status, reader.best(spec.sweep_id), reader.evaluation(spec.sweep_id))
    if status["trials"]["failed"]:
        raise typer.Exit(3)


def plan(
    file: SweepFile,
    set_: Overrides = [],  # noqa: B006
    smoke: Smoke = False,
    json: AsJson = False,
) -> None:
    """Estimate the trials, epochs, time and disk of each stage.

    The command times one epoch of the file's own configuration where the sweep would run: on this
    machine, or in the first free places on the cluster of RAY_ADDRESS.
    """
    from orchestrator.execution import cluster

    spec, settings = _load(file, set_, smoke), common.settings()
    cluster.prepare(settings)  # before anything imports Ray
    from orchestrator.pipeline.plan import estimate

    say(f"training an epoch on {spec.data.name} in every place of a node at once …")
    document = estimate(spec, settings)
    if json:
        common.emit(document)
    else:
        _print_plan(document)


def train(
    file: SweepFile,
    seed: Annotated[int, typer.Option(min=0, help="Seed of this trial.")] = 0,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Also score the model on the test split, at the end.")
    ] = False,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="CPU threads, by default all; a sweep's trial has resources.cpu."),
    ] = None,
    set_: Overrides = [],  # noqa: B006
    smoke: Smoke = False,
    json: AsJson = False,
) -> None:
    """Train the file's own configuration in this process, without Ray and MLflow.

    Use it to debug. With --json it prints JSON lines: start, one per epoch, end.
    """
    from orchestrator.execution.cluster import usable_cpus
    from orchestrator.pipeline import local

    spec = _load(file, set_, smoke)
    settings = common.writable()
    events = local.train(spec, seed, settings, threads or usable_cpus(), evaluate=evaluate)
    for event in events:
        if event["event"] == "start":
            common.say_notes(event["notes"])
        if json:
            common.emit(event)
        else:
            _print_event(event)


def _load(file: Path, overrides: list[str], small: bool) -> "SweepSpec":
    from orchestrator.sweepfile.loader import load_sweep

    spec = load_sweep(file, overrides)
    common.say_notes(spec.notes)
    if not small:
        return spec
    from orchestrator.sweepfile import smoke

    say(f"note: {smoke.NOTE}")
    return smoke.smoke(spec, common.writable())


def stored(sweep: str) -> "SweepSpec":
    """Return the sweep as it last ran. Raises UsageError if another version began the sweep."""
    from json import dumps

    from orchestrator.sweepfile.spec import SweepSpec

    spec = SweepSpec.model_validate_json(dumps(common.reader().spec(sweep)))
    if spec.sweep_id != sweep:
        raise UsageError(
            f"{sweep} was started by another version of aae-sweep; resume it with that version"
        )
    return spec


def _wanted(file: Path, overrides: list[str], small: bool) -> tuple["SweepSpec", str, str]:
    """Return the sweep to run, its text and the command that resumes it.

    `file` is a sweep file, or a sweep's name. A named sweep runs as it last ran, or from the
    shipped file of that name.
    """
    from orchestrator.sweepfile.loader import sweep_text
    from orchestrator.sweepfile.shipped import shipped

    name = str(file)
    is_shipped = name in shipped() and (overrides or small or not common.reader().knows(name))
    if file.is_file() or is_shipped or not re.fullmatch(r"[a-z0-9_-]+", name):
        spec = as_extended(_load(file, overrides, small), common.reader())
        options = [*(f"--set={o}" for o in overrides), *(["--smoke"] if small else [])]
        resume = shlex.join(["aae-sweep", "run", str(file), *options])
        return spec, sweep_text(file), resume
    if overrides or small:
        raise UsageError(f"--set and --smoke need a sweep file; {file} is not one")
    reader = common.reader()
    sweep = reader.resolve(name)
    spec = as_extended(stored(sweep), reader)
    return spec, reader.spec_text(sweep), f"aae-sweep run {sweep}"


def as_extended(spec: "SweepSpec", reader: "ResultsReader") -> "SweepSpec":
    """Return the sweep with the larger limits of the file and of `aae-sweep extend`."""
    from orchestrator.study.study import StageStudy, open_storage

    if spec.sweep_id not in reader.sweeps():
        return spec
    search = StageStudy.read(open_storage(reader.settings), spec.sweep_id, "search")
    assert search is not None
    extended = spec.extended(**search.state.extended)
    if extended != spec and extended.search:
        say(f"note: {spec.sweep_id} keeps its extended limits: {extended.search.span}")
    return extended


def _leave_running(spec: "SweepSpec", resume: str, json: bool) -> None:
    """Start the driver in its own session, and wait until it holds the sweep's lock."""
    from orchestrator.study.lock import held, is_held

    if compose := on_host.compose():
        raise UsageError(
            "the container ends with this command, and a driver in the background with it\n"
            f"start it with: {compose} run -d sweep {resume.removeprefix('aae-sweep ')}"
        )
    settings, sweep = common.writable(), spec.sweep_id
    with held(settings, sweep):  # raises SweepLocked if another driver holds it
        log = settings.driver_log(sweep)
    words = shlex.split(resume)[1:]
    with log.open("ab") as out:
        began = out.tell()
        driver = subprocess.Popen(
            [*_DRIVER, *words],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    while driver.poll() is None and not is_held(settings, sweep):
        time.sleep(0.2)
    if driver.returncode not in (None, 0, 3):  # the log has the error
        say(log.read_bytes()[began:].decode(errors="replace").strip())
        raise typer.Exit(driver.returncode)
    if json:
        common.emit({"sweep": sweep, "pid": driver.pid, "log": str(log)})
        return
    common.tell(
        f"{sweep} runs in the background as process {driver.pid}\n"
        f"  log     {log}\n"
        f"  watch   aae-sweep logs {sweep} -f  (or: aae-sweep status {sweep})\n"
        f"  stop    aae-sweep stop {sweep}"
    )


def carry_out(spec: "SweepSpec", text: str, resume: str, priority: int | None = None) -> None:
    """Run a sweep to its end in this process, and obey signals; `resume` is the command to resume.

    `priority` is the sweep's in the queue; None: the sweep is not queued.

    Raises what `orchestrator.pipeline.stages.run` raises, and KeyboardInterrupt at a last signal.
    """
    from orchestrator.execution import cluster

    settings = common.writable()
    cluster.prepare(settings)  # before anything imports Ray
    cluster.require_answer(settings)
    from orchestrator.cli.panel import watching
    from orchestrator.cli.report import build_report
    from orchestrator.pipeline import stages
    from orchestrator.pipeline.context import Request

    request = Request(spec, text, resume, priority)
    with watching(spec) as observer, _draining(lambda: observer.standing.under_way) as draining:
        stages.run(request, settings, observer, draining, lambda sweep: build_report([sweep], None))


@contextmanager
def _draining(under_way: Callable[[], str | None]) -> Iterator[threading.Event]:
    """Yield an event that the first SIGINT or SIGTERM sets. The second exits at once.

    The first signal also exits at once while a drain would have nothing to finish.
    """
    draining, handled = threading.Event(), threading.Event()

    def is_last() -> bool:
        return draining.is_set() or under_way() is None

    def stop(signum: int, frame: FrameType | None) -> None:
        handled.set()
        last = is_last()
        draining.set()  # even before the last exit, since foreign code may drop the exception
        if last:
            raise KeyboardInterrupt
        message = f"\nfinishing {under_way()}; press Ctrl-C again to exit at once"
        # in a thread, since the signal may interrupt a write to the same stream
        threading.Thread(target=say, args=(message,)).start()

    before = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        with _leaving_native_code(handled, is_last):
            yield draining
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _leaving_native_code(handled: threading.Event, is_last: Callable[[], bool]) -> Iterator[None]:
    """End the process if the main thread does not handle a last signal in time.

    Python runs a signal's handler in the main thread, once that thread leaves native code. Python
    also writes each signal's number to a socket, at once.
    """
    received, sent = socket.socketpair()
    sent.setblocking(False)
    before = signal.set_wakeup_fd(sent.fileno(), warn_on_full_buffer=False)

    def watch() -> None:
        while numbers := received.recv(64):
            if not {signal.SIGINT, signal.SIGTERM} & set(numbers):
                continue
            if not handled.wait(_NATIVE_SECONDS) and is_last():
                say("interrupted")
                os._exit(130)
            handled.clear()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        sent.close()
        watcher.join()
        received.close()


def _summarise(status: "Status", best: "Best | None", evaluation: "Evaluation | None") -> None:
    from orchestrator.tracking.mlflow_writer import ui_url

    counts = ", ".join(f"{n} {state}" for state, n in status["trials"].items() if n)
    took = duration(status["elapsed_seconds"])
    lines = [f"{status['id']}: {status['stage']} after {took} ({counts})"]
    if best is not None:
        lines += _winner(status, best, evaluation)
    lines += [
        f"  report  {common.report_of(status)}",
        f"  MLflow  aae-sweep ui  ({ui_url(common.settings())})",
        f"  again   {status['resume']}",
    ]
    common.tell("\n".join(lines))


def _winner(status: "Status", best: "Best", evaluation: "Evaluation | None") -> list[str]:
    from orchestrator.results import verdicts

    params = ", ".join(common.setting(*item) for item in best["params"].items())
    lines = [f"  winner  {params or 'the configuration of the file'}"]
    objective = status["objective"]["metric"]
    shown = [objective, objective.replace("val/", "test/", 1), "test/recon"]
    for metric in dict.fromkeys(name for name in shown if name in best["metrics"]):
        figures = best["metrics"][metric]
        seeds = len(figures["values"])
        error = f"(over {seeds} seeds)" if seeds > 1 else "(one seed, no error)"
        lines.append(f"          {metric} {number(figures['mean'], figures['se'])} {error}")
    models = evaluation["models"] if evaluation else []
    scored = [model for model in models if "log_likelihood" in model]
    for model in scored[:1]:
        lines.append(
            f"          Parzen with {model['n_samples']:,} samples: "
            f"{number(model['log_likelihood'], model['standard_error'])} nats "
            f"(over {model['n_test']:,} test images)"
        )
    words = [common.rivals(best), verdicts.gain_in_words(best)]
    return lines + [f"          {line}" for line in words if line]


def _print_plan(plan: dict[str, Any]) -> None:
    stages = plan["stages"]
    print(
        f"{plan['sweep']} on {plan['where']}\n"
        f"{plan['trials']} trials to search, {plan['confirmations']} to confirm; "
        f"{plan['epoch_seconds']:.2f} s per epoch, {plan['parallel']} trials at once\n"
    )
    common.table(
        ("stage", "trials", "epochs", "time", "trials at most", "epochs at most", "time at most"),
        (
            (
                name,
                *(_whole(stage.get(f"{unit}_expected")) for unit in ("trials", "epochs")),
                duration(stage["seconds_expected"]),
                *(_whole(stage.get(unit)) for unit in ("trials", "epochs")),
                duration(stage["seconds"]),
            )
            for name, stage in stages.items()
        ),
    )
    total = sum(stage["seconds_expected"] for stage in stages.values())
    price = ""
    if plan["cost"]:
        expected, most = (money(**plan[name]) for name in ("cost_expected", "cost"))
        price = f"; training costs about {expected}, at most {most}"
    common.tell(
        f"\nabout {duration(total)} in all{price}\n"
        f"{plan['checkpoint_bytes'] / 1e6:.1f} MB per checkpoint: about "
        f"{plan['disk_bytes_expected'] / 1e6:,.0f} MB on disk, at most "
        f"{plan['disk_bytes'] / 1e6:,.0f} MB; {plan['disk_bytes_after_gc'] / 1e6:,.0f} MB after "
        "aae-sweep gc"
    )
    for note in plan["notes"]:
        common.prose(f"note: {note}")


def _whole(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _print_event(event: "TrainEvent") -> None:
    match event["event"]:
        case "start":
            labelled = event["labelled_indices"]
            labels = "" if labelled is None else f", {len(labelled):,} labelled images"
            threads = count(event["threads"], "thread")
            print(f"seed {event['seed']} on {event['device']}, {threads}{labels}")
        case "epoch":
            shown = "  ".join(f"{k} {v:.4g}" for k, v in event["metrics"].items())
            rate = event["samples_per_second"]
            print(f"epoch {event['epoch']}  {shown}  {rate:,.0f} samples/s", flush=True)
        case "end":
            tests = {k: v for k, v in event["metrics"].items() if k.startswith("test/")}
            shown = "".join(f"\n{name} {number(value)}" for name, value in tests.items())
            print(f"{event['state']}{shown}\n{event['checkpoint'] or 'no checkpoint'}")
