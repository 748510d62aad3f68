"""Read-only commands: status, ls, show, best, export, report and dashboard."""

import os
import secrets
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import common, on_host
from orchestrator.cli.common import AsJson, SweepName, say
from orchestrator.errors import UsageError
from orchestrator.text import count, duration, energy, money, number

if TYPE_CHECKING:
    from orchestrator.documents import Best, BestTrial, Compared, QueuedSweep, Status, Summary
    from orchestrator.records import TrialState
    from orchestrator.results.reader import ResultsReader


def status(sweep: SweepName = "latest", json: AsJson = False) -> None:
    """Show a sweep's progress and its best candidate."""
    reader = common.reader()
    document = reader.status(reader.resolve(sweep))
    if json:
        common.emit(document)
        return
    counts = ", ".join(f"{n} {state}" for state, n in document["trials"].items() if n)
    time = duration(document["elapsed_seconds"])
    if document["eta_seconds"]:
        time += f", left about {duration(document['eta_seconds'])}"
    done = document["state"] == "done"
    running = "paused" if document["paused"] else document["state"]
    state = "done" if done else f"{running}, stage {document['stage']}"
    common.tell(
        f"{document['id']}  {state}\n"
        f"  trials    {counts or 'none yet'}\n"
        f"  best      {_best_trial(document['best'])}\n"
        f"  time      {time}\n"
        f"{_consumption(document)}"
        f"  report    {common.report_of(document)}\n"
        f"{_unsent(document['unsynced'])}"
        f"  {'again   ' if done else 'resume  '}  {document['resume']}"
    )


def ls(
    queue: Annotated[
        bool, typer.Option("--queue", help="List the queued sweeps in the order of service.")
    ] = False,
    json: AsJson = False,
) -> None:
    """List the sweeps, oldest first."""
    from orchestrator.results.reader import nothing_yet

    reader = common.reader()
    if queue:
        _list_queue(reader.queue(), json)
        return
    documents = [reader.status(sweep) for sweep in reader.sweeps()]
    if json:
        keys = {"sweep", "id", "stage", "state", "trials", "best", "elapsed_seconds"}
        common.emit([{k: v for k, v in each.items() if k in keys} for each in documents])
        return
    if not documents:
        say(nothing_yet(reader.settings))
        return
    common.table(
        ("sweep", "state", "stage", "trials", "best", "time"),
        (
            (
                d["id"],
                d["state"],
                d["stage"],
                f"{_ended(d['trials'])}/{sum(d['planned'].values())}",
                _best_trial(d["best"]),
                duration(d["elapsed_seconds"]),
            )
            for d in documents
        ),
    )


def _list_queue(places: "list[QueuedSweep]", json: bool) -> None:
    if json:
        common.emit(places)
    elif not places:
        say("no queued sweep runs; queue one with: aae-sweep run FILE -d --queue")
    else:
        common.table(
            ("sweep", "priority", "stage", "places", "since"),
            (
                (
                    place["id"],
                    place["priority"],
                    place["stage"],
                    f"{place['share']} of {place['slots']}" if place["share"] else "waits",
                    place["since"],
                )
                for place in places
            ),
        )


def show(
    sweep: SweepName = "latest",
    trial: Annotated[
        str | None, typer.Argument(help="One trial: 7 of the search, or confirm-7.")
    ] = None,
    json: AsJson = False,
) -> None:
    """List a sweep's trials, or show one trial with its learning curve."""
    from orchestrator.records import BASELINE, conditions, is_baseline
    from orchestrator.results.reader import as_document, finite

    reader = common.reader()
    name = reader.resolve(sweep)
    records = reader.trials(name)
    if trial is not None:
        record = pick(records, trial)
        history: list[Any] = [finite(row) for row in reader.curve(name, record)]
        if json:
            common.emit({"sweep": name, **as_document(record), "history": history})
        else:
            _print_trial(as_document(record), history)
        return
    if json:
        common.emit({"sweep": name, "trials": [as_document(r) for r in records]})
        return
    metric = reader.objective(name)["metric"]
    params = sorted({path for r in records for path in r.params})
    searched = reader.spec(name)["search"] is not None
    common.table(
        ("trial", "state", "epochs", metric, *(p.split(".", 1)[-1] for p in params), "remarks"),
        (
            (
                f"{r.stage}-{r.number}",
                r.state,
                r.epochs,
                r.metrics.get(metric),
                *(r.params.get(p) for p in params),
                "; ".join(
                    filter(
                        None,
                        (
                            BASELINE if is_baseline(r, searched=searched) else "",
                            r.reason,
                            *(f"attempt {n} lost: {cause}" for n, cause in r.lost.items()),
                            *conditions(r.metrics),
                        ),
                    )
                ),
            )
            for r in records
        ),
    )


def best(sweep: SweepName = "latest", json: AsJson = False) -> None:
    """Show the winner with its error, the other candidates, and the gain of the search."""
    from orchestrator.records import BASELINE

    reader = common.reader()
    name = reader.resolve(sweep)
    document = reader.best(name)
    if document is None:
        raise UsageError(f"{name} has no finished trial yet; see: aae-sweep status {name}")
    if json:
        common.emit(document)
        return
    groups = document["groups"]
    columns: list[tuple[str, Compared]] = [
        (str(group["value"] or group["config_hash"]), group) for group in groups
    ]
    control = document["baseline"]
    if control and all(control["config_hash"] != group["config_hash"] for group in groups):
        columns.append((BASELINE, control))
    objective = reader.objective(name)["metric"]
    others = sorted(
        metric
        for metric in document["metrics"]
        if metric.startswith(("val/", "test/")) and metric != objective
    )
    common.table(
        ("", *(title for title, _ in columns)),
        [
            *(
                (metric, *(_figure(group["metrics"].get(metric)) for _, group in columns))
                for metric in (objective, *others)
            ),
            ("seeds", *(len(group["seeds"]) for _, group in columns)),
            *(
                (path, *(group["params"].get(path) for _, group in columns))
                for path in sorted({path for group in groups for path in group["params"]})
            ),
        ],
    )
    print()
    common.prose(_verdict(document))
    common.tell(
        f"checkpoint  {document['checkpoints'][0]}\n"
        f"draw        aae-sweep figures {name} --out figures\n"
        f"sample      aae-sweep sample {name} -n 100 --seed 0 --out samples.npy\n"
        f"register    aae-sweep export {name} --register"
    )


def export(
    sweep: SweepName = "latest",
    out: Annotated[
        Path | None, typer.Option("--out", help="A new folder; export by default.")
    ] = None,
    register: Annotated[
        bool,
        typer.Option(
            "--register", help="Register the winner's model in MLflow; write files only with --out."
        ),
    ] = False,
    name: Annotated[
        str | None, typer.Option("--as", help="The registered model's name, else the sweep's.")
    ] = None,
    figures_only: Annotated[
        bool,
        typer.Option(
            "--figures-only", help="Leave out weights, the report and all paths: a small folder."
        ),
    ] = False,
    json: AsJson = False,
) -> None:
    """Write a sweep's results to a folder, or register the winner in MLflow.

    The folder gets the winner, trials, curves, evaluation, record, checkpoint and report. A
    registered winner loads with mlflow.pyfunc.load_model.
    """
    if name is not None and not register:
        raise UsageError(f"--as {name}: names a registered model; add --register")
    reader = common.reader()
    resolved = reader.resolve(sweep)
    document: dict[str, Any] = {"sweep": resolved}
    if out is not None or not register:
        folder = out or Path("export")
        document |= {
            "folder": str(folder.resolve()),
            "files": _export(reader, resolved, folder, figures_only),
        }
    if register:
        document["model"] = _register(reader, resolved, name)
    if json:
        common.emit(document)
        return
    if "folder" in document:
        print(document["folder"])
    if register:
        print(f"{document['model']['uri']}, {document['model']['alias']} now")


def report(
    sweeps: Annotated[list[str], typer.Argument(help="One sweep or several.")] = ["latest"],  # noqa: B006
    out: Annotated[Path | None, typer.Option("--out", help="The HTML file.")] = None,
    json: AsJson = False,
) -> None:
    """Build one self-contained HTML page about one sweep or several."""
    reader = common.reader()
    path = _build([reader.resolve(sweep) for sweep in sweeps], out)
    if json:
        common.emit({"report": str(path)})
    else:
        print(on_host.file(str(path), reader.settings))


def dashboard(
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on; beyond loopback, pages require the printed token."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes any free port.")
    ] = 8050,
) -> None:
    """Serve live pages of this home's sweeps, refreshed while a sweep runs.

    The token for other machines is AAE_DASHBOARD_TOKEN, or a new one if the variable is not set.
    """
    from dashboards import live
    from orchestrator.results.reader import ResultsReader

    settings = common.settings()
    token = None
    if not live.is_loopback(host):
        token = os.environ.get("AAE_DASHBOARD_TOKEN") or secrets.token_urlsafe(24)
    try:
        server = live.server(live.Pages(lambda: ResultsReader(settings)), host, port, token)
    except OSError as error:
        raise UsageError(f"cannot listen on {host}:{port} ({error}); try another --port") from error
    where = f"http://{host}:{server.server_port}/{f'?token={token}' if token else ''}"
    say(f"sweeps on {where}; Ctrl-C ends it")
    with server:
        server.serve_forever()


COMMANDS = (status, ls, show, best, export, report, dashboard)


def _build(names: list[str], out: Path | None) -> Path:
    from orchestrator.cli.report import build_report

    return build_report(names, out)


def _export(reader: "ResultsReader", sweep: str, folder: Path, figures_only: bool) -> list[str]:
    from aae_core.files import replacing
    from orchestrator.results.export import export

    if folder.exists():
        raise UsageError(f"{folder} exists; name a new folder with --out")
    best = reader.best(sweep)
    common.output(folder, *(Path(path) for path in (best["checkpoints"] if best else []) if path))
    with replacing(folder.resolve(), durable=False) as part:
        files = export(reader, sweep, part, figures_only=figures_only)
        if not figures_only:
            shutil.copy(_build([sweep], None), part / "report.html")
    return files


def _register(reader: "ResultsReader", sweep: str, name: str | None) -> dict[str, Any]:
    from orchestrator.results.model_registry import CHAMPION, register

    return {**asdict(register(reader, sweep, name)), "alias": CHAMPION}


def _consumption(status: "Status") -> str:
    """Return a line for the energy and one for the price of the training, where they are known."""
    joules, cost = status["energy_joules"], status["cost"]
    used = "" if joules is None else f"  energy    {energy(joules)}\n"
    spent = f"{duration(status['train_seconds'])} of training"
    return used + (f"  cost      {money(**cost)}, {spent}\n" if cost else "")


def _unsent(records: int) -> str:
    """Return a line about what MLflow lacks. Only `sync` can say whether MLflow refuses it."""
    if not records:
        return ""
    return f"  MLflow    lacks {count(records, 'record')}; send them with: aae-sweep sync\n"


def _best_trial(best: "BestTrial | None") -> str:
    if best is None:
        return "none yet"
    whose = "confirmed" if best["confirmed"] else f"trial {best['trial']}, one seed"
    return f"{best['metric']} {number(best['value'], best['se'])} ({whose})"


def _ended(trials: "dict[TrialState, int]") -> int:
    return sum(n for state, n in trials.items() if state not in ("running", "waiting"))


def _verdict(best: "Best") -> str:
    if not best["confirmed"]:
        return "Not confirmed yet: one seed, hence no error."
    from orchestrator.results.verdicts import gain_in_words

    found = [
        "The first column is the winner's; ± is the standard error over seeds.",
        *(
            f"{sentence[0].upper()}{sentence[1:]}."
            for sentence in (common.rivals(best), gain_in_words(best))
            if sentence
        ),
    ]
    return "\n".join(found)


def _figure(figures: "Summary | None") -> str:
    return number(figures["mean"], figures["se"]) if figures else ""


def _print_trial(record: dict[str, Any], curve: list[Any]) -> None:
    params, lost = record.pop("params"), record.pop("lost")
    del record["metrics"]  # the last row of the curve has them
    losses = {f"attempt {attempt} lost": cause for attempt, cause in lost.items()}
    facts = {**record, **losses, **params}
    shown = {name: value for name, value in facts.items() if value not in (None, [])}
    width = max(map(len, shown))
    for name, value in shown.items():  # no table, which may break the path of the checkpoint
        print(f"{name:<{width}}  {common.cell(value)}")
    columns = sorted({key for row in curve for key in row} - {"epoch"})
    print()
    common.table(("epoch", *columns), ((row["epoch"], *map(row.get, columns)) for row in curve))


def pick(records: list[Any], wanted: str) -> Any:
    """Return the trial that `3`, `confirm-3` or `confirm-0003` names. Raises UsageError."""
    stage, _, digits = wanted.rpartition("-")
    number = digits.lstrip("0") or digits[-1:]
    for record in records:
        if number == str(record.number) and (stage or "search") == record.stage:
            return record
    raise UsageError(
        f"no trial `{wanted}`; give a number of the search, or confirm-<number>: aae-sweep show"
    )
