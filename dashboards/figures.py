"""Turn data frames into plotly figures. Each function is pure and returns a new figure."""

import math
from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from dashboards.style import GREY, OKABE_ITO, Look, Objective, safe, styled, value_axis
from dashboards.tables import CONTROLS, best_so_far, finished, records, samples_label

CROWD = 100  # more points of one kind are drawn smaller


def confirmed_figure(confirmed: pd.DataFrame, style: Mapping[str, Look], x_title: str) -> go.Figure:
    """Draw a row per candidate: mean, 95 % interval, and each seed as an open marker above."""
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


def difference_figure(
    differences: pd.DataFrame, style: Mapping[str, Look], x_title: str, margin: float | None = None
) -> go.Figure:
    """Draw a row per candidate: its value minus the best's, with the 95 % interval.

    The band shows the margin. Differences within this band do not matter.
    """
    figure = go.Figure()
    if margin is not None:
        figure.add_vrect(-margin, margin, fillcolor=GREY, opacity=0.18, line_width=0)
    for height, row in enumerate(records(differences)):
        look, name = style[row["group"]], safe(row["label"])
        figure.add_scatter(
            x=[row["difference"]],
            y=[height],
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [row["high"] - row["difference"]],
                "arrayminus": [row["difference"] - row["low"]],
                "thickness": 2.5,
                "width": 0,
            },
            mode="markers",
            marker={"color": look.colour, "symbol": look.symbol, "size": 13},
            hovertemplate="%{x:.5g}<extra>" + name + "</extra>",
        )
    figure.add_vline(0, line={"color": GREY, "width": 1.5})
    return styled(figure, 96 + 44 * len(differences)).update_layout(
        showlegend=False,
        xaxis={"title": {"text": safe(x_title)}},
        yaxis={
            "tickvals": list(range(len(differences))),
            "ticktext": [safe(label) for label in differences["label"]],
            "range": [len(differences) - 0.5, -0.5],
            "showgrid": False,
        },
    )


def history_figure(
    trials: pd.DataFrame, style: Mapping[str, Look], objective: Objective
) -> go.Figure:
    """Draw value over trial number: finished trials by group, small pruned trials, best so far."""
    figure = go.Figure()
    pruned = trials[(trials["state"] == "pruned") & trials["value"].notna()]
    complete = finished(trials)
    points(figure, pruned, "number", "pruned", Look(GREY, "x-thin-open"), size=6, opacity=0.6)
    for group, look in style.items():
        points(figure, complete[complete["group"] == group], "number", group, look)
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


def tuning_figure(
    curves: pd.DataFrame, style: Mapping[str, Look], objective: Objective
) -> go.Figure:
    """Draw the median of the best of n trials over n, a line per group, with confidence bands.

    curves: from `tables.tuning_frame`. An infinite end is drawn at the edge of the plot.
    """
    figure = go.Figure()
    known = curves[["median", "low", "high"]].replace([math.inf, -math.inf], math.nan)
    least, most = known.min().min(), known.max().max()
    margin = 0.06 * (most - least) or 0.5
    edges = [float(least - margin), float(most + margin)]
    for group, rows in curves.groupby("group", sort=False):
        look, n = style[str(group)], rows["trials"].to_numpy()
        ends = [rows[name].clip(*edges).to_numpy() for name in ("low", "high")]
        figure.add_scatter(
            x=[*n, *n[::-1]],
            y=[*ends[0], *ends[1][::-1]],
            fill="toself",
            fillcolor=look.colour,
            opacity=0.18,
            mode="lines",
            line={"width": 0},
            legendgroup=safe(str(group)),
            showlegend=False,
            hoverinfo="skip",
        )
        figure.add_scatter(
            x=n,
            y=rows["median"].replace([math.inf, -math.inf], math.nan).to_numpy(),
            mode="lines",
            line={"color": look.colour, "width": 2.5},
            name=safe(str(group)) or "best of n",
            legendgroup=safe(str(group)),
            hovertemplate="best of %{x}: %{y:.5g}<extra>%{fullData.name}</extra>",
        )
    return styled(figure, 380).update_layout(
        showlegend=True,
        xaxis={"title": {"text": "trials"}},
        yaxis={"title": {"text": safe(objective.title)}, "range": edges},
    )


def tradeoff_figure(
    trials: pd.DataFrame, style: Mapping[str, Look], objective: Objective, other: Objective
) -> go.Figure:
    """Draw one objective over another by group, with a line through the Pareto front.

    trials: `value`, `other`, `front`, `group` and `number` of each finished trial.
    """
    figure = go.Figure()
    front = trials[trials["front"]].sort_values("other")
    figure.add_scatter(
        x=front["other"].to_numpy(),
        y=front["value"].to_numpy(),
        mode="lines+markers",
        line={"width": 1.5, "color": GREY},
        marker={"size": 15, "symbol": "circle-open", "color": GREY},
        name="Pareto front",
        hoverinfo="skip",
    )
    for group, look in style.items():
        points(figure, trials[trials["group"] == group], "other", group, look)
    return styled(figure, 380).update_layout(
        xaxis={"title": {"text": safe(other.title)}},
        yaxis={"title": {"text": safe(objective.title)}},
    )


def importance_figure(shares: Mapping[str, float]) -> go.Figure:
    """Draw bars, the most important parameter on top."""
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


PARZEN_LEGEND = (
    "σ is chosen again on validation images at every number of samples. Filled: σ refined between "
    "the grid's points; open, dotted: σ of the strict grid, as figures are published. Bars: "
    "standard error over test points."
)


def parzen_figure(
    scores: pd.DataFrame,
    style: Mapping[str, Look],
    controls: pd.DataFrame,
    published: Mapping[int, float],
) -> go.Figure:
    """Draw log-likelihood over the number of samples, with controls and the paper's figures.

    Each model has two lines: filled with refined σ, open and dotted with σ of the strict grid.
    """
    figure = go.Figure()
    first = ~scores.duplicated("group")
    for (group, seed), rows in scores.groupby(["group", "seed"], sort=False):
        look = style[str(group)]
        for grid, symbol, dash in (
            ("_grid", f"{look.symbol}-open", "dot"),
            ("", look.symbol, None),
        ):
            figure.add_scatter(
                x=rows["n_samples"].to_numpy(),
                y=rows[f"log_likelihood{grid}"].to_numpy(),
                error_y={
                    "type": "data",
                    "array": rows[f"standard_error{grid}"].to_numpy(),
                    "thickness": 1.5,
                },
                mode="lines+markers",
                marker={"color": look.colour, "symbol": symbol, "size": 9},
                line={"color": look.colour, "dash": dash},
                name=safe(str(group)) or "models",
                legendgroup=safe(str(group)),
                showlegend=not grid and bool(first[rows.index[0]]),
                customdata=[f"σ {sigma:.4g}, seed {seed}" for sigma in rows[f"sigma{grid}"]],
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
    for symbol, (kind, rows) in zip(("asterisk", "y-down"), controls.groupby("kind"), strict=False):
        figure.add_scatter(
            x=rows["n_samples"].to_numpy(),
            y=rows["log_likelihood"].to_numpy(),
            error_y={"type": "data", "array": rows["standard_error"].to_numpy(), "thickness": 1.5},
            mode="markers",
            marker={
                "color": GREY,
                "symbol": symbol,
                "size": 11,
                "line": {"width": 2, "color": GREY},
            },
            name=CONTROLS[str(kind)],
            customdata=[
                f"{row['n_samples']:,.0f} samples, σ {row['sigma']:.4g}" for row in records(rows)
            ],
            hovertemplate="%{y:.5g} nats, %{customdata}<extra>%{fullData.name}</extra>",
        )
    shown = pd.concat([scores["n_samples"], controls["n_samples"]]).astype(int)
    sizes = sorted({*shown, *published})
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


def points(
    figure: go.Figure,
    rows: pd.DataFrame,
    x: str,
    name: str,
    look: Look,
    size: int = 8,
    opacity: float = 0.85,
    **where: int,
) -> None:
    """Draw trials as markers, the same in all figures. where: `row` and `col` of a panel."""
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
        **where,
    )
