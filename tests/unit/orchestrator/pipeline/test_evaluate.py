"""The stage evaluate: it alone opens the test split, and only after the winner is recorded."""

import json
import math
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from straw_sweep import Watcher, digits_with_labels, images, run, search_of, sweep

from aae_core.data import TestData
from orchestrator.errors import Interrupted
from orchestrator.execution.parzen_pool import ParzenPool
from orchestrator.pipeline import evaluate, scoring, stages
from orchestrator.records import conditions
from orchestrator.results.reader import SweepReader, run_key
from orchestrator.settings import Settings
from orchestrator.study.study import StageStudy, open_storage
from orchestrator.sweepfile.spec import ParzenSpec
from orchestrator.tracking.outbox import Outbox

pytestmark = pytest.mark.usefixtures("straw")


def test_evaluate_opens_test_split_after_the_winner_is_recorded(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = sweep(images(tmp_path / "i.npz", test=True))
    watcher, opened = Watcher(), []
    load = evaluate.load_test_data

    def spy(*arguments: Any) -> TestData:
        confirm = StageStudy.read(open_storage(settings), spec.sweep_id, "confirm")
        assert confirm is not None
        assert {r.state for r in confirm.records()} == {"complete"}
        opened.append((confirm.state.winner, list(watcher.seen)))
        return load(*arguments)

    monkeypatch.setattr(evaluate, "load_test_data", spy)
    best = run(settings, spec, watcher).best(spec.sweep_id)
    assert best is not None
    [(winner, seen)] = opened
    assert winner == best["config_hash"]
    assert "confirm 1 complete" in seen
    assert not any(what.startswith(("evaluate", "scoring")) for what in seen)


def test_sweep_without_parzen_uses_no_pool_and_minimises_error(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing here has a Parzen figure")

    monkeypatch.setattr(ParzenPool, "score", never)
    spec, watcher = digits_with_labels(), Watcher()
    reader = run(settings, spec, watcher)
    assert "scoring confirm-0" in watcher.seen
    status, best = reader.status(spec.sweep_id), reader.best(spec.sweep_id)
    assert status["objective"] == {"metric": "val/error", "direction": "minimize"}
    trials = reader.trials(spec.sweep_id, "search")
    lowest = min(trials, key=lambda t: t.metrics["val/error"])
    assert best is not None
    assert best["params"] == lowest.params
    assert "test/error" in best["metrics"]
    evaluation = reader.evaluation(spec.sweep_id)
    assert evaluation is not None
    for model in evaluation["models"]:
        assert model["metrics"].keys() == {"test/recon", "test/error"}
        assert not model.keys() & {"log_likelihood", "curve", "controls"}

    monkeypatch.setattr(stages.cluster, "connected", never)  # evaluating again needs no Ray
    monkeypatch.setattr(stages.cluster, "cpus", never)
    again = stages.evaluate_again(settings, spec.sweep_id, None, "aae-sweep evaluate", Watcher())
    assert again["models"] == evaluation["models"]


def test_non_finite_test_figures_and_their_mean_are_null(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "test_metrics", lambda *_: {"test/error": math.inf})
    spec = digits_with_labels()
    reader = run(settings, spec)
    evaluation, best = reader.evaluation(spec.sweep_id), reader.best(spec.sweep_id)
    assert evaluation is not None
    assert best is not None
    assert {model["metrics"]["test/error"] for model in evaluation["models"]} == {None}
    assert best["metrics"]["test/error"]["mean"] is None
    json.dumps([evaluation, best], allow_nan=False)


def test_evaluate_tags_runs_with_test_metrics_outside_their_range(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "test_metrics", lambda *_: {"test/iw_sigma": 1.0})
    spec = digits_with_labels()
    reader = run(settings, spec)
    output = "test/iw_sigma is 1, sound from 0.0365 to 0.866"
    for trial in reader.trials(spec.sweep_id, "confirm"):
        with Outbox(settings.outbox) as outbox:
            recorded = outbox.run(run_key(spec.sweep_id, "confirm", trial.number))
        assert recorded is not None
        assert output in recorded.tags["aae.conditions"]
        assert output in conditions(trial.metrics)


@pytest.mark.usefixtures("attentive")
def test_evaluation_stopped_on_request_names_evaluate_to_resume(
    settings: Settings, tmp_path: Path
) -> None:
    spec, watcher = sweep(images(tmp_path / "i.npz", test=True)), Watcher()
    run(settings, spec)

    def act(what: str) -> None:
        if what.startswith("scoring"):
            search_of(settings, spec).note(request="now")
            time.sleep(20)  # the stop request interrupts this sleep

    watcher.act = act
    parzen = ParzenSpec(samples=300, screen_samples=300)
    again = "aae-sweep evaluate straw --parzen-samples 300"
    with pytest.raises(Interrupted, match=f"was stopped. Resume with: {again}"):
        stages.evaluate_again(settings, spec.sweep_id, parzen, again, watcher)
    assert SweepReader(settings).status(spec.sweep_id)["state"] == "done"


def test_evaluate_resumed_after_interruption_trains_nothing(
    settings: Settings, tmp_path: Path
) -> None:
    spec = sweep(images(tmp_path / "i.npz", test=True))
    draining, watcher = threading.Event(), Watcher()
    watcher.act = lambda what: draining.set() if what.startswith("scoring") else None
    with pytest.raises(Interrupted):
        run(settings, spec, watcher, draining)
    assert SweepReader(settings).status(spec.sweep_id)["stage"] == "evaluate"
    again = Watcher()
    run(settings, spec, again)
    assert not [what for what in again.seen if "started" in what]
