"""Shared style of all figures: colours, markers, the template, escaping of names.

Colours are Okabe and Ito's, which readers with any colour vision can distinguish. Groups also
differ by marker. Backgrounds are transparent and text is mid-grey, so that a figure is legible on
light and dark until the page applies its own colours.
"""

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from aae_core.metrics import Direction

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
        "annotationdefaults": {"bgcolor": "rgba(0,0,0,0)"},
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
    """Return a colour and a marker per group, the same in every figure of a report."""
    return {
        group: Look(OKABE_ITO[i % len(OKABE_ITO)], SYMBOLS[i % len(SYMBOLS)])
        for i, group in enumerate(groups)
    }


def styled(figure: go.Figure, height: int) -> go.Figure:
    return figure.update_layout(template=TEMPLATE, height=height)


def safe(text: str) -> str:
    """Escape text for plotly, which reads it as HTML, and %{…} in hover text as a placeholder."""
    return html.escape(text, quote=False).replace("%{", "%\u200b{")


def value_axis(values: pd.Series, objective: Objective, titled: bool = True) -> dict[str, Any]:
    """Return an axis over the better 90 % of values. A bad outlier must not flatten the others."""
    axis: dict[str, Any] = {"title": {"text": safe(objective.title)}} if titled else {}
    values = values.dropna()
    if len(values) < 10:
        return axis
    worst = 0.1 if objective.direction == "maximize" else 0.9
    low, high = sorted((values.quantile(worst), values.max() if worst < 0.5 else values.min()))
    margin = 0.12 * (high - low)
    return axis | ({"range": [low - margin, high + margin]} if margin else {})


def ticks(low: float, high: float, logarithmic: bool = False, most: int = 4) -> list[float]:
    """Return at most `most` round numbers from low to high, as densely spaced as possible."""
    if not high > low:
        return [low]
    ladders = [*(_powers(low, high) if logarithmic else []), *_multiples(low, high, most)]
    return next(found for found in ladders if 2 <= len(found) <= most or found is ladders[-1])


def _powers(low: float, high: float) -> Iterator[list[float]]:
    """Yield powers of ten with 2 and 5 between, with 3, alone, every second, every third."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for factors, stride in ((1, 2, 5), 1), ((1, 3), 1), ((1,), 1), ((1,), 2), ((1,), 3):
        powers = range(first - first % stride, last + 1, stride)
        found = (float(f"{factor}e{power}") for power in powers for factor in factors)
        yield [tick for tick in found if low <= tick <= high]


def _multiples(low: float, high: float, most: int) -> Iterator[list[float]]:
    power = math.floor(math.log10((high - low) / most))
    for factor in (1, 2, 5, 10, 20):
        step = factor * 10.0**power
        steps = range(math.ceil(low / step), math.floor(high / step) + 1)
        yield [float(f"{step * i:.12g}") for i in steps]


def span(values: pd.Series, logarithmic: bool) -> list[float]:
    """Return an axis range over all values, as exponents of ten if logarithmic."""
    ends = [float(end) for end in (values.min(), values.max())]
    low, high = map(math.log10, ends) if logarithmic else ends
    margin = 0.07 * (high - low) or 0.5
    return [low - margin, high + margin]


def is_numeric(values: pd.Series) -> bool:
    return all(isinstance(value, int | float) for value in values)
