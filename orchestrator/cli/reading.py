"""status, ls, show, best, export, report: they look, and write nothing of a sweep's."""

import json as json_module
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli import common
from orchestrator.cli.common import AsJson, SweepName, number, say
from orchestrator.errors import UsageError


def status(sweep: SweepName = "latest", json: AsJson = False) -> None:
    """Say how far a sweep is, and what leads it."""
    reader = common.history()
    document = reader.status(reader.resolve(sweep))
    if json:
        common.emit(document)
        return
    counts = ", ".join(f"{n} {state}" for state, n in document["trials"].items() if n)
    best = document["best"]
    leader = f"{best['metric']} {number(best['value'], best['se'])}" if best else "none yet"
    print(
        f"{document['id']}  {document['state']}, stage {document['stage']}\n"
        f"  trials   {counts or 'none yet'}\n"
        f"  best     {leader}\n"
        f"  time     {common.duration(document['elapsed_seconds'])}, "
        f"left {common.duration(document['eta_seconds'])}\n"
        f"  report   {document['report'] or f'aae-sweep report {sweep}'}\n"
        f"  carry on {document['resume']}"
    )


def ls(json: AsJson = False) -> None:
    """List the sweeps, oldest first."""
    reader = common.history()
    documents = [reader.status(sweep) for sweep in reader.sweeps()]
    if json:
        keys = ("sweep", "id", "stage", "state", "trials", "best", "elapsed_seconds")
        common.emit([{key: document[key] for key in keys} for document in documents])
        return
    common.table(
        ("sweep", "state", "stage", "done", "best", "value", "time"),
        (
            (
                d["id"],
                d["state"],
                d["stage"],
                sum(n for state, n in d["trials"].items() if state not in ("running", "waiting")),
                (d["best"] or {}).get("metric"),
                (d["best"] or {}).get("value"),
                common.duration(d["elapsed_seconds"]),
            )
            for d in documents
        ),
    )


def show(
    sweep: SweepName = "latest",
    trial: Annotated[
        str | None, typer.Argument(help="One trial: 7 of the search, or confirm-7.")
    ] = None,
    json: AsJson = False,
) -> None:
    """List a sweep's trials, or one with its learning curve."""
    from orchestrator.history import as_document, finite

    reader = common.history()
    name = reader.resolve(sweep)
    records = reader.trials(name)
    if trial is not None:
        record = _pick(records, trial)
        history: list[Any] = [finite(row) for row in reader.curve(name, record)]
        if json:
            common.emit({"sweep": name, **as_document(record), "history": history})
        else:
            print(json_module.dumps(as_document(record), indent=2, default=str))
            columns = sorted({key for row in history for key in row} - {"epoch"})
            common.table(("epoch", *columns), ((r["epoch"], *map(r.get, columns)) for r in history))
        return
    if json:
        common.emit({"sweep": name, "trials": [as_document(r) for r in records]})
        return
    metric = reader.objective(name)["metric"]
    params = sorted({path for r in records for path in r.params})
    common.table(
        ("trial", "state", "epochs", metric, *(p.split(".", 1)[-1] for p in params), "reason"),
        (
            (
                f"{r.stage}-{r.number}",
                r.state,
                r.epochs,
                r.metrics.get(metric),
                *(r.params.get(p) for p in params),
                r.reason,
            )
            for r in records
        ),
    )


def best(sweep: SweepName = "latest", json: AsJson = False) -> None:
    """Show the winner with its error, and what it cannot be told apart from."""
    reader = common.history()
    name = reader.resolve(sweep)
    document = reader.best(name)
    if document is None:
        raise UsageError(f"{name} has no finished trial yet; see: aae-sweep status {name}")
    if json:
        common.emit(document)
        return
    if not document["confirmed"]:
        say("not confirmed yet: one seed, no error")
    metrics = sorted(m for m in document["metrics"] if m.startswith(("val/", "test/")))
    groups = document["groups"]
    common.table(
        ("", *(str(group["value"] or group["config_hash"]) for group in groups)),
        [
            (metric, *(_figure(group["metrics"].get(metric)) for group in groups))
            for metric in metrics
        ],
    )
    print(json_module.dumps(document["params"], indent=2))


def export(
    sweep: SweepName = "latest",
    out: Annotated[Path, typer.Option("--out", help="A new folder.")] = Path("export"),
    json: AsJson = False,
) -> None:
    """Write a sweep's results to a folder: winner, trials, checkpoint, report."""
    from orchestrator.exporting import export as write

    reader = common.history()
    name = reader.resolve(sweep)
    if out.exists():
        raise UsageError(f"{out} exists; name a new folder with --out")
    files = write(reader, name, out)
    shutil.copy(_build([name], None), out / "report.html")
    if json:
        common.emit({"sweep": name, "folder": str(out.resolve()), "files": files})
    else:
        print(out.resolve())


def report(
    sweeps: Annotated[list[str], typer.Argument(help="One sweep or several.")] = ["latest"],  # noqa: B006
    out: Annotated[Path | None, typer.Option("--out", help="The HTML file.")] = None,
    json: AsJson = False,
) -> None:
    """Build one self-contained HTML page about one sweep or several."""
    reader = common.history()
    path = _build([reader.resolve(sweep) for sweep in sweeps], out)
    if json:
        common.emit({"report": str(path)})
    else:
        print(path)


COMMANDS = (status, ls, show, best, export, report)


def _build(names: list[str], out: Path | None) -> Path:
    from orchestrator.cli.report import build_report

    return build_report(names, out)


def _figure(figures: dict[str, Any] | None) -> str:
    return number(figures["mean"], figures["se"]) if figures else ""


def _pick(records: list[Any], wanted: str) -> Any:
    stage, _, digits = wanted.rpartition("-")
    for record in records:
        if digits == str(record.number) and (stage or "search") == record.stage:
            return record
    raise UsageError(f"no trial `{wanted}`; give a number of the search, or confirm-<number>")
