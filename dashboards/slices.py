"""The objective over one parameter, a panel per group with the same axes."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboards.figures import points
from dashboards.style import Look, Objective, is_numeric, safe, span, styled, ticks, value_axis
from dashboards.tables import finished

MOST_PANELS = 4  # side by side; more groups share one panel and differ in colour and marker


def slice_figure(
    trials: pd.DataFrame,
    parameter: pd.Series,
    logarithmic: bool,
    style: Mapping[str, Look],
    objective: Objective,
    own: bool = False,
) -> go.Figure:
    """Draw value over one parameter of complete trials. own: the parameter defines the groups."""
    chosen = parameter[finished(trials).index].dropna()
    complete = trials.loc[chosen.index].assign(parameter=chosen)
    panels = [group for group in style if (complete["group"] == group).any()]
    apart = 1 < len(panels) <= MOST_PANELS and not own
    axis = _axis(chosen, logarithmic, most=6 if not apart else 2 if logarithmic else 3)
    if not is_numeric(chosen):
        complete["parameter"] = _fanned(chosen, complete["group"], side_by_side=not apart)
    figure = make_subplots(
        cols=len(panels) if apart else 1,
        shared_yaxes=True,
        horizontal_spacing=0.03,
        subplot_titles=[safe(panel) for panel in panels] if apart else None,
    )
    for i, group in enumerate(panels):
        members = complete[complete["group"] == group]
        where = {"row": 1, "col": i + 1} if apart else {}
        points(figure, members, "parameter", group, style[group], size=7, **where)
    figure.update_annotations(font={"size": 12}, xanchor="center")
    figure.update_xaxes(axis)
    figure.update_yaxes(value_axis(complete["value"], objective, titled=False))
    return styled(figure, 240).update_layout(showlegend=False, margin={"t": 26 if apart else 8})


def _axis(chosen: pd.Series, logarithmic: bool, most: int) -> dict[str, Any]:
    if is_numeric(chosen):
        values = chosen.astype(float)
        marks = ticks(values.min(), values.max(), logarithmic, most)
        return {
            "type": "log" if logarithmic else "linear",
            "tickvals": marks,
            "ticktext": [f"{mark:g}" for mark in marks],
            "range": span(values, logarithmic),
        }
    categories = sorted(set(chosen))
    return {
        "tickvals": list(range(len(categories))),
        "ticktext": [safe(category) for category in categories],
        "range": [-0.6, len(categories) - 0.4],
        "showgrid": False,
    }


def _fanned(categories: pd.Series, groups: pd.Series, side_by_side: bool) -> pd.Series:
    """Return the points' positions: spread around their category, with a lane per group."""
    positions = categories.map(sorted(set(categories)).index)
    fan = groups.groupby([categories, groups]).cumcount() % 5 - 2
    if not side_by_side:
        return positions + 0.09 * fan
    lanes = groups.groupby(categories).rank("dense") - 1
    last = lanes.groupby(categories).transform("max")
    return positions + (lanes - last / 2 + 0.14 * fan) * 0.7 / (last + 1)
