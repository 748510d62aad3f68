"""search -> confirm -> evaluate with a Tune of straw: what is seen when, and where it may stop."""

import json
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from optuna.exceptions import StorageInternalError
from ray.tune.search import Searcher

from aae_core.data import TestData, TrainingData, load_training_data
from aae_core.evaluation.parzen import ArraySource
from aae_core.training import TrainState
from orchestrator import evaluating, scoring, searching, stages, trainable
from orchestrator import sweep as sweep_module
from orchestrator.cluster import Share
from orchestrator.errors import EnvironmentUnusable, Interrupted, SpecError, UsageError
from orchestrator.history import History
from orchestrator.parzen_job import ParzenPool
from orchestrator.records import RunRecord, Stage
from orchestrator.settings import Settings
from orchestrator.spec import ParzenSpec, SweepSpec
from orchestrator.spool import Spool
from orchestrator.study import Assignment, Ledger, confirm_seed, open_storage, search_seed
from orchestrator.sweep import Request, Sweep
from orchestrator.trainable import Report
from orchestrator.tuner import StageDriver


class Watcher:
    """An observer that may act at what it sees."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.act: Callable[[str], None] = lambda _: None

    def _see(self, what: str) -> None:
        self.seen.append(what)
        self.act(what)

    def stage_began(self, stage: str, planned: int, known: Iterable[RunRecord]) -> None:
        self._see(f"{stage} of {planned}")

    def trial_started(self, assignment: Assignment) -> None:
        self._see(f"{assignment.stage} {assignment.number} started")

    def trial_epoch(self, stage: Stage, report: Report) -> None:
        self._see(f"{stage} {report.number} epoch {report.epoch}")

    def trial_ended(self, stage: Stage, number: int, state: Any, reason: str | None) -> None:
        self._see(f"{stage} {number} {state}")

    def scoring(self, what: str, done: int, total: int) -> None:
        self._see(f"scoring {what}")

    def note(self, message: str) -> None:
        self._see(message)


class NoMlflow:
    error = None

    def __init__(self, *_: Any) -> None: ...

    def start(self) -> None: ...

    def stop(self, timeout: float) -> bool:
        return True


def straw_stage(driver: StageDriver, data: TrainingData, share: Share, scratch: Path) -> None:
    """Tune's part: one trial at a time, in this process."""
    while (work := driver.suggest("t")) != Searcher.FINISHED:
        if not isinstance(work, dict):
            time.sleep(0.01)  # it is paused
            continue
        stopped = [False]

        def report(result: dict[str, Any], stopped: list[bool] = stopped) -> None:
            stopped[0] = driver.should_stop("t", result)
            if stopped[0]:
                raise SystemExit

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trainable.tune, "report", report)
            try:
                trainable.train(work, data)
            except SystemExit:
                driver.tune_ended("t")


class StrawArray:
    """A SharedArray that stays in this process."""

    @staticmethod
    def put(array: np.ndarray) -> Any:
        return SimpleNamespace(n_samples=len(array), open=lambda: ArraySource(array))


@contextmanager
def _no_ray(settings: Settings) -> Iterator[None]:
    yield


def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "run_stage", straw_stage)
    monkeypatch.setattr(sweep_module, "MlflowWriter", NoMlflow)
    monkeypatch.setattr(stages.cluster, "connected", _no_ray)
    monkeypatch.setattr(stages.cluster, "share", lambda _: Share(1.0, 0.0))
    monkeypatch.setattr(StageDriver, "capacity", lambda _: 1)
    monkeypatch.setattr(stages.cluster, "cpus", lambda: 1)
    monkeypatch.setattr(scoring, "SharedArray", StrawArray)
    monkeypatch.setattr(trainable, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(trainable, "SAVING_SHARE", math.inf)
    monkeypatch.setattr(trainable, "is_drawn", lambda *_: False)  # takes longer than to train


@pytest.fixture(autouse=True)
def _straw(monkeypatch: pytest.MonkeyPatch) -> None:
    without_ray(monkeypatch)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.from_environment({"AAE_HOME": str(tmp_path / "home")})


def images(path: Path, *, test: bool) -> Path:
    random = np.random.default_rng(0)
    members = {"x_train": random.random((60, 9), dtype=np.float32)}
    if test:
        members["x_test"] = random.random((10, 9), dtype=np.float32)
    np.savez(path, **members)  # type: ignore[arg-type]
    return path


def sweep(path: Path, **changes: Any) -> SweepSpec:
    search = {
        "sampler": {"kind": "random"},
        "objective": {"metric": "val/recon"},
        "trials": changes.pop("trials", 3),
        "space": {"model.prior.std": {"float": [0.5, 4]}},
    }
    document: dict[str, Any] = {
        "name": "straw",
        "data": {"name": "arrays", "path": str(path)},
        "model": {"hidden": [4], "code_dim": 2, "init_std": 0.2},
        "training": {"epochs": 2, "batch_size": 9},
        "search": search | changes.pop("search", {}),
        "confirm": {"seeds": 2},
        "evaluate": {"parzen": {"samples": 200, "screen_samples": 200}},
    }
    return SweepSpec.of(document | changes)


def run(
    settings: Settings,
    spec: SweepSpec,
    watcher: Watcher | None = None,
    draining: threading.Event | None = None,
) -> History:
    def write_report(sweep: str) -> Path:
        report = settings.sweep_folder(sweep) / "report.html"
        report.write_text("<html></html>")
        return report

    stages.run(
        Request(spec, "name: straw", "aae-sweep run straw.yaml"),
        settings,
        watcher or Watcher(),
        draining or threading.Event(),
        write_report,
    )
    return History(settings)


def numbers(reader: History, spec: SweepSpec) -> list[Any]:
    return [
        (r.stage, r.number, r.params, r.seed, reader.curve(spec.sweep_id, r)[0])
        for r in reader.trials(spec.sweep_id)
    ]


# -- the first promise -----------------------------------------------------------------------


def test_what_search_is_handed_has_no_test_member(tmp_path: Path) -> None:
    assert [field.name for field in fields(TrainingData)] == [
        "name",
        "image_shape",
        "x_train",
        "y_train",
        "x_valid",
        "y_valid",
        "sha256",
    ]
    with_test, without = (
        sweep(images(tmp_path / f"{test}.npz", test=test)).data for test in (True, False)
    )
    ours, theirs = (load_training_data(data, tmp_path) for data in (with_test, without))
    assert ours.sha256 == theirs.sha256
    assert not any("test" in name for name in vars(ours))


def test_search_and_confirm_are_the_same_with_and_without_a_test_split(
    settings: Settings, tmp_path: Path
) -> None:
    with_test = sweep(images(tmp_path / "with.npz", test=True))
    without = sweep(images(tmp_path / "without.npz", test=False))
    reader = run(settings, with_test)
    with pytest.raises(EnvironmentUnusable, match="search and confirm are done and kept"):
        run(settings, without)
    assert numbers(reader, with_test) == numbers(reader, without)
    assert reader.status(without.sweep_id)["stage"] == "evaluate"


def test_the_test_split_is_opened_once_the_winner_is_written_down(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = sweep(images(tmp_path / "i.npz", test=True))
    watcher, opened = Watcher(), []
    load = evaluating.load_test_data

    def spy(*arguments: Any) -> TestData:
        confirm = Ledger.read(open_storage(settings), spec.sweep_id, "confirm")
        assert confirm is not None
        assert {r.state for r in confirm.records()} == {"complete"}
        opened.append((confirm.attribute("winner"), list(watcher.seen)))
        return load(*arguments)

    monkeypatch.setattr(evaluating, "load_test_data", spy)
    best = run(settings, spec, watcher).best(spec.sweep_id)
    assert best is not None
    [(winner, seen)] = opened
    assert winner == best["config_hash"]
    assert "confirm 1 complete" in seen
    assert not any(what.startswith(("evaluate", "scoring")) for what in seen)


# -- a trial that fails, and fails again -------------------------------------------------------


def test_a_retry_that_gets_no_further_has_the_curve_of_what_it_took_up(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = {"epochs": 3, "batch_size": 9}
    spec = sweep(images(tmp_path / "i.npz", test=True), trials=2, training=training)
    trained, failing = trainable.fit_pack, search_seed(spec.seed, 0)

    def fit_pack(states: dict[int, TrainState], data: TrainingData) -> Iterator[Any]:
        [state] = states.values()
        for told in trained(states, data):
            if state.epoch == 3 and state.config.seed == failing:
                raise RuntimeError("no room")
            yield told

    monkeypatch.setattr(trainable, "fit_pack", fit_pack)
    reader = run(settings, spec)
    [first] = [r for r in reader.trials(spec.sweep_id) if r.state == "failed"]
    ledger = Ledger.read(open_storage(settings), spec.sweep_id, "search")
    assert ledger is not None
    assert ledger.retry() == {0: 2}
    reader = run(settings, spec)
    [again] = [r for r in reader.trials(spec.sweep_id) if r.state == "failed"]
    assert (again.number, again.resumed_from, again.epochs) == (2, [2], 2)
    assert [row["epoch"] for row in reader.curve(spec.sweep_id, again)] == [1, 2]
    assert reader.curve(spec.sweep_id, again) == reader.curve(spec.sweep_id, first)


# -- a sweep after something else than Parzen likelihood ---------------------------------------


def digits_with_labels(**changes: Any) -> SweepSpec:
    document: dict[str, Any] = {
        "name": "straw",
        "data": {"name": "digits", "labels": 100},
        "model": {"kind": "semi_supervised", "hidden": [8], "code_dim": 2, "init_std": 0.2},
        "training": {"epochs": 1},
        "search": {
            "sampler": {"kind": "random"},
            "trials": 3,
            "space": {"training.classification.lr": {"float": [1e-3, 0.3], "log": True}},
        },
        "confirm": {"seeds": 2},
    }
    return SweepSpec.of(document | changes)


def test_what_has_no_parzen_figure_needs_no_pool_and_takes_the_lowest_error(
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

    monkeypatch.setattr(stages.cluster, "connected", never)  # to evaluate again, no Ray at all
    monkeypatch.setattr(stages.cluster, "cpus", never)
    again = stages.evaluate(settings, spec.sweep_id, None, "aae-sweep evaluate", Watcher())
    assert again["models"] == evaluation["models"]


def test_test_figures_that_are_not_finite_are_null_and_spoil_their_mean(
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
def test_what_does_not_go_with_the_data_is_refused_before_anything_starts(
    changes: dict[str, Any], message: str, settings: Settings
) -> None:
    with pytest.raises(SpecError, match=message) as refused:
        run(settings, digits_with_labels(**changes))
    assert refused.value.exit_code == 2
    assert History(settings).sweeps() == []


def test_unlabelled_data_are_refused_where_labels_are_needed(
    settings: Settings, tmp_path: Path
) -> None:
    path = images(tmp_path / "i.npz", test=True)
    with pytest.raises(SpecError, match="needs labels of 2 classes; there are 0"):
        run(settings, sweep(path, model={"kind": "classifier"}, search={"objective": None}))
    with pytest.raises(SpecError, match="`val/knn_error` needs labels of the validation images"):
        run(settings, sweep(path, search={"objective": {"metric": "val/knn_error"}}))


# -- where it may stop, and how it goes on ---------------------------------------------------


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The numbers of a sweep that nobody interrupted."""
    folder = tmp_path_factory.mktemp("undisturbed")
    spec = sweep(images(folder / "i.npz", test=True))
    with pytest.MonkeyPatch.context() as patch:
        without_ray(patch)
        settings = Settings.from_environment({"AAE_HOME": str(folder / "home")})
        return numbers(run(settings, spec), spec)


@pytest.mark.parametrize(
    "moment", ["search 1 started", "search 1 epoch 1", "search 2 complete", "confirm 0 epoch 1"]
)
def test_an_interrupted_sweep_goes_on_to_the_same_end(
    moment: str, undisturbed: list[Any], settings: Settings, tmp_path: Path
) -> None:
    spec = sweep(images(tmp_path / "i.npz", test=True))
    draining, watcher = threading.Event(), Watcher()
    watcher.act = lambda what: draining.set() if what == moment else None
    with pytest.raises(Interrupted, match="carry on with: aae-sweep run"):
        run(settings, spec, watcher, draining)
    reader = History(settings)
    assert reader.status(spec.sweep_id)["state"] == "interrupted"
    assert "RUNNING" not in {run.status for run in Spool(settings.spool).runs()}
    run(settings, spec)
    assert numbers(reader, spec) == undisturbed
    assert reader.status(spec.sweep_id)["state"] == "done"


# -- what others ask of the driver -----------------------------------------------------------


@pytest.fixture
def _attentive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "_LISTENING_SECONDS", 0.01)


def search_of(settings: Settings, spec: SweepSpec) -> Ledger:
    """As another process has it."""
    ledger = Ledger.read(open_storage(settings), spec.sweep_id, "search")
    assert ledger is not None
    return ledger


@pytest.mark.usefixtures("_attentive")
@pytest.mark.parametrize(
    ("moment", "wish"),
    [
        ("search 1 epoch 1", "drain"),
        ("search 1 epoch 1", "now"),
        ("confirm 0 started", "drain"),
        ("scoring", "now"),
    ],
)
def test_a_sweep_that_is_asked_to_stops_and_goes_on_to_the_same_end(
    moment: str, wish: str, undisturbed: list[Any], settings: Settings, tmp_path: Path
) -> None:
    spec = sweep(images(tmp_path / "i.npz", test=True))
    draining, watcher = threading.Event(), Watcher()

    def act(what: str) -> None:
        if what.startswith(moment) and not draining.is_set():
            search_of(settings, spec).set_attribute("wish", wish)
            assert draining.wait(20)
            if wish == "now":
                time.sleep(20)  # far less: it is interrupted

    watcher.act = act
    with pytest.raises(Interrupted, match="was stopped; carry on with: aae-sweep run"):
        run(settings, spec, watcher, draining)
    assert any(what.startswith("asked to stop: ") for what in watcher.seen)
    reader = History(settings)
    assert reader.status(spec.sweep_id)["state"] == "stopped"
    assert search_of(settings, spec).attribute("wish") is None
    assert "RUNNING" not in {run.status for run in Spool(settings.spool).runs()}
    run(settings, spec)
    assert numbers(reader, spec) == undisturbed


@pytest.mark.usefixtures("_attentive")
@pytest.mark.parametrize("moment", ["search 1 epoch 1", "confirm 0 started", "scoring"])
def test_a_paused_sweep_waits_and_goes_on_to_the_same_end(
    moment: str, undisturbed: list[Any], settings: Settings, tmp_path: Path
) -> None:
    spec, watcher = sweep(images(tmp_path / "i.npz", test=True)), Watcher()
    search = Ledger.create(open_storage(settings), spec, "search")
    seen_while_paused: list[str] = []

    def resume() -> None:
        paused_at = len(watcher.seen)
        time.sleep(0.5)
        seen_while_paused.extend(watcher.seen[paused_at + 1 :])  # but one epoch under way
        search.set_attribute("wish", None)

    def act(what: str) -> None:
        if what.startswith(moment) and "asked to go on" not in watcher.seen:
            search.set_attribute("wish", "pause")
            while not any(seen.startswith("asked to pause: ") for seen in watcher.seen):
                time.sleep(0.01)
            threading.Thread(target=resume).start()

    watcher.act = act
    reader = run(settings, spec, watcher)
    assert seen_while_paused == []
    assert "asked to go on" in watcher.seen
    assert numbers(reader, spec) == undisturbed
    assert reader.status(spec.sweep_id)["state"] == "done"


@pytest.mark.usefixtures("_attentive")
def test_an_evaluation_that_is_asked_to_stop_goes_on_as_an_evaluation(
    settings: Settings, tmp_path: Path
) -> None:
    spec, watcher = sweep(images(tmp_path / "i.npz", test=True)), Watcher()
    run(settings, spec)

    def act(what: str) -> None:
        if what.startswith("scoring"):
            search_of(settings, spec).set_attribute("wish", "now")
            time.sleep(20)  # far less: it is interrupted

    watcher.act = act
    parzen = ParzenSpec(samples=300, screen_samples=300)
    again = "aae-sweep evaluate straw --parzen-samples 300"
    with pytest.raises(Interrupted, match=f"was stopped; carry on with: {again}"):
        stages.evaluate(settings, spec.sweep_id, parzen, again, watcher)
    assert History(settings).status(spec.sweep_id)["state"] == "done"


@pytest.mark.usefixtures("_attentive")
def test_a_wish_for_an_earlier_driver_is_none_for_this_one(
    settings: Settings, tmp_path: Path
) -> None:
    spec = sweep(images(tmp_path / "i.npz", test=True))
    Ledger.create(open_storage(settings), spec, "search").set_attribute("wish", "now")
    assert run(settings, spec).status(spec.sweep_id)["state"] == "done"


def test_a_storage_that_is_away_for_a_moment_is_asked_again(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "_LISTENING_SECONDS", 0.01)
    spec = sweep(images(tmp_path / "i.npz", test=True))
    draining, watcher, away = threading.Event(), Watcher(), []
    attribute = Ledger.attribute

    def flaky(ledger: Ledger, name: str, default: Any = None) -> Any:
        if name == "wish" and len(away) < 3:
            away.append(name)
            raise StorageInternalError
        return attribute(ledger, name, default)

    def act(what: str) -> None:
        if what == "search 1 epoch 1":
            monkeypatch.setattr(Ledger, "attribute", flaky)
            search_of(settings, spec).set_attribute("wish", "drain")
            assert draining.wait(20)

    watcher.act = act
    with pytest.raises(Interrupted):
        run(settings, spec, watcher, draining)
    assert len(away) == 3


def test_failed_trials_are_retried_from_their_checkpoints(
    undisturbed: list[Any],
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = sweep(images(tmp_path / "i.npz", test=True))
    trained = trainable.fit_pack
    failing = {search_seed(spec.seed, 2), confirm_seed(spec.seed, 0)}

    def unlucky(states: dict[int, TrainState], data: TrainingData) -> Iterator[Any]:
        [state] = states.values()
        for told in trained(states, data):
            yield told
            if state.config.seed in failing:
                raise RuntimeError("no luck")

    monkeypatch.setattr(trainable, "fit_pack", unlucky)
    reader = run(settings, spec)
    assert reader.status(spec.sweep_id)["trials"]["failed"] == 2
    failing.clear()
    search, storage = search_of(settings, spec), open_storage(settings)
    confirm = Ledger.read(storage, spec.sweep_id, "confirm")
    assert confirm is not None
    assert (search.retry(), confirm.retry()) == ({2: 3}, {0: 2})
    run(settings, spec)
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


def test_a_search_whose_best_does_not_move_asks_for_no_more(
    settings: Settings, tmp_path: Path
) -> None:
    path = images(tmp_path / "i.npz", test=True)
    patient, watcher = sweep(path, trials=50, search={"patience": 2}), Watcher()
    reader = run(settings, patient, watcher)
    values = [
        r.metrics["val/recon"] for r in reader.trials(patient.sweep_id) if r.stage == "search"
    ]
    assert 3 <= len(values) < 50
    assert values.index(min(values)) == len(values) - 3
    ended = f"search: ended after {len(values)} trials: the best has not moved for 2 trials"
    assert ended in watcher.seen
    status = reader.status(patient.sweep_id)
    assert (status["state"], status["planned"]["search"]) == ("done", len(values))

    more = sweep(path, trials=len(values) + 1)
    run(settings, more)
    assert reader.status(more.sweep_id)["trials"]["complete"] == len(values) + 1 + 2


def racing(path: Path, **confirm: Any) -> SweepSpec:
    """Two rates, and a setting that makes no difference here."""
    space = {
        "training.reconstruction.lr": {"choice": [1e-2, 1e-7]},
        "model.clusters": {"choice": [3, 4]},
    }
    search = {"sampler": {"kind": "grid"}, "space": space}
    return sweep(path, search=search, trials=4, confirm={"top": 4, "seeds": 5, **confirm})


def seeds_by_rate(reader: History, spec: SweepSpec) -> dict[float, int]:
    records = reader.trials(spec.sweep_id, "confirm")
    return dict(Counter(r.params["training.reconstruction.lr"] for r in records))


def test_in_a_race_the_beaten_get_no_more_seeds(settings: Settings, tmp_path: Path) -> None:
    path = images(tmp_path / "i.npz", test=True)
    fair, race = racing(path), racing(path, race=4)
    assert fair.sweep_id == race.sweep_id
    watcher = Watcher()
    reader = run(settings, race, watcher)
    assert seeds_by_rate(reader, race) == {1e-2: 10, 1e-7: 8}
    assert "confirm: 2 of 4 go on to more seeds" in watcher.seen
    assert reader.status(race.sweep_id)["planned"]["confirm"] == 18
    run(settings, fair)
    assert seeds_by_rate(reader, fair) == {1e-2: 10, 1e-7: 10}


@pytest.mark.parametrize("moment", ["confirm 5 epoch 1", "confirm 17 epoch 1"])
def test_a_race_that_is_interrupted_goes_on_to_the_same_end(
    moment: str, settings: Settings, tmp_path: Path
) -> None:
    spec = racing(images(tmp_path / "i.npz", test=True), race=4)
    draining, watcher = threading.Event(), Watcher()
    watcher.act = lambda what: draining.set() if what == moment else None
    with pytest.raises(Interrupted):
        run(settings, spec, watcher, draining)
    assert seeds_by_rate(run(settings, spec), spec) == {1e-2: 10, 1e-7: 8}


def test_a_sweep_learns_from_another_where_their_spaces_agree(
    settings: Settings, tmp_path: Path
) -> None:
    path = images(tmp_path / "i.npz", test=True)
    widths = {"model.hidden": {"choice": [[4], [5]]}, "model.prior.std": {"choice": [1, 2, 3]}}
    first = sweep(path, search={"space": widths}, trials=6, name="first")
    reader = run(settings, first)
    narrow = {"model.prior.std": {"float": [1.5, 4]}}
    second, watcher = sweep(path, search={"space": narrow, "learn_from": "first"}), Watcher()
    run(settings, second, watcher)
    fits = [
        r
        for r in reader.trials(first.sweep_id, "search")
        if r.params["model.hidden"] == [4] and r.params["model.prior.std"] >= 2
    ]
    assert 0 < len(fits) < 6
    known = search_of(settings, second).study.trials[: len(fits)]
    assert [t.params for t in known] == [
        {"model.prior.std": r.params["model.prior.std"]} for r in fits
    ]
    assert [t.value for t in known] == [r.metrics["val/recon"] for r in fits]
    told = f"search: the sampler knows {len(fits)} trials of {first.sweep_id}"
    assert watcher.seen.count(told) == 1
    assert reader.status(second.sweep_id)["trials"]["complete"] == 3 + 2
    again = Watcher()
    run(settings, sweep(path, trials=4, search={"space": narrow, "learn_from": "first"}), again)
    assert told not in again.seen  # once


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("unheard", "names no sweep"),
        ("elsewhere", "is not another sweep on the same data"),
        ("first", "has a configuration of this space"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused_before_anything_starts(
    other: str, message: str, settings: Settings, tmp_path: Path
) -> None:
    path = images(tmp_path / "i.npz", test=True)
    run(settings, sweep(path, name="first", model={"hidden": [5], "code_dim": 2}))
    random = np.random.default_rng(1).random((60, 9), dtype=np.float32)
    np.savez(tmp_path / "e.npz", x_train=random, x_test=random[:5])
    run(settings, sweep(tmp_path / "e.npz", name="elsewhere"))
    watcher = Watcher()
    with pytest.raises(UsageError, match=message):
        run(settings, sweep(path, search={"learn_from": other}), watcher)
    assert not [what for what in watcher.seen if "started" in what]


def test_when_the_gpu_hours_are_used_up_no_trial_starts(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = images(tmp_path / "i.npz", test=True)
    monkeypatch.setattr(Ledger, "gpu_hours", lambda ledger: 0.4 * ledger.asked())
    watcher = Watcher()
    status = run(
        settings, sweep(path, trials=9, search={"budget": {"gpu_hours": 1.0}}), watcher
    ).status(History(settings).resolve("latest"))
    assert status["trials"]["complete"] == 3 + 2
    assert "search: ended after 3 trials: its 1 GPU-hours are used up" in watcher.seen


def test_a_running_search_is_extended(settings: Settings, tmp_path: Path) -> None:
    spec, watcher = sweep(images(tmp_path / "i.npz", test=True)), Watcher()

    def act(what: str) -> None:
        if what == "search 1 epoch 1":
            search_of(settings, spec).set_attribute("extended", {"trials": 5, "hours": 0.0})
        if what == "confirm 1 started":
            search_of(settings, spec).set_attribute("extended", {"trials": 6, "hours": 0.0})

    watcher.act = act
    reader = run(settings, spec, watcher)
    assert "search: extended, now 5 trials, hours unlimited" in watcher.seen
    status = reader.status(spec.sweep_id)
    assert status["trials"]["complete"] == 5 + 2
    assert status["planned"] == {"search": 5, "confirm": 2}
    assert reader.is_done(spec.extended(trials=5))
    assert not reader.is_done(spec.extended(trials=6))  # too late for this driver


def test_an_evaluation_can_be_interrupted(settings: Settings, tmp_path: Path) -> None:
    spec = sweep(images(tmp_path / "i.npz", test=True))
    draining, watcher = threading.Event(), Watcher()
    watcher.act = lambda what: draining.set() if what.startswith("scoring") else None
    with pytest.raises(Interrupted):
        run(settings, spec, watcher, draining)
    assert History(settings).status(spec.sweep_id)["stage"] == "evaluate"
    again = Watcher()
    run(settings, spec, again)
    assert not [what for what in again.seen if "started" in what]


def test_a_sweep_done_is_extended_by_more_trials_and_seeds(
    settings: Settings, tmp_path: Path
) -> None:
    path = images(tmp_path / "i.npz", test=True)
    small, large = sweep(path), sweep(path, trials=5, confirm={"seeds": 3})
    assert small.sweep_id == large.sweep_id
    reader = run(settings, small)
    before = numbers(reader, small)
    assert reader.is_done(small)
    assert not reader.is_done(large)
    run(settings, large)
    after = numbers(reader, large)
    assert [n for n in after if n[0] == "search"][:3] == before[:3]
    assert sum(n[0] == "search" for n in after) == 5
    best = reader.best(large.sweep_id)
    assert best is not None
    assert len(best["seeds"]) == 3
    assert reader.status(large.sweep_id)["state"] == "done"


def test_when_the_time_is_up_no_trial_starts_and_the_rest_is_done(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = sweep(
        images(tmp_path / "i.npz", test=True), trials=50, search={"budget": {"hours": 1.0}}
    )
    hours, watcher = [0.0], Watcher()
    monkeypatch.setattr(Sweep, "elapsed", property(lambda _: 3600 * hours[0]))

    def late(what: str) -> None:
        if what == "search 1 epoch 1":
            hours[0] = 2.0

    watcher.act = late
    status = run(settings, spec, watcher).status(spec.sweep_id)
    assert status["trials"]["complete"] == 2 + 2
    assert status["state"] == "done"


def test_other_data_are_refused(settings: Settings, tmp_path: Path) -> None:
    path = images(tmp_path / "i.npz", test=True)
    spec = sweep(path)
    run(settings, spec)
    np.savez(path, x_train=np.zeros((60, 9), np.float32), x_test=np.zeros((5, 9), np.float32))
    with pytest.raises(EnvironmentUnusable, match="not those that straw-"):
        run(settings, spec)


def test_a_search_ends_with_its_space(settings: Settings, tmp_path: Path) -> None:
    path = images(tmp_path / "images.npz", test=True)
    search = {"space": {"model.prior.std": {"choice": [1.0, 2.0]}}}
    spec = sweep(path, trials=9, search=search)
    watcher = Watcher()
    status = run(settings, spec, watcher).status(spec.sweep_id)
    assert (status["trials"]["complete"], status["state"]) == (2 + 2, "done")
    assert status["planned"] == {"search": 2, "confirm": 2}
    assert any("suggestions had all been tried" in seen for seen in watcher.seen)
    again = Watcher()
    run(settings, spec, again)
    assert not [seen for seen in again.seen if "started" in seen]
