"""Turn records and documents into data frames, and numbers into text.

Functions are pure. Missing numbers are NaN.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from aae_core.metrics import Direction
from orchestrator import text
from orchestrator.documents import (
    Best,
    Compared,
    Evaluation,
    ScoredModel,
    Versus,
)
from orchestrator.records import BASELINE, RunRecord
from orchestrator.results.ranking import METHODS
from orchestrator.results.tuning import tuning_curve
from orchestrator.results.verdicts import though
from orchestrator.study.pareto import fronts
from orchestrator.text import MISSING

Curves = Mapping[tuple[str, int], Sequence[Mapping[str, float]]]
CONTROLS = {"kmeans": "k-means centroids", "train_images": "training images"}
QUARTERS = (25, 50, 75, 100)


def trials_frame(
    trials: Sequence[RunRecord], metric: str, group_by: str | None = None
) -> pd.DataFrame:
    """Return a row per trial. `value` is the last `metric`, `group` the value of `group_by`."""
    return pd.DataFrame(
        {
            "number": [t.number for t in trials],
            "stage": [t.stage for t in trials],
            "state": [t.state for t in trials],
            "group": [str(t.params[group_by]) if group_by in t.params else "" for t in trials],
            "value": numbers(t.metrics.get(metric) for t in trials),
            "epochs": [t.epochs for t in trials],
            "seed": [str(t.seed) for t in trials],  # text, since 63 bits do not fit in a float
            "attempts": [t.attempts for t in trials],
            "lost": pd.Series([t.lost for t in trials], dtype=object),
            "resumed_from": pd.Series([t.resumed_from for t in trials], dtype=object),
            "node": [t.node or "" for t in trials],
            "seconds": numbers(t.seconds for t in trials),
            "started": pd.to_datetime(
                pd.Series([t.started for t in trials], dtype=object), format="ISO8601", utc=True
            ),
            "reason": [t.reason or "" for t in trials],
        }
    )


def parameters_frame(trials: Sequence[RunRecord]) -> pd.DataFrame:
    """Return a row per trial, a column per parameter's path; None for an inactive parameter.

    Values that are not numbers, such as booleans and lists, become text, to serve as categories.
    """
    paths = list(dict.fromkeys(path for trial in trials for path in trial.params))
    return pd.DataFrame(
        {
            path: pd.Series([_plain(t.params.get(path)) for t in trials], dtype=object)
            for path in paths
        }
    )


def best_so_far(values: pd.Series, direction: Direction) -> pd.Series:
    return values.cummax() if direction == "maximize" else values.cummin()


def tuning_frame(trials: pd.DataFrame, direction: Direction) -> pd.DataFrame:
    """Return a row per (group, number of trials n): median of the best of n, ends of its band.

    The bands of all groups jointly have 95 % confidence. A pruned or diverged trial counts as worse
    than every complete trial. Failed and running trials are left out.
    """
    ended = trials[trials["state"].isin(["complete", "pruned", "diverged"])]
    values = ended["value"].where(ended["state"] == "complete")
    groups = dict(list(values.groupby(ended["group"], sort=False)))
    confidence = 1 - 0.05 / max(1, len(groups))
    return pd.DataFrame(
        [
            (group, *astuple(best))
            for group, own in groups.items()
            for best in tuning_curve(own.tolist(), direction, confidence=confidence)
        ],
        columns=["group", "trials", "median", "low", "high"],
    )


def tuning_rows(curves: pd.DataFrame) -> pd.DataFrame:
    """Return text: rows for 1, 2, 5, 10, … and each group's last trial, a column per group."""
    ends = {int(rows["trials"].max()) for _, rows in curves.groupby("group")}
    most = max(ends, default=0)
    shown = {k * 10**power for power in range(len(str(most))) for k in (1, 2, 5)} | ends
    kept = curves[curves["trials"].isin(shown)]
    cells = [f"{_end(row['median'])} {_band(row)}" for row in records(kept)]
    table = kept.assign(text=cells).pivot(index="trials", columns="group", values="text")
    table = table[list(dict.fromkeys(curves["group"]))].rename(columns={"": "best of them"})
    table.columns.name = None
    return table.fillna(MISSING).reset_index().astype({"trials": str})


def _band(row: Mapping[str, Any]) -> str:
    return f"[{_end(row['low'])}, {_end(row['high'])}]"


def _end(value: float) -> str:
    return number(value) if math.isfinite(value) else ("∞" if value > 0 else "−∞")


def finished(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the complete trials that have a value."""
    return trials[(trials["state"] == "complete") & trials["value"].notna()]


def candidate_labels(best: Best) -> dict[str, str]:
    """Return configuration hash -> label: the compared value, plus the hash if not unique."""
    values = Counter(str(group["value"]) for group in best["groups"])
    return {
        group["config_hash"]: (
            f"Configuration {group['config_hash']}"
            if group["value"] is None
            else str(group["value"])
            + (f" ({group['config_hash']})" if values[str(group["value"])] > 1 else "")
        )
        for group in best["groups"]
    }


def control_of(best: Best) -> Compared | None:
    """Return the control, or None if it is also a candidate of the search."""
    control = best["baseline"]
    hashes = {group["config_hash"] for group in best["groups"]}
    return None if control is None or control["config_hash"] in hashes else control


def confirmed_frame(best: Best | None, group_by: str | None) -> pd.DataFrame:
    """Return a row per (confirmed candidate, metric), in order of rank, the control last."""
    names = ["label", "group", "metric", "mean", "se", "low", "high", "values"]
    if best is None or not best["confirmed"]:
        return pd.DataFrame(columns=names)
    labels = candidate_labels(best)
    control = control_of(best)
    named = [
        *(
            (c, labels[c["config_hash"]], str(c["params"].get(group_by or "", "")))
            for c in best["groups"]
        ),
        *([(control, BASELINE, BASELINE)] if control else []),
    ]
    rows = [
        (
            label,
            group,
            metric,
            s["mean"],
            s["se"],
            *(s["ci95"] or (None, None)),
            s["values"],
        )
        for candidate, label, group in named
        for metric, s in candidate["metrics"].items()
    ]
    frame = pd.DataFrame(rows, columns=names)
    return frame.astype(dict.fromkeys(["mean", "se", "low", "high"], float))


def standing_frame(
    candidates: Sequence[Compared], labels: Sequence[str], metric: str
) -> pd.DataFrame:
    """Return a text table with a row per candidate, the best first.

    Columns: mean, difference from the best, verdict, both intervals, the test, and if known the
    search's value minus the confirmed mean. A narrow page shows the first columns.
    """
    promised = any("optimism" in candidate for candidate in candidates)
    return pd.DataFrame(
        {
            "candidate": label,
            "seeds": len(figures["values"]),
            metric: number(figures["mean"], figures["se"]),
            "minus the best": _difference(candidate["versus_best"]),
            "verdict": candidate["verdict"] + though(candidate)
            if "verdict" in candidate
            else "control",
            "detectable": number(
                candidate["difference"]["detectable"] if candidate["difference"] else None
            ),
            "95 % (t)": interval(*figures["ci95"] or (math.nan, math.nan)),
            "95 % (bootstrap)": interval(*figures["bootstrap95"] or (math.nan, math.nan)),
            **_tested(candidate["versus_best"]),
            **({"search − confirmed": number(candidate.get("optimism"))} if promised else {}),
        }
        for candidate, label in zip(candidates, labels, strict=True)
        for figures in [candidate["metrics"][metric]]
    )


def _difference(versus: Versus | None) -> str:
    """Return a candidate's mean minus the best one's. None stands for the best itself."""
    return "" if versus is None else number(versus["difference"], versus["se"])


def _tested(versus: Versus | None) -> dict[str, str]:
    """Return the cells of a candidate's test against the best. None stands for the best itself."""
    if versus is None:
        return {"p (Holm)": "", "compared": "the best"}
    p = "" if versus["p_holm"] is None else f"{versus['p_holm']:.2g}"
    return {"p (Holm)": p, "compared": METHODS[versus["method"]].format(**versus)}


def difference_frame(
    candidates: Sequence[Mapping[str, Any]], labels: Sequence[str], groups: Sequence[str]
) -> pd.DataFrame:
    """Return a row per candidate with a t-test against the best: difference, 95 % interval."""
    rows = [
        (label, group, found["mean"], *found["ci95"])
        for candidate, label, group in zip(candidates, labels, groups, strict=True)
        if (found := candidate["difference"]) is not None
    ]
    frame = pd.DataFrame(rows, columns=["label", "group", "difference", "low", "high"])
    return frame.astype(dict.fromkeys(["difference", "low", "high"], float))


def metrics_frame(confirmed: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Return mean ± standard error over seeds as text, a row per metric, a column per candidate."""
    chosen = confirmed[confirmed["metric"].isin(metrics)]
    cells = chosen.assign(cell=[number(r["mean"], r["se"]) for r in records(chosen)])
    wide = cells.pivot_table("cell", "metric", "label", aggfunc="first", sort=False)
    return wide.rename_axis(columns=None).reset_index().fillna(MISSING)


def curves_frame(curves: Curves, trials: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return a text table with a row per trial: the metric after each quarter of its epochs."""
    rows = []
    for trial in records(trials):
        points = [p for p in curves[trial["stage"], trial["number"]] if metric in p]
        at = {f"{q} %": points[max(len(points) * q // 100 - 1, 0)][metric] for q in QUARTERS}
        about = {"trial": str(trial["number"]), "group": trial["group"], "state": trial["state"]}
        rows.append(about | {"epochs": trial["epochs"]} | at)
    return pd.DataFrame(rows)


def parzen_frame(evaluation: Evaluation | None) -> pd.DataFrame:
    """Return a row per (scored model, number of samples), the final score last.

    `…_grid` is the figure at the best σ of the strict grid, NaN for older curves without it.
    """
    figures = ["log_likelihood", "standard_error", "sigma"]
    columns = ["group", "seed", "n_samples", *figures, *(f"{name}_grid" for name in figures)]
    rows = [
        {
            **{name: point.get(name) for name in columns[2:]},
            "group": _group(model),
            "seed": model["seed"],
        }
        for model in scored(evaluation)
        for point in _by_samples([*model["curve"], model])
    ]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(columns[2:], float))


def scored(evaluation: Evaluation | None) -> list[ScoredModel]:
    """Return the models with a Parzen score. Not every architecture has one."""
    return [model for model in (evaluation or {"models": []})["models"] if "curve" in model]


def scored_frame(evaluation: Evaluation) -> pd.DataFrame:
    """Return a text table with a row per scored model."""
    return pd.DataFrame(
        {
            "group": _group(model),
            "seed": str(model["seed"]),
            "samples": model["n_samples"],
            "log-likelihood": number(model["log_likelihood"], model["standard_error"]),
            "on the strict grid": number(model["log_likelihood_grid"]),
            "σ": number(model["sigma"]) + (" (edge of the grid)" if model["sigma_at_edge"] else ""),
            "test points": model["n_test"],
            "checkpoint": "/".join(Path(model["checkpoint"] or "").parts[-3:]),
        }
        for model in scored(evaluation)
    )


def group_scores(scores: pd.DataFrame) -> dict[tuple[str, int], tuple[float, float | None]]:
    """Return (group, samples) -> mean over seeds and standard error, None for a single seed."""
    summary = scores.groupby(["group", "n_samples"], sort=False)["log_likelihood"].agg(
        ["mean", "sem", "count"]
    )
    return {
        (row["group"], int(row["n_samples"])): (
            row["mean"],
            row["sem"] if row["count"] > 1 else None,
        )
        for row in records(summary.reset_index())
    }


def controls_frame(models: Iterable[ScoredModel]) -> pd.DataFrame:
    """Return a row per control of these models, by kind and number of samples.

    Models with the same data and numbers of samples share their controls.
    """
    figures = ["n_samples", "log_likelihood", "standard_error", "sigma", "log_likelihood_grid"]
    found = {
        (row["kind"], row["n_samples"]): row
        for model in models
        for row in model.get("controls", [])
    }
    frame = pd.DataFrame([found[key] for key in sorted(found)], columns=["kind", *figures])
    return frame.astype(dict.fromkeys(figures, float))


def controls_table(controls: pd.DataFrame) -> pd.DataFrame:
    """Return a text table with a row per control."""
    return pd.DataFrame(
        {
            "control": CONTROLS[row["kind"]],
            "samples": int(row["n_samples"]),
            "log-likelihood": number(row["log_likelihood"], row["standard_error"]),
            "on the strict grid": number(row["log_likelihood_grid"]),
            "σ": number(row["sigma"]),
        }
        for row in records(controls)
    )


def importance(study: optuna.Study, paths: Sequence[str]) -> dict[str, float]:
    """Return each parameter's PED-ANOVA share, largest first, with conditional parameters."""
    return get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(), params=list(paths))


def objectives_frame(
    trials: Sequence[RunRecord], objectives: Mapping[str, Direction]
) -> pd.DataFrame:
    """Return a row per complete trial, a column per objective, and `front`: on the Pareto front.

    The index is the trial's place in `trials`. Trials without all objectives are left out.
    """
    measured = {
        place: [trial.metrics[objective] for objective in objectives]
        for place, trial in enumerate(trials)
        if trial.state == "complete" and objectives.keys() <= trial.metrics.keys()
    }
    frame = pd.DataFrame.from_dict(measured, "index", columns=list(objectives), dtype=float)
    signs = [-1 if direction == "maximize" else 1 for direction in objectives.values()]
    return frame.assign(front=fronts(frame.to_numpy() * signs) == 0)


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """Map each path to its shortest unique ending: model.prior.std -> std."""
    paths = list(paths)
    return {path: _shortest_ending(path, [p for p in paths if p != path]) for path in paths}


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): row[name] for name in row} for row in frame.to_dict("records")]


def columns(frame: pd.DataFrame) -> list[str]:
    return [str(name) for name in frame]


def numbers(values: Iterable[Any]) -> pd.Series:
    """Return floats. None and infinities become NaN."""
    series = pd.Series(list(values), dtype=object).map(lambda v: np.nan if v is None else v)
    return series.astype(float).replace([np.inf, -np.inf], np.nan)


def number(value: float | None, error: float | None = None) -> str:
    """Format a number, and its error if it has one, with a typographic minus."""
    return text.number(value, error).replace("-", "−")


def samples_label(samples: int) -> str:
    """Abbreviate a number of samples where no digit is lost.

    >>> samples_label(10_000), samples_label(2_500_000), samples_label(1197)
    ('10K', '2.5M', '1,197')
    """
    for size, letter in ((1_000_000, "M"), (1_000, "K")):
        if samples >= size and samples % (size // 100) == 0:
            return f"{samples / size:g}{letter}"
    return f"{samples:,}"


def interval(low: float, high: float) -> str:
    """Format both ends with decimals that suit their distance: "121.0 to 126.1"."""
    return text.interval(low, high).replace("-", "−")


def _plain(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if value is None or is_number else str(value)


def _group(model: ScoredModel) -> str:
    return str(model["group"]) if model.get("group") is not None else ""


def _by_samples(points: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [point for _, point in sorted({p["n_samples"]: p for p in points}.items())]


def _shortest_ending(path: str, others: Sequence[str]) -> str:
    parts = path.split(".")
    endings = (".".join(parts[-n:]) for n in range(1, len(parts) + 1))
    return next(
        (end for end in endings if not any(f".{other}".endswith(f".{end}") for other in others)),
        path,
    )
