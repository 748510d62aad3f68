"""A sweep's results as plain files."""

import csv
import json
import shutil
from pathlib import Path

from orchestrator.history import History, as_document


def export(reader: History, sweep: str, folder: Path) -> list[str]:
    """Write `folder`: best.json, trials.csv, sweep.json, evaluation.json and the winner's
    checkpoint, as far as they exist; returns the names."""
    folder.mkdir(parents=True)
    documents = {
        "best.json": reader.best(sweep),
        "sweep.json": reader.spec(sweep),
        "evaluation.json": reader.evaluation(sweep),
    }
    for name, document in documents.items():
        if document is not None:
            (folder / name).write_text(json.dumps(document, indent=2))
    _write_trials(reader, sweep, folder / "trials.csv")
    best = documents["best.json"]
    if best and best["checkpoints"][0]:
        shutil.copytree(best["checkpoints"][0], folder / "checkpoint")
    return sorted(path.name for path in folder.iterdir())


def _write_trials(reader: History, sweep: str, path: Path) -> None:
    """One row per trial, a column per parameter and metric."""
    rows = []
    for record in reader.trials(sweep):
        document = as_document(record)
        rows.append(document | document.pop("params") | document.pop("metrics"))
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [c for c in columns if c not in ("params", "metrics")])
        writer.writeheader()
        writer.writerows(
            {k: v for k, v in row.items() if k not in ("params", "metrics")} for row in rows
        )
