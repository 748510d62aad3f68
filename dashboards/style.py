"""What all figures share: colours, markers, the template, names made safe.

Colours are Okabe and Ito's, which readers with any colour vision tell apart; groups also differ by
marker. Backgrounds are transparent and text is mid-grey: legible on light and dark until the page
puts its own colours on.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from orchestrator.records import Direction

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "x")
GREY = "#808792"
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


def styled(figure: go.Figure, height: int) -> go.Figure:
    return figure.update_layout(template=TEMPLATE, height=height)


def safe(text: str) -> str:
    """Plotly reads text as a kind of HTML, and %{…} in a hover as a placeholder."""
    return html.escape(text, quote=False).replace("%{", "%\u200b{")


def value_axis(values: pd.Series, objective: Objective, titled: bool = True) -> dict[str, Any]:
    """An axis over the better nine tenths: one early failure must not flatten all the rest."""
    axis: dict[str, Any] = {"title": {"text": safe(objective.title)}} if titled else {}
    values = values.dropna()
    if len(values) < 10:
        return axis
    worst = 0.1 if objective.direction == "maximize" else 0.9
    low, high = sorted((values.quantile(worst), values.max() if worst < 0.5 else values.min()))
    margin = 0.12 * (high - low)
    return axis | ({"range": [low - margin, high + margin]} if margin else {})


def is_numeric(values: pd.Series) -> bool:
    return all(isinstance(value, int | float) for value in values)
