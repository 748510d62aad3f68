"""Published tables with the figures of one sweep or several below, and what differs in protocol."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from statistics import fmean

import pandas as pd

from aae_core.metrics import METRICS
from dashboards.paper import PublishedTable
from dashboards.tables import group_scores, number, records, samples_label
from orchestrator.records import RunRecord
from orchestrator.results import ranking
from orchestrator.results.ranking import Candidate

TEST_SAMPLES = 10_000  # for test/parzen_ll and the paper's smaller column
OURS, TOGETHER = "this sweep", "ours"
TIE = " †"
_EXTRA = (
    "About 89 % of the training labels are of images from SVHN's extra file, which are easier than "
    "those of the train file; the paper does not state which file its labels come from."
)


@dataclass(frozen=True, eq=False)
class Ours:
    """The parts of a sweep that are compared with a table."""

    methods: Mapping[str, str]  # group -> the paper's name for its best candidate
    data: str
    labels: int | None  # training labels seen; None: all
    confirmed: pd.DataFrame
    scores: pd.DataFrame
    extra: bool = False  # also trained on SVHN's extra file
    sweep: str = ""  # its id


@dataclass(frozen=True)
class Cell:
    text: str
    values: tuple[float, ...] = ()  # one per seed; empty for a figure of a single model


def beside(table: PublishedTable, *sweeps: Ours) -> pd.DataFrame:
    """Return methods in rows, published ones first. Cells are text, or None without a figure.

    Sweeps with one method share a row unless both have a figure in the same column. A sweep's cell
    that ties with the best sweep in its column has the mark TIE.
    """
    published = {
        method: dict(zip((c.label for c in table.columns), cells, strict=True))
        for method, cells in table.rows.items()
    }
    rows = _our_rows(table, sweeps)
    tied = _ties(table, rows) if len(sweeps) > 1 else set()
    added = {
        method: {
            column: cell.text + (TIE if (method, column) in tied else "")
            for column, cell in cells.items()
        }
        for method, cells in rows.items()
    }
    frame = pd.DataFrame.from_dict(published | added, orient="index", dtype=object)
    return frame.astype(object).where(frame.notna(), None).rename_axis("method").reset_index()


def _our_rows(table: PublishedTable, sweeps: Sequence[Ours]) -> dict[str, dict[str, Cell]]:
    rows: dict[str, dict[str, Cell]] = {}
    for ours in sweeps:
        for group, cells in _our_cells(table, ours).items():
            method = ours.methods[group]
            name = f"{method} ({OURS if len(sweeps) == 1 else TOGETHER})"
            if rows.get(name, {}).keys() & cells.keys():
                name = f"{method} ({ours.sweep})"
            rows.setdefault(name, {}).update(cells)
    return rows


def _ties(table: PublishedTable, rows: dict[str, dict[str, Cell]]) -> set[tuple[str, str]]:
    """Return (method, column) of the cells that tie with the best one of ours in their column."""
    metric = f"test/{table.metric}"
    sign = -1 if METRICS[metric].direction == "maximize" else 1
    found: set[tuple[str, str]] = set()
    for column in {column for cells in rows.values() for column in cells}:
        seeds = count()  # all different: seeds of several sweeps make no pairs
        candidates = [
            Candidate(method, {}, tuple(_run(metric, next(seeds), v) for v in cells[column].values))
            for method, cells in rows.items()
            if column in cells and len(cells[column].values) > 1
        ]
        ranked = sorted(candidates, key=lambda c: sign * fmean(c.values(metric).values()))
        found |= {(c.config_hash, column) for c in ranking.tied_with_best(ranked, metric)}
    return found


def _run(metric: str, seed: int, value: float) -> RunRecord:
    return RunRecord(0, "confirm", "complete", seed, "", {}, metrics={metric: value})


def all_differences(table: PublishedTable, sweeps: Iterable[Ours]) -> list[str]:
    """Return the differences in protocol of any of the sweeps, each once."""
    return list(dict.fromkeys(line for ours in sweeps for line in differences(table, ours)))


def differences(table: PublishedTable, ours: Ours) -> list[str]:
    """Return the differences in protocol that limit the comparison."""
    lines = list(table.differences)
    if not table.is_of(ours.data):
        lines.insert(
            0,
            f"The data: the paper has no figure for {ours.data}, and figures of different data "
            "sets are not comparable. The paper's figures only show what a full run is compared "
            "with.",
        )
    if ours.extra:
        lines.append(_EXTRA)
    seeds = max(ours.confirmed["values"].map(len), default=0)
    if seeds > 1:
        lines.append(f"Our ± is the standard error over {seeds} training seeds.")
    if table.metric == "parzen_ll":
        lines += _parzen_differences(table, ours.scores)
    if table.metric == "cluster_error":
        lines += [
            f"The paper has no figure for {method}; error falls as the number of clusters grows."
            for method in ours.methods.values()
            if not method.startswith(tuple(table.rows))
        ]
    return lines


def _our_cells(table: PublishedTable, ours: Ours) -> dict[str, dict[str, Cell]]:
    """Return group -> column -> figure.

    A figure is over all confirmed seeds if they are tested, else over the scored models.
    """
    tested = ours.confirmed[ours.confirmed["metric"] == f"test/{table.metric}"]
    cells: dict[str, dict[str, Cell]] = {}
    for row in records(tested):  # the first row of a group is its best
        if row["group"] in ours.methods:
            cell = Cell(number(row["mean"], row["se"]), tuple(row["values"]))
            figure = {_column(table, ours): cell}
            cells.setdefault(row["group"], figure)
    if table.metric == "parzen_ll":
        labels = _labels(table, ours, "samples")
        for (group, samples), (mean, error) in group_scores(ours.scores).items():
            wanted = samples in labels or samples == ours.scores["n_samples"].max()
            if wanted and group in ours.methods:
                label = labels.get(samples) or _own(table, ours, samples_label(samples))
                cells.setdefault(group, {}).setdefault(label, Cell(number(mean, error)))
    return cells


def _column(table: PublishedTable, ours: Ours) -> str:
    """Return the column for our figures of the test split."""
    match table.across:
        case "samples":
            size = samples_label(TEST_SAMPLES)
            return _labels(table, ours, "samples").get(TEST_SAMPLES, _own(table, ours, size))
        case "labels":
            count = "all" if ours.labels is None else f"{ours.labels:,}"
            own = _own(table, ours, f"{count} labels")
            return _labels(table, ours, "labels").get(ours.labels, own)
        case None:
            return table.columns[0].label if table.is_of(ours.data) else ours.data


def _labels(table: PublishedTable, ours: Ours, across: str) -> dict[int | None, str]:
    """Return the published columns that can hold our figures."""
    if not table.is_of(ours.data):
        return {}
    return {getattr(column, across): column.label for column in table.columns}


def _own(table: PublishedTable, ours: Ours, what: str) -> str:
    """Return the name of a column with our figures only."""
    return f"ours, {what}" if table.is_of(ours.data) else f"{ours.data}, {what}"


def _parzen_differences(table: PublishedTable, scores: pd.DataFrame) -> list[str]:
    if scores.empty:
        return ["The winners are not scored with more samples yet; use `aae-sweep evaluate`."]
    lines = [
        "Scored models: σ is refined in eighths of a grid step. The table of scored models also "
        "has the figure on the strict grid of the published protocol."
    ]
    largest = int(scores["n_samples"].max())
    if not scores[scores["n_samples"] == largest].duplicated("group").any():
        lines.append(
            f"At {samples_label(largest)} each group has one model, so no error over seeds."
        )
    wanted = max(column.samples or 0 for column in table.columns)
    if largest < wanted:
        lines.append(
            f"Ours stops at {samples_label(largest)} samples; the figure grows with their number, "
            f"so it is not comparable with the paper's {samples_label(wanted)}."
        )
    return lines
