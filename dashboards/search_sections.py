"""Sections of the report about the search: its trials, parameters and curves."""

from typing import TYPE_CHECKING

import pandas as pd

from dashboards import curves, figures, page, tables
from dashboards.parallel import MOST_OTHERS, best_shown, parallel_figure
from dashboards.slices import slice_figure
from dashboards.sweep import Sweep
from dashboards.timeline import faults, in_lanes, timeline_figure
from orchestrator.text import duration

if TYPE_CHECKING:
    pass

FEWEST_FOR_IMPORTANCE = 10  # finished trials
INDEPENDENT = ("random", "qmc")  # samplers with independent trials
ADAPTIVE = ("tpe", "gp")
RESERVED = {"stage", "trial", "state", "epochs", "seed", "attempts", "worker", "seconds", "reason"}


def all_trials(sweep: Sweep) -> str:
    trials = sweep.trials
    if trials.empty:
        return ""
    names = {"stage": "stage", "number": "trial", "state": "state", "value": sweep.objective.metric}
    names |= {"epochs": "epochs"}
    shown = trials[list(names)].rename(columns=names).astype({"trial": str})
    titles = {}
    for path, name in sweep.names.items():
        column = path if name in RESERVED else name
        shown[column], titles[column] = sweep.parameters[path], path
    shown = shown.join(trials[["seed", "attempts", "node", "seconds", "reason"]])
    shown = shown.rename(columns={"node": "worker"})
    return page.table(
        shown,
        f"All {len(shown)} trials. Select a column's header to sort by it.",
        right=["trial", "seed"],
        titles=titles,
        page_size=page.ROWS,
    )


def history(sweep: Sweep) -> str:
    if sweep.finished.empty:
        return ""
    figure = figures.history_figure(sweep.search, sweep.looks, sweep.objective)
    zoomed = " The axis spans the better 90 %; double-click to see all."
    return page.chart(
        figure,
        f"{sweep.objective.metric} of {len(sweep.finished)} finished search trials by number; "
        f"the best reached {tables.number(_best_value(sweep))}.",
        "Crosses: pruned trials, at their last reported value."
        + (zoomed if figure.layout.yaxis.range else ""),
        _in_all_trials(sweep),
    ) + _tuning(sweep)


def _tuning(sweep: Sweep) -> str:
    """Return the tuning curve if trials are independent draws, that is, if no sampler learned."""
    search = sweep.view.spec["search"] or {}
    sampler = search.get("sampler", {}).get("kind")
    if sampler in ADAPTIVE:
        statement = "No tuning curve: the sampler learns, so its trials are not independent draws."
        return page.paragraph(statement, "quiet")
    drawn = sweep.search[sweep.search["number"] >= len(search.get("start", ()))]
    found = tables.tuning_frame(drawn, sweep.objective.direction)
    if sampler not in INDEPENDENT or found.empty:
        return ""
    cautions = [
        " A trial that was pruned or diverged counts as worse than all complete ones."
        if any(drawn["state"].isin(["pruned", "diverged"]))
        else "",
        " A pruner judges trials by each other: the band is then approximate."
        if any(drawn["state"] == "pruned")
        else "",
        " Quasi-random trials are spread more evenly than the independent draws that the band "
        "assumes."
        if sampler == "qmc"
        else "",
    ]
    last = found.drop_duplicates("group", keep="last")
    return page.chart(
        figures.tuning_figure(found, sweep.looks, sweep.objective),
        f"Tuning curves, {sweep.objective.metric} of the best of n trials: "
        + ", ".join(
            f"{row['group']} {tables.number(row['median'])} of {row['trials']}".strip()
            for row in tables.records(last)
        ),
        "What the best of n trials reaches: the median, in a band that contains all curves at "
        "every n with 95 % confidence (Lourie et al. 2023). Compare groups at the same n: where "
        "their bands do not overlap, one group is better, however many trials each had."
        + "".join(cautions),
        page.as_table(
            page.table(
                tables.tuning_rows(found),
                f"{sweep.objective.title} of the best of n trials: median [95 % band].",
                right=["trials"],
            )
        ),
    )


def trade_off(sweep: Sweep) -> str:
    objectives = {
        objective.metric: objective.direction for objective in (sweep.objective, *sweep.secondary)
    }
    found = tables.objectives_frame(sweep.view.trials, objectives).join(sweep.search, how="inner")
    if not sweep.secondary or found.empty:
        return ""
    charts = [
        page.chart(
            figures.tradeoff_figure(
                found.assign(other=found[other.metric]), sweep.looks, sweep.objective, other
            ),
            f"{sweep.objective.metric} over {other.metric} of {len(found)} finished search trials.",
        )
        for other in sweep.secondary
    ]
    shown = found.loc[found["front"], ["number", *objectives]].rename(columns={"number": "trial"})
    statement = (
        f"{len(shown)} of {len(found)} finished search trials are on the Pareto front: no other "
    )
    front = page.table(
        shown.astype({"trial": str}),
        statement + "is as good in every objective and better in one.",
        right=list(shown.columns),
        page_size=page.ROWS,
    )
    return "".join(charts) + front


def importance(sweep: Sweep) -> str:
    finished = len(sweep.finished)
    varies = sweep.searched and sweep.finished["value"].nunique() > 1
    if sweep.view.study is None or finished < FEWEST_FOR_IMPORTANCE or not varies:
        return ""
    shares = tables.importance(sweep.view.study, sweep.searched)
    named = {sweep.names[path]: share for path, share in shares.items()}
    return page.chart(
        figures.importance_figure(named),
        "Importance of each parameter: "
        + ", ".join(f"{name} {share:.0%}" for name, share in named.items()),
        f"PED-ANOVA (Watanabe et al. 2023) over {finished} finished search trials: how far the "
        "best tenth of the trials differs from all in each parameter. With few trials, a hint.",
        page.as_table(
            page.table(
                pd.DataFrame(
                    [(path, f"{share:.1%}") for path, share in shares.items()],
                    columns=["parameter", "share"],
                ),
                "Share of importance of each parameter.",
                right=["share"],
            )
        ),
    )


def parallel(sweep: Sweep) -> str:
    if len(sweep.finished) < 2 or not sweep.searched:
        return ""
    width = 110 * (len(sweep.searched) + 1)
    return page.chart(
        parallel_figure(
            sweep.search,
            sweep.parameters[sweep.searched],
            sweep.names,
            sweep.logarithmic,
            sweep.looks,
            sweep.objective,
        ),
        f"{len(sweep.finished)} finished search trials as lines through "
        f"{len(sweep.searched)} parameters and {sweep.objective.metric}.",
        f"One line per finished trial, the best {best_shown(len(sweep.finished))} in colour"
        + (f" and at most {MOST_OTHERS} others" if len(sweep.finished) > MOST_OTHERS else "")
        + ". Select a name to hide its lines. “none”: the trial's branch has no such parameter.",
        _in_all_trials(sweep),
        min_width=width,
    )


def slices(sweep: Sweep) -> str:
    if len(sweep.finished) < 2 or not sweep.searched:
        return ""
    charts = [
        (
            path,
            page.chart(
                slice_figure(
                    sweep.search,
                    sweep.parameters[path],
                    path in sweep.logarithmic,
                    sweep.looks,
                    sweep.objective,
                    own=path == sweep.group_by,
                ),
                f"{sweep.objective.metric} over {path} of finished search trials.",
            ),
        )
        for path in sweep.searched
    ]
    statement = page.paragraph(
        f"{sweep.objective.title} of every finished search trial over each parameter.",
        "quiet",
    )
    return statement + sweep.legend + page.tiles(charts) + _in_all_trials(sweep)


def learning_curves(sweep: Sweep) -> str:
    return "".join(
        _curves_of(sweep, str(stage), rows)
        for stage, rows in sweep.trials.groupby("stage", sort=False)
    )


def timeline(sweep: Sweep) -> str:
    timed, _ = in_lanes(sweep.trials)
    if timed.empty:
        return ""
    lost = len(faults(timed))
    times = "once" if lost == 1 else f"{lost} times"
    mark = f" Crosses: {times} a worker, a node or the driver was lost and the trial resumed."
    spent = duration((timed["ended"] - timed["started"]).dt.total_seconds().sum())
    return page.chart(
        timeline_figure(sweep.trials),
        f"When and where {len(timed)} trials ran, {spent} of training in all; "
        f"{lost or 'no'} attempt{'' if lost == 1 else 's'} lost.",
        f"One bar per trial, in the lane of its worker: {spent} of training in all."
        + (mark if lost else ""),
        _in_all_trials(sweep),
    )


def _in_all_trials(sweep: Sweep) -> str:
    return page.link(f"{sweep.prefix}trials", "The numbers: all trials")


def _best_value(sweep: Sweep) -> float:
    values = sweep.finished["value"]
    return float(values.max() if sweep.objective.direction == "maximize" else values.min())


def _curves_of(sweep: Sweep, stage: str, trials: pd.DataFrame) -> str:
    drawn = curves.drawn_trials(trials, sweep.view.curves, sweep.objective)
    if drawn.empty:
        return ""
    picked = f" of {len(trials)}, evenly through their ranking" if len(drawn) < len(trials) else ""
    statement = f"{stage.capitalize()}: curves of {len(drawn)} trials{picked}."
    grey = " Grey: pruned, or cut short otherwise." if any(drawn["state"] != "complete") else ""
    return page.chart(
        curves.curves_figure(sweep.view.curves, trials, sweep.looks, sweep.objective),
        f"{sweep.objective.metric} over epochs. {statement}",
        statement + grey,
        page.as_table(
            page.table(
                tables.curves_frame(sweep.view.curves, drawn, sweep.objective.metric),
                f"{sweep.objective.title} after quarters of the epochs that each trial ran.",
                right=["trial"],
                page_size=page.ROWS,
            )
        ),
    )
