"""Learning curves, thinned to stay readable and light enough for a browser."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboards.style import GREY, Look, Objective, safe, styled, value_axis
from dashboards.tables import Curves, records

MOST_CURVES = 60  # drawn at once; more hide each other
MOST_POINTS = 200  # along one curve


def curves_figure(
    curves: Curves, trials: pd.DataFrame, style: Mapping[str, Look], objective: Objective
) -> go.Figure:
    """Draw the learning curves of one stage: complete trials by group, all others in grey."""
    figure = go.Figure()
    drawn = drawn_trials(trials, curves, objective)
    cut_short = drawn[drawn["state"] != "complete"]
    _lines(figure, cut_short, curves, "cut short", GREY, objective.metric, opacity=0.35)
    complete = drawn[drawn["state"] == "complete"]
    for group, look in style.items():
        members = complete[complete["group"] == group]
        _lines(figure, members, curves, group, look.colour, objective.metric, opacity=0.85)
    heights = pd.Series(np.concatenate([[], *(trace.y for trace in figure.data)]))
    return styled(figure, 380).update_layout(
        xaxis={"title": {"text": "epoch"}}, yaxis=value_axis(heights, objective)
    )


def drawn_trials(trials: pd.DataFrame, curves: Curves, objective: Objective) -> pd.DataFrame:
    """Return the trials to draw: all that have curves, or an even selection by rank."""
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


def _lines(
    figure: go.Figure,
    rows: pd.DataFrame,
    curves: Curves,
    name: str,
    colour: str,
    metric: str,
    opacity: float,
) -> None:
    """Draw curves of one kind as one trace with gaps. A thousand traces would stall a browser."""
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
            name=safe(name) or "complete",
            customdata=np.array(numbers),
            hovertemplate="trial %{customdata}, epoch %{x}: %{y:.5g}<extra></extra>",
        )


def _thinned(points: Sequence[Mapping[str, float]]) -> list[Mapping[str, float]]:
    stride = math.ceil(len(points) / MOST_POINTS) or 1
    return [*points[:-1:stride], *points[-1:]]
