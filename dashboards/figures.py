"""Frames to plotly figures. Pure: each function returns a new figure and reads nothing else."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from dashboards.style import GREY, OKABE_ITO, Look, Objective, is_numeric, safe, styled, value_axis
from dashboards.tables import best_so_far, finished, number, records, samples_label

STATE_COLOURS = {
    "complete": "#009E73",
    "pruned": GREY,
    "diverged": "#E69F00",
    "failed": "#D55E00",
    "stopped": "#CC79A7",
    "running": "#56B4E9",
    "waiting": "#B9BEC6",
}
CROWD = 100  # points of one kind that still have room
CONTROLS = {"train_images": "training images", "kmeans": "k-means centroids"}  # as samples


def confirmed_figure(confirmed: pd.DataFrame, style: Mapping[str, Look], x_title: str) -> go.Figure:
    """A row a candidate: the mean with its 95 % interval, every seed as an open marker above."""
    figure = go.Figure()
    for height, row in enumerate(records(confirmed)):
        look, name = style[row["group"]], safe(row["label"])
        figure.add_scatter(
            x=row["values"],
            y=[height - 0.17] * len(row["values"]),
            mode="markers",
            marker={"color": look.colour, "symbol": f"{look.symbol}-open", "size": 8},
            hovertemplate="%{x:.5g}<extra>" + name + ", one seed</extra>",
        )
        figure.add_scatter(
            x=[row["mean"]],
            y=[height + 0.1],
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [row["high"] - row["mean"]],
                "arrayminus": [row["mean"] - row["low"]],
                "thickness": 2.5,
                "width": 0,
            },
            mode="markers",
            marker={"color": look.colour, "symbol": look.symbol, "size": 13},
            hovertemplate="%{x:.5g}<extra>" + name + ", mean</extra>",
        )
    return styled(figure, 96 + 56 * len(confirmed)).update_layout(
        showlegend=False,
        xaxis={"title": {"text": safe(x_title)}},
        yaxis={
            "tickvals": list(range(len(confirmed))),
            "ticktext": [safe(label) for label in confirmed["label"]],
            "range": [len(confirmed) - 0.5, -0.5],
            "showgrid": False,
        },
    )


def history_figure(
    trials: pd.DataFrame, style: Mapping[str, Look], objective: Objective
) -> go.Figure:
    """Value over trial number: finished trials by group, pruned ones small, the best so far."""
    figure = go.Figure()
    pruned = trials[(trials["state"] == "pruned") & trials["value"].notna()]
    complete = finished(trials)
    _points(figure, pruned, "number", "pruned", Look(GREY, "x-thin-open"), size=6, opacity=0.6)
    for group, look in style.items():
        _points(figure, complete[complete["group"] == group], "number", group, look)
    figure.add_scatter(
        x=complete["number"].to_numpy(),
        y=best_so_far(complete["value"], objective.direction).to_numpy(),
        mode="lines",
        line={"shape": "hv", "width": 1.5, "color": GREY},
        name="best so far",
        hoverinfo="skip",
    )
    return styled(figure, 380).update_layout(
        xaxis={"title": {"text": "trial"}}, yaxis=value_axis(complete["value"], objective)
    )


def importance_figure(shares: Mapping[str, float]) -> go.Figure:
    """Bars, the most important parameter on top."""
    figure = go.Figure(
        go.Bar(
            x=list(shares.values()),
            y=[safe(name) for name in shares],
            orientation="h",
            marker={"color": OKABE_ITO[0]},
            text=[f"{share:.0%}" for share in shares.values()],
            textposition="outside",
            cliponaxis=False,
            hoverinfo="skip",
        )
    )
    return styled(figure, 80 + 30 * len(shares)).update_layout(
        xaxis={
            "title": {"text": "share of importance"},
            "tickformat": ".0%",
            "range": [0, 1.12 * max(shares.values())],
        },
        yaxis={"autorange": "reversed", "showgrid": False},
        bargap=0.4,
    )


def slice_figure(
    trials: pd.DataFrame,
    parameter: pd.Series,
    name: str,
    logarithmic: bool,
    style: Mapping[str, Look],
    objective: Objective,
) -> go.Figure:
    """Value over one parameter, groups by colour; categories spread them side by side."""
    chosen = parameter[finished(trials).index].dropna()
    complete = trials.loc[chosen.index].assign(parameter=chosen)
    figure = go.Figure()
    axis: dict[str, Any] = {"title": {"text": safe(name)}}
    if is_numeric(chosen):
        axis |= _log_axis(chosen.astype(float)) if logarithmic else {}
    else:
        categories = sorted(set(chosen))
        complete["parameter"] = chosen.map(categories.index) + _offsets(chosen, complete["group"])
        axis |= {
            "tickvals": list(range(len(categories))),
            "ticktext": [safe(category) for category in categories],
            "range": [-0.6, len(categories) - 0.4],
            "showgrid": False,
        }
    for group, look in style.items():
        _points(figure, complete[complete["group"] == group], "parameter", group, look, size=7)
    return styled(figure, 260).update_layout(
        showlegend=False,
        margin={"t": 8},
        xaxis=axis,
        yaxis=value_axis(complete["value"], objective, titled=False),
    )


def timeline_figure(trials: pd.DataFrame) -> go.Figure:
    """A bar a started trial, from its start over its seconds, those that ran at once in lanes."""
    figure = go.Figure()
    timed = trials[trials["started"].notna() & trials["seconds"].notna()].sort_values("started")
    ends = timed["started"] + pd.to_timedelta(timed["seconds"], unit="s")
    timed = timed.assign(lane=lanes(timed["started"].tolist(), ends.tolist()))
    for state, colour in STATE_COLOURS.items():
        rows = timed[timed["state"] == state]
        if rows.empty:
            continue
        figure.add_bar(
            base=rows["started"].dt.strftime("%Y-%m-%d %H:%M:%S.%f").tolist(),
            x=(1000 * rows["seconds"]).to_numpy(),  # milliseconds, plotly's unit for dates
            y=rows["lane"].to_numpy(),
            orientation="h",
            width=0.8,
            marker={"color": colour, "line": {"width": 0}},
            name=state,
            customdata=[f"{r['stage']} {r['number']}, {r['seconds']:.4g} s" for r in records(rows)],
            hovertemplate="%{customdata}<extra>%{fullData.name}</extra>",
        )
    return styled(figure, min(640, 130 + 30 * timed["lane"].nunique())).update_layout(
        barmode="overlay",
        showlegend=True,
        xaxis={"type": "date", "title": {"text": "UTC"}},
        yaxis={"autorange": "reversed", "showgrid": False, "showticklabels": False},
    )


def lanes(starts: Sequence[Any], ends: Sequence[Any]) -> list[int]:
    """For intervals by start, the first lane that is free again: as many as ever ran at once."""
    free: list[Any] = []  # when each lane is free again
    taken = []
    for start, end in zip(starts, ends, strict=True):
        lane = next((i for i, since in enumerate(free) if since <= start), len(free))
        free[lane : lane + 1] = [end]
        taken.append(lane)
    return taken


def parzen_figure(
    scores: pd.DataFrame,
    style: Mapping[str, Look],
    controls: Mapping[str, Mapping[str, Any]],
    published: Mapping[int, float],
) -> go.Figure:
    """Log-likelihood over the number of samples, a line a model; controls and the paper beside."""
    figure = go.Figure()
    first = ~scores.duplicated("group")
    for (group, seed), rows in scores.groupby(["group", "seed"], sort=False):
        look = style[str(group)]
        figure.add_scatter(
            x=rows["n_samples"].to_numpy(),
            y=rows["log_likelihood"].to_numpy(),
            error_y={"type": "data", "array": rows["standard_error"].to_numpy(), "thickness": 1.5},
            mode="lines+markers",
            marker={"color": look.colour, "symbol": look.symbol, "size": 9},
            line={"color": look.colour},
            name=safe(str(group)) or "models",
            legendgroup=safe(str(group)),
            showlegend=bool(first[rows.index[0]]),
            customdata=[f"σ {sigma:.4g}, seed {seed}" for sigma in rows["sigma"]],
            hovertemplate="%{y:.5g} nats, %{customdata}<extra>%{fullData.name}</extra>",
        )
    if published:
        figure.add_scatter(
            x=list(published),
            y=list(published.values()),
            mode="markers",
            marker={"color": OKABE_ITO[4], "symbol": "star", "size": 12},
            name="the paper's AAE",
            hovertemplate="%{y} nats<extra>the paper's AAE</extra>",
        )
    sizes = sorted({*scores["n_samples"].astype(int), *published})
    for name, control in controls.items():
        score, size = control["log_likelihood"], samples_label(control["n_samples"])
        figure.add_hline(
            score,
            line={"color": GREY, "dash": "dash", "width": 1.5},
            annotation={"text": safe(f"{size} {CONTROLS.get(name, name)}: {number(score)}")},
            annotation_position="top left",
        )
    return styled(figure, 380).update_layout(
        showlegend=True,
        xaxis={
            "type": "log",
            "tickvals": sizes,
            "ticktext": [samples_label(size) for size in sizes],
            "title": {"text": "samples"},
        },
        yaxis={"title": {"text": "log-likelihood (nats)"}},
    )


def _points(
    figure: go.Figure,
    rows: pd.DataFrame,
    x: str,
    name: str,
    look: Look,
    size: int = 8,
    opacity: float = 0.85,
) -> None:
    if rows.empty:
        return
    size = size if len(rows) <= CROWD else size - 3
    figure.add_scatter(
        x=rows[x].to_numpy(dtype=float),
        y=rows["value"].to_numpy(),
        mode="markers",
        marker={"color": look.colour, "symbol": look.symbol, "size": size, "opacity": opacity},
        name=safe(name) or "complete",
        customdata=rows["number"].to_numpy(),
        hovertemplate="trial %{customdata}: %{y:.5g}<extra>%{fullData.name}</extra>",
    )


def _log_axis(values: pd.Series) -> dict[str, Any]:
    """Ticks at 1, 2 and 5 times powers of ten, or at the powers alone where that gives enough."""
    low, high = math.log10(values.min()), math.log10(values.max())
    steps = (1,) if high - low > 2 else (1, 2, 5)
    powers = range(math.floor(low), math.ceil(high) + 1)
    ticks = [step * 10.0**power for power in powers for step in steps]
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def _offsets(categories: pd.Series, groups: pd.Series) -> pd.Series:
    """Where a point stands beside its category: groups in lanes, the points of one fanned out."""
    lanes = groups.groupby(categories).rank("dense") - 1
    width = 0.7 / (lanes.groupby(categories).transform("max") + 1)
    centre = lanes.groupby(categories).transform("max") / 2
    fan = groups.groupby([categories, groups]).cumcount() % 5 - 2
    return (lanes - centre + 0.14 * fan) * width
