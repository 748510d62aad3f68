import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from synthetic_sweep import ENCODERS, METRIC

from dashboards import curves, figures, style, tables, timeline
from dashboards.parallel import parallel_figure
from dashboards.slices import slice_figure
from dashboards.sweep import Sweep
from orchestrator.results.reader import SweepView

LL = style.Objective(METRIC, "nats", "maximize")
COST = style.Objective("val/recon", "", "minimize")


@pytest.fixture
def sweep(view: SweepView) -> Sweep:
    return Sweep(view)


def named(figure: go.Figure) -> Mapping[str, go.Scatter]:
    return {trace.name: trace for trace in figure.data}


def trials(*values: float, state: str = "complete") -> pd.DataFrame:
    n = len(values)
    return pd.DataFrame(
        {"number": range(n), "stage": "search", "state": state, "group": "", "value": values}
    )


def test_looks_of_groups_differ_by_colour_and_marker() -> None:
    looks = style.looks(["a", "b", "c", "d", "e", "f"]).values()
    assert len({look.colour for look in looks}) == len({look.symbol for look in looks}) == 6


def test_safe_turns_markup_in_names_into_text() -> None:
    assert style.safe("<b>%{x}") == "&lt;b&gt;%\u200b{x}"


def test_history_figure_shows_each_group_and_the_best_so_far(sweep: Sweep) -> None:
    traces = named(figures.history_figure(sweep.search, sweep.looks, LL))
    assert set(traces) == {"pruned", *ENCODERS, "best so far"}
    assert traces["best so far"].y[-1] == sweep.finished["value"].max()
    assert len(traces["pruned"].x) == 6
    assert sum(len(traces[encoder].x) for encoder in ENCODERS) == len(sweep.finished) == 16


def test_tradeoff_figure_joins_the_pareto_front() -> None:
    frame = trials(5.0, 9.0, 7.0, 8.0).assign(
        other=[1.0, 3.0, 4.0, 2.0], front=[True, True, False, True]
    )
    traces = named(figures.tradeoff_figure(frame, style.looks([""]), LL, COST))
    assert list(traces["Pareto front"].x) == [1.0, 2.0, 3.0]
    assert list(traces["Pareto front"].y) == [5.0, 8.0, 9.0]
    assert list(traces["complete"].x) == [1.0, 3.0, 4.0, 2.0]


def test_value_axis_ignores_the_worst_tenth() -> None:
    values = pd.Series([-1e6, *range(100, 120)], dtype=float)
    low, high = style.value_axis(values, LL)["range"]
    assert 90 < low < 105
    assert high > 119
    low, high = style.value_axis(-values, COST)["range"]
    assert low < -119
    assert -105 < high < -90


def test_value_axis_of_equal_or_few_values_sets_no_range() -> None:
    assert "range" not in style.value_axis(pd.Series([1.0] * 20), LL)
    assert "range" not in style.value_axis(pd.Series([1.0, 2.0]), LL)


def test_importance_figure_puts_the_largest_first() -> None:
    (bars,) = figures.importance_figure({"std": 0.75, "lr": 0.25}).data
    assert list(bars.y) == ["std", "lr"]
    assert list(bars.text) == ["75%", "25%"]


def test_confirmed_figure_spans_the_confidence_interval(sweep: Sweep) -> None:
    main = sweep.confirmed[sweep.confirmed["metric"] == METRIC]
    figure = figures.confirmed_figure(main, sweep.looks, METRIC)
    mean = figure.data[1]
    assert mean.x[0] + mean.error_x.array[0] == pytest.approx(main["high"].iloc[0])
    assert mean.x[0] - mean.error_x.arrayminus[0] == pytest.approx(main["low"].iloc[0])
    assert list(figure.layout.yaxis.ticktext) == list(main["label"])


def test_parallel_figure_keeps_trials_of_every_branch(sweep: Sweep) -> None:
    figure = parallel_figure(
        sweep.search,
        sweep.parameters[sweep.searched],
        sweep.names,
        sweep.logarithmic,
        sweep.looks,
        LL,
    )
    lines = sum(int(np.isnan(trace.y).sum()) for trace in figure.data)
    assert lines == len(sweep.finished)
    heights = np.concatenate([trace.y for trace in figure.data])
    assert np.nanmin(heights) == 0.0
    assert np.nanmax(heights) == 1.0
    assert "none" in [annotation.text for annotation in figure.layout.annotations]


def test_slice_figure_over_a_category_puts_groups_side_by_side() -> None:
    frame = trials(1.0, 2.0, 3.0, 4.0).assign(group=["a", "b", "a", "b"])
    chosen = pd.Series(["x", "x", "y", "y"], dtype=object)
    figure = slice_figure(frame, chosen, False, style.looks(["a", "b"]), LL, own=True)
    a, b = (trace.x for trace in figure.data)
    assert a[0] < b[0] < 0.5 < a[1] < b[1]
    assert list(figure.layout.xaxis.ticktext) == ["x", "y"]


def test_slice_figure_over_a_logarithm_leaves_out_other_branches() -> None:
    frame = trials(1.0, 2.0, 3.0)
    chosen = pd.Series([0.001, None, 0.1], dtype=object)
    figure = slice_figure(frame, chosen, True, style.looks([""]), LL)
    assert figure.layout.xaxis.type == "log"
    assert list(figure.data[0].x) == [0.001, 0.1]


def test_slice_figure_has_a_panel_per_group_on_equal_axes() -> None:
    frame = trials(1.0, 2.0, 3.0, 4.0).assign(group=["a", "b", "a", "b"])
    chosen = pd.Series([1.0, 2.0, 3.0, 4.0], dtype=object)
    figure = slice_figure(frame, chosen, False, style.looks(["a", "b"]), LL)
    assert [(t.name, t.xaxis, list(t.x)) for t in figure.data] == [
        ("a", "x", [1.0, 3.0]),
        ("b", "x2", [2.0, 4.0]),
    ]
    assert figure.layout.xaxis.range == figure.layout.xaxis2.range
    assert figure.layout.yaxis2.matches == "y"
    assert [a.text for a in figure.layout.annotations] == ["a", "b"]


@pytest.mark.parametrize(
    ("low", "high", "logarithmic", "most", "found"),
    [
        (4, 12, False, 4, [5, 10]),
        (0.0, 1.0, False, 4, [0, 0.5, 1]),
        (0.5, 20.0, True, 4, [1, 3, 10]),
        (0.5, 20.0, True, 6, [0.5, 1, 2, 5, 10, 20]),
        (1e-6, 1.0, True, 4, [1e-6, 1e-4, 1e-2, 1.0]),
        (0.012, 0.019, True, 4, [0.012, 0.014, 0.016, 0.018]),
        (3.0, 3.0, True, 4, [3.0]),
    ],
)
def test_axis_ticks_are_round_and_few(
    low: float, high: float, logarithmic: bool, most: int, found: list[float]
) -> None:
    assert style.ticks(low, high, logarithmic, most) == found


def test_curves_figure_fades_trials_that_were_cut_short(sweep: Sweep, view: SweepView) -> None:
    traces = named(curves.curves_figure(view.curves, sweep.search, sweep.looks, LL))
    assert set(traces) == {"cut short", *ENCODERS}
    assert traces["cut short"].opacity < 0.5
    assert np.isnan(traces["cut short"].y).sum() == 8  # pruned 6, diverged 1, failed 1


def test_curves_figure_thins_long_and_many_curves() -> None:
    many = trials(*np.linspace(0, 1, 500))
    points = [{"epoch": e, METRIC: 1.0 / e} for e in range(1, 5001)]
    every = {("search", n): points for n in range(500)}
    drawn = curves.drawn_trials(many, every, LL)
    assert len(drawn) == curves.MOST_CURVES
    assert {0, 499} <= set(drawn["number"])
    (line,) = curves.curves_figure(every, many, style.looks([""]), LL).data
    assert len(line.x) <= curves.MOST_CURVES * (curves.MOST_POINTS + 2)
    assert np.nanmax(line.x) == 5000
    assert np.nanmin(line.x) == 1


def test_timeline_figure_has_a_bar_per_started_trial(sweep: Sweep) -> None:
    traces = named(timeline.timeline_figure(sweep.trials))
    assert set(traces) == {"complete", "pruned", "diverged", "failed", timeline.FAULT}
    assert sum(len(trace.x) for name, trace in traces.items() if name != timeline.FAULT) == 33
    assert traces["diverged"].base[0].startswith("2026-03-01 09:09:00")
    (width,) = traces["diverged"].x
    assert width == pytest.approx(1000 * sweep.trials.loc[6, "seconds"], abs=1)


def test_timeline_lanes_separate_trials_that_ran_at_once() -> None:
    assert timeline.lanes([0, 1, 2, 5], [5, 2, 9, 6]) == [0, 1, 1, 0]


def on_workers(**changes: object) -> pd.DataFrame:
    """Return two concurrent trials of a hundred seconds on each of two nodes."""
    frame = trials(1.0, 2.0, 3.0, 4.0).assign(
        node=["b", "a", "b", "a"],
        started=pd.Timestamp("2026-03-01T09:00:00Z"),
        seconds=100.0,
        attempts=1,
        epochs=10,
        resumed_from=[[], [], [], []],
        lost=[{}, {"2": "it hung: no report for 1 min 00 s"}, {}, {}],
    )
    return frame.assign(**changes)


def test_timeline_gives_a_worker_a_lane_per_concurrent_trial() -> None:
    timed, names = timeline.in_lanes(on_workers())
    assert names == ["a", "a", "b", "b"]
    assert dict(zip(timed["number"], timed["lane"], strict=True)) == {1: 0, 3: 1, 0: 2, 2: 3}


def test_timeline_extends_a_running_trial_to_the_last_known_moment() -> None:
    timed, _ = timeline.in_lanes(on_workers(seconds=[100.0, 50.0, math.nan, 20.0]))
    running = timed[timed["number"] == 2].iloc[0]
    assert (running["ended"] - running["started"]).total_seconds() == 100


def test_timeline_marks_a_lost_attempt_at_its_resumed_epoch() -> None:
    lost = on_workers(attempts=[1, 3, 1, 1], resumed_from=[[], [4], [], []])
    found = timeline.faults(timeline.in_lanes(lost)[0])
    since = (found["moment"] - lost["started"][0]).dt.total_seconds()
    assert list(zip(since, found["lane"], found["text"], strict=True)) == [
        (40.0, 0, "search 1: attempt 2 from epoch 4"),
        (0.0, 0, "search 1: attempt 3 from epoch 0<br>it hung: no report for 1 min 00 s"),
    ]


def test_parallel_figure_of_many_trials_stays_legible() -> None:
    many = trials(*np.linspace(0, 1, 1000))
    chosen = pd.DataFrame({"lr": pd.Series(np.linspace(0.1, 1, 1000), dtype=object)})
    figure = parallel_figure(many, chosen, {"lr": "lr"}, [], style.looks([""]), LL)
    drawn = {trace.name: int(np.isnan(trace.y).sum()) for trace in figure.data}
    assert drawn == {"other trials": 300, "best trials": 20}
    assert np.nanmin(figure.data[1].y) > 0.97


def test_parzen_figure_shows_models_paper_and_controls(sweep: Sweep) -> None:
    controls = tables.controls_frame(sweep.view.evaluation["models"])
    figure = figures.parzen_figure(
        sweep.scores, sweep.looks, controls, {10_000: 340.0, 10**7: 427.0}
    )
    assert len(figure.data) == 2 * 3 + 1 + 2
    assert list(figure.data[0].x) == [10**4, 10**5, 10**6, 10**7]
    strict, refined = figure.data[:2]
    assert strict.line.dash == "dot"
    np.testing.assert_allclose(refined.y - strict.y, [0.7, 1.4, 2.1, 2.8])
    assert [label.split(",")[0] for label in strict.customdata] == ["σ 0.167"] * 2 + ["σ 0.129"] * 2
    kmeans, images = (named(figure)[name] for name in ("k-means centroids", "training images"))
    assert {kmeans.mode, images.mode} == {"markers"}  # a control holds at its N only
    assert (list(kmeans.x), list(kmeans.y)) == ([10**4], [344.3])
    assert (list(images.x), list(images.y)) == ([10_000, 50_000], [248.8, 282.4])
    assert list(figure.layout.xaxis.tickvals) == [10_000, 50_000, 10**5, 10**6, 10**7]


def test_parzen_figure_without_controls_shows_only_the_models(sweep: Sweep) -> None:
    figure = figures.parzen_figure(sweep.scores, sweep.looks, tables.controls_frame([]), {})
    assert len(figure.data) == 2 * 3


def test_parzen_figure_of_older_evaluations_has_one_strict_point(
    view: SweepView,
) -> None:
    model = dict(view.evaluation["models"][0])
    model["curve"] = [
        {name: value for name, value in point.items() if not name.endswith("_grid")}
        for point in model["curve"]
    ]
    scores = tables.parzen_frame({"models": [model]})
    strict, refined = figures.parzen_figure(
        scores, style.looks([*scores["group"]]), tables.controls_frame([]), {}
    ).data
    assert np.isfinite(refined.y).tolist() == [True] * 4
    assert np.isfinite(strict.y).tolist() == [False] * 3 + [True]


def test_history_figure_is_small_and_has_a_height(sweep: Sweep) -> None:
    figure = figures.history_figure(sweep.search, sweep.looks, LL)
    assert len(figure.to_json()) < 10_000
    assert not math.isnan(figure.layout.height)


def test_tuning_figure_clips_unbounded_bands_to_the_plot(sweep: Sweep) -> None:
    found = tables.tuning_frame(sweep.search, "maximize")
    assert np.isinf(found["high"]).any()
    figure = figures.tuning_figure(found, sweep.looks, LL)
    low, high = figure.layout.yaxis.range
    assert {trace.name for trace in figure.data if trace.showlegend is not False} == set(ENCODERS)
    bands = [trace for trace in figure.data if trace.fill == "toself"]
    assert len(bands) == len(ENCODERS)
    assert all(low <= y <= high for band in bands for y in band.y)
    assert any(y == high for band in bands for y in band.y)
