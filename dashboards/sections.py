"""Sections of the report in reading order. Each is a function of a sweep that returns HTML.

A section without data returns "" and is left out.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from dashboards import comparison, curves, figures, page, paper, tables
from dashboards.parallel import MOST_OTHERS, best_shown, parallel_figure
from dashboards.slices import slice_figure
from dashboards.sweep import Sweep
from dashboards.tables import number
from dashboards.timeline import faults, in_lanes, timeline_figure
from dashboards.verdict import is_test_objective, score, unit, verdict
from orchestrator.documents import Best, Compared, Status, Summary
from orchestrator.records import conditions
from orchestrator.text import duration

if TYPE_CHECKING:
    from orchestrator.results.reader import Picture

FEWEST_FOR_IMPORTANCE = 10  # finished trials
PICTURE_BUDGET = 6 * 2**20  # bytes per sweep; base64 adds a third
ROWS_A_PAGE = 15
_STRICT = "on the strict grid", "its σ"
_GAP = {  # metric -> description of its samples
    "val/parzen_ll": "draws of the prior, decoded",
    "val/parzen_codes": "codes of training images, decoded",
    "val/prior_gap": "the difference: the prior gap",
}
INDEPENDENT = ("random", "qmc")  # samplers with independent trials
ADAPTIVE = ("tpe", "gp")
RESERVED = {"stage", "trial", "state", "epochs", "seed", "attempts", "worker", "seconds", "reason"}


def hero(sweep: Sweep) -> str:
    found = verdict(sweep.view)
    subject = f"<strong>{page.text(found.subject)}</strong> " if found.subject else ""
    return (
        f'<p class="verdict">{subject}{page.unbroken(found.statement)}</p>'
        + page.paragraph(found.remark, "quiet")
        + _departures(sweep.view.best)
        + _state_notice(sweep.view.status)
        + page.key_numbers(_key_numbers(sweep))
    )


def _departures(best: Best | None) -> str:
    named = best.get("departures", []) if best else []
    return page.paragraph(f"Departs from the paper: {'; '.join(named)}.", "quiet") if named else ""


def leaderboard(sweep: Sweep) -> str:
    best, objective = sweep.view.best, sweep.objective
    if best is None or sweep.confirmed.empty:
        return ""
    main = sweep.confirmed[sweep.confirmed["metric"] == objective.metric]
    compared = f" of each {sweep.group_by}" if sweep.group_by else ""
    control = tables.control_of(best)
    candidates = [*best["groups"], *([control] if control else [])]
    return (
        standing(candidates, list(main["label"]), objective.metric, best["margin"], compared)
        + page.chart(
            figures.confirmed_figure(main, sweep.looks, objective.title),
            f"{objective.metric} of each candidate: "
            + "; ".join(
                f"{label} {score}" for label, score in _by_label(sweep, objective.metric).items()
            ),
            "Filled: mean and 95 % interval over seeds (t). Open: the seeds themselves.",
        )
        + _differences(sweep, candidates, main)
        + _on_the_test_set(sweep)
    )


def _differences(sweep: Sweep, candidates: Sequence[Compared], main: pd.DataFrame) -> str:
    """Draw candidates and control minus the winner, with the margin.

    `standing` has the numbers.
    """
    frame = tables.difference_frame(candidates, list(main["label"]), list(main["group"]))
    if frame.empty or sweep.view.best is None:
        return ""
    margin = sweep.view.best["margin"]
    statement = (f"{r['label']} {tables.number(r['difference'])}" for r in tables.records(frame))
    band = "" if margin is None else f" Band: the margin, ±{margin:g}."
    return page.chart(
        figures.difference_figure(
            frame, sweep.looks, f"{sweep.objective.title}, minus the winner", margin
        ),
        f"{sweep.objective.metric} minus the winner's: {'; '.join(statement)}.",
        "With the 95 % interval of each comparison alone, seed by seed where seeds are shared."
        + band,
    )


def standing(
    candidates: Sequence[Compared],
    labels: Sequence[str],
    metric: str,
    margin: float | None,
    compared: str = "",
) -> str:
    """Return the table of confirmed candidates, with the best and its ties highlighted."""
    frame = tables.standing_frame(candidates, labels, metric)
    tied = [i for i, candidate in enumerate(candidates) if candidate.get("tied_with_best")]
    caption = (
        f"The best{compared}, trained again: mean ± standard error over fresh seeds. Set off: the "
        "best and its ties, every candidate not distinguishable from it at 5 %."
    )
    notes = (
        "t: Student's interval of the mean. Bootstrap: percentiles of the resampled mean, too "
        "narrow for few seeds. p: chance alone does this much or more, by t-tests on the "
        "differences at shared seeds, corrected for all pairs of candidates (Holm). Detectable: "
        "the smallest true difference from the best that these seeds show with 80 % power. "
    )
    notes += (
        "Without a margin (confirm.margin) no candidate is equivalent to the best."
        if margin is None
        else f"Equivalent: the difference is within {margin:g}, by two one-sided t-tests at 5 % "
        "for each candidate."
    )
    if "control" in set(frame["verdict"]):
        notes += " Control: the file's own configuration, trained with the same seeds."
    if "search − confirmed" in frame:
        notes += (
            " Search − confirmed: the value by which the search ranked the configuration minus "
            "the confirmed mean; the search's best is a lucky one as a rule."
        )
    right = [name for name in frame.columns if name not in ("candidate", "compared", "verdict")]
    return page.table(frame, caption, right=right, marked=tied) + page.paragraph(notes, "quiet")


def _on_the_test_set(sweep: Sweep) -> str:
    metrics = list(filter(is_test_objective, sweep.confirmed["metric"].unique()))
    if not metrics:
        return ""
    frame = tables.metrics_frame(sweep.confirmed, metrics)
    frame["metric"] = [
        f"{metric} ({unit(metric)})".replace(" ()", "") for metric in frame["metric"]
    ]
    caption = "The same models on the test set, which chose nothing."
    return page.table(frame, caption, right=list(frame.columns[1:])) + _unsound_on_test(sweep)


def _unsound_on_test(sweep: Sweep) -> str:
    """List the test metrics outside their healthy range, such as a σ at an edge of its grid."""
    statement = [
        f"confirm-{trial.number}: {unsound}"
        for trial in sweep.view.trials
        if trial.stage == "confirm"
        for unsound in conditions(trial.metrics)
        if unsound.startswith("test/")
    ]
    return (
        page.paragraph("Outside their healthy range:", "quiet") + page.bullets(statement)
        if statement
        else ""
    )


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
        f"All {len(shown)} trials. Select a column's head to sort by it.",
        right=["trial", "seed"],
        titles=titles,
        page_size=ROWS_A_PAGE,
    )


def prior_gap(sweep: Sweep) -> str:
    """Show what limits the winner's likelihood: codes that do not follow the prior, or
    reconstruction.
    """
    best = sweep.view.best
    if best is None or "val/prior_gap" not in best["metrics"]:
        return ""
    note = (
        "Both figures take 10,000 samples. Fewer training images repeat among them, and the "
        "difference is then a lower bound."
    )
    return (
        page.paragraph(_gap_in_words(best["metrics"]))
        + _gaps(sweep)
        + page.paragraph(note, "quiet")
    )


def _gap_in_words(metrics: Mapping[str, Summary]) -> str:
    drawn, codes, gap = (metrics[name] for name in _GAP)
    figures = (
        f"With draws of the prior the winner has {score(drawn)} nats on validation, with decoded "
        f"codes of training images {score(codes)}."
    )
    if gap["mean"] is None or gap["mean"] <= (gap["se"] or 0):
        return (
            f"{figures} The difference, {score(gap)} nats, shows no loss to codes that do not "
            "follow the prior."
        )
    return (
        f"Decoding training codes instead of draws of the prior raises the figure by {score(gap)} "
        "nats: that much is lost to codes that do not follow the prior; the rest is "
        f"reconstruction. {figures}"
    )


def _gaps(sweep: Sweep) -> str:
    if sweep.confirmed.empty:
        return ""
    frame = tables.metrics_frame(sweep.confirmed, list(_GAP)).set_index("metric")
    frame = frame.loc[list(_GAP)].rename(_GAP).rename_axis("samples").reset_index()
    caption = "Every candidate: Parzen log-likelihood of validation images, in nats."
    return page.table(frame, caption, right=list(frame.columns[1:]))


def against_the_paper(sweep: Sweep) -> str:
    data = sweep.view.spec["data"]["name"]
    metrics = [sweep.objective.metric, *sweep.confirmed["metric"]]
    published = paper.published(data, sweep.kinds, metrics)
    return "".join(_beside_ours(sweep, table) for table in published)


def history(sweep: Sweep) -> str:
    if sweep.finished.empty:
        return ""
    figure = figures.history_figure(sweep.search, sweep.looks, sweep.objective)
    zoomed = " The axis spans the better nine tenths; double-click to see all."
    return page.chart(
        figure,
        f"{sweep.objective.metric} of {len(sweep.finished)} finished search trials by number; "
        f"the best reached {tables.number(_best_value(sweep))}.",
        "Crosses: pruned, at the last value that they reported."
        + (zoomed if figure.layout.yaxis.range else ""),
        _in_all_trials(sweep),
    ) + _tuning(sweep)


def _tuning(sweep: Sweep) -> str:
    """Return the tuning curve if trials are independent draws, that is, if no sampler learned."""
    search = sweep.view.spec["search"] or {}
    sampler = search.get("sampler", {}).get("kind")
    if sampler in ADAPTIVE:
        statement = "No tuning curve: the sampler learns, so its trials are no independent draws."
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
        "What the best of n trials reaches: the median, in a band that holds all curves at every n "
        "with 95 % (Lourie et al. 2023). Compare groups at the same n: where their bands part, one "
        "is better, however many trials each had." + "".join(cautions),
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
        page_size=ROWS_A_PAGE,
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
        f"A line a finished trial, the best {best_shown(len(sweep.finished))} in colour"
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
    mark = f" Crosses: {times} a worker, a node or the driver was lost and the trial carried on."
    spent = duration((timed["ended"] - timed["started"]).dt.total_seconds().sum())
    return page.chart(
        timeline_figure(sweep.trials),
        f"When and where {len(timed)} trials ran, {spent} of training in all; "
        f"{lost or 'no'} attempt{'' if lost == 1 else 's'} lost.",
        f"A bar a trial, in the lane of its worker: {spent} of training in all."
        + (mark if lost else ""),
        _in_all_trials(sweep),
    )


def pictures(sweep: Sweep) -> str:
    shown, left_out = _within_budget(sweep.view.pictures)
    if not sweep.view.pictures:
        return ""
    grid = "".join(page.picture(p.path, p.title, p.alt) for p in shown)
    statement = [f"{p.title}: too large to carry along, see {p.path}." for p in left_out]
    return f'<div class="pictures">{grid}</div>' + "".join(map(page.paragraph, statement))


def parzen(sweep: Sweep) -> str:
    evaluation = sweep.view.evaluation
    if evaluation is None or sweep.scores.empty:
        return ""
    controls = tables.controls_frame(evaluation["models"])
    largest = int(sweep.scores["n_samples"].max())
    best = sweep.scores[sweep.scores["n_samples"] == largest]["log_likelihood"].max()
    scored = tables.scored_frame(evaluation)
    return (
        page.chart(
            figures.parzen_figure(sweep.scores, sweep.looks, controls, _published_aae(sweep)),
            f"Parzen log-likelihood of the test set over the number of samples; the highest at "
            f"{largest:,} samples is {tables.number(best)} nats.",
            figures.PARZEN_LEGEND + _controls_in_words(controls, sweep.scores),
            page.as_table(_parzen_numbers(sweep)),
        )
        + page.table(
            scored,
            "Every scored model: log-likelihood in nats ± standard error over test points.",
            right=["seed", "log-likelihood", "on the strict grid", "σ"],
        )
        + _controls(controls)
    )


def reproduce(sweep: Sweep) -> str:
    view = sweep.view
    best = view.best
    facts = {
        "sweep id": view.status["id"],
        "configuration of the sweep": view.status["config_hash"],
    }
    if best is not None:
        facts |= {
            "winning configuration": best["config_hash"],
            "its seeds": ", ".join(map(str, best["seeds"])),
            "data sha256": best["data_sha256"] or "",
            "code version": best["code_version"] or "",
        }
    winning = json.dumps(best["params"], indent=2) if best else ""
    return (
        page.paragraph("The same command resumes the sweep here, or runs it again elsewhere.")
        + page.code(view.status["resume"] or "")
        + _again(sweep)
        + page.facts({name: value for name, value in facts.items() if value})
        + (page.details("Winning parameters", page.code(winning)) if winning else "")
        + page.details("Sweep file as given", page.code(view.spec_text))
        + page.details("Sweep file with every default", page.code(json.dumps(view.spec, indent=2)))
    )


def _again(sweep: Sweep) -> str:
    best = sweep.view.best
    if best is None or not best["trials"]:
        return ""
    stage = "confirm" if best["confirmed"] else "search"
    return page.paragraph(
        "The winner alone, trained again from its record and compared number by number:"
    ) + page.code(f"aae-sweep reproduce {sweep.view.status['id']}/{stage}-{best['trials'][0]}")


SECTIONS: list[tuple[str, str, Callable[[Sweep], str]]] = [
    ("confirmed", "Confirmed results", leaderboard),
    ("prior-gap", "Prior or reconstruction", prior_gap),
    ("paper", "Beside the paper", against_the_paper),
    ("history", "Search history", history),
    ("trade-off", "Trade-off", trade_off),
    ("importance", "Parameter importance", importance),
    ("parallel", "Parallel coordinates", parallel),
    ("slices", "Parameter by parameter", slices),
    ("curves", "Learning curves", learning_curves),
    ("timeline", "Timeline", timeline),
    ("pictures", "Pictures", pictures),
    ("parzen", "Parzen log-likelihood", parzen),
    ("trials", "All trials", all_trials),
    ("reproduce", "Make it again", reproduce),
]


def sections(sweep: Sweep) -> list[page.Section]:
    """Return every section that has content."""
    made = [page.Section(sweep.prefix + id, title, build(sweep)) for id, title, build in SECTIONS]
    return [section for section in made if section.body]


def _state_notice(status: Status) -> str:
    if status["state"] == "done":
        return ""
    statement = {
        "running": "The sweep is still running; these figures will move.",
        "failed": "The sweep failed before its end; what it found until then stands here.",
        "interrupted": "The sweep was interrupted; the command at the end resumes it.",
        "stopped": "The sweep was stopped; the command at the end resumes it.",
    }[status["state"]]
    return page.paragraph(f"{statement} Stage: {status['stage']}.", "notice")


def _key_numbers(sweep: Sweep) -> list[tuple[str, str, str]]:
    status = sweep.view.status
    summaries = sweep.view.best["metrics"] if sweep.view.best else {}
    test = sweep.objective.metric.replace("val/", "test/", 1)
    cards = [
        (metric, score(summaries[metric]), unit(metric))
        for metric in (sweep.objective.metric, test)
        if metric in summaries
    ]
    counts = status["trials"]
    finished = ", ".join(f"{n} {state}" for state, n in counts.items() if n) or "none started"
    cards.append(("trials", tables.number(sum(counts.values())), finished))
    elapsed, rest = status["elapsed_seconds"], status["eta_seconds"]
    remark = f"about {duration(rest)} to go" if rest else status["state"]
    return [*cards, ("time", duration(elapsed), remark)]


def _in_all_trials(sweep: Sweep) -> str:
    return page.link(f"{sweep.prefix}trials", "The numbers: all trials")


def _parzen_numbers(sweep: Sweep) -> str:
    scores = sweep.scores
    frame = scores[["group", "seed", "n_samples"]].astype({"seed": str, "n_samples": int})
    frame = frame.rename(columns={"n_samples": "samples"})
    for end, statement, sigma in (("", "log-likelihood", "σ"), ("_grid", *_STRICT)):
        figures = zip(scores[f"log_likelihood{end}"], scores[f"standard_error{end}"], strict=True)
        frame[statement] = [number(mean, error) for mean, error in figures]
        frame[sigma] = scores[f"sigma{end}"].map(tables.number)
    return page.table(
        frame,
        "Every point of the figure: nats ± standard error over test points.",
        right=["seed", "log-likelihood", "σ", *_STRICT],
        page_size=ROWS_A_PAGE,
    )


def _means(rows: pd.DataFrame) -> list[str]:
    return [number(row["mean"], row["se"]) for row in tables.records(rows)]


def _by_label(sweep: Sweep, metric: str) -> dict[str, str]:
    rows = sweep.confirmed[sweep.confirmed["metric"] == metric]
    return dict(zip(rows["label"], _means(rows), strict=True))


def _best_value(sweep: Sweep) -> float:
    values = sweep.finished["value"]
    return float(values.max() if sweep.objective.direction == "maximize" else values.min())


def _beside_ours(sweep: Sweep, table: paper.PublishedTable) -> str:
    ours = comparison.Ours(
        {name: method for name, (kind, method) in sweep.methods.items() if kind in table.kinds},
        sweep.view.spec["data"]["name"],
        sweep.view.spec["data"]["labels"],
        sweep.confirmed,
        sweep.scores,
        sweep.view.spec["data"].get("extra", False),
    )
    frame = comparison.beside(table, ours)
    marked = [i for i, method in enumerate(frame["method"]) if method not in table.rows]
    caption = f"{table.title} ({table.unit}). {table.note} Source: {paper.SOURCE}. Ours is set off."
    return (
        page.table(frame, caption, right=list(frame.columns[1:]), marked=marked)
        + page.paragraph("What differs between the two protocols:", "quiet")
        + page.bullets(comparison.differences(table, ours))
    )


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
                page_size=ROWS_A_PAGE,
            )
        ),
    )


def _published_aae(sweep: Sweep) -> dict[int, float]:
    """Return number of samples -> the paper's AAE figure for this sweep's data."""
    table = paper.TABLE_1.only(sweep.view.spec["data"]["name"])
    return {
        column.samples: paper.value(cell)
        for column, cell in zip(table.columns, table.rows.get("AAE", ()), strict=True)
        if cell is not None and column.samples is not None
    }


def _controls_in_words(controls: pd.DataFrame, scores: pd.DataFrame) -> str:
    """Explain the grey points, and compare figures where a model has as many samples."""
    if controls.empty:
        return ""
    statement = (
        " Grey: memorisers, which have training images or k-means centroids of them for samples. "
        "Parzen figures flatter memory and grow with the number of samples, so compare a model "
        "with the controls at its own."
    )
    best = scores.groupby("n_samples")["log_likelihood"].max()
    for n, rows in controls[controls["n_samples"].isin(best.index)].groupby("n_samples"):
        ours = [f"the best model {tables.number(best[n])}"]
        theirs = [
            f"{tables.CONTROLS[row['kind']]} {tables.number(row['log_likelihood'])}"
            for row in tables.records(rows)
        ]
        statement += f" Nats with {n:,.0f} samples: {', '.join(ours + theirs)}."
    return statement


def _controls(controls: pd.DataFrame) -> str:
    if controls.empty:
        return ""
    return page.table(
        tables.controls_table(controls),
        "Controls, by the same protocol: a row for each number of samples that the training "
        "images can fill, and one for all of them.",
        right=["log-likelihood", "on the strict grid", "σ"],
    )


def _within_budget(pictures: Sequence["Picture"]) -> tuple[list["Picture"], list["Picture"]]:
    shown: list[Picture] = []
    left_out: list[Picture] = []
    room = PICTURE_BUDGET
    for picture in pictures:
        size = picture.path.stat().st_size
        (shown if size <= room else left_out).append(picture)
        room -= size if size <= room else 0
    return shown, left_out
