"""A published table with this sweep's figures below it, and what differs between the two."""

import pandas as pd

from dashboards.paper import PublishedTable
from dashboards.tables import group_scores, plus_minus, records, samples_label

TEST_SAMPLES = 10_000  # behind test/parzen_ll, and the paper's smaller column
OURS = "this sweep"


def beside(table: PublishedTable, confirmed: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Methods in rows, the published ones first, cells as text; None where there is no figure."""
    published = {
        method: dict(zip((c.label for c in table.columns), cells, strict=True))
        for method, cells in table.rows.items()
    }
    ours = {
        f"AAE, {group} ({OURS})" if group else f"AAE ({OURS})": cells
        for group, cells in _our_cells(table, confirmed, scores).items()
    }
    frame = pd.DataFrame.from_dict(published | ours, orient="index", dtype=object)
    return frame.astype(object).where(frame.notna(), None).rename_axis("method").reset_index()


def differences(table: PublishedTable, confirmed: pd.DataFrame, scores: pd.DataFrame) -> list[str]:
    """What a reader must know before setting one figure against the other."""
    told = list(table.differences)
    seeds = max(confirmed["values"].map(len), default=0)
    if seeds > 1:
        told.append(f"Our ± is the standard error over {seeds} training seeds.")
    if table.metric == "parzen_ll":
        told += _parzen_differences(table, scores)
    return told


def _our_cells(
    table: PublishedTable, confirmed: pd.DataFrame, scores: pd.DataFrame
) -> dict[str, dict[str, str]]:
    """Group -> column -> figure: over every confirmed seed where tested, else the scored models."""
    labels = {column.samples: column.label for column in table.columns}
    tested = confirmed[confirmed["metric"] == f"test/{table.metric}"]
    cells: dict[str, dict[str, str]] = {}
    for row in records(tested):  # the best of a group comes first
        column = labels.get(TEST_SAMPLES, OURS)
        cells.setdefault(row["group"], {column: plus_minus(row["mean"], row["se"])})
    if table.metric == "parzen_ll":
        for (group, samples), (mean, error) in group_scores(scores).items():
            if samples in labels or samples == scores["n_samples"].max():
                label = labels.get(samples) or f"ours at {samples_label(samples)}"
                cells.setdefault(group, {}).setdefault(label, plus_minus(mean, error))
    return cells


def _parzen_differences(table: PublishedTable, scores: pd.DataFrame) -> list[str]:
    if scores.empty:
        return ["The winners are not scored with more samples yet: `aae-sweep evaluate` does."]
    told = [
        "Scored models: σ is refined between the grid's points; the figure on the strict grid, "
        "the published protocol's, stands in the table of scored models."
    ]
    largest = int(scores["n_samples"].max())
    if not scores[scores["n_samples"] == largest].duplicated("group").any():
        told.append(f"At {samples_label(largest)} one model a group: no error over seeds there.")
    wanted = max(column.samples or 0 for column in table.columns)
    if largest < wanted:
        told.append(
            f"Ours stops at {samples_label(largest)} samples; the figure grows with their number, "
            f"so it is not comparable with the paper's {samples_label(wanted)}."
        )
    return told
