"""The stages search -> confirm -> evaluate: where a sweep can stop, and how it resumes."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.exceptions import StorageInternalError
from straw_sweep import (
    StrawHome,
    Watcher,
    digits_with_labels,
    images,
    numbers,
    run,
    sweep,
)

from aae_core.errors import DataError
from orchestrator.errors import EnvironmentUnusable, Interrupted, SpecError, UsageError
from orchestrator.pipeline import stages, turns
from orchestrator.results.reader import ResultsReader
from orchestrator.study.lock import held
from orchestrator.study.state import SweepState
from orchestrator.study.study import StageStudy, open_storage
from orchestrator.tracking.outbox import Outbox

pytestmark = pytest.mark.usefixtures("straw")


def test_search_and_confirm_are_the_same_without_a_test_split(
    straw: StrawHome, tmp_path: Path
) -> None:
    with_test = sweep(images(tmp_path / "with.npz", test=True))
    without = sweep(images(tmp_path / "without.npz", test=False))
    reader = straw.run(with_test)
    with pytest.raises(EnvironmentUnusable, match="search and confirm are complete and kept"):
        straw.run(without)
    assert numbers(reader, with_test) == numbers(reader, without)
    assert reader.status(without.sweep_id)["stage"] == "evaluate"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"name": "digits", "labels": 15}}, "data.labels: 15 cannot be drawn evenly"),
        ({"model": {"kind": "semi_supervised", "channels": [2] * 4}}, "model.channels: 4 layers"),
        (
            {
                "model": {
                    "kind": "label_regularised",
                    "code_dim": 2,
                    "prior": {"kind": "mixture", "modes": 3},
                }
            },
            "model.prior.modes: the data have 10 classes",
        ),
    ],
)
def test_sweep_that_contradicts_its_data_is_refused_before_starting(
    changes: dict[str, Any], message: str, straw: StrawHome
) -> None:
    with pytest.raises(SpecError, match=message) as refused:
        straw.run(digits_with_labels(**changes))
    assert refused.value.exit_code == 2
    assert ResultsReader(straw.settings).sweeps() == []


def test_unlabelled_data_are_refused_where_labels_are_needed(straw: StrawHome) -> None:
    with pytest.raises(SpecError, match="needs labels of 2 classes; there are 0"):
        straw.run(straw.sweep(model={"kind": "classifier"}, search={"objective": None}))
    with pytest.raises(SpecError, match="`val/knn_error` needs labels of the validation images"):
        straw.run(straw.sweep(search={"objective": {"metric": "val/knn_error"}}))


@pytest.mark.parametrize(
    "moment", ["search 1 started", "search 1 epoch 1", "search 2 complete", "confirm 0 epoch 1"]
)
def test_sweep_resumed_after_interruption_ends_the_same(
    moment: str, undisturbed: list[Any], straw: StrawHome
) -> None:
    spec = straw.sweep()
    draining, watcher = threading.Event(), Watcher()
    watcher.act = lambda what: draining.set() if what == moment else None
    with pytest.raises(Interrupted, match="Resume with: aae-sweep run"):
        straw.run(spec, watcher, draining)
    reader = ResultsReader(straw.settings)
    assert reader.status(spec.sweep_id)["state"] == "interrupted"
    assert "RUNNING" not in {run.status for run in Outbox(straw.settings.outbox).runs()}
    straw.run(spec)
    assert numbers(reader, spec) == undisturbed
    assert reader.status(spec.sweep_id)["state"] == "done"


@pytest.mark.usefixtures("attentive")
@pytest.mark.parametrize(
    ("moment", "control"),
    [
        ("search 1 epoch 1", "drain"),
        ("search 1 epoch 1", "now"),
        ("confirm 0 started", "drain"),
        ("scoring", "now"),
    ],
)
def test_sweep_resumed_after_stop_request_ends_the_same(
    moment: str, control: str, undisturbed: list[Any], straw: StrawHome
) -> None:
    spec = straw.sweep()
    draining, watcher = threading.Event(), Watcher()

    def act(what: str) -> None:
        if what.startswith(moment) and not draining.is_set():
            straw.study(spec).note(request=control)
            assert draining.wait(20)
            if control == "now":
                time.sleep(20)  # the stop request interrupts this sleep

    watcher.act = act
    with pytest.raises(Interrupted, match=r"was stopped\. Resume with: aae-sweep run"):
        straw.run(spec, watcher, draining)
    assert any(what.startswith("stop requested: ") for what in watcher.seen)
    reader = ResultsReader(straw.settings)
    assert reader.status(spec.sweep_id)["state"] == "stopped"
    assert straw.study(spec).state.request is None
    assert "RUNNING" not in {run.status for run in Outbox(straw.settings.outbox).runs()}
    straw.run(spec)
    assert numbers(reader, spec) == undisturbed


@pytest.mark.usefixtures("attentive")
def test_stopped_trial_ends_as_pruned_and_changes_no_other_trial(
    undisturbed: list[Any], straw: StrawHome
) -> None:
    spec, watcher = straw.sweep(), Watcher()

    def act(what: str) -> None:
        if what == "search 1 epoch 1":
            straw.study(spec).note(stopped=[1])
            while "stop of search-1 requested" not in watcher.seen:
                time.sleep(0.01)

    watcher.act = act
    reader = straw.run(spec, watcher)
    stopped = reader.trials(spec.sweep_id, "search")[1]
    assert (stopped.state, stopped.reason, stopped.epochs) == ("pruned", "stopped by a user", 1)
    searched = [n for n in undisturbed if n[0] == "search"]
    assert [n for n in numbers(reader, spec) if n[0] == "search"] == searched
    assert reader.status(spec.sweep_id)["state"] == "done"


@contextmanager
def competing(straw: StrawHome, priority: int) -> Iterator[None]:
    """Hold the lock of another queued sweep, which wants every place."""
    other = straw.sweep(name=f"other{priority}")
    study = StageStudy.create(open_storage(straw.settings), other, "search")
    place = {"priority": priority, "since": "2026-01-01", "slots": 1, "wants": 1}
    begun, over = threading.Event(), threading.Event()

    def drive() -> None:
        with held(straw.settings, other.sweep_id):
            study.note(queue=place, state="running")
            begun.set()
            over.wait()

    driver = threading.Thread(target=drive)
    driver.start()
    assert begun.wait(20)
    try:
        yield
    finally:
        over.set()
        driver.join()


@pytest.mark.usefixtures("attentive")
@pytest.mark.parametrize("moment", ["search 1 epoch 1", "confirm 0 started", "scoring"])
def test_queued_sweep_waits_for_one_of_higher_priority_and_ends_the_same(
    moment: str, undisturbed: list[Any], straw: StrawHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "_SECONDS", 0.05)
    monkeypatch.setattr(turns.cluster, "slots", lambda _: 1)
    spec, watcher = straw.sweep(), Watcher()
    waits = f"queue: 0 of 1 place; waits for {straw.sweep(name='other1').sweep_id}"
    meanwhile: list[str] = []

    def compete() -> None:
        with competing(straw, priority=1):
            while waits not in watcher.seen:
                time.sleep(0.01)
            time.sleep(0.5)
            meanwhile.extend(watcher.seen[watcher.seen.index(waits) + 1 :])

    def act(what: str) -> None:
        if what.startswith(moment) and waits not in watcher.seen:
            threading.Thread(target=compete).start()
            while waits not in watcher.seen:
                time.sleep(0.01)

    watcher.act = act
    with competing(straw, priority=-1):
        reader = run(straw.settings, spec, watcher, priority=0)
    assert len(meanwhile) <= 1  # the epoch that was under way
    assert watcher.seen.count("queue: 1 of 1 place") == 2
    assert numbers(reader, spec) == undisturbed
    assert reader.status(spec.sweep_id)["state"] == "done"


@pytest.mark.usefixtures("attentive")
@pytest.mark.parametrize("moment", ["search 1 epoch 1", "confirm 0 started", "scoring"])
def test_sweep_paused_and_resumed_ends_the_same(
    moment: str, undisturbed: list[Any], straw: StrawHome
) -> None:
    spec, watcher = straw.sweep(), Watcher()
    search = StageStudy.create(open_storage(straw.settings), spec, "search")
    seen_while_paused: list[str] = []

    def resume() -> None:
        paused_at = len(watcher.seen)
        time.sleep(0.5)
        seen_while_paused.extend(watcher.seen[paused_at + 1 :])  # after one epoch that was running
        search.note(request=None)

    def act(what: str) -> None:
        if what.startswith(moment) and "resume requested" not in watcher.seen:
            search.note(request="pause")
            while not any(seen.startswith("pause requested: ") for seen in watcher.seen):
                time.sleep(0.01)
            threading.Thread(target=resume).start()

    watcher.act = act
    reader = straw.run(spec, watcher)
    assert seen_while_paused == []
    assert "resume requested" in watcher.seen
    assert numbers(reader, spec) == undisturbed
    assert reader.status(spec.sweep_id)["state"] == "done"


@pytest.mark.usefixtures("attentive")
def test_driver_ignores_a_control_request_to_an_earlier_driver(straw: StrawHome) -> None:
    spec = straw.sweep()
    StageStudy.create(open_storage(straw.settings), spec, "search").note(request="now")
    assert straw.run(spec).status(spec.sweep_id)["state"] == "done"


def test_driver_retries_control_requests_after_a_storage_error(
    straw: StrawHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "_LISTENING_SECONDS", 0.01)
    spec = straw.sweep()
    draining, watcher, away = threading.Event(), Watcher(), []
    state = StageStudy.state.fget
    assert state is not None

    def flaky(study: StageStudy) -> SweepState:
        if threading.current_thread() is not threading.main_thread() and len(away) < 3:
            away.append(study)
            raise StorageInternalError
        return state(study)

    def act(what: str) -> None:
        if what == "search 1 epoch 1":
            monkeypatch.setattr(StageStudy, "state", property(flaky))
            straw.study(spec).note(request="drain")
            assert draining.wait(20)

    watcher.act = act
    with pytest.raises(Interrupted):
        straw.run(spec, watcher, draining)
    assert len(away) == 3


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("unknown", "names no sweep"),
        ("elsewhere", "is not another sweep on the same data"),
        ("first", "none of the 3 trials of first-.*; 3 have model.hidden other than"),
    ],
)
def test_warm_start_from_unusable_sweep_is_refused_before_anything_starts(
    other: str, message: str, straw: StrawHome, tmp_path: Path
) -> None:
    straw.run(straw.sweep(name="first", model={"hidden": [5], "code_dim": 2}))
    random = np.random.default_rng(1).random((60, 9), dtype=np.float32)
    np.savez(tmp_path / "e.npz", x_train=random, x_test=random[:5])
    straw.run(sweep(tmp_path / "e.npz", name="elsewhere"))
    watcher = Watcher()
    with pytest.raises(UsageError, match=message):
        straw.run(straw.sweep(search={"warm_start": other}), watcher)
    assert not [what for what in watcher.seen if "started" in what]


def test_complete_sweep_is_extended_by_more_trials_and_seeds(straw: StrawHome) -> None:
    small, large = straw.sweep(), straw.sweep(trials=5, confirm={"seeds": 3})
    assert small.sweep_id == large.sweep_id
    reader = straw.run(small)
    before = numbers(reader, small)
    assert reader.is_done(small)
    assert not reader.is_done(large)
    straw.run(large)
    after = numbers(reader, large)
    assert [n for n in after if n[0] == "search"][:3] == before[:3]
    assert sum(n[0] == "search" for n in after) == 5
    best = reader.best(large.sweep_id)
    assert len(best["seeds"]) == 3
    assert reader.status(large.sweep_id)["state"] == "done"


def test_extended_confirmations_equal_those_of_a_sweep_planned_with_more_epochs(
    straw: StrawHome,
) -> None:
    short = straw.sweep(confirm={"baseline": True})
    planned = straw.sweep(name="long", confirm={"baseline": True, "set": {"training.epochs": 5}})
    want = straw.run(planned).best(planned.sweep_id)
    reader, study = straw.run(short), straw.study(short, "confirm")
    for epochs in (3, 5):
        study.extend(study.records()[-4:], epochs)
        straw.study(short).note(done=None)
        straw.run(short)
    got = reader.best(short.sweep_id)
    assert got["metrics"] == want["metrics"]
    assert "test/recon" in got["metrics"]
    assert got["gain"] == want["gain"]
    assert got["baseline"]["metrics"] == want["baseline"]["metrics"]
    assert got["params"] == want["params"] | {"training.epochs": 5}
    assert len(reader.trials(short.sweep_id, "confirm")) == 12  # the shorter trainings remain


def test_sweep_refuses_data_changed_since_its_start(straw: StrawHome) -> None:
    spec = straw.sweep()
    straw.run(spec)
    np.savez(
        straw.images, x_train=np.zeros((60, 9), np.float32), x_test=np.zeros((5, 9), np.float32)
    )
    with pytest.raises(EnvironmentUnusable, match="not those of straw-"):
        straw.run(spec)


def test_notes_on_the_data_come_before_the_search_and_stay_in_the_record(
    straw: StrawHome, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    x = random.integers(0, 2, (60, 1, 3, 4), dtype=np.uint8)
    np.savez(tmp_path / "odd.npz", x_train=x, y_train=np.arange(60) % 2 + 7)
    spec, watcher = sweep(tmp_path / "odd.npz"), Watcher()
    with pytest.raises(EnvironmentUnusable, match="has no member x_test"):
        straw.run(spec, watcher)
    before = watcher.seen[: watcher.seen.index("search of 3")]
    for words in ("(n, C, H, W)", "data.range: [0, 1]", "labels 7, 8 are the classes", "x_test"):
        assert any(words in note for note in before), words
    with Outbox(straw.settings.outbox) as outbox:
        parent = outbox.run(spec.sweep_id)
    assert parent is not None
    assert parent.tags["aae.data_notes"] == "; ".join(before)


def test_unusable_labels_stop_only_a_sweep_that_needs_them(
    straw: StrawHome, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    x = random.random((60, 9), dtype=np.float32)
    words = np.array(["cat", "dog"])[np.arange(60) % 2]
    np.savez(tmp_path / "words.npz", x_train=x, y_train=words, x_test=x[:9])
    needing = (
        {"model": {"kind": "classifier"}, "search": {"objective": None}},
        {"search": {"objective": {"metric": "val/knn_error"}}},
    )
    for changes in needing:
        with pytest.raises(DataError, match="values cat, dog; give whole numbers"):
            straw.run(sweep(tmp_path / "words.npz", **changes))
    assert ResultsReader(straw.settings).sweeps() == []
    spec, watcher = sweep(tmp_path / "words.npz", trials=1, confirm={"seeds": 1}), Watcher()
    straw.run(spec, watcher)
    assert "the labels are not used" in watcher.seen[0]


@pytest.mark.parametrize("step", ["evaluate.evaluate", "_show"])
def test_drain_without_epochs_interrupts_the_driver_and_the_next_run_repeats_the_step(
    step: str, straw: StrawHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, draining = straw.sweep(), threading.Event()

    def slow(*_: object) -> None:
        draining.set()
        time.sleep(60)  # the drain interrupts this sleep

    with monkeypatch.context() as patched:
        patched.setattr(f"orchestrator.pipeline.stages.{step}", slow)
        began = time.monotonic()
        with pytest.raises(Interrupted, match="Resume with: aae-sweep run"):
            straw.run(spec, Watcher(), draining)
    assert time.monotonic() - began < 60
    reader = ResultsReader(straw.settings)
    assert reader.status(spec.sweep_id)["state"] == "interrupted"
    assert not reader.is_done(spec)
    assert "RUNNING" not in {run.status for run in Outbox(straw.settings.outbox).runs()}
    straw.run(spec)
    assert reader.status(spec.sweep_id)["state"] == "done"
    assert straw.settings.report(spec.sweep_id).exists()
