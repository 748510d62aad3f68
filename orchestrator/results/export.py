"""A sweep's results as plain files.

`sweep.json` is the resolved sweep file, `best.json` the winner with its metrics by seed,
`trials.csv` a row per trial, `curves.csv` a row per epoch of every confirmed trial,
`evaluation.json` the test figures with their controls, `record.json` how the sweep was run:
command, versions, machine, hours and interruptions.
"""

import csv
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.records import RunRecord, Stage
from orchestrator.results.reader import ResultsReader, as_row

_PLACES = ("checkpoint", "checkpoints", "node", "run_id", "run_ids")  # meaningless elsewhere
_PACKAGE = "aae.version."  # prefix of the tags that name versions


def export(
    reader: ResultsReader, sweep: str, folder: Path, *, figures_only: bool = False
) -> list[str]:
    """Write the new folder `folder`, and return the names of its files.

    `figures_only` leaves out the winner's checkpoint and every path, host and run id.  The export
    is then small and means the same on any machine.
    """
    folder.mkdir(parents=True)
    records = reader.trials(sweep)
    best = reader.best(sweep)
    documents = {
        "best.json": best,
        "sweep.json": reader.spec(sweep),
        "evaluation.json": reader.evaluation(sweep),
        "record.json": _record(reader, sweep, records),
    }
    for name, document in documents.items():
        if document is not None:
            kept = _without_places(document) if figures_only else document
            (folder / name).write_text(json.dumps(kept, indent=1) + "\n")
    trials = [as_row(record) for record in records]
    _write_table(folder / "trials.csv", map(_without_places, trials) if figures_only else trials)
    confirmed = [record for record in records if record.stage == "confirm"]
    _write_table(
        folder / "curves.csv",
        ({"trial": r.number, **row} for r in confirmed for row in reader.curve(sweep, r)),
    )
    if best and best["checkpoints"][0] and not figures_only:
        shutil.copytree(best["checkpoints"][0], folder / "checkpoint")
    return sorted(path.name for path in folder.iterdir())


def _record(reader: ResultsReader, sweep: str, records: list[RunRecord]) -> dict[str, Any]:
    """Describe how the sweep was run: command, machine, duration and number of resumptions."""
    status = reader.status(sweep)
    tags = [reader.tags(sweep, record) for record in records]
    stages: tuple[Stage, ...] = ("search", "confirm")
    packages = {name for tag in tags for name in tag if name.startswith(_PACKAGE)}
    return {
        "sweep": sweep,
        "command": status["resume"],
        "state": status["state"],
        "objective": status["objective"],
        "data_sha256": reader.data_sha256(sweep),
        "machine": _values(tags, "aae.cpu"),
        "device": _values(tags, "aae.device"),
        "threads": _values(tags, "aae.threads"),
        "code": _values(tags, "aae.code"),
        "versions": {name.removeprefix(_PACKAGE): _values(tags, name) for name in sorted(packages)},
        "elapsed_hours": status["elapsed_seconds"] / 3600,  # over all drivers
        "stages": {stage: _stage([r for r in records if r.stage == stage]) for stage in stages},
        "drivers": reader.state(sweep).drivers,  # 1 if nothing interrupted the sweep
    }


def _stage(records: list[RunRecord]) -> dict[str, Any]:
    computed = sum(record.epochs_computed for record in records)
    return {
        "trials": len(records),
        "epochs": sum(record.epochs for record in records),
        "epochs_repeated": computed - sum(record.epochs for record in records),
        "resumed": sum(len(record.resumed_from) for record in records),
        "train_hours": sum(record.train_seconds for record in records) / 3600,
    }


def _values(tags: Iterable[Mapping[str, str]], name: str) -> list[str]:
    return sorted({tag[name] for tag in tags if name in tag})


def _without_places(document: Any) -> Any:
    if isinstance(document, dict):
        return {k: _without_places(v) for k, v in document.items() if k not in _PLACES}
    return [_without_places(v) for v in document] if isinstance(document, list) else document


def _write_table(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    rows = list(rows)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
