"""Frames to plotly figures. Pure: each function returns a new figure and reads nothing else.

Colours are Okabe and Ito's, which readers with any colour vision tell apart; groups also differ by
marker. Backgrounds are transparent and text is mid-grey: legible on light and dark until the page
puts its own colours on. Plotly reads text as a kind of HTML, hence `_label` on every name.
"""

import html
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboards.tables import Curves, best_so_far, columns, finished, number, records
from orchestrator.records import Direction

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "x")
GREY = "#808792"
STATE_COLOURS = {
    "complete": "#009E73",
    "pruned": GREY,
    "diverged": "#E69F00",
    "failed": "#D55E00",
    "stopped": "#CC79A7",
    "running": "#56B4E9",
    "waiting": "#B9BEC6",
}
AXIS = {
    "gridcolor": "rgba(128,135,146,0.22)",
    "zeroline": False,
    "automargin": True,
    "ticklabelstandoff": 4,
    "title": {"standoff": 10, "font": {"size": 13}},
}
TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": GREY},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 8, "r": 12, "t": 36, "b": 8},
        "xaxis": AXIS,
        "yaxis": AXIS,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "hoverlabel": {"align": "left"},
    }
)
_TICK = {"showarrow": False, "font": {"size": 11}}
MOST_CURVES = 150  # drawn at once; more hide each other
MOST_POINTS = 200  # along one curve


@dataclass(frozen=True)
class Objective:
    metric: str
    unit: str
    direction: Direction

    @property
    def title(self) -> str:
        return f"{self.metric} ({self.unit})" if self.unit else self.metric


@dataclass(frozen=True)
class Look:
    colour: str
    symbol: str


def looks(groups: Sequence[str]) -> dict[str, Look]:
    """One colour and one marker a group, the same in every figure of a report."""
    return {
        group: Look(OKABE_ITO[i % len(OKABE_ITO)], SYMBOLS[i % len(SYMBOLS)])
        for i, group in enumerate(groups)
    }


def confirmed_figure(confirmed: pd.DataFrame, style: Mapping[str, Look], x_title: str) -> go.Figure:
    """A row a candidate: the mean with its 95 % interval, every seed as an open marker above."""
    figure = go.Figure()
    for height, row in enumerate(records(confirmed)):
        look, label = style[row["group"]], _label(row["label"])
        figure.add_scatter(
            x=row["values"],
            y=[height - 0.17] * len(row["values"]),
            mode="markers",
            marker={"color": look.colour, "symbol": f"{look.symbol}-open", "size": 8},
            hovertemplate="%{x:.5g}<extra>" + label + ", one seed</extra>",
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
            hovertemplate="%{x:.5g}<extra>" + label + ", mean</extra>",
        )
    return _styled(figure, 96 + 56 * len(confirmed)).update_layout(
        showlegend=False,
        xaxis={"title": {"text": _label(x_title)}},
        yaxis={
            "tickvals": list(range(len(confirmed))),
            "ticktext": [_label(label) for label in confirmed["label"]],
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
    return _styled(figure, 380).update_layout(
        xaxis={"title": {"text": "trial"}}, yaxis=_value_axis(complete["value"], objective)
    )


def importance_figure(shares: Mapping[str, float]) -> go.Figure:
    """Bars, the most important parameter on top."""
    figure = go.Figure(
        go.Bar(
            x=list(shares.values()),
            y=[_label(name) for name in shares],
            orientation="h",
            marker={"color": OKABE_ITO[0]},
            text=[f"{share:.0%}" for share in shares.values()],
            textposition="outside",
            cliponaxis=False,
            hoverinfo="skip",
        )
    )
    return _styled(figure, 80 + 30 * len(shares)).update_layout(
        xaxis={
            "title": {"text": "share of importance"},
            "tickformat": ".0%",
            "range": [0, 1.12 * max(shares.values())],
        },
        yaxis={"autorange": "reversed", "showgrid": False},
        bargap=0.4,
    )


def parallel_figure(
    trials: pd.DataFrame,
    parameters: pd.DataFrame,
    names: Mapping[str, str],
    logarithmic: Collection[str],
    style: Mapping[str, Look],
    objective: Objective,
) -> go.Figure:
    """One line a finished trial through all its parameters to its value; the best quarter by group.

    Optuna's own plot leaves out every trial that misses a parameter, and so all but one branch
    of a conditional space; here such a trial passes through "none". Drawn without WebGL, which
    plotly's needs and remote desktops lack.
    """
    complete = finished(trials)
    scales = [
        _scale(names[path], parameters.loc[complete.index, path], path in logarithmic)
        for path in columns(parameters)
    ]
    scales.append(_scale(objective.metric, complete["value"].astype(object), logarithmic=False))
    heights = pd.DataFrame({i: scale.heights for i, scale in enumerate(scales)})
    ranks = complete["value"].rank(ascending=objective.direction == "minimize", pct=True)
    figure = go.Figure()
    _threads(figure, heights[ranks > 0.25], "other trials", GREY, width=1, opacity=0.3)
    best = complete[ranks <= 0.25]
    for group, look in style.items():
        members = heights.loc[best.index[best["group"] == group]]
        _threads(figure, members, group or "best quarter", look.colour, width=2.2, opacity=0.95)
    for i, scale in enumerate(scales):
        figure.add_vline(i, line={"color": GREY, "width": 1})
        for height, tick in scale.ticks:
            figure.add_annotation(x=i, y=height, text=tick, xanchor="left", xshift=3, **_TICK)
    return _styled(figure, 440).update_layout(
        legend={"y": -0.06, "yanchor": "top"},
        xaxis={
            "side": "top",
            "tickvals": list(range(len(scales))),
            "ticktext": [scale.label for scale in scales],
            "range": [-0.3, len(scales) - 0.3],
            "showgrid": False,
            "fixedrange": True,
        },
        yaxis={"visible": False, "range": [-0.06, 1.06], "fixedrange": True},
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
    axis: dict[str, Any] = {"title": {"text": _label(name)}}
    if _is_numeric(chosen):
        axis |= _number_axis(chosen.astype(float), logarithmic)
    else:
        categories = sorted(set(chosen))
        complete["parameter"] = chosen.map(categories.index) + _offsets(complete["group"], style)
        axis |= {
            "tickvals": list(range(len(categories))),
            "ticktext": [_label(category) for category in categories],
            "range": [-0.6, len(categories) - 0.4],
            "showgrid": False,
        }
    for group, look in style.items():
        _points(figure, complete[complete["group"] == group], "parameter", group, look, size=7)
    return _styled(figure, 260).update_layout(
        showlegend=False,
        margin={"t": 8},
        xaxis=axis,
        yaxis=_value_axis(complete["value"], objective, titled=False),
    )


def curves_figure(
    curves: Curves, trials: pd.DataFrame, style: Mapping[str, Look], objective: Objective
) -> go.Figure:
    """Learning curves of one stage: those of finished trials by group, all others faded grey."""
    figure = go.Figure()
    drawn = drawn_trials(trials, curves, objective)
    cut_short = drawn[drawn["state"] != "complete"]
    _lines(figure, cut_short, curves, "cut short", GREY, objective.metric, opacity=0.35)
    complete = drawn[drawn["state"] == "complete"]
    for group, look in style.items():
        members = complete[complete["group"] == group]
        _lines(figure, members, curves, group, look.colour, objective.metric, opacity=0.85)
    heights = pd.Series(np.concatenate([[], *(trace.y for trace in figure.data)]))
    return _styled(figure, 380).update_layout(
        xaxis={"title": {"text": "epoch"}}, yaxis=_value_axis(heights, objective)
    )


def drawn_trials(trials: pd.DataFrame, curves: Curves, objective: Objective) -> pd.DataFrame:
    """The trials whose curves are drawn: all with one, or an even pick through their ranking."""
    has_curve = [
        any(objective.metric in point for point in curves.get(key, ()))
        for key in zip(trials["stage"], trials["number"], strict=True)
    ]
    ranked = trials[has_curve].sort_values(
        "value", ascending=objective.direction == "minimize", kind="stable"
    )
    if len(ranked) <= MOST_CURVES:
        return ranked
    return ranked.iloc[np.linspace(0, len(ranked) - 1, MOST_CURVES).round().astype(int)]


def timeline_figure(trials: pd.DataFrame) -> go.Figure:
    """A bar a started trial, from its start over its seconds, coloured by how it ended."""
    figure = go.Figure()
    started = trials[trials["started"].notna() & trials["seconds"].notna()].reset_index(drop=True)
    for state, colour in STATE_COLOURS.items():
        rows = started[started["state"] == state]
        if rows.empty:
            continue
        figure.add_bar(
            base=rows["started"].dt.strftime("%Y-%m-%d %H:%M:%S.%f").tolist(),
            x=(1000 * rows["seconds"]).to_numpy(),  # milliseconds, plotly's unit for dates
            y=rows.index.to_numpy(),
            orientation="h",
            width=0.76,
            marker={"color": colour, "line": {"width": 0}},
            name=state,
            customdata=[
                f"{row['stage']} {row['number']}, {row['seconds']:.4g} s" for row in records(rows)
            ],
            hovertemplate="%{customdata}<extra>%{fullData.name}</extra>",
        )
    return _styled(figure, min(640, 160 + 10 * len(started))).update_layout(
        barmode="overlay",
        showlegend=True,
        xaxis={"type": "date", "title": {"text": "UTC"}},
        yaxis={
            "title": {"text": "trials, by start"},
            "autorange": "reversed",
            "showgrid": False,
            "showticklabels": False,
        },
    )


def parzen_figure(
    scores: pd.DataFrame,
    style: Mapping[str, Look],
    controls: Mapping[str, float],
    published: Mapping[int, float],
) -> go.Figure:
    """Log-likelihood over the number of samples, a line a model; controls and the paper beside."""
    figure = go.Figure()
    for (group, seed), rows in scores.groupby(["group", "seed"], sort=False):
        look = style[str(group)]
        figure.add_scatter(
            x=rows["n_samples"].to_numpy(),
            y=rows["log_likelihood"].to_numpy(),
            error_y={"type": "data", "array": rows["standard_error"].to_numpy(), "thickness": 1.5},
            mode="lines+markers",
            marker={"color": look.colour, "symbol": look.symbol, "size": 9},
            line={"color": look.colour},
            name=_label(f"{group} seed {seed}".strip()),
            customdata=rows["sigma"].to_numpy(),
            hovertemplate="%{y:.5g} nats, σ %{customdata:.4g}<extra>%{fullData.name}</extra>",
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
    for name, score in controls.items():
        figure.add_hline(
            score,
            line={"color": GREY, "dash": "dash", "width": 1.5},
            annotation={"text": _label(f"{name.replace('_', ' ')}: {number(score)}")},
            annotation_position="top left",
        )
    return _styled(figure, 380).update_layout(
        showlegend=True,
        xaxis={"type": "log", "dtick": 1, "title": {"text": "samples"}},
        yaxis={"title": {"text": "log-likelihood (nats)"}},
    )


def _styled(figure: go.Figure, height: int) -> go.Figure:
    return figure.update_layout(template=TEMPLATE, height=height)


def _label(text: str) -> str:
    return html.escape(text, quote=False).replace("%{", "%\u200b{")


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
    figure.add_scatter(
        x=rows[x].to_numpy(dtype=float),
        y=rows["value"].to_numpy(),
        mode="markers",
        marker={"color": look.colour, "symbol": look.symbol, "size": size, "opacity": opacity},
        name=_label(name) or "complete",
        customdata=rows["number"].to_numpy(),
        hovertemplate="trial %{customdata}: %{y:.5g}<extra>%{fullData.name}</extra>",
    )


def _lines(
    figure: go.Figure,
    rows: pd.DataFrame,
    curves: Curves,
    name: str,
    colour: str,
    metric: str,
    opacity: float,
) -> None:
    """All curves of one kind as one trace with gaps: a thousand traces would stall a browser."""
    xs: list[float] = []
    ys: list[float] = []
    numbers: list[int] = []
    for row in records(rows):
        points = _thinned([p for p in curves[row["stage"], row["number"]] if metric in p])
        xs += [*(point["epoch"] for point in points), math.nan]
        ys += [*(point[metric] for point in points), math.nan]
        numbers += [row["number"]] * (len(points) + 1)
    if xs:
        figure.add_scatter(
            x=np.array(xs, dtype=float),
            y=np.array(ys, dtype=float),
            mode="lines",
            line={"color": colour, "width": 1.5},
            opacity=opacity,
            name=_label(name) or "complete",
            customdata=np.array(numbers),
            hovertemplate="trial %{customdata}, epoch %{x}: %{y:.5g}<extra></extra>",
        )


def _thinned(points: Sequence[Mapping[str, float]]) -> list[Mapping[str, float]]:
    stride = math.ceil(len(points) / MOST_POINTS) or 1
    return [*points[:-1:stride], *points[-1:]]


def _value_axis(values: pd.Series, objective: Objective, titled: bool = True) -> dict[str, Any]:
    """An axis over the better nine tenths: one early failure must not flatten all the rest."""
    axis: dict[str, Any] = {"title": {"text": _label(objective.title)}} if titled else {}
    values = values.dropna()
    if len(values) < 10:
        return axis
    worst = 0.1 if objective.direction == "maximize" else 0.9
    low, high = sorted((values.quantile(worst), values.max() if worst < 0.5 else values.min()))
    margin = 0.12 * (high - low)
    return axis | ({"range": [low - margin, high + margin]} if margin else {})


def _is_numeric(values: pd.Series) -> bool:
    return all(isinstance(value, int | float) for value in values)


def _number_axis(values: pd.Series, logarithmic: bool) -> dict[str, Any]:
    if not logarithmic:
        return {}
    return {"type": "log", "dtick": 1 if values.max() > 30 * values.min() else "D2"}


def _offsets(groups: pd.Series, style: Mapping[str, Look]) -> pd.Series:
    """Where each point stands within its category: groups side by side, points fanned out."""
    order = list(style)
    lane = groups.map(order.index) - (len(order) - 1) / 2
    fan = groups.groupby(groups).cumcount() % 5 - 2
    return (lane + 0.12 * fan) * 0.7 / len(order)


@dataclass(frozen=True)
class _Scale:
    """One axis of the parallel figure: where each trial stands on it, from 0 to 1."""

    label: str
    heights: pd.Series
    ticks: list[tuple[float, str]]  # height and text


def _scale(name: str, values: pd.Series, logarithmic: bool) -> _Scale:
    present = values.dropna()
    floor = 0.0 if len(present) == len(values) else 0.15  # room for "none" at the foot
    if _is_numeric(present):
        numbers = present.astype(float).map(math.log10 if logarithmic else float)
        low, high = numbers.min(), numbers.max()
        ends = np.unique(np.linspace(low, high, 4))
        ticks = [(end, number(10**end if logarithmic else end)) for end in ends.tolist()]
    else:
        categories = sorted(set(present))
        numbers = present.map(categories.index).astype(float)
        low, high = 0.0, float(len(categories) - 1)
        ticks = [(float(i), _label(category)) for i, category in enumerate(categories)]

    def height(x: float) -> float:
        return floor + (1 - floor) * ((x - low) / (high - low) if high > low else 0.5)

    none = [(0.0, "none")] if floor else []
    return _Scale(
        label=_label(name),
        heights=numbers.map(height).reindex(values.index).fillna(0.0),
        ticks=[*none, *((height(x), text) for x, text in ticks)],
    )


def _threads(
    figure: go.Figure, heights: pd.DataFrame, name: str, colour: str, width: float, opacity: float
) -> None:
    """Rows of heights as one trace, a gap after each."""
    if heights.empty:
        return
    gap = np.full((len(heights), 1), np.nan)
    across = np.arange(heights.shape[1], dtype=float)
    figure.add_scatter(
        x=np.tile([*across, math.nan], len(heights)),
        y=np.hstack([heights.to_numpy(), gap]).ravel(),
        mode="lines",
        line={"color": colour, "width": width},
        opacity=opacity,
        name=_label(name),
        hoverinfo="name",
    )
