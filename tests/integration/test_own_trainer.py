"""A sweep over a module whose training is a plain generator of another package."""

import threading
from pathlib import Path

import pytest
from straw_sweep import StrawHome, Watcher, numbers
from sweep_file import make_spec

from aae_core import testing
from dashboards.build import build_report
from orchestrator.errors import Interrupted
from orchestrator.pipeline.local import train
from orchestrator.settings import Settings
from orchestrator.sweepfile.spec import SweepSpec

pytestmark = pytest.mark.usefixtures("own_parts", "straw")


def spec() -> SweepSpec:
    return make_spec(
        "straw",
        data={"name": "stripes"},
        model={"kind": "softmax"},
        training={"epochs": 6},
        search={
            "trials": 4,
            "pruner": {"kind": "median", "grace_epochs": 1, "startup_trials": 1},
            "space": {"training.classification.lr": {"float": [1e-4, 0.3], "log": True}},
        },
    )


def test_own_trainer_obeys_the_laws() -> None:
    testing.check_architecture("softmax")


def test_sweep_over_an_own_trainer_resumed_equals_an_uninterrupted_one(
    straw: StrawHome, new_home, tmp_path: Path
) -> None:
    whole = straw.run(spec())
    states = {record.state for record in whole.trials(spec().sweep_id)}
    assert states == {"complete", "pruned"}
    interrupted = StrawHome(new_home("again"), tmp_path)
    watcher, draining = Watcher(), threading.Event()
    watcher.act = lambda seen: draining.set() if seen == "search 0 epoch 2" else None
    with pytest.raises(Interrupted):
        interrupted.run(spec(), watcher, draining)
    resumed = interrupted.run(spec())
    assert [t.resumed_from for t in resumed.trials(spec().sweep_id) if t.resumed_from] == [[2]]
    assert numbers(resumed, spec()) == numbers(whole, spec())
    best = resumed.best(spec().sweep_id)
    assert best["confirmed"]
    assert best["metrics"]["test/error"]["mean"] < 30  # as the scores of its `classify`
    assert "softmax" in build_report([resumed.view(spec().sweep_id)])


def test_own_trainer_that_breaks_a_promise_fails_its_trial_with_a_reason(
    straw: StrawHome, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    import own_parts

    good = own_parts.fit_softmax

    def skips_validation(state, data, validate_at=()):
        for epoch in good(state, data, validate_at):
            del epoch.metrics["val/error"]
            yield epoch

    monkeypatch.setattr(own_parts, "fit_softmax", skips_validation)
    with pytest.raises(ValueError, match="softmax: fit yields no val/error in epoch 1"):
        list(train(spec(), 0, settings, 1, evaluate=False))
