"""Parallel coordinates: a line per trial through all its parameters to its value."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboards.style import GREY, Look, Objective, is_numeric, safe, styled, ticks
from dashboards.tables import columns, finished, number, records

MOST_BEST = 20  # coloured lines; more would hide the common pattern
MOST_OTHERS = 300
_TICK = {"showarrow": False, "font": {"size": 11}, "borderpad": 1}


def parallel_figure(
    trials: pd.DataFrame,
    parameters: pd.DataFrame,
    names: Mapping[str, str],
    logarithmic: Collection[str],
    style: Mapping[str, Look],
    objective: Objective,
) -> go.Figure:
    """Draw a line per complete trial through its parameters to its value, coloured for the best.

    Optuna's own plot omits every trial that lacks a parameter, hence all but one branch of a
    conditional space. Here such a trial passes through "none". The figure needs no WebGL, unlike
    plotly's own; remote desktops lack it.
    """
    complete = finished(trials)
    scales = [
        _scale(names[path], parameters.loc[complete.index, path], path in logarithmic)
        for path in columns(parameters)
    ]
    scales.append(_scale(objective.metric, complete["value"].astype(object), logarithmic=False))
    heights = pd.DataFrame({i: scale.heights for i, scale in enumerate(scales)})
    label = [f"trial {row['number']}: {number(row['value'])}" for row in records(complete)]
    heights.insert(0, "label", label)
    ranks = complete["value"].rank(ascending=objective.direction == "minimize", method="first")
    best = complete[ranks <= best_shown(len(complete))]
    others = heights.drop(best.index)[:MOST_OTHERS]
    figure = go.Figure()
    _threads(figure, others, "other trials", GREY, width=1, opacity=0.3)
    for group, look in style.items():
        members = heights.loc[best.index[best["group"] == group]]
        _threads(figure, members, group or "best trials", look.colour, width=2.2, opacity=0.95)
    for i, scale in enumerate(scales):
        figure.add_vline(i, line={"color": GREY, "width": 1})
        for height, tick in scale.ticks:
            figure.add_annotation(x=i, y=height, text=tick, xanchor="left", xshift=3, **_TICK)
    return styled(figure, 440).update_layout(
        legend={"y": -0.06, "yanchor": "top"},
        xaxis={
            "side": "top",
            "tickvals": list(range(len(scales))),
            "ticktext": [scale.label for scale in scales],
            "range": [-0.45, len(scales) - 0.4],
            "ticklabeloverflow": "allow",
            "showgrid": False,
            "fixedrange": True,
        },
        yaxis={"visible": False, "range": [-0.06, 1.06], "fixedrange": True},
    )


def best_shown(finished: int) -> int:
    """Return how many of the finished trials are drawn in colour."""
    return min(math.ceil(finished / 4), MOST_BEST)


@dataclass(frozen=True)
class _Scale:
    """An axis of the parallel figure, with each trial's position on it from 0 to 1."""

    label: str
    heights: pd.Series
    ticks: list[tuple[float, str]]  # height and text


def _scale(name: str, values: pd.Series, logarithmic: bool) -> _Scale:
    present = values.dropna()
    floor = 0.0 if len(present) == len(values) else 0.15  # space for "none" at the bottom
    if is_numeric(present):
        numbers = present.astype(float).map(math.log10 if logarithmic else float)
        low, high = numbers.min(), numbers.max()
        ends = present.astype(float).min(), present.astype(float).max()
        marks = [
            (math.log10(mark) if logarithmic else mark, f"{mark:g}")
            for mark in ticks(*ends, logarithmic, most=5)
        ]
    else:
        categories = sorted(set(present))
        numbers = present.map(categories.index).astype(float)
        low, high = 0.0, float(len(categories) - 1)
        marks = [(float(i), safe(category)) for i, category in enumerate(categories)]

    def height(x: float) -> float:
        return floor + (1 - floor) * ((x - low) / (high - low) if high > low else 0.5)

    none = [(0.0, "none")] if floor else []
    return _Scale(
        label=safe(name),
        heights=numbers.map(height).reindex(values.index).fillna(0.0),
        ticks=[*none, *((height(x), text) for x, text in marks)],
    )


def _threads(
    figure: go.Figure, heights: pd.DataFrame, name: str, colour: str, width: float, opacity: float
) -> None:
    """Draw rows of heights as one trace, with a gap after each row."""
    if heights.empty:
        return
    drawn = heights.drop(columns="label").to_numpy(dtype=float)
    across = np.arange(drawn.shape[1], dtype=float)
    figure.add_scatter(
        x=np.tile([*across, math.nan], len(drawn)),
        y=np.pad(drawn, ((0, 0), (0, 1)), constant_values=np.nan).ravel(),
        mode="lines",
        line={"color": colour, "width": width},
        opacity=opacity,
        name=safe(name),
        customdata=np.repeat(heights["label"].to_numpy(), len(across) + 1),
        hovertemplate="%{customdata}<extra>%{fullData.name}</extra>",
    )
