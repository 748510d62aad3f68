"""Sections of the report about the confirmed candidates and their test results."""

from collections.abc import Mapping, Sequence

import pandas as pd

from dashboards import comparison, figures, page, paper, tables
from dashboards.sweep import Sweep
from dashboards.tables import number
from dashboards.verdict import is_test_objective, score, unit
from orchestrator.documents import Compared, Summary
from orchestrator.records import conditions

_STRICT = "on the strict grid", "its σ"
_GAP = {  # metric -> description of its samples
    "val/parzen_ll": "draws of the prior, decoded",
    "val/parzen_codes": "codes of training images, decoded",
    "val/prior_gap": "the difference: the prior gap",
}

_TIE_TEST = "Welch's t-test over seeds, Holm-corrected, α = 0.05"


def confirmed_candidates(sweep: Sweep) -> str:
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
        "Each comparison has its own 95 % interval, seed by seed where seeds are shared." + band,
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
        f"The best{compared}, trained again: mean ± standard error over fresh seeds. Highlighted: "
        "the best and its ties, every candidate not distinguishable from it at 5 %."
    )
    notes = (
        "t: Student's interval of the mean. Bootstrap: percentiles of the resampled mean, too "
        "narrow for few seeds. p: the probability of this difference, or a larger one, by chance "
        "alone; t-tests on the differences at shared seeds, corrected for all pairs of candidates "
        "(Holm). Detectable: the smallest true difference from the best that these seeds show with "
        "80 % power. "
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
            "the confirmed mean; the search's best value is usually a lucky one."
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


def prior_gap(sweep: Sweep) -> str:
    """Show what limits the winner's likelihood: codes that do not follow the prior, or
    reconstruction.
    """
    best = sweep.view.best
    if best is None or "val/prior_gap" not in best["metrics"]:
        return ""
    note = (
        "Both figures need 10,000 samples. Fewer training images are repeated, and the difference "
        "is then a lower bound."
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
    return "".join(_beside_ours(table, [sweep]) for table in published)


def together_against_the_paper(sweeps: Sequence[Sweep]) -> str:
    """Return each published table with the figures of all sweeps that have some for it."""
    by_table: dict[tuple[str, str], list[Sweep]] = {}
    tables_of: dict[tuple[str, str], paper.PublishedTable] = {}
    for sweep in sweeps:
        data = sweep.view.spec["data"]["name"]
        metrics = [sweep.objective.metric, *sweep.confirmed["metric"]]
        for table in paper.published(data, sweep.kinds, metrics):
            tables_of.setdefault((table.title, data), table)
            by_table.setdefault((table.title, data), []).append(sweep)
    return "".join(_beside_ours(tables_of[key], found) for key, found in by_table.items())


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
        page_size=page.ROWS,
    )


def _means(rows: pd.DataFrame) -> list[str]:
    return [number(row["mean"], row["se"]) for row in tables.records(rows)]


def _by_label(sweep: Sweep, metric: str) -> dict[str, str]:
    rows = sweep.confirmed[sweep.confirmed["metric"] == metric]
    return dict(zip(rows["label"], _means(rows), strict=True))


def _beside_ours(table: paper.PublishedTable, sweeps: Sequence[Sweep]) -> str:
    ours = [_ours(table, sweep) for sweep in sweeps]
    frame = comparison.beside(table, *ours)
    marked = [i for i, method in enumerate(frame["method"]) if method not in table.rows]
    caption = (
        f"{table.title} ({table.unit}). {table.note} Source: {paper.SOURCE}. Ours is highlighted."
    )
    if any(str(cell).endswith(comparison.TIE) for cell in frame.to_numpy().flat):
        caption += f"{comparison.TIE} ties with the best of ours in its column: {_TIE_TEST}."
    return (
        page.table(frame, caption, right=list(frame.columns[1:]), marked=marked)
        + page.paragraph("What differs between the two protocols:", "quiet")
        + page.bullets(comparison.all_differences(table, ours))
    )


def _ours(table: paper.PublishedTable, sweep: Sweep) -> comparison.Ours:
    data = sweep.view.spec["data"]
    return comparison.Ours(
        {name: method for name, (kind, method) in sweep.methods.items() if table.covers(kind)},
        data["name"],
        data["labels"],
        sweep.confirmed,
        sweep.scores,
        data.get("extra", False),
        sweep.view.status["id"],
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
        " Grey: controls, whose samples are training images or their k-means centroids. Parzen "
        "figures reward memorising and grow with the number of samples, so compare a model with "
        "the controls that have as many samples."
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
