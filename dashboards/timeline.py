"""Timeline: when and on which worker each trial ran, and where attempts were lost."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from dashboards.style import GREY, safe, styled
from dashboards.tables import records
from orchestrator.text import duration

STATES = {  # state -> colour, pattern; important states differ in both
    "complete": ("#009E73", ""),
    "pruned": (GREY, ""),
    "diverged": ("#E69F00", "/"),
    "failed": ("#D55E00", "x"),
    "stopped": ("#CC79A7", "."),
    "running": ("#56B4E9", ""),
}
FAULT = "lost, then resumed"
MOST_LABELS = 24  # workers whose lanes are labelled


def timeline_figure(trials: pd.DataFrame) -> go.Figure:
    """Draw a bar per started trial, from start to end, in the lane of its worker.

    The bar of a running trial ends at the last known time.
    """
    figure = go.Figure()
    timed, names = in_lanes(trials)
    for state, (colour, pattern) in STATES.items():
        rows = timed[timed["state"] == state]
        if rows.empty:
            continue
        figure.add_bar(
            base=_moments(rows["started"]),
            x=(1000 * (rows["ended"] - rows["started"]).dt.total_seconds()).to_numpy(),  # ms
            y=rows["lane"].to_numpy(),
            orientation="h",
            width=0.8,
            marker={"color": colour, "line": {"width": 0}, "pattern": {"shape": pattern}},
            name=state,
            customdata=[_hover_text(row) for row in records(rows)],
            hovertemplate="%{customdata}<extra>%{fullData.name}</extra>",
        )
    _mark(figure, faults(timed))
    labelled = [i for i, name in enumerate(names) if name not in names[:i]]
    return styled(figure, min(680, 170 + 30 * len(names))).update_layout(
        barmode="overlay",
        showlegend=True,
        xaxis={"type": "date", "title": {"text": "UTC"}},
        yaxis={
            "autorange": "reversed",
            "showgrid": False,
            "tickvals": labelled[:MOST_LABELS],
            "ticktext": [safe(names[i]) for i in labelled[:MOST_LABELS]],
        },
    )


def in_lanes(trials: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return the started trials with `ended` and `lane`, and the node of each lane.

    A node has as many lanes as its largest number of simultaneous trials.
    """
    started = trials[trials["started"].notna()].sort_values("started")
    ended = started["started"] + pd.to_timedelta(started["seconds"], unit="s")
    now = pd.concat([started["started"], ended]).max()
    started = started.assign(ended=ended.where(ended.notna(), now))
    names: list[str] = []
    placed = [started.assign(lane=0)[:0]]
    for node, rows in started.groupby("node"):
        taken = lanes(rows["started"].tolist(), rows["ended"].tolist())
        placed.append(rows.assign(lane=[len(names) + lane for lane in taken]))
        names += [str(node)] * (max(taken) + 1)
    return pd.concat(placed), names


def lanes(starts: Sequence[Any], ends: Sequence[Any]) -> list[int]:
    """Return the first free lane for each interval. Intervals are sorted by start."""
    free: list[Any] = []  # time from which each lane is free
    taken = []
    for start, end in zip(starts, ends, strict=True):
        lane = next((i for i, since in enumerate(free) if since <= start), len(free))
        free[lane : lane + 1] = [end]
        taken.append(lane)
    return taken


def faults(timed: pd.DataFrame) -> pd.DataFrame:
    """Return a row per lost attempt: where in the bar the next attempt resumed, by epoch."""
    found: dict[str, list[Any]] = defaultdict(list)
    for row in records(timed[timed["attempts"] > 1]):
        for i in range(row["attempts"] - 1):
            epoch = row["resumed_from"][i] if i < len(row["resumed_from"]) else 0
            share = min(epoch / max(row["epochs"], 1), 1.0)
            found["moment"].append(row["started"] + share * (row["ended"] - row["started"]))
            found["lane"].append(row["lane"])
            found["text"].append(
                f"{row['stage']} {row['number']}: attempt {i + 2} from epoch {epoch}"
                + (f"<br>{safe(row['lost'][str(i + 1)])}" if str(i + 1) in row["lost"] else "")
            )
    return pd.DataFrame(found, columns=["moment", "lane", "text"])


def _mark(figure: go.Figure, found: pd.DataFrame) -> None:
    if found.empty:
        return
    figure.add_scatter(
        x=_moments(found["moment"]),
        y=found["lane"].to_numpy(),
        mode="markers",
        marker={
            "symbol": "x",
            "size": 11,
            "color": "#D55E00",
            "line": {"width": 1.5, "color": "#ffffff"},
        },
        name=FAULT,
        customdata=found["text"].tolist(),
        hovertemplate="%{customdata}<extra>%{fullData.name}</extra>",
    )


def _hover_text(row: dict[str, Any]) -> str:
    attempts = f", {row['attempts']} attempts" if row["attempts"] > 1 else ""
    seconds = (row["ended"] - row["started"]).total_seconds()
    return safe(f"{row['stage']} {row['number']}, {duration(seconds)}{attempts}")


def _moments(times: pd.Series) -> list[str]:
    return [time.strftime("%Y-%m-%d %H:%M:%S.%f") for time in times]
