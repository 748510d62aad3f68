"""The stages search and confirm: which trials they start, and when they stop."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from straw_sweep import StrawHome, Watcher, numbers, sweep

from aae_core.config import ModelConfig, TrialConfig
from aae_core.data import TrainingData
from aae_core.training import TrainState
from dashboards.build import build_report
from orchestrator.errors import Interrupted
from orchestrator.execution import worker
from orchestrator.execution.cluster import TrialResources
from orchestrator.pipeline.context import SweepContext
from orchestrator.pipeline.search import pack_size
from orchestrator.records import BASELINE, is_baseline
from orchestrator.results.reader import ResultsReader
from orchestrator.settings import Settings
from orchestrator.study.pruners import reported
from orchestrator.study.study import StageStudy, confirm_seed, search_seed
from orchestrator.sweepfile.spec import SweepSpec

pytestmark = pytest.mark.usefixtures("straw")


def test_retry_without_progress_has_the_curve_of_its_checkpoint(
    straw: StrawHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = straw.sweep(trials=2, training={"epochs": 3})
    trained, failing = worker.fit_pack, search_seed(spec.seed, 0)

    def fit_pack(states: dict[int, TrainState], *rest: Any) -> Iterator[Any]:
        [state] = states.values()
        for output in trained(states, *rest):
            if state.epoch == 3 and state.config.seed == failing:
                raise RuntimeError("no room")
            yield output

    monkeypatch.setattr(worker, "fit_pack", fit_pack)
    reader = straw.run(spec)
    [first] = [r for r in reader.trials(spec.sweep_id) if r.state == "failed"]
    study = straw.study(spec)
    assert study.retry() == {0: 2}
    reader = straw.run(spec)
    [again] = [r for r in reader.trials(spec.sweep_id) if r.state == "failed"]
    assert (again.number, again.resumed_from, again.epochs) == (2, [2], 2)
    assert [row["epoch"] for row in reader.curve(spec.sweep_id, again)] == [1, 2]
    assert reader.curve(spec.sweep_id, again) == reader.curve(spec.sweep_id, first)


def every_third_epoch(straw: StrawHome, **search: Any) -> SweepSpec:
    """A sweep of 7 epochs a trial, validated at 3, 6, 7 and the search's rungs 2 and 4."""
    training = {"epochs": 7, "validate_every": 3}
    halving = {"kind": "successive_halving", "grace_epochs": 2, "reduction_factor": 2}
    return straw.sweep(trials=6, training=training, search={"pruner": halving} | search)


def validated(reader: ResultsReader, spec: SweepSpec) -> dict[tuple[str, str], list[set[int]]]:
    """Epochs with validation metrics, by stage and state; every epoch has training costs."""
    found: dict[tuple[str, str], list[set[int]]] = {}
    for record in reader.trials(spec.sweep_id):
        curve = reader.curve(spec.sweep_id, record)
        assert [row["epoch"] for row in curve] == [*range(1, record.epochs + 1)]
        assert all("train/recon" in row for row in curve)
        epochs = {int(row["epoch"]) for row in curve if "val/recon" in row}
        found.setdefault((record.stage, record.state), []).append(epochs)
    return found


def test_sweep_validates_every_nth_epoch_the_last_and_pruner_rungs(straw: StrawHome) -> None:
    spec = every_third_epoch(straw)
    watcher = Watcher()
    reader = straw.run(spec, watcher)
    found = validated(reader, spec)
    assert {frozenset(epochs) for epochs in found["search", "complete"]} == {
        frozenset({2, 3, 4, 6, 7})
    }
    assert {max(epochs) for epochs in found["search", "pruned"]} <= {2, 4}
    assert found["confirm", "complete"] == 2 * [{3, 6, 7}]
    trials = straw.study(spec).optuna_study.trials
    for trial, record in zip(trials, reader.trials(spec.sweep_id), strict=False):
        curve = reader.curve(spec.sweep_id, record)
        assert trial.intermediate_values == {
            row["epoch"]: row["val/recon"] for row in curve if "val/recon" in row
        }
        assert record.metrics.keys() > {"val/recon", "train/recon"}
    assert reader.status(spec.sweep_id)["state"] == "done"
    assert "val/recon" in build_report([reader.view(spec.sweep_id)])


def test_sweep_with_sparse_validation_resumed_gives_the_same_metrics(
    straw: StrawHome, new_home: Callable[[str], Settings]
) -> None:
    """Test that constraint, second objective and pruner survive epochs without validation."""
    search = {
        "secondary_objectives": ["val/latent_mmd"],
        "constraints": {"val/latent_std": [None, 1e-9]},
    }
    spec = every_third_epoch(straw, **search)
    want = [r.metrics for r in straw.run(spec).trials(spec.sweep_id)]
    other = StrawHome(new_home("other"), straw.images)
    draining, watcher = threading.Event(), Watcher()
    watcher.act = lambda seen: draining.set() if seen.endswith("1 epoch 5") else None
    with pytest.raises(Interrupted):
        other.run(spec, watcher, draining)
    trial = other.study(spec).optuna_study.trials[1]
    assert set(reported(trial)) == {2, 3, 4}
    assert trial.user_attrs["progress"].keys() >= {"secondary", "violations"}
    reader = other.run(spec)
    assert [r.metrics for r in reader.trials(spec.sweep_id)] == want
    assert all(r.violated == ["val/latent_std"] for r in reader.trials(spec.sweep_id, "search"))


def test_failed_trials_are_retried_from_their_checkpoints(
    undisturbed: list[Any], straw: StrawHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = straw.sweep()
    trained = worker.fit_pack
    failing = {search_seed(spec.seed, 2), confirm_seed(spec.seed, 0)}

    def unlucky(states: dict[int, TrainState], *rest: Any) -> Iterator[Any]:
        [state] = states.values()
        for output in trained(states, *rest):
            yield output
            if state.config.seed in failing:
                raise RuntimeError("no luck")

    monkeypatch.setattr(worker, "fit_pack", unlucky)
    reader = straw.run(spec)
    assert reader.status(spec.sweep_id)["trials"]["failed"] == 2
    failing.clear()
    assert straw.study(spec).retry() == {2: 3}
    assert straw.study(spec, "confirm").retry() == {0: 2}
    straw.run(spec)
    status = reader.status(spec.sweep_id)
    assert (status["state"], status["trials"]["failed"]) == ("done", 0)
    assert status["planned"] == {"search": 3, "confirm": 2}
    retried = [r for r in reader.trials(spec.sweep_id) if r.attempts == 2]
    assert [(r.stage, r.number, r.epochs, r.resumed_from) for r in retried] == [
        ("search", 3, 2, [1]),
        ("confirm", 2, 2, [1]),
    ]

    def without_number(found: list[Any]) -> list[str]:
        return sorted(str((stage, *rest)) for stage, _, *rest in found)

    found = numbers(reader, spec)
    assert without_number(found) == without_number(undisturbed)
    assert reader.best(spec.sweep_id)["seeds"]  # type: ignore[index]


def test_search_with_patience_ends_when_the_best_value_stops_improving(straw: StrawHome) -> None:
    patient, watcher = straw.sweep(trials=50, search={"patience": 2}), Watcher()
    reader = straw.run(patient, watcher)
    values = [
        r.metrics["val/recon"] for r in reader.trials(patient.sweep_id) if r.stage == "search"
    ]
    assert 3 <= len(values) < 50
    assert values.index(min(values)) == len(values) - 3
    ended = (
        f"search: ended after {len(values)} trials: the best value has not improved for 2 trials"
    )
    assert ended in watcher.seen
    status = reader.status(patient.sweep_id)
    assert (status["state"], status["planned"]["search"]) == ("done", len(values))

    more = straw.sweep(trials=len(values) + 1)
    straw.run(more)
    searched = [r for r in reader.trials(more.sweep_id) if r.stage == "search"]
    assert [r.state for r in searched] == ["complete"] * (len(values) + 1)


@pytest.mark.parametrize(("target", "ends_early"), [(1e9, True), (-1.0, False)])
def test_search_ends_once_a_trial_has_reached_the_target(
    straw: StrawHome, target: float, ends_early: bool
) -> None:
    spec, watcher = straw.sweep(trials=4, search={"target": target}), Watcher()
    found = [r for r in straw.run(spec, watcher).trials(spec.sweep_id) if r.stage == "search"]
    assert (len(found) < 4) == ends_early
    said = f"search: ended after {len(found)} trials: the objective has reached {target:g}"
    assert (said in watcher.seen) == ends_early


def racing(straw: StrawHome, **confirm: Any) -> SweepSpec:
    """A sweep over two learning rates and a setting that has no effect here."""
    space = {
        "training.reconstruction.lr": {"choice": [1e-2, 1e-7]},
        "model.clusters": {"choice": [3, 4]},
    }
    search = {"sampler": {"kind": "grid"}, "space": space}
    confirmed = {"top": 4, "seeds": 5, "baseline": False, **confirm}
    return straw.sweep(search=search, trials=4, confirm=confirmed)


def seeds_by_rate(reader: ResultsReader, spec: SweepSpec) -> dict[float, int]:
    records = reader.trials(spec.sweep_id, "confirm")
    return dict(Counter(r.params["training.reconstruction.lr"] for r in records))


def test_race_gives_beaten_candidates_no_more_seeds(straw: StrawHome) -> None:
    fair, race = racing(straw), racing(straw, race=4)
    assert fair.sweep_id == race.sweep_id
    watcher = Watcher()
    reader = straw.run(race, watcher)
    assert seeds_by_rate(reader, race) == {1e-2: 10, 1e-7: 8}
    assert "confirm: 2 of 4 get more seeds" in watcher.seen
    assert reader.status(race.sweep_id)["planned"]["confirm"] == 18
    straw.run(fair)
    assert seeds_by_rate(reader, fair) == {1e-2: 10, 1e-7: 10}


@pytest.mark.parametrize("moment", ["confirm 5 epoch 1", "confirm 17 epoch 1"])
def test_race_resumed_after_interruption_ends_the_same(moment: str, straw: StrawHome) -> None:
    spec = racing(straw, race=4)
    draining, watcher = threading.Event(), Watcher()
    watcher.act = lambda what: draining.set() if what == moment else None
    with pytest.raises(Interrupted):
        straw.run(spec, watcher, draining)
    assert seeds_by_rate(straw.run(spec), spec) == {1e-2: 10, 1e-7: 8}


def confirmed_params(reader: ResultsReader, spec: SweepSpec) -> list[tuple[int, bool]]:
    """Return (index of the seed, is the control) of each confirm trial, in order of number."""
    index = {confirm_seed(spec.seed, i): i for i in range(9)}
    records = reader.trials(spec.sweep_id, "confirm")
    return [(index[r.seed], is_baseline(r, searched=True)) for r in records]


def test_confirm_trains_the_control_with_every_seed_of_the_winner(straw: StrawHome) -> None:
    spec = straw.sweep(confirm={"baseline": True})
    watcher = Watcher()
    reader = straw.run(spec, watcher)
    assert confirmed_params(reader, spec) == [(0, False), (1, False), (0, True), (1, True)]
    status, best = reader.status(spec.sweep_id), reader.best(spec.sweep_id)
    assert status["planned"] == {"search": 3, "confirm": spec.confirmations}
    assert spec.confirmations == 4
    baseline, gain = best["baseline"], best["gain"]
    assert (baseline["params"], baseline["seeds"]) == ({}, best["seeds"])
    assert baseline["config_hash"] == spec.baseline_hash != best["config_hash"]
    assert [group["config_hash"] for group in best["groups"]] == [best["config_hash"]]
    means = (found["metrics"]["val/recon"]["mean"] for found in (baseline, best))
    assert gain["mean"] == pytest.approx(next(means) - next(means))  # lower is better
    promised = min(r.metrics["val/recon"] for r in reader.trials(spec.sweep_id, "search"))
    optimism = promised - best["metrics"]["val/recon"]["mean"]
    assert best["groups"][0]["optimism"] == pytest.approx(optimism)
    evaluation = reader.evaluation(spec.sweep_id)
    groups = [model["group"] for model in evaluation["models"]]
    assert groups == [None, None, BASELINE, BASELINE]
    again = Watcher()
    straw.run(spec, again)
    assert not [seen for seen in again.seen if "started" in seen]


def test_confirm_of_study_without_control_adds_only_the_control(straw: StrawHome) -> None:
    straw.run(straw.sweep())
    spec, watcher = straw.sweep(confirm={"baseline": True}), Watcher()
    reader = straw.run(spec, watcher)
    assert [seen for seen in watcher.seen if "started" in seen] == [
        "confirm 2 started",
        "confirm 3 started",
    ]
    assert confirmed_params(reader, spec) == [(0, False), (1, False), (0, True), (1, True)]


def test_confirm_control_better_than_every_candidate_does_not_win(straw: StrawHome) -> None:
    space = {"training.reconstruction.lr": {"choice": [1e-7, 1e-8]}}  # almost no learning
    spec = straw.sweep(search={"space": space}, confirm={"seeds": 3, "baseline": True})
    best = straw.run(spec).best(spec.sweep_id)
    assert best["params"]["training.reconstruction.lr"] < 1e-6
    metric = "val/recon"
    assert best["baseline"]["metrics"][metric]["mean"] < best["metrics"][metric]["mean"]
    assert best["gain"]["mean"] < 0
    confirm = straw.study(spec, "confirm")
    assert confirm.state.winner == best["config_hash"]


def test_confirm_winner_equal_to_the_control_is_trained_once(straw: StrawHome) -> None:
    space = {"model.prior.std": {"choice": [1.0]}}  # the default
    spec = straw.sweep(search={"space": space}, confirm={"baseline": True})
    reader = straw.run(spec)
    assert len(reader.trials(spec.sweep_id, "confirm")) == 2
    best = reader.best(spec.sweep_id)
    assert best["baseline"]["config_hash"] == best["config_hash"]
    assert best["gain"] == {"mean": 0.0, "ci95": [0.0, 0.0]}


def test_confirm_race_gives_a_weak_control_every_seed(straw: StrawHome) -> None:
    """Use a control that learns nothing: every candidate still in the race beats the control."""
    spec = racing(straw, race=4, baseline=True)
    slow = {"reconstruction": {"lr": 1e-7}, "epochs": 2, "batch_size": 9}
    spec = SweepSpec.of(spec.resolved() | {"training": slow})
    reader = straw.run(spec)
    control = [r for r in reader.trials(spec.sweep_id, "confirm") if not r.params]
    assert len({r.seed for r in control}) == len(control) == 5
    assert Counter(
        r.params["training.reconstruction.lr"]
        for r in reader.trials(spec.sweep_id, "confirm")
        if r.params
    ) == {1e-2: 10, 1e-7: 8}


def test_warm_start_takes_trials_of_another_sweep_where_spaces_agree(straw: StrawHome) -> None:
    widths = {"model.hidden": {"choice": [[4], [5]]}, "model.prior.std": {"choice": [1, 2, 3]}}
    first = straw.sweep(search={"space": widths}, trials=6, name="first")
    reader = straw.run(first)
    narrow = {"model.prior.std": {"float": [1.5, 4]}}
    second, watcher = straw.sweep(search={"space": narrow, "warm_start": "first"}), Watcher()
    straw.run(second, watcher)
    fits = [
        r
        for r in reader.trials(first.sweep_id, "search")
        if r.params["model.hidden"] == [4] and r.params["model.prior.std"] >= 2
    ]
    assert 0 < len(fits) < 6
    known = straw.study(second).optuna_study.trials[: len(fits)]
    assert [t.params for t in known] == [
        {"model.prior.std": r.params["model.prior.std"]} for r in fits
    ]
    assert [t.value for t in known] == [r.metrics["val/recon"] for r in fits]
    output = f"search.warm_start: the sampler has {len(fits)} of the 6 trials of {first.sweep_id}"
    output = next(seen for seen in watcher.seen if seen.startswith(output))
    assert "model.hidden other than [4]" in output
    assert "model.prior.std outside of [1.5, 4]" in output
    assert watcher.seen.count(output) == 1
    assert reader.status(second.sweep_id)["trials"]["complete"] == 3 + 2
    again = Watcher()
    straw.run(straw.sweep(trials=4, search={"space": narrow, "warm_start": "first"}), again)
    assert output not in again.seen  # reported once


def test_search_starts_no_trial_once_gpu_hours_are_used_up(
    straw: StrawHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StageStudy, "gpu_hours", lambda study: 0.4 * study.asked())
    watcher = Watcher()
    spec = straw.sweep(trials=9, search={"budget": {"gpu_hours": 1.0}})
    status = straw.run(spec, watcher).status(spec.sweep_id)
    assert status["trials"]["complete"] == 3 + 2
    assert "search: ended after 3 trials: its 1 GPU-hours are used up" in watcher.seen


def test_search_extended_while_running_trains_the_added_trials(straw: StrawHome) -> None:
    spec, watcher = straw.sweep(), Watcher()

    def act(what: str) -> None:
        if what == "search 1 epoch 1":
            straw.study(spec).note(extended={"trials": 5, "hours": 0.0})
        if what == "confirm 1 started":
            straw.study(spec).note(extended={"trials": 6, "hours": 0.0})

    watcher.act = act
    reader = straw.run(spec, watcher)
    assert "search: extended, now 5 trials, hours unlimited" in watcher.seen
    status = reader.status(spec.sweep_id)
    assert status["trials"]["complete"] == 5 + 2
    assert status["planned"] == {"search": 5, "confirm": 2}
    assert reader.is_done(spec.extended(trials=5))
    assert not reader.is_done(spec.extended(trials=6))  # too late for this driver


def test_search_that_exceeds_its_hours_ends_and_the_sweep_completes(
    straw: StrawHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = straw.sweep(trials=50, search={"budget": {"hours": 1.0}})
    hours, watcher = [0.0], Watcher()
    monkeypatch.setattr(SweepContext, "elapsed", property(lambda _: 3600 * hours[0]))

    def late(what: str) -> None:
        if what == "search 1 epoch 1":
            hours[0] = 2.0

    watcher.act = late
    status = straw.run(spec, watcher).status(spec.sweep_id)
    assert status["trials"]["complete"] == 2 + 2
    assert status["state"] == "done"


def test_search_ends_when_its_space_is_exhausted(straw: StrawHome) -> None:
    search = {"space": {"model.prior.std": {"choice": [1.0, 2.0]}}}
    spec = straw.sweep(trials=9, search=search)
    watcher = Watcher()
    status = straw.run(spec, watcher).status(spec.sweep_id)
    assert (status["trials"]["complete"], status["state"]) == (2 + 2, "done")
    assert status["planned"] == {"search": 2, "confirm": 2}
    assert any("suggestions had all been tried" in seen for seen in watcher.seen)
    again = Watcher()
    straw.run(spec, again)
    assert not [seen for seen in again.seen if "started" in seen]


@pytest.mark.parametrize(("trials", "size"), [(200, 16), (100, 12), (24, 3), (7, 1)])
def test_automatic_pack_size_leaves_the_sampler_four_rounds(
    trials: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.execution.cluster.slots", lambda share: 2)
    data = TrainingData.of("tiny", (8, 8), *(2 * [(np.zeros((4, 64), np.uint8), None)]))
    small, share = TrialConfig(model=ModelConfig(hidden=(30, 30))), TrialResources(1.0, 0.0)
    for pack, chosen in (("auto", size), (40, 40)):
        spec = sweep(Path("i.npz"), resources={"pack": pack})
        assert pack_size(spec, trials, data, share)(small) == chosen
