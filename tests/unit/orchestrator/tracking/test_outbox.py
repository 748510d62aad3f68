"""The outbox keeps the driver's records once, for readers and for the MLflow writer."""

import math
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.errors import EnvironmentUnusable
from orchestrator.tracking.outbox import Spool, SpooledRun

SWEEP = "digits-1a2b3c4d"
TRIAL = f"{SWEEP}/search/0"


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with Spool(tmp_path / "home" / "spool.db") as spool:
        open_run(spool, SWEEP)
        yield spool


def open_run(
    spool: Spool,
    key: str,
    parent: str | None = None,
    params: Mapping[str, object] | None = None,
    tags: Mapping[str, object] | None = None,
) -> None:
    spool.open_run(
        key,
        sweep_id=key.split("/")[0],
        experiment="digits",
        name=key.rpartition("/")[2],
        parent=parent,
        params=params,
        tags=tags,
    )


def get(spool: Spool, key: str) -> SpooledRun:
    run = spool.run(key)
    assert run is not None
    return run


def settle(spool: Spool) -> None:
    """Mark everything as sent."""
    for run in spool.pending_runs():
        spool.note_metrics(run.key, spool.pending_metrics(run.key, 1000))
        spool.note_run(run)
    for artifact in spool.pending_artifacts():
        spool.note_artifact(artifact)


def test_history_has_one_row_per_epoch_in_order(spool: Spool) -> None:
    spool.log(SWEEP, 10, {"train/recon": 1.0})
    spool.log(SWEEP, 2, {"train/recon": 2.0, "val/recon": 3.0})
    spool.log(SWEEP, 10, {"val/recon": 4.0})
    assert spool.history(SWEEP) == [
        {"epoch": 2, "train/recon": 2.0, "val/recon": 3.0},
        {"epoch": 10, "train/recon": 1.0, "val/recon": 4.0},
    ]
    assert spool.last(SWEEP) == {"epoch": 10, "train/recon": 1.0, "val/recon": 4.0}


def test_history_of_a_new_run_is_empty(spool: Spool) -> None:
    assert spool.history(SWEEP) == []
    assert spool.last(SWEEP) == {}


def test_repeated_epoch_keeps_its_value_and_its_time(spool: Spool) -> None:
    spool.log(SWEEP, 1, {"val/recon": 1.0})
    (first,) = spool.pending_metrics(SWEEP, 10)
    spool.log(SWEEP, 1, {"val/recon": 2.0})
    assert spool.pending_metrics(SWEEP, 10) == [first]


def test_non_finite_values_are_stored_and_never_sent(spool: Spool) -> None:
    spool.log(SWEEP, 1, {"a": math.nan, "b": math.inf, "c": 1.0})
    assert spool.history(SWEEP) == [
        {"epoch": 1, "a": pytest.approx(math.nan, nan_ok=True), "b": math.inf, "c": 1.0}
    ]
    spool.forget()
    assert [metric.name for metric in spool.pending_metrics(SWEEP, 10)] == ["c"]


def test_reopened_run_keeps_params_and_start_and_renews_tags(spool: Spool) -> None:
    open_run(spool, TRIAL, SWEEP, params={"lr": 0.1}, tags={"attempt": 0, "stage": "search"})
    before = get(spool, TRIAL)
    spool.close_run(TRIAL, "KILLED")
    assert get(spool, TRIAL).status == "KILLED"
    open_run(spool, TRIAL, SWEEP, params={"lr": 9, "code_dim": 8}, tags={"attempt": 1})
    after = get(spool, TRIAL)
    assert after.params == {"lr": "0.1", "code_dim": "8"}
    assert after.tags == {"attempt": "1", "stage": "search"}
    assert (after.status, after.end_ms, after.start_ms) == ("RUNNING", None, before.start_ms)


def test_tags_are_replaced_and_params_are_not(spool: Spool) -> None:
    for value in (1, 2):
        spool.set_tags(SWEEP, {"best": value})
        spool.set_params(SWEEP, {"data": value})
    assert get(spool, SWEEP).tags == {"best": "2"}
    assert get(spool, SWEEP).params == {"data": "1"}


def test_epoch_keeps_the_time_of_its_first_metrics(spool: Spool) -> None:
    spool.log(SWEEP, 1, {"val/recon": 1.0})
    first = spool.time_of(SWEEP, 1)
    time.sleep(0.01)
    spool.log(SWEEP, 1, {"val/recon": 1.0, "test/recon": 1.0})
    spool.log(SWEEP, 2, {"val/recon": 1.0})
    assert spool.time_of(SWEEP, 1) == first < spool.time_of(SWEEP, 2)
    assert spool.time_of(SWEEP, 0) == get(spool, SWEEP).start_ms


def test_dataset_of_a_sweep_is_the_last_one_set(spool: Spool) -> None:
    assert spool.dataset(SWEEP) is None
    for name in ("digits", "mnist"):
        spool.set_dataset(SWEEP, {"name": name})
    assert spool.dataset(SWEEP) == {"name": "mnist"}


def test_outbox_refuses_unknown_runs_and_parents(spool: Spool) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        spool.log("nobody", 1, {"a": 1.0})
    with pytest.raises(sqlite3.IntegrityError):
        open_run(spool, TRIAL, "nobody")


def test_parents_are_pending_before_their_children(spool: Spool) -> None:
    open_run(spool, TRIAL, SWEEP)
    spool.set_tags(SWEEP, {"later": True})
    assert [run.key for run in spool.pending_runs()] == [SWEEP, TRIAL]


def test_unsynced_counts_runs_metrics_and_artifacts_of_one_sweep(
    spool: Spool, tmp_path: Path
) -> None:
    open_run(spool, "other-00000000")
    spool.log(SWEEP, 1, {"a": 1.0, "b": math.nan})
    (tmp_path / "config.json").write_text("{}")
    spool.attach(SWEEP, tmp_path / "config.json")
    assert spool.unsynced(SWEEP) == 3
    assert spool.unsynced() == 4
    settle(spool)
    assert spool.unsynced() == 0


def test_run_changed_while_sending_stays_pending(spool: Spool) -> None:
    (sent,) = spool.pending_runs()
    spool.set_tags(SWEEP, {"best": 1})
    spool.note_run(sent)
    assert spool.unsynced() == 1


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_artifact_is_pending_again_after_a_change(
    spool: Spool, tmp_path: Path, folder: bool
) -> None:
    target = tmp_path / "checkpoint"
    file = target / "manifest.json" if folder else target
    file.parent.mkdir(exist_ok=True)
    file.write_text("1")
    spool.attach(SWEEP, target)
    settle(spool)
    spool.attach(SWEEP, target)
    assert spool.pending_artifacts() == []
    file.write_text("12")
    spool.attach(SWEEP, target)
    assert len(spool.pending_artifacts()) == 1


def test_forget_spares_the_runs_of_the_kept_store(spool: Spool) -> None:
    open_run(spool, "other-00000000")
    for key, store in ((SWEEP, "here"), ("other-00000000", "there")):
        spool.log(key, 1, {"a": 1.0})
        spool.note_created(key, store=store, experiment_id="1", run_id=key)
    settle(spool)
    spool.forget(keep="here")
    assert spool.run_ids(SWEEP) == {SWEEP: SWEEP}
    assert spool.run_ids("other-00000000") == {}
    assert spool.unsynced(SWEEP) == 0
    assert spool.unsynced() == 2


def test_read_only_outbox_creates_no_file(tmp_path: Path) -> None:
    with Spool(tmp_path / "absent" / "spool.db", read_only=True) as reader:
        assert reader.runs() == []
        assert reader.unsynced() == 0
    assert list(tmp_path.iterdir()) == []


def test_read_only_outbox_without_tables_is_empty(tmp_path: Path) -> None:
    made = sqlite3.connect(tmp_path / "spool.db")
    made.execute("PRAGMA journal_mode = WAL")
    with Spool(tmp_path / "spool.db", read_only=True) as reader:
        assert reader.runs() == []
    made.close()


def test_read_only_outbox_follows_the_driver_and_refuses_writes(spool: Spool) -> None:
    with Spool(spool.path, read_only=True) as reader:
        spool.log(SWEEP, 1, {"a": 1.0})
        assert reader.history(SWEEP) == [{"epoch": 1, "a": 1.0}]
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader.log(SWEEP, 2, {"a": 1.0})


def test_outbox_rows_outlive_the_driver(spool: Spool) -> None:
    spool.log(SWEEP, 1, {"a": 1.0})
    spool.close()
    with Spool(spool.path, read_only=True) as reader:
        assert reader.last(SWEEP) == {"epoch": 1, "a": 1.0}
        assert reader.id == spool.id


def test_damaged_outbox_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    path.write_bytes(b"not a database " * 100)
    with pytest.raises(EnvironmentUnusable, match="moved aside"):
        Spool(path)


def test_outbox_is_shared_by_threads(spool: Spool) -> None:
    def log(thread: int) -> None:
        for epoch in range(1, 51):
            spool.log(SWEEP, epoch, {f"m{thread}": 1.0, "shared": 1.0})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(log, range(4)))
    assert [len(row) for row in spool.history(SWEEP)] == [6] * 50


DRIVER = """
import sys
from pathlib import Path
from orchestrator.tracking.outbox import Spool
with Spool(Path(sys.argv[1])) as spool:
    spool.open_run(sys.argv[2], sweep_id=sys.argv[2], experiment="e", name="n")
    for epoch in range(1, 51):
        spool.log(sys.argv[2], epoch, {"a": 1.0, "b": 2.0})
"""


def test_outbox_file_is_shared_by_drivers(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    command = [sys.executable, "-c", DRIVER, str(path)]
    drivers = [subprocess.Popen([*command, f"sweep-{i}"]) for i in range(4)]
    assert [driver.wait() for driver in drivers] == [0] * 4
    with Spool(path, read_only=True) as reader:
        assert reader.unsynced() == 4 * (1 + 50 * 2)
