"""Garbage collection: what is removed, what stays, and what a killed driver needs to resume."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from sweep_file import make_spec

from orchestrator.pipeline import gc
from orchestrator.records import TrialState
from orchestrator.results.reader import ResultsReader
from orchestrator.settings import Settings
from orchestrator.study.lock import held
from orchestrator.study.study import StageStudy, TrialAttempt, confirm_seed, open_storage
from orchestrator.sweepfile.spec import SweepSpec

KINDS = ["gaussian", "universal"]
BYTES = 100  # size of every checkpoint here


def spec_of(**confirm: Any) -> SweepSpec:
    search = {
        "trials": 8,
        "objective": {"metric": "val/recon"},
        "balance": "model.encoder.kind",
        "space": {
            "model.encoder.kind": {"choice": KINDS},
            "model.prior.std": {"float": [0.5, 20]},
        },
    }
    return make_spec("cleaned", search=search, confirm={"per": "model.encoder.kind", **confirm})


class Home:
    """A sweep's studies and its checkpoints, each a folder of 100 bytes."""

    def __init__(self, settings: Settings, spec: SweepSpec) -> None:
        self.settings = settings
        self.spec = spec
        self.id = spec.sweep_id
        self.storage = open_storage(self.settings)
        self.search = StageStudy.create(self.storage, spec, "search")
        self.confirm = StageStudy.create(self.storage, spec, "confirm")
        self.search.note(spec=spec.resolved(), name=spec.name)

    @property
    def trials(self) -> Path:
        return self.settings.sweep_folder(self.id) / "trials"

    def train(self, attempt: TrialAttempt, *epochs: int, value: float = 1.0) -> None:
        """Record the epochs of one attempt, each with a checkpoint."""
        study = self.search if attempt.stage == "search" else self.confirm
        study.started(attempt.number, "here", None)
        for epoch in epochs:
            folder = f"{attempt.attempt}/epoch-{epoch:06d}"
            trial = self.settings.trial_folder(self.id, attempt.stage, attempt.number)
            save(trial / folder)
            study.epoch(attempt.number, epoch, [value], str(trial / folder), trained=True)
        study.save()

    def searched(self, state: TrialState, value: float) -> None:
        """Run one trial of the search: even numbers are gaussian, odd numbers universal."""
        attempt = self.search.ask(self.spec)
        self.train(attempt, 2, 3, value=value)
        self.search.end(attempt.number, state, value, None)

    def clean(self, *, dry_run: bool = False) -> list[str]:
        """Return the removed paths relative to `trials`."""
        removed = gc.clean(self.settings, self.storage, self.id, dry_run=dry_run)
        assert all(r.bytes == BYTES for r in removed)
        return [str(r.folder.relative_to(self.trials)) for r in removed]

    def saved(self) -> list[str]:
        return sorted(str(p.relative_to(self.trials)) for p in self.trials.glob("*/*/*epoch-*"))


def save(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "tensors.safetensors").write_bytes(b"x" * 60)
    (folder / "manifest.json").write_bytes(b"x" * 40)


@pytest.fixture
def home(settings: Settings) -> Home:
    return Home(settings, spec_of())


@pytest.fixture
def searched(home: Home) -> Home:
    """Six trials that ended; the best gaussian is 2 and the best universal 1."""
    ends: list[tuple[TrialState, float]] = [
        ("complete", 5.0),
        ("complete", 4.0),
        ("complete", 3.0),
        ("pruned", 1.0),
        ("diverged", 9.0),
        ("failed", 9.0),
    ]
    for state, value in ends:
        home.searched(state, value)
    return home


def test_gc_keeps_the_candidates_of_a_search(searched: Home) -> None:
    everything = searched.saved()
    removed = searched.clean()
    assert searched.saved() == ["search-0001/1/epoch-000003", "search-0002/1/epoch-000003"]
    assert sorted(removed + searched.saved()) == everything
    assert not (searched.trials / "search-0000" / "1").exists()
    assert searched.clean() == []


def test_gc_keeps_a_fallback_checkpoint_from_any_attempt(home: Home) -> None:
    first = home.search.ask(home.spec)
    home.train(first, 1, 2)
    home.train(home.search.next_attempt(first.number, home.spec), 3)
    home.clean()
    assert home.saved() == ["search-0000/1/epoch-000002", "search-0000/2/epoch-000003"]


def test_gc_keeps_as_many_candidates_as_are_confirmed(settings: Settings) -> None:
    home = Home(settings, spec_of(top=2, per=None))
    for value in (5.0, 1.0, 4.0, 3.0):
        home.searched("complete", value)
    home.clean()
    assert home.saved() == ["search-0001/1/epoch-000003", "search-0003/1/epoch-000003"]


def test_gc_keeps_every_confirmed_model(searched: Home) -> None:
    params = {"model.encoder.kind": "gaussian", "model.prior.std": 2.0}
    seeds = [confirm_seed(0, index) for index in range(3)]
    searched.confirm.enqueue({"params": params, "seed": seed} for seed in seeds)
    ends: list[TrialState] = ["complete", "complete", "diverged"]
    for number, state in enumerate(ends):
        attempt = searched.confirm.pop(searched.spec)
        assert attempt is not None
        searched.train(attempt, 2, 3)
        searched.confirm.end(number, state, 1.0, None)
    before = ResultsReader(searched.settings).trials(searched.id)
    searched.clean()
    assert [path for path in searched.saved() if path.startswith("confirm")] == [
        "confirm-0000/1/epoch-000003",
        "confirm-0001/1/epoch-000003",
    ]
    reader = ResultsReader(searched.settings)
    assert reader.trials(searched.id) == before  # a record outlives its checkpoint
    best = reader.best(searched.id)
    assert best["confirmed"]
    assert all(Path(checkpoint).is_dir() for checkpoint in best["checkpoints"])


@pytest.mark.parametrize("per", [None, "model.encoder.kind"])
def test_gc_keeps_the_checkpoint_of_the_best_trial(settings: Settings, per: str | None) -> None:
    home = Home(settings, spec_of(per=per))
    for value in (3.0, 2.0, 4.0):
        home.searched("pruned", value)
    home.clean()
    best = ResultsReader(home.settings).best(home.id)
    assert Path(best["checkpoints"][0]).is_dir()


def interrupt(home: Home) -> TrialAttempt:
    """Leave a trial in its third attempt. The first attempt reached epoch 3, the second epoch 5."""
    first = home.search.ask(home.spec)
    home.train(first, 2, 3)
    home.train(home.search.next_attempt(first.number, home.spec), 4, 5)
    third = home.search.next_attempt(first.number, home.spec)
    save(home.trials / "search-0000" / "3" / "epoch-000006")  # not recorded by the driver
    save(home.trials / "search-0000" / "2" / ".epoch-000006.77.tmp")
    return third


def test_gc_keeps_the_last_two_checkpoints_of_unfinished_trial(home: Home) -> None:
    third = interrupt(home)
    home.clean()
    assert home.saved() == ["search-0000/2/epoch-000004", "search-0000/2/epoch-000005"]
    assert third.resume == home.trials / "search-0000" / "2" / "epoch-000005"
    assert home.search.next_attempt(0, home.spec).resume == third.resume


def test_gc_accepts_a_waiting_trial_without_any_checkpoint(home: Home) -> None:
    home.search.ask(home.spec)
    assert home.clean() == []


def test_gc_while_a_driver_runs_touches_only_ended_trials(home: Home) -> None:
    interrupt(home)
    home.searched("pruned", 1.0)
    home.searched("complete", 1.0)
    home.searched("complete", 1.0)
    running = [path for path in home.saved() if path.startswith("search-0000")]
    save(home.trials / "search-0009" / "1" / "epoch-000001")  # started after the study was read
    with held(home.settings, home.id):
        home.clean()
    assert home.saved() == [
        *running,
        "search-0002/1/epoch-000003",
        "search-0003/1/epoch-000003",
        "search-0009/1/epoch-000001",
    ]


def test_gc_holds_the_lock_while_it_removes(
    searched: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def remove(*_: Any) -> list[gc.Removed]:
        with pytest.raises(gc.SweepLocked), held(searched.settings, searched.id):
            pass
        return []

    monkeypatch.setattr(gc, "_remove", remove)
    assert searched.clean() == []


def test_gc_dry_run_lists_checkpoints_and_removes_none(searched: Home) -> None:
    everything = searched.saved()
    named = searched.clean(dry_run=True)
    assert searched.saved() == everything
    assert searched.clean() == named


def test_gc_of_a_moved_home_keeps_the_same_checkpoints(searched: Home, tmp_path: Path) -> None:
    searched.settings.home.rename(tmp_path / "elsewhere")
    elsewhere = Settings.from_environment({"AAE_HOME": str(tmp_path / "elsewhere")})
    moved = Home(elsewhere, searched.spec)
    moved.clean()
    assert moved.saved() == ["search-0001/1/epoch-000003", "search-0002/1/epoch-000003"]


def test_gc_leaves_unremovable_checkpoints_to_the_next_call(
    searched: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    everything = searched.saved()

    def refuse(path: Path) -> None:
        raise PermissionError(f"not yours: {path}")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", refuse)
        assert searched.clean() == []
    assert "not yours" in caplog.text
    assert searched.saved() == everything
    assert len(searched.clean()) == len(everything) - 2


def tidy(home: Home, number: int = 0) -> None:
    """Garbage-collect after a trial as a driver does whose disk budget is 0 GB."""
    studies = home.search, home.confirm
    gc.after_trial(home.settings, home.id, *studies, number, disk_gb=0.0)


def test_gc_keeps_the_checkpoint_that_a_retry_resumes_from(home: Home) -> None:
    home.searched("failed", 1.0)
    home.searched("complete", 1.0)
    tidy(home)
    home.search.retry()
    home.clean()
    [record] = [r for r in home.search.records() if r.state != "complete"]
    assert Path(record.checkpoint).is_dir()
    home.search.end(record.number, "diverged", None, None)
    home.clean()
    assert home.saved() == ["search-0001/1/epoch-000003"]


# As in the driver: collect garbage before the study records the end.


def end(home: Home, attempt: TrialAttempt, state: TrialState, value: float) -> None:
    number = attempt.number
    gc.after_trial(home.settings, home.id, home.search, home.confirm, number, 0.0)
    home.search.end(number, state, value, None)


def ask(home: Home, value: float) -> TrialAttempt:
    attempt = home.search.ask(home.spec)
    home.train(attempt, 2, 3, value=value)
    return attempt


def test_gc_during_a_sweep_keeps_candidates_and_last_ended_trial(home: Home) -> None:
    for value in (5.0, 4.0, 3.0, 6.0, 2.0, 1.0, 7.0):
        end(home, ask(home, value), "complete", value)
    assert home.saved() == [
        "search-0004/1/epoch-000003",
        "search-0005/1/epoch-000003",
        "search-0006/1/epoch-000002",
        "search-0006/1/epoch-000003",
    ]
    tidy(home)
    assert home.saved() == ["search-0004/1/epoch-000003", "search-0005/1/epoch-000003"]


@pytest.mark.parametrize("disk_gb", [None, 1.0])
def test_gc_within_the_disk_budget_keeps_everything(disk_gb: float | None, home: Home) -> None:
    for value in (5.0, 4.0, 3.0):
        attempt = ask(home, value)
        number, studies = attempt.number, (home.search, home.confirm)
        home.search.end(number, "complete", value, None)
        gc.after_trial(home.settings, home.id, *studies, number, disk_gb)
    assert len(home.saved()) == 6


def test_driver_killed_as_a_trial_ends_finds_its_checkpoint(home: Home) -> None:
    end(home, ask(home, 1.0), "complete", 1.0)
    end(home, ask(home, 1.0), "complete", 1.0)
    worse = ask(home, 9.0)
    tidy(home, worse.number)
    reopened = StageStudy.create(open_storage(home.settings), home.spec, "search")
    assert reopened.unfinished() == [worse.number]
    resumed = reopened.next_attempt(worse.number, home.spec)
    assert resumed.resume.is_dir()


def test_gc_keeps_checkpoints_of_a_failed_trial_for_retry(home: Home) -> None:
    for state in ("failed", "diverged", "complete", "complete"):
        end(home, ask(home, 1.0), state, 1.0)
    tidy(home)
    assert [path for path in home.saved() if path < "search-0002"] == [
        "search-0000/1/epoch-000002",
        "search-0000/1/epoch-000003",
    ]


def test_gc_cost_per_trial_does_not_grow(monkeypatch: pytest.MonkeyPatch, home: Home) -> None:
    looked_at = {}

    def look(*_: Any) -> int:
        looked_at[number] = number  # number of trials so far
        return 0

    monkeypatch.setattr(gc, "_size", look)
    for number in range(2000):
        gc.after_trial(home.settings, home.id, home.search, home.confirm, number, 0.0)
    first = sum(n for n in looked_at.values() if n < 100)
    last = sum(n for n in looked_at.values() if n >= 1900)
    assert last < 2.5 * first
    assert set(range(50)) <= looked_at.keys()


def test_gc_removes_parzen_jobs_that_no_process_holds(home: Home) -> None:
    parzen = home.settings.home / "parzen"
    for name in ("dead.unfinished", "live.unfinished", "scored", ".dead.77.tmp", ".live.7.tmp"):
        save(parzen / name)
    with FileLock(parzen / "live.lock"):
        named = gc.clean_parzen(home.settings, dry_run=True)
        removed = gc.clean_parzen(home.settings)
    assert removed == named
    assert {r.folder.name for r in removed} == {"dead.unfinished", ".dead.77.tmp"}
    assert {p.name for p in parzen.iterdir() if p.is_dir()} == {
        "live.unfinished",
        ".live.7.tmp",
        "scored",
    }
