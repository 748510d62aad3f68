"""The stage evaluate: it alone opens the test split, and only after the winner is recorded."""

import json
import math
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from straw_sweep import StrawHome, Watcher, digits_with_labels
from sweep_command import aae

from aae_core.data import TestData, TrainingData
from aae_core.errors import DataError
from dashboards.build import build_report
from orchestrator.errors import Interrupted
from orchestrator.execution.parzen_pool import ParzenPool
from orchestrator.pipeline import evaluate, scoring, stages
from orchestrator.pipeline.scoring import ModelScorer
from orchestrator.records import RunRecord, conditions
from orchestrator.results.reader import ResultsReader, run_key
from orchestrator.sweepfile.spec import ParzenSpec
from orchestrator.tracking.outbox import Outbox

pytestmark = pytest.mark.usefixtures("straw")


def test_evaluate_opens_test_split_after_the_winner_is_recorded(
    straw: StrawHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = straw.sweep()
    watcher, opened = Watcher(), []
    load = evaluate.load_test_data

    def spy(*arguments: Any) -> TestData:
        confirm = straw.study(spec, "confirm")
        assert {r.state for r in confirm.records()} == {"complete"}
        opened.append((confirm.state.winner, list(watcher.seen)))
        return load(*arguments)

    monkeypatch.setattr(evaluate, "load_test_data", spy)
    best = straw.run(spec, watcher).best(spec.sweep_id)
    [(winner, seen)] = opened
    assert winner == best["config_hash"]
    assert "confirm 1 complete" in seen
    assert not any(what.startswith(("evaluate", "scoring")) for what in seen)


def test_sweep_without_parzen_uses_no_pool_and_minimises_error(
    straw: StrawHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing here has a Parzen figure")

    monkeypatch.setattr(ParzenPool, "score", never)
    spec, watcher = digits_with_labels(), Watcher()
    reader = straw.run(spec, watcher)
    assert "scoring 2 models: test metrics" in watcher.seen
    status, best = reader.status(spec.sweep_id), reader.best(spec.sweep_id)
    assert status["objective"] == {"metric": "val/error", "direction": "minimize"}
    trials = reader.trials(spec.sweep_id, "search")
    lowest = min(trials, key=lambda t: t.metrics["val/error"])
    assert best["params"] == lowest.params
    assert "test/error" in best["metrics"]
    evaluation = reader.evaluation(spec.sweep_id)
    for model in evaluation["models"]:
        assert model["metrics"].keys() == {"test/recon", "test/error"}
        assert not model.keys() & {"log_likelihood", "curve", "controls"}

    monkeypatch.setattr(ModelScorer, "measure", never)  # the metrics are known
    monkeypatch.setattr(stages.cluster, "cpus", never)
    monkeypatch.setenv("AAE_HOME", str(straw.settings.home))
    assert aae("evaluate", "--json").document["models"] == evaluation["models"]
    table = aae("evaluate").out.splitlines()
    assert table[0].split() == ["model", "group", "test/error", "test/recon"]
    summary = aae("run", spec.sweep_id).out
    assert "test/error" in summary
    report = build_report([reader.view(spec.sweep_id)])
    assert "reaches: val/error" in report
    assert 'id="parzen"' not in report
    assert "Parzen" not in summary


def test_non_finite_test_figures_and_their_mean_are_null(
    straw: StrawHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "test_metrics", lambda *_: {"test/error": math.inf})
    spec = digits_with_labels()
    reader = straw.run(spec)
    evaluation, best = reader.evaluation(spec.sweep_id), reader.best(spec.sweep_id)
    assert {model["metrics"]["test/error"] for model in evaluation["models"]} == {None}
    assert best["metrics"]["test/error"]["mean"] is None
    json.dumps([evaluation, best], allow_nan=False)


def test_evaluate_tags_runs_with_test_metrics_outside_their_range(
    straw: StrawHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "test_metrics", lambda *_: {"test/iw_sigma": 1.0})
    spec = digits_with_labels()
    reader = straw.run(spec)
    output = "test/iw_sigma is 1, healthy from 0.0365 to 0.866"
    for trial in reader.trials(spec.sweep_id, "confirm"):
        with Outbox(straw.settings.outbox) as outbox:
            recorded = outbox.run(run_key(spec.sweep_id, "confirm", trial.number))
        assert output in recorded.tags["aae.conditions"]
        assert output in conditions(trial.metrics)


@pytest.mark.usefixtures("attentive")
def test_evaluation_stopped_on_request_names_evaluate_to_resume(straw: StrawHome) -> None:
    spec, watcher = straw.sweep(), Watcher()
    straw.run(spec)

    def act(what: str) -> None:
        if what.startswith("scoring"):
            straw.study(spec).note(request="now")
            time.sleep(20)  # the stop request interrupts this sleep

    watcher.act = act
    parzen = ParzenSpec(samples=300, screen_samples=300)
    again = "aae-sweep evaluate straw --parzen-samples 300"
    with pytest.raises(Interrupted, match=f"was stopped. Resume with: {again}"):
        stages.evaluate_again(straw.settings, spec.sweep_id, parzen, again, watcher)
    assert ResultsReader(straw.settings).status(spec.sweep_id)["state"] == "done"


def test_evaluate_resumed_after_interruption_trains_nothing(straw: StrawHome) -> None:
    spec = straw.sweep()
    draining, watcher = threading.Event(), Watcher()
    watcher.act = lambda what: draining.set() if what.startswith("scoring") else None
    with pytest.raises(Interrupted):
        straw.run(spec, watcher, draining)
    assert ResultsReader(straw.settings).status(spec.sweep_id)["stage"] == "evaluate"
    again = Watcher()
    straw.run(spec, again)
    assert not [what for what in again.seen if "started" in what]


def test_evaluate_resumed_after_interruption_measures_only_the_other_models(
    straw: StrawHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured, measure = list[int](), scoring.test_metrics

    def spy(*arguments: Any) -> dict[str, float]:
        measured.append(arguments[3])  # the seed
        return measure(*arguments)

    monkeypatch.setattr(scoring, "test_metrics", spy)
    spec, watcher = straw.sweep(), Watcher()
    draining = threading.Event()
    watcher.act = lambda what: draining.set() if what.startswith("scoring") else None
    with pytest.raises(Interrupted):
        straw.run(spec, watcher, draining)
    assert len(measured) == 1
    best = straw.run(spec).best(spec.sweep_id)
    assert measured == best["seeds"]
    assert len(measured) == 2


def test_pictures_are_drawn_once_and_again_only_if_they_are_gone(
    straw: StrawHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = list[Path]()

    def draw(run: RunRecord, data: TrainingData, folder: Path) -> list[Path]:
        path = folder / "samples.png"
        path.write_text(str(run.number))
        drawn.append(path)
        return [path]

    def again() -> None:
        stages.evaluate_again(straw.settings, spec.sweep_id, None, "again", Watcher())

    monkeypatch.setattr(scoring, "draw_pictures", draw)
    spec = digits_with_labels()
    straw.run(spec)
    first, second = drawn
    again()
    assert drawn == [first, second]
    second.unlink()
    again()
    assert drawn == [first, second, second]
    in_front = straw.settings.pictures_folder(spec.sweep_id) / "samples.png"
    assert in_front.read_text() == first.read_text()


def test_error_of_a_model_ends_the_evaluation_and_names_itself(
    straw: StrawHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise DataError("this metric needs labels")

    monkeypatch.setattr(scoring, "test_metrics", fail)
    spec = digits_with_labels()
    with pytest.raises(DataError, match="this metric needs labels"):
        straw.run(spec)
    assert ResultsReader(straw.settings).status(spec.sweep_id)["state"] == "failed"
