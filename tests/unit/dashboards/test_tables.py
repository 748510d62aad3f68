import math

import pandas as pd
import pytest
from synthetic_sweep import METRIC

from dashboards import tables
from orchestrator.records import RunRecord
from orchestrator.results.reader import SweepView


def record(number: int, value: float | None = None, **params: object) -> RunRecord:
    metrics = {} if value is None else {METRIC: value}
    return RunRecord(number, "search", "complete", 7, "c0ffee", params, metrics=metrics)


def test_number_has_a_typographic_minus() -> None:
    assert tables.number(-3.5) == "−3.5"
    assert tables.number(-0.01234, 0.00056) == "−0.01234 ± 0.00056"


def test_short_names_are_the_shortest_that_differ() -> None:
    paths = ["model.encoder.kind", "training.schedule.kind", "model.prior.std", "std.kind"]
    assert list(tables.short_names(paths).values()) == [
        "encoder.kind",
        "schedule.kind",
        "std",
        "std.kind",
    ]


def test_short_name_of_a_path_that_ends_another_is_the_whole_path() -> None:
    assert tables.short_names(["a.std", "std"]) == {"a.std": "a.std", "std": "std"}


def test_trials_frame_turns_an_infinite_value_into_nan() -> None:
    frame = tables.trials_frame([record(0, math.inf), record(1, 2.5), record(2)], METRIC)
    assert frame["value"].isna().tolist() == [True, False, True]


def test_parameters_frame_has_none_for_parameters_of_other_branches() -> None:
    frame = tables.parameters_frame([record(0, lr=0.1), record(1, drops=[3, 5], flag=True)])
    assert frame["lr"].tolist() == [0.1, None]
    assert frame["drops"].tolist() == [None, "[3, 5]"]
    assert frame["flag"].tolist() == [None, "True"]


def test_best_so_far_never_gets_worse() -> None:
    values = pd.Series([3.0, 1.0, 2.0, 5.0])
    assert tables.best_so_far(values, "maximize").tolist() == [3, 3, 3, 5]
    assert tables.best_so_far(values, "minimize").tolist() == [3, 1, 1, 1]


def test_candidate_labels_of_one_group_differ_by_their_hash() -> None:
    groups = [
        {"value": "gaussian", "config_hash": "aa"},
        {"value": "gaussian", "config_hash": "bb"},
        {"value": "universal", "config_hash": "cc"},
        {"value": None, "config_hash": "dd"},
    ]
    assert tables.candidate_labels({"groups": groups}) == {
        "aa": "gaussian (aa)",
        "bb": "gaussian (bb)",
        "cc": "universal",
        "dd": "Configuration dd",
    }


def test_confirmed_frame_has_a_row_per_candidate_and_metric(view: SweepView) -> None:
    best = view.best
    frame = tables.confirmed_frame(best, "model.encoder.kind")
    assert len(frame) == 3 * 4
    assert frame["mean"].iloc[0] == best["metrics"][METRIC]["mean"]
    assert tables.confirmed_frame({**best, "confirmed": False}, None).empty


def test_standing_frame_compares_each_candidate_with_the_best(view: SweepView) -> None:
    best = view.best
    labels = list(tables.candidate_labels(best).values())
    frame = tables.standing_frame(best["groups"], labels, METRIC)
    assert list(frame["candidate"]) == labels
    assert list(frame["compared"]) == ["the best", "seed by seed (3)", "seed by seed (3)"]
    figures, versus = best["groups"][1]["metrics"][METRIC], best["groups"][1]["versus_best"]
    assert frame["95 % (bootstrap)"][1] == tables.interval(*figures["bootstrap95"])
    assert frame["minus the best"][1] == tables.number(versus["difference"], versus["se"])
    assert frame["p (Holm)"][1] == f"{versus['p_holm']:.2g}"


def test_metrics_frame_has_a_column_per_candidate(view: SweepView) -> None:
    best = view.best
    frame = tables.metrics_frame(tables.confirmed_frame(best, None), ["test/parzen_ll"])
    assert list(frame.columns) == ["metric", *tables.candidate_labels(best).values()]
    figures = best["metrics"]["test/parzen_ll"]
    assert frame.iloc[0, 1] == tables.number(figures["mean"], figures["se"])


def test_curves_frame_has_the_values_at_the_quarters() -> None:
    curve = [{"epoch": e, METRIC: 10.0 * e} for e in range(1, 9)]
    frame = tables.trials_frame([record(3, 80.0)], METRIC)
    (row,) = tables.records(tables.curves_frame({("search", 3): curve}, frame, METRIC))
    assert [row[f"{q} %"] for q in tables.QUARTERS] == [20.0, 40.0, 60.0, 80.0]


def test_group_scores_have_an_error_only_over_several_seeds() -> None:
    scores = pd.DataFrame(
        {
            "group": ["a", "a", "b"],
            "n_samples": [10_000.0, 10_000.0, 10_000.0],
            "log_likelihood": [100.0, 104.0, 90.0],
        }
    )
    assert tables.group_scores(scores) == {
        ("a", 10_000): (102.0, pytest.approx(2.0)),
        ("b", 10_000): (90.0, None),
    }


def test_parzen_frame_ends_a_curve_at_the_final_score(view: SweepView) -> None:
    evaluation = view.evaluation
    model = {**evaluation["models"][0], "curve": evaluation["models"][0]["curve"][:2]}
    frame = tables.parzen_frame({"models": [model]})
    assert frame["n_samples"].tolist() == [10_000, 100_000, 10_000_000]
    assert frame["log_likelihood"].iloc[-1] == model["log_likelihood"]
    assert frame["log_likelihood_grid"].tolist() == [
        point["log_likelihood_grid"] for point in (*model["curve"], model)
    ]


def test_controls_frame_has_one_row_per_shared_control(view: SweepView) -> None:
    evaluation = view.evaluation
    models = evaluation["models"]
    few = {"controls": models[0]["controls"][:1]}
    frame = tables.controls_frame([{"metrics": {}}, few, *models])
    assert list(zip(frame["kind"], frame["n_samples"], strict=True)) == [
        ("kmeans", 10_000),
        ("train_images", 10_000),
        ("train_images", 50_000),
    ]
    assert tables.controls_table(frame).iloc[0].to_dict() == {
        "control": "k-means centroids",
        "samples": 10_000,
        "log-likelihood": "344.3 ± 1.8",
        "on the strict grid": "339.8",
        "σ": "0.156",
    }
    assert tables.controls_frame([]).empty


@pytest.mark.parametrize(
    ("samples", "text"),
    [(500, "500"), (1197, "1,197"), (10_000, "10K"), (2_500_000, "2.5M"), (10**7, "10M")],
)
def test_samples_label_abbreviates_thousands_and_millions(samples: int, text: str) -> None:
    assert tables.samples_label(samples) == text


def test_tuning_frame_counts_pruned_as_worst_and_skips_unfinished() -> None:
    states = ["complete"] * 6 + ["pruned", "diverged", "failed", "running"]
    trials = pd.DataFrame(
        {"state": states, "group": "a", "value": [1.0, 2, 3, 4, 5, 6, 99, math.nan, 99, 99]}
    )
    frame = tables.tuning_frame(trials, "maximize")
    assert frame["trials"].tolist() == list(range(1, 9))
    assert frame["median"].max() == 6
    assert frame["median"].iloc[0] == 2  # the fourth of −∞, −∞, 1, … 6
    assert frame["low"].iloc[0] == -math.inf


def test_tuning_bands_widen_with_the_number_of_groups() -> None:
    values = [float(i) for i in range(40)]
    one = pd.DataFrame({"state": "complete", "group": "a", "value": values})
    both = pd.concat([one, one.assign(group="b")])
    alone, beside = tables.tuning_frame(one, "maximize"), tables.tuning_frame(both, "maximize")
    beside = beside[beside["group"] == "a"]
    assert (beside["low"] <= alone["low"]).all()
    assert (beside["low"] < alone["low"]).any()


def test_tuning_rows_align_groups_by_number_of_trials() -> None:
    groups = [("b", 12), ("a", 3)]
    trials = pd.concat(
        pd.DataFrame({"state": "complete", "group": name, "value": [float(i) for i in range(n)]})
        for name, n in groups
    )
    rows = tables.tuning_rows(tables.tuning_frame(trials, "maximize"))
    assert list(rows.columns) == ["trials", "b", "a"]
    assert rows["trials"].tolist() == ["1", "2", "3", "5", "10", "12"]
    assert rows["b"].iloc[-1].endswith(", ∞]")
    assert rows["a"].tolist()[3:] == [tables.MISSING] * 3
