"""The driver between study and Tune, with a fake Tune: every order of events that can occur."""

import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError
from ray.tune.search import Searcher
from sweep_file import make_spec

from orchestrator.errors import DiskFull
from orchestrator.execution import cluster, tune_driver
from orchestrator.execution.cluster import TrialResources
from orchestrator.execution.hangs import HUNG_AFTER, LEAST_PATIENCE
from orchestrator.execution.tune_driver import MAX_LOSSES, STOPPED, StageDriver, see_memory_kills
from orchestrator.execution.worker import LEAVE, Report
from orchestrator.records import Stage, TrialState
from orchestrator.settings import Settings
from orchestrator.study.study import StageStudy, TrialAttempt, open_storage
from orchestrator.sweepfile.spec import SweepSpec
from orchestrator.text import duration

EPOCHS = 3
GPU_SHARE = 0.5
SEARCH: dict[str, Any] = {
    "pruner": {"kind": "median", "grace_epochs": 1, "startup_trials": 1},
    "objective": {"metric": "val/recon"},
    "constraints": {"val/latent_std": [0.5, 2.0]},
}
SPEC = make_spec(training={"epochs": EPOCHS}, search=SEARCH)


class Straw:
    """A listener that also calls the driver as Tune does."""

    def __init__(self, tmp_path: Path, trials: int = 3, spec: SweepSpec = SPEC) -> None:
        self.settings = Settings.from_environment({"AAE_HOME": str(tmp_path)})
        self.trials = trials
        self.trials_folder = self.settings.trials_folder(spec.sweep_id)
        self.spec = spec
        self.events: list[tuple[Any, ...]] = []
        self.killed_at: Callable[[tuple[Any, ...]], bool] = lambda _: False
        self.start()

    def start(self) -> None:
        """Start a new driver on the same storage."""
        self.study = StageStudy.create(open_storage(self.settings), self.spec, "search")
        self.draining, self.paused = threading.Event(), threading.Event()
        self.stopped, self.allowed = set[int](), list[int | None]([None])

        def next_trial() -> TrialAttempt | None:
            return self.study.ask(self.spec) if self.study.asked() < self.trials else None

        self.driver = StageDriver(
            self.spec,
            self.study,
            lambda a: self.trials_folder / str(a.number) / str(a.attempt),
            TrialResources(1.0, GPU_SHARE),
            self,
            next_trial,
            lambda _: self.spec.resources.pack,
            self.draining,
            self.paused,
            self.stopped,
            lambda: self.allowed[-1],
        )
        self.driver.capacity = lambda: 2  # type: ignore[method-assign]

    def trial_started(self, attempt: TrialAttempt) -> None:
        self._on_epoch("started", attempt.number, attempt.attempt)

    def trial_begun(self, stage: Stage, report: Report) -> None:
        if report.history:
            self._on_epoch("resumed", report.number, [row["epoch"] for row in report.history])

    def trial_epoch(self, stage: Stage, report: Report) -> None:
        self._on_epoch("epoch", report.number, report.epoch)

    def trial_ended(self, stage: Stage, number: int, state: TrialState, reason: str | None) -> None:
        self._on_epoch("ended", number, state)

    def save(self) -> None: ...

    def _on_epoch(self, *event: Any) -> None:
        self.events.append(event)
        if self.killed_at(event):
            raise SystemExit

    def report(
        self,
        trial_id: str,
        task: Any,
        epoch: int,
        value: float = 1.0,
        std: float = 1.0,
        **rest: Any,
    ) -> bool:
        return self.tell(trial_id, after(task, epoch, value, std, **rest))

    def tell(self, trial_id: str, *reports: dict[str, Any]) -> bool:
        return self.driver.should_stop(trial_id, {"reports": json.dumps(reports)})

    def suggest(self, trial_id: str) -> Any:
        """Return the task of a pack's only trial, None or FINISHED."""
        suggested = self.suggest_pack(trial_id)
        if not isinstance(suggested, list):
            return suggested
        [task] = suggested
        return task

    def suggest_pack(self, trial_id: str) -> Any:
        suggested = self.driver.suggest(trial_id)
        return json.loads(suggested["tasks"]) if isinstance(suggested, dict) else suggested

    def ends(self) -> list[tuple[int, str]]:
        return [(number, state) for what, number, state in self.events if what == "ended"]

    def states(self) -> list[str]:
        return [r.state for r in self.study.records()]


def after(
    task: Any, epoch: int, value: float = 1.0, std: float = 1.0, **rest: Any
) -> dict[str, Any]:
    """Return the report of one epoch of an attempt."""
    last = {"end": "complete"} if epoch == EPOCHS else {}
    checkpoint = f"{task['folder']}/epoch-{epoch:06d}"
    report = Report(
        task["number"],
        task["attempt"],
        "here",
        epoch,
        {"val/recon": value, "val/latent_std": std},
        **{"checkpoint": checkpoint, **last, **rest},
    )
    return asdict(report)


@pytest.fixture
def straw(tmp_path: Path) -> Straw:
    return Straw(tmp_path)


def run_through(straw: Straw, trial_id: str, task: Any, first: int = 1) -> None:
    for epoch in range(first, EPOCHS + 1):
        assert straw.report(trial_id, task, epoch) == (epoch == EPOCHS)
    assert straw.report(trial_id, task, EPOCHS)  # Tune repeats the last report
    straw.driver.tune_ended(trial_id)


def test_driver_runs_every_trial_of_a_stage_to_completion(straw: Straw) -> None:
    for trial_id in "abc":
        task = straw.suggest(trial_id)
        run_through(straw, trial_id, task)
    assert straw.suggest("d") == Searcher.FINISHED
    assert straw.ends() == [(n, "complete") for n in range(3)]
    assert [(r.epochs, r.epochs_computed, r.attempts) for r in straw.study.records()] == [
        (3, 3, 1)
    ] * 3


def test_driver_stages_one_trial_beyond_capacity_and_then_waits(straw: Straw) -> None:
    straw.trials = 10
    assert all(isinstance(straw.suggest(t), dict) for t in "abc")
    assert straw.suggest("d") is None
    assert straw.study.asked() == 3


def test_driver_is_not_finished_while_a_trial_runs(straw: Straw) -> None:
    straw.trials = 1
    task = straw.suggest("a")
    assert straw.suggest("b") is None
    run_through(straw, "a", task)
    assert straw.suggest("b") == Searcher.FINISHED


def test_lost_worker_is_followed_by_attempt_from_last_checkpoint(straw: Straw) -> None:
    first: Any = straw.suggest("a")
    straw.report("a", first, 1)
    straw.report("a", first, 2, checkpoint=None)
    straw.driver.tune_ended("a")
    straw.driver.tune_ended("a")  # Tune and the reconciling callback may both report the end
    second: Any = straw.suggest("b")
    assert (second["number"], second["attempt"]) == (0, 2)
    assert second["config"] == first["config"]
    assert second["resume"] == f"{first['folder']}/epoch-000001"
    assert second["folder"] != first["folder"]
    assert straw.report("a", first, 3)  # the first attempt is still alive
    for epoch in (2, 3):
        straw.report("b", second, epoch, resumed_from=1)
    [record] = straw.study.records()
    assert (record.epochs_computed, record.resumed_from, record.state) == (4, [1], "complete")
    assert Counter(straw.ends()) == {(0, "complete"): 1}


def test_epochs_trained_after_the_drivers_kill_are_counted(straw: Straw) -> None:
    first: Any = straw.suggest("a")
    straw.report("a", first, 1, value=3.0)
    straw.start()
    second: Any = straw.suggest("b")
    history = [{"epoch": 1, "val/recon": 3.0}, {"epoch": 2, "val/recon": 2.0}]
    beginning = Report(0, 2, "here", 2, {}, resumed_from=2, history=history)
    straw.tell("b", asdict(beginning))
    [record] = straw.study.records()
    assert (record.epochs, record.epochs_computed, record.resumed_from) == (2, 2, [2])
    assert record.metrics == {"val/recon": 2.0}
    assert straw.report("b", second, EPOCHS, resumed_from=2)
    assert straw.events[-3:] == [("resumed", 0, [1, 2]), ("epoch", 0, 3), ("ended", 0, "complete")]
    [record] = straw.study.records()
    assert (record.state, record.epochs_computed) == ("complete", EPOCHS)


@pytest.mark.parametrize(
    ("peer", "trained", "end"),
    [([1.0] * EPOCHS, 2, "pruned"), ([9.0] * (EPOCHS - 1) + [1.0], EPOCHS, "complete")],
)
def test_replayed_epochs_are_decided_like_reported_ones(
    peer: list[float], trained: int, end: str, straw: Straw
) -> None:
    """Replay a trial that falls behind its peer: at its last epoch a trial completes."""
    first: Any = straw.suggest("a")
    for epoch, value in enumerate(peer, 1):
        straw.report("a", first, epoch, value=value)
    number = straw.suggest("b")["number"]
    straw.start()
    again: Any = straw.suggest("c")
    history = [{"epoch": epoch, "val/recon": 5.0} for epoch in range(1, trained + 1)]
    straw.tell("c", asdict(Report(number, 2, "here", trained, {}, history=history)))
    if trained == EPOCHS:
        straw.report("c", again, EPOCHS, value=5.0, trained=False)
    assert [state for n, state in straw.ends() if n == number] == [end]


def test_trial_lost_repeatedly_at_the_same_epoch_fails(straw: Straw) -> None:
    straw.trials = 1
    for loss in range(MAX_LOSSES):
        task: Any = straw.suggest(f"t{loss}")
        assert task["attempt"] == loss + 1
        straw.report(f"t{loss}", task, 1)
        straw.driver.tune_ended(f"t{loss}")
    assert straw.suggest("u") == Searcher.FINISHED
    [record] = straw.study.records()
    assert (record.state, record.attempts) == ("failed", MAX_LOSSES)
    assert "lost 4 times after epoch 1" in record.reason


def test_trial_that_advances_may_lose_any_number_of_workers(straw: Straw) -> None:
    straw.trials = 1
    losses = 0
    for epoch in (1, 2):
        for _ in range(MAX_LOSSES - 1):
            task = straw.suggest(f"t{losses}")
            straw.report(f"t{losses}", task, epoch)
            straw.driver.tune_ended(f"t{losses}")
            losses += 1
    task = straw.suggest("last")
    assert straw.report("last", task, 3)
    assert straw.states() == ["complete"]


def test_worker_killed_for_memory_gets_one_more_attempt(straw: Straw) -> None:
    straw.trials = 1
    for attempt, trial_id in enumerate("ab", start=1):
        task: Any = straw.suggest(trial_id)
        assert task["attempt"] == attempt
        straw.report(trial_id, task, attempt)
        straw.driver.tune_ended(
            trial_id, out_of_memory="the node was running low on memory: 9 of 9 GB"
        )
    assert straw.suggest("c") == Searcher.FINISHED
    [record] = straw.study.records()
    assert (record.state, record.attempts) == ("failed", 2)
    assert record.reason.startswith("out of host memory, twice")
    assert record.reason.endswith("9 of 9 GB")


def begin(straw: Straw, trial_id: str, task: Any) -> None:
    pass_time(straw, 1000)  # until the worker's process starts
    assert not straw.driver.should_stop(trial_id, {"process": ["node", 7]})
    straw.tell(trial_id, asdict(Report(task["number"], task["attempt"], "here", 0, {})))


def pass_time(straw: Straw, seconds: float) -> None:
    for _ in range(round(seconds)):
        straw.driver.watch(1.0)


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the list of workers that the driver kills from now on."""
    workers: list[Any] = []
    monkeypatch.setattr(cluster, "kill_worker", lambda *worker: workers.append(worker))
    return workers


@pytest.mark.parametrize("epoch_seconds", [1, 20])
def test_worker_silent_for_ten_of_its_epochs_is_killed_and_its_attempt_lost(
    epoch_seconds: int, straw: Straw, killed: list[Any]
) -> None:
    straw.trials = 1
    patience = max(LEAST_PATIENCE, HUNG_AFTER * epoch_seconds)
    for hangs in range(2):  # the second time, the driver waits twice as long
        task = straw.suggest(f"t{hangs}")
        begin(straw, f"t{hangs}", task)
        pass_time(straw, epoch_seconds)
        straw.report(f"t{hangs}", task, 1 + hangs)
        pass_time(straw, patience * 2**hangs)
        assert len(killed) == hangs
        pass_time(straw, 1)
        assert killed[hangs:] == [("node", 7)]
        straw.driver.tune_ended(f"t{hangs}")
    task = straw.suggest("last")
    assert (task["attempt"], task["resume"]) == (3, f"{task['folder'][:-1]}2/epoch-000002")
    [record] = straw.study.records()
    assert record.lost["1"] == f"it hung: no report for {duration(patience + 1)}"
    assert record.lost.keys() == {"1", "2"}


def test_worker_without_an_epoch_is_watched_only_with_an_explicit_timeout(
    tmp_path: Path, killed: list[Any]
) -> None:
    for timeout in ("auto", 5.0):
        spec = make_spec(
            training={"epochs": EPOCHS}, search=SEARCH, resources={"trial_timeout": timeout}
        )
        straw = Straw(tmp_path / str(timeout), spec=spec)
        begin(straw, "a", straw.suggest("a"))
        pass_time(straw, 1000 if timeout == "auto" else 5)
        assert not killed
    pass_time(straw, 1)
    assert killed == [("node", 7)]


def test_time_in_which_the_driver_sleeps_is_no_silence_of_its_workers(
    straw: Straw, killed: list[Any]
) -> None:
    task = straw.suggest("a")
    begin(straw, "a", task)
    straw.report("a", task, 1)
    straw.driver.watch(86_400.0)  # a laptop's lid, or a study server that was away
    assert not killed


def test_trial_whose_workers_always_hang_fails_with_that_reason(
    tmp_path: Path, killed: list[Any]
) -> None:
    spec = make_spec(training={"epochs": EPOCHS}, search=SEARCH, resources={"trial_timeout": 5})
    straw = Straw(tmp_path, trials=1, spec=spec)
    for loss in range(MAX_LOSSES):
        begin(straw, f"t{loss}", straw.suggest(f"t{loss}"))
        pass_time(straw, 6)
        straw.driver.tune_ended(f"t{loss}")
    [record] = straw.study.records()
    assert record.state == "failed"
    assert record.reason == (
        "its worker was lost 4 times after epoch 0, "
        "the last time because it hung: no report for 6.0 s"
    )


def test_actor_killed_for_memory_reaches_tune_as_actor_error() -> None:
    """Kill within a task: an unpatched Tune treats the kill as its own error and ends the run."""
    see_memory_kills()
    task, error = Mock(), OutOfMemoryError("running low on memory")
    RayActorManager._actor_task_failed(Mock(), task, error)
    task._tracked_actor._on_error.assert_called_once_with(task._tracked_actor, error)


def test_full_disk_stops_the_stage_and_leaves_trials_unfinished(straw: Straw) -> None:
    first, second = straw.suggest("a"), straw.suggest("b")
    straw.report("a", first, 1)
    full = {"end": "full", "reason": "the disk is full", "checkpoint": None}
    assert straw.report("a", first, 2, **full)
    straw.driver.tune_ended("a")
    assert straw.suggest("c") is None
    assert straw.report("b", second, 1)
    straw.driver.tune_ended("b")
    assert straw.suggest("c") == Searcher.FINISHED
    assert straw.driver.full == "the disk is full"
    assert straw.ends() == []
    straw.start()
    again: Any = straw.suggest("a")
    assert (again["number"], again["attempt"]) == (0, 2)
    assert again["resume"].endswith("0/1/epoch-000001")


def test_interruptions_of_the_driver_count_as_no_losses(straw: Straw) -> None:
    straw.trials = 1
    for restart in range(MAX_LOSSES + 1):
        task: Any = straw.suggest("a")
        assert task["attempt"] == restart + 1
        straw.report("a", task, 1)
        straw.draining.set()
        straw.driver.tune_ended("a")
        straw.start()
    straw.suggest("a")
    straw.driver.tune_ended("a")
    assert isinstance(straw.suggest("b"), dict)


def test_drain_stops_trials_at_next_epoch_and_starts_none(straw: Straw) -> None:
    running, staged = straw.suggest("a"), straw.suggest("b")
    assert not straw.report("a", running, 1)
    straw.draining.set()
    assert straw.suggest("c") is None
    assert straw.report("a", running, 2)
    straw.driver.tune_ended("a")
    assert straw.report("b", staged, 1)
    straw.driver.tune_ended("b")
    assert straw.suggest("c") == Searcher.FINISHED
    assert straw.ends() == []
    straw.start()
    again: list[Any] = [straw.suggest(t) for t in "ab"]
    assert [(w["number"], w["attempt"]) for w in again] == [(0, 2), (1, 2)]
    assert again[0]["resume"].endswith("0/1/epoch-000002")


def test_pause_stops_trials_at_next_epoch_and_driver_resumes_them(straw: Straw) -> None:
    running, staged = straw.suggest("a"), straw.suggest("b")
    straw.paused.set()
    assert straw.suggest("c") is None
    assert straw.report("a", running, 1)
    straw.driver.tune_ended("a")
    assert straw.report("b", staged, 1)
    straw.driver.tune_ended("b")
    assert straw.suggest("c") is None  # the driver waits
    assert straw.ends() == []
    straw.paused.clear()
    again: list[Any] = [straw.suggest(t) for t in "cd"]
    assert [(w["number"], w["attempt"]) for w in again] == [(0, 2), (1, 2)]
    assert again[0]["resume"].endswith("0/1/epoch-000001")


def test_pauses_of_a_trial_count_as_no_losses(straw: Straw) -> None:
    for n in range(2 * MAX_LOSSES):
        trial_id = f"t{n}"
        task = straw.suggest(trial_id)
        straw.paused.set()
        assert straw.report(trial_id, task, 1)
        straw.driver.tune_ended(trial_id)
        straw.paused.clear()
    assert straw.ends() == []


def test_trials_beyond_the_share_yield_at_their_next_epoch_and_go_on_later(straw: Straw) -> None:
    straw.allowed.append(2)
    running, staged = straw.suggest("a"), straw.suggest("b")
    assert isinstance(straw.suggest("c"), dict)  # one more than fit
    straw.allowed.append(1)
    assert straw.report("a", running, 1)
    straw.driver.tune_ended("a")
    assert straw.report("b", staged, 1)
    straw.driver.tune_ended("b")
    assert straw.suggest("d") is None  # c has the only place
    straw.allowed.append(0)
    assert straw.suggest("d") is None
    straw.allowed.append(None)
    again: list[Any] = [straw.suggest(t) for t in "de"]
    assert [(w["number"], w["attempt"]) for w in again] == [(0, 2), (1, 2)]
    assert again[1]["resume"].endswith("1/1/epoch-000001")
    assert straw.ends() == []


def test_gpu_hours_count_every_epoch_computed(straw: Straw) -> None:
    for trial_id in ("a", "b"):
        task = straw.suggest(trial_id)
        straw.report(trial_id, task, 1, seconds=3600.0)
        straw.driver.tune_ended(trial_id)  # lost after its first epoch
    assert straw.study.gpu_hours() == 2 * GPU_SHARE


def test_broken_constraint_reaches_the_sampler_and_the_records(straw: Straw) -> None:
    for trial_id, std in (("a", 1.5), ("b", 3.0)):
        task = straw.suggest(trial_id)
        for epoch in range(1, EPOCHS + 1):
            straw.report(trial_id, task, epoch, std=9.0 if epoch == 1 else std)
        straw.driver.tune_ended(trial_id)
    kept, broken = straw.study.optuna_study.trials[:2]
    assert kept.constraints == {"val/latent_std": -0.5}  # from the last epoch alone
    assert broken.constraints == {"val/latent_std": 1.0}
    assert [r.violated for r in straw.study.records()] == [[], ["val/latent_std"]]
    assert straw.study.optuna_study.best_trial.number == 0


@pytest.mark.parametrize("free", [0, 10**9])
@pytest.mark.parametrize("error", [EOFError("Ran out of input"), ValueError("No experiment")])
def test_snapshot_of_tune_that_a_full_disk_prevents_is_a_full_disk(
    straw: Straw, free: int, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuner = Mock(fit=Mock(side_effect=error))  # it reads its snapshot at its end
    monkeypatch.setattr(tune_driver.tune, "Tuner", lambda *_, **__: tuner)
    monkeypatch.setattr(tune_driver.tune, "with_parameters", lambda trainable, **_: trainable)
    monkeypatch.setattr(tune_driver, "see_memory_kills", lambda: None)
    usage = SimpleNamespace(total=10**9, used=10**9 - free, free=free)
    monkeypatch.setattr("orchestrator.disk.shutil.disk_usage", lambda _: usage)
    expected, message = (type(error), str(error)) if free else (DiskFull, "is full")
    with pytest.raises(expected, match=message):
        tune_driver.run_stage(straw.driver, Mock(), TrialResources(1.0, 0.0), tmp_path / ".tune")


def test_trial_is_running_from_first_report_and_stops_when_draining(straw: Straw) -> None:
    beginning = {"node": "here", "epoch": 0, "metrics": {}, "attempt": 1}
    for trial_id, draining in [("a", False), ("b", True)]:
        number = straw.suggest(trial_id)["number"]
        assert straw.states()[number] == "waiting"
        if draining:
            straw.draining.set()
        report = asdict(Report(number=number, **beginning))  # type: ignore[arg-type]
        assert straw.tell(trial_id, report) == draining
        assert straw.states()[number] == "running"
    assert [r.epochs_computed for r in straw.study.records()] == [0, 0]


def test_trial_that_completes_during_drain_is_complete(straw: Straw) -> None:
    task = straw.suggest("a")
    straw.draining.set()
    assert straw.report("a", task, EPOCHS)
    straw.driver.tune_ended("a")
    assert straw.states() == ["complete"]


@pytest.mark.parametrize("end", ["diverged", "failed"])
def test_diverged_or_failed_trial_is_recorded_with_its_reason(end: str, straw: Straw) -> None:
    task = straw.suggest("a")
    assert straw.report("a", task, 1, end=end, reason="because")
    straw.driver.tune_ended("a")
    [record] = straw.study.records()
    assert (record.state, record.reason, record.node) == (end, "because", "here")
    assert record.started is not None
    assert straw.driver.lost == type(straw.driver.lost)()


def test_trial_behind_its_peers_is_pruned_in_search(straw: Straw) -> None:
    run_through(straw, "a", straw.suggest("a"))
    task = straw.suggest("b")
    assert straw.report("b", task, 1, value=9.0)
    straw.driver.tune_ended("b")
    assert straw.states() == ["complete", "pruned"]
    assert straw.study.records()[1].reason == "behind its peers after epoch 1"


def test_trial_that_a_user_stops_is_pruned_at_its_next_epoch_without_validation(
    straw: Straw,
) -> None:
    task = straw.suggest("a")
    straw.stopped.add(0)
    assert straw.tell("a", after(task, 1) | {"metrics": {"train/recon": 1.0}})
    assert straw.states() == ["pruned"]
    assert straw.study.records()[0].reason == STOPPED


@pytest.mark.parametrize("event", ["started", "epoch", "ended"])
def test_driver_killed_at_any_event_resumes_its_trials(event: str, straw: Straw) -> None:
    """Kill the driver after it publishes an event and before the study stores the event."""
    straw.trials = 2
    straw.killed_at = lambda events: events[:2] == (event, 1)
    run_through(straw, "a", straw.suggest("a"))
    with pytest.raises(SystemExit):
        run_through(straw, "b", straw.suggest("b"))
    straw.killed_at = lambda _: False
    straw.start()
    assert list(straw.driver.lost) == [1]
    task: Any = straw.suggest("c")
    assert (task["number"], task["attempt"]) == (1, 2)
    epoch = straw.study.epochs(1)
    run_through(straw, "c", task, first=min(epoch + 1, EPOCHS))
    assert straw.suggest("d") == Searcher.FINISHED
    assert straw.states() == ["complete", "complete"]


def test_driver_has_no_state_for_tune_to_restore(straw: Straw) -> None:
    assert straw.driver.__getstate__() == {}


# -- packs -------------------------------------------------------------------------------------


def packing(pack: int, **space: Any) -> SweepSpec:
    prior = {"model.prior.std": {"float": [0.5, 5]}}
    search = SEARCH | {"space": prior | space}
    return make_spec(training={"epochs": EPOCHS}, search=search, resources={"pack": pack})


def numbers(tasks: list[Any]) -> list[int]:
    return [task["number"] for task in tasks]


def test_driver_runs_every_pack_to_completion(tmp_path: Path) -> None:
    straw = Straw(tmp_path, trials=5, spec=packing(3))
    first, second = straw.suggest_pack("a"), straw.suggest_pack("b")
    assert (numbers(first), numbers(second)) == ([0, 1, 2], [3, 4])
    assert straw.suggest_pack("c") is None
    for trial_id, tasks in (("a", first), ("b", second)):
        for epoch in range(1, EPOCHS + 1):
            reports = [after(task, epoch) for task in tasks]
            assert straw.tell(trial_id, *reports) == (epoch == EPOCHS)
        straw.driver.tune_ended(trial_id)
    assert straw.suggest_pack("c") == Searcher.FINISHED
    assert straw.states() == ["complete"] * 5


def test_gpu_hours_of_a_pack_are_shared_by_its_trials(tmp_path: Path) -> None:
    straw = Straw(tmp_path, spec=packing(3))
    tasks = straw.suggest_pack("a")
    for epoch in range(1, EPOCHS + 1):
        straw.tell("a", *[after(task, epoch, seconds=3600.0) for task in tasks])
    assert straw.study.gpu_hours() == pytest.approx(EPOCHS * GPU_SHARE)


def test_pack_holds_only_trials_of_one_form(tmp_path: Path) -> None:
    """Test that trials of another form wait for a pack and that none is suggested twice."""
    spec = packing(3, **{"model.code_dim": {"choice": [2, 3]}})
    straw = Straw(tmp_path, trials=8, spec=spec)
    straw.driver.capacity = lambda: 8  # type: ignore[method-assign]
    packs = []
    while isinstance(tasks := straw.suggest_pack(str(len(packs))), list):
        packs.append(tasks)
    assert all(len({w["config"]["model"]["code_dim"] for w in tasks}) == 1 for tasks in packs)
    assert sorted(n for tasks in packs for n in numbers(tasks)) == list(range(8))
    assert max(map(len, packs)) == 3


def test_pruned_trial_leaves_its_pack_and_other_trials_complete(tmp_path: Path) -> None:
    straw = Straw(tmp_path, trials=4, spec=packing(2))
    for trial_id in "ab":
        tasks = straw.suggest_pack(trial_id)
        for epoch in range(1, EPOCHS + 1):
            values = [1.0, 1.0] if trial_id == "a" else [9.0, 0.5]
            reports = [after(task, epoch, value) for task, value in zip(tasks, values, strict=True)]
            assert straw.tell(trial_id, *reports) == (epoch == EPOCHS)
        straw.driver.tune_ended(trial_id)
    assert straw.states() == ["complete", "complete", "pruned", "complete"]
    assert straw.study.epochs(2) < EPOCHS  # its later reports are ignored
    assert [(Path(w["folder"]) / LEAVE).exists() for w in tasks] == [True, False]


def test_trials_lost_with_a_pack_are_attempted_again_alone(tmp_path: Path) -> None:
    straw = Straw(tmp_path, spec=packing(3))
    tasks = straw.suggest_pack("a")
    straw.tell("a", *[after(task, 1) for task in tasks])
    straw.driver.tune_ended("a")
    for number, trial_id in enumerate("bcd"):
        [task] = straw.suggest_pack(trial_id)
        assert (task["number"], task["attempt"]) == (number, 2)
        assert task["resume"] == after(tasks[number], 1)["checkpoint"]
        run_through(straw, trial_id, task, first=2)
    assert straw.states() == ["complete"] * 3


def test_paused_pack_resumes_as_one_pack(tmp_path: Path) -> None:
    straw = Straw(tmp_path, spec=packing(3))
    tasks = straw.suggest_pack("a")
    straw.paused.set()
    assert straw.tell("a", *[after(task, 1) for task in tasks])
    straw.driver.tune_ended("a")
    straw.paused.clear()
    assert numbers(straw.suggest_pack("b")) == [0, 1, 2]


def test_drain_waits_for_trials_within_an_epoch_alone(straw: Straw) -> None:
    training, starting = straw.suggest("a"), straw.suggest("b")
    straw.report("a", training, 1)
    assert not straw.driver.is_drained
    straw.draining.set()
    assert not straw.driver.is_drained
    straw.report("a", training, 2)
    assert straw.driver.is_drained
    straw.report("b", starting, 0)
    assert straw.driver.is_drained


def test_drain_before_any_report_waits_for_nothing(straw: Straw) -> None:
    straw.suggest("a")
    straw.draining.set()
    assert straw.driver.is_drained
