"""Test the whole page: its contents, its isolation, and its build for every kind of sweep."""

import base64
import hashlib
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_sweep import (
    ENCODERS,
    METRIC,
    as_semi_supervised,
    count_states,
    hostile,
    make_view,
    with_control,
    without_results,
)

from dashboards import build_report, write_report
from dashboards.sections import SECTIONS
from orchestrator.records import BASELINE, RunRecord
from orchestrator.results.ranking import summarise
from orchestrator.results.reader import SweepView

VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """Elements, attributes and script texts of a page; fails for tags that do not match."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.scripts: list[str] = []
        self.figures: list[dict[str, Any]] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            is_data = self.elements[-1][1].get("type") == "application/json"
            (self.figures.append(json.loads(data)) if is_data else self.scripts.append(data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def ids(self) -> list[str]:
        return [str(a["id"]) for _, a in self.elements if "id" in a]


def test_report_has_every_section_figure_and_picture(report: str) -> None:
    page = Page(report)
    assert [a["id"] for a in page.all("section")] == [id for id, _, _ in SECTIONS]
    assert len(page.figures) == 8 + 7 + 2  # slices: 7, curves: 2
    assert len(page.all("img")) == 2


def test_report_gives_a_control_a_row_and_no_rank(view: SweepView) -> None:
    report = build_report([with_control(view, 300.0, 5.0)])
    [standing] = [t for t in report.split("<table") if "detectable" in t]
    rows = standing.split("<tr")[2:]
    assert [BASELINE.split()[-1] in row for row in rows] == [False, False, False, True]
    assert "control" in rows[3]
    assert "class=marked" not in rows[3]
    assert "The search gained" in report
    assert "Band: the margin, ±5." in report
    assert len(Page(report).figures) == 8 + 7 + 2


def test_report_opens_with_the_verdict_and_its_error_bar(report: str) -> None:
    assert '<p class="verdict"><strong>gaussian</strong> wins: val/parzen_ll' in report
    assert "&nbsp;±&nbsp;" in report
    assert report.index("wins:") < report.index("Confirmed results")


@pytest.mark.parametrize(
    ("gaps", "sentence"),
    [
        ([16.3] * 3, "instead of draws of the prior raises the figure by 16.3 nats: that much is"),
        ([16.0, 17.0, 18.0], "raises the figure by 17.00&nbsp;±&nbsp;0.58 nats"),
        ([0.1, -0.2, 0.2], "0.03&nbsp;±&nbsp;0.12 nats, shows no loss to codes that do not follow"),
        ([-40.0] * 3, "−40 nats, shows no loss"),
    ],
)
def test_report_states_the_cost_of_the_prior_gap(
    gaps: list[float], sentence: str, view: SweepView
) -> None:
    metrics = view.best["metrics"] | {"val/prior_gap": summarise(gaps)}
    report = build_report([replace(view, best=view.best | {"metrics": metrics})])
    assert sentence in report.replace(" ± ", "&nbsp;±&nbsp;")


def test_report_compares_controls_with_the_model_at_equal_sample_counts(
    view: SweepView, report: str
) -> None:
    best = max(model["curve"][0]["log_likelihood"] for model in view.evaluation["models"])
    assert (
        f"Nats with 10,000 samples: the best model {best:.4g}, k-means centroids 344.3, "
        "training images 248.8."
    ) in report
    assert "Nats with 50,000 samples" not in report  # no model has as many samples
    assert "scored the same way" not in report


def test_report_of_an_error_sweep_does_not_mention_parzen(view: SweepView) -> None:
    report = build_report([as_semi_supervised(view)])
    page = Page(report)
    assert "parzen" not in page.ids
    assert "arzen" not in re.sub(
        r"<script.*?</script>|<details.*?</details>", "", report, flags=re.S
    )
    assert "wins: val/error 1.9" in report
    assert "Table 2: semi-supervised test error" in report
    assert "AAE, gaussian (this sweep)" in report


def test_report_best_so_far_falls_when_lower_is_better(view: SweepView) -> None:
    errors = as_semi_supervised(view)
    finished = [t for t in errors.trials if t.stage == "search" and t.state == "complete"]
    best = min(t.metrics["val/error"] for t in finished)
    figures = {f["layout"]["yaxis"]["title"]["text"]: f for f in _titled(build_report([errors]))}
    leading = next(d for d in figures["val/error (%)"]["data"] if d.get("name") == "best so far")
    heights = _numbers_of(leading["y"])
    assert heights == sorted(heights, reverse=True)
    assert heights[-1] == pytest.approx(best)


def _titled(report: str) -> list[dict[str, Any]]:
    """Return the figures with a titled y axis in reverse, so a dict keeps each title's first."""
    figures = [f for f in Page(report).figures if "title" in f["layout"].get("yaxis", {})]
    return figures[::-1]


def _numbers_of(array: Any) -> list[float]:
    if isinstance(array, list):
        return array
    return np.frombuffer(base64.b64decode(array["bdata"]), array["dtype"]).tolist()


@pytest.mark.parametrize("value", [0.0, 2.5])
def test_report_builds_for_a_metric_that_never_varies(view: SweepView, value: float) -> None:
    errors = as_semi_supervised(view)
    flat = summarise([value] * 3)
    metrics = {"val/error": flat, "test/error": flat}
    groups = [group | {"metrics": metrics} for group in errors.best["groups"]]
    constant = replace(
        errors,
        trials=[replace(t, metrics={"val/error": value}) for t in errors.trials],
        curves={
            key: [{"epoch": p["epoch"], "val/error": value} for p in curve]
            for key, curve in errors.curves.items()
        },
        best=errors.best | {"metrics": metrics, "groups": groups},
    )
    Page(build_report([constant]))


def test_report_shows_non_finite_values_as_a_dash(view: SweepView) -> None:
    errors = as_semi_supervised(view)
    unknown = summarise([math.inf, 2.0])
    metrics = errors.best["metrics"] | {"test/error": unknown}
    groups = [group | {"metrics": metrics} for group in errors.best["groups"]]
    report = build_report([replace(errors, best=errors.best | {"groups": groups})])
    assert "NaN" not in re.sub(
        r"<script(?! type=.application/json)", "", report.split("plotly.js v")[0]
    )
    Page(report)


def test_report_names_departures_of_the_winner_from_the_paper(view: SweepView, report: str) -> None:
    named = {"departures": ["joint phases", "3 discriminator steps per batch"]}
    line = "Departs from the paper: joint phases; 3 discriminator steps per batch."
    assert line in build_report([replace(view, best=view.best | named)])
    assert "Departs from the paper" not in report


def test_report_fetches_nothing_and_allows_only_its_own_scripts(report: str) -> None:
    page = Page(report)
    policy = str(page.all("meta")[1]["content"])
    assert policy.startswith("default-src 'none'; img-src data: blob:;")
    assert len(page.scripts) == 2
    for script in page.scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert page.all("link") == []
    for _, attributes in page.elements:
        assert not str(attributes.get("src", "data:")).startswith(("http", "//", "/"))
        assert str(attributes.get("href", "#")).startswith("#")
        assert not [name for name in attributes if name.startswith("on")]


def test_report_of_two_sweeps_contains_plotly_once(view: SweepView) -> None:
    report = build_report([view, view])
    assert report.count("plotly.js v") == 1
    assert len(report.encode()) < 6_000_000


def test_report_shows_hostile_names_as_text(view: SweepView) -> None:
    report = build_report([hostile(view), view])
    page = Page(report)
    assert len(page.scripts) == 2
    assert "<script>alert" not in report
    assert "<img src=x" not in report
    markup = re.compile(r"<(?!/?extra>)")  # plotly's own tag in our hover texts
    assert not any(markup.search(json.dumps(figure)) for figure in page.figures)


def test_report_is_readable_by_keyboard_and_screen_reader(report: str) -> None:
    page = Page(report)
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("h1")) == 1
    plots = [a for a in page.all("div") if a.get("class") == "plot"]
    assert all(a["role"] == "img" and a["aria-label"] for a in plots)
    assert all(a["alt"] for a in page.all("img"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(a["scope"] in ("col", "row") for a in page.all("th"))
    assert len(set(page.ids)) == len(page.ids)
    targets = {str(a["href"])[1:] for a in page.all("a")}
    assert targets <= set(page.ids)


def test_report_puts_several_sweeps_side_by_side(view: SweepView) -> None:
    other = without_results(view, status={**view.status, "id": "other", "trials": {}})
    page = Page(build_report([view, other]))
    assert len(page.all("article")) == 2
    assert len(set(page.ids)) == len(page.ids)
    assert {str(a["href"])[1:] for a in page.all("a")} <= set(page.ids)


def test_report_compares_only_the_data_of_the_paper(view: SweepView, report: str) -> None:
    assert "340 ± 2" in report
    digits = replace(
        view, spec={**view.spec, "data": {"name": "digits", "path": None, "labels": None}}
    )
    report = build_report([digits])
    assert "The data: the paper has no figure for digits" in report
    assert "digits, 10M" in report
    assert "the paper&#x27;s AAE" not in report
    assert "the paper's AAE" not in report


def running(trial: RunRecord) -> RunRecord:
    return replace(trial, state="running", metrics={}, seconds=None, reason=None)


def diverged(trial: RunRecord) -> RunRecord:
    return replace(trial, state="diverged", metrics={}, reason="train/recon is not finite")


def waiting(trial: RunRecord) -> RunRecord:
    return replace(running(trial), state="waiting", started=None)


@pytest.mark.parametrize(
    ("count", "change", "state"),
    [
        (0, running, "running"),
        (0, waiting, "failed"),
        (1, running, "interrupted"),
        (1, diverged, "done"),
        (1, waiting, "running"),
        (24, running, "running"),
        (24, diverged, "done"),
        (24, waiting, "stopped"),
    ],
)
def test_report_builds_for_a_sweep_without_results(
    view: SweepView, count: int, change: Any, state: str
) -> None:
    trials = [change(trial) for trial in view.trials[:count]]
    status = {**view.status, "state": state, "best": None, "trials": count_states(trials)}
    bare = replace(without_results(view), status=status, trials=trials)
    page = Page(build_report([bare]))
    assert all(figure["data"] for figure in page.figures)


@pytest.mark.parametrize("finished", [1, 2, 9, 12])
def test_report_of_few_finished_trials_has_no_empty_chart(view: SweepView, finished: int) -> None:
    complete = [t for t in view.trials if t.stage == "search" and t.state == "complete"]
    young = replace(view, trials=complete[:finished], best=None, evaluation=None)
    page = Page(build_report([young]))
    assert all(figure["data"] for figure in page.figures)
    assert ("importance" in page.ids) == (finished >= 10)


def test_report_of_identical_trials_has_no_importance(view: SweepView) -> None:
    first = view.trials[0]
    same = [replace(first, number=n) for n in range(12)]
    page = Page(build_report([replace(view, trials=same)]))
    assert "importance" not in page.ids
    assert "slices" not in page.ids


def test_report_builds_for_a_sweep_without_groups(view: SweepView) -> None:
    plain = {**view.spec, "search": None, "confirm": {"top": 1, "per": None, "seeds": 3}}
    alone = [{**view.best["groups"][0], "by": None, "value": None}]
    best = {**view.best, "groups": alone, "tied_with": []}
    page = Page(build_report([replace(view, spec=plain, best=best, evaluation={"models": []})]))
    assert all(figure["data"] for figure in page.figures)


def test_report_names_pictures_that_are_too_large(view: SweepView, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    large.write_bytes(bytes(7 * 2**20))
    report = build_report([replace(view, pictures=[replace(view.pictures[0], path=large)])])
    assert f"too large to embed, see {large}" in report
    assert len(report) < 6_000_000


def test_report_of_a_thousand_trials_stays_below_15_megabytes(tmp_path: Path) -> None:
    report = build_report([make_view(tmp_path, n_search=1000, epochs=50)])
    assert len(report.encode()) < 15_000_000


def test_report_build_gives_the_same_bytes_every_time(view: SweepView) -> None:
    assert build_report([view]) == build_report([view])


def test_report_write_keeps_the_old_file_after_an_error(
    view: SweepView, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_report([view], tmp_path / "reports" / "report.html")
    before = path.read_bytes()
    assert before == build_report([view]).encode()

    def no_space(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(OSError, match="no space"):
        write_report([view], path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_report_of_no_sweep_raises_value_error() -> None:
    with pytest.raises(ValueError, match="at least one sweep"):
        build_report([])


def test_report_parzen_table_has_the_strict_figure_at_every_n(view: SweepView, report: str) -> None:
    for model in view.evaluation["models"]:
        for point in model["curve"]:
            assert f"{point['log_likelihood_grid']:.1f} ± 1.8" in report


@pytest.mark.parametrize("extra", [True, False])
def test_report_of_svhn_with_extra_images_mentions_easier_labels(
    view: SweepView, extra: bool
) -> None:
    svhn = as_semi_supervised(view)
    data = {**svhn.spec["data"], "name": "svhn", "labels": 1000, "extra": extra}
    report = build_report([replace(svhn, spec=svhn.spec | {"data": data})])
    assert ("extra file, which are easier" in report) is extra


def test_report_names_test_metrics_outside_their_healthy_range(
    view: SweepView, report: str
) -> None:
    output = "confirm-1: test/iw_sigma is 1, healthy from 0.0365 to 0.866"
    assert "Outside their healthy range" not in report
    confirm = [t for t in view.trials if (t.stage, t.number) == ("confirm", 1)]
    changed = [replace(t, metrics=t.metrics | {"test/iw_sigma": 1.0}) for t in confirm]
    trials = [t for t in view.trials if t not in confirm] + changed
    assert output in build_report([replace(view, trials=trials)])


def test_report_candidates_have_metrics_groups_and_intervals(report: str) -> None:
    board = re.search(r'<section id="confirmed".*?</section>', report, re.DOTALL)
    for word in (*ENCODERS, METRIC, "test/parzen_ll", "95 % (t)", "95 % (bootstrap)", "p (Holm)"):
        assert word in board[0]


def sampled_by(view: SweepView, kind: str) -> SweepView:
    search = view.spec["search"] | {"sampler": {"kind": kind}}
    return replace(view, spec=view.spec | {"search": search})


@pytest.mark.parametrize("kind", ["random", "qmc"])
def test_report_has_tuning_curves_for_samplers_that_do_not_learn(
    view: SweepView, kind: str
) -> None:
    report = build_report([sampled_by(view, kind)])
    assert len(Page(report).figures) == 8 + 7 + 2 + 1
    assert "of the best of n trials: median [95 % band]" in report
    assert ("Quasi-random" in report) == (kind == "qmc")


@pytest.mark.parametrize("kind", ["tpe", "gp"])
def test_report_explains_a_missing_tuning_curve_of_adaptive_samplers(
    view: SweepView, kind: str
) -> None:
    report = build_report([sampled_by(view, kind)])
    assert len(Page(report).figures) == 8 + 7 + 2
    assert "No tuning curve: the sampler learns" in report


def test_tuning_curve_excludes_initial_trials(view: SweepView) -> None:
    drawn = sampled_by(view, "random")
    started = drawn.spec["search"] | {"start": [{}] * 24}
    report = build_report([replace(drawn, spec=drawn.spec | {"search": started})])
    assert len(Page(report).figures) == 8 + 7 + 2
