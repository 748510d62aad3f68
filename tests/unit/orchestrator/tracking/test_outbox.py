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
from orchestrator.tracking.outbox import Outbox, OutboxRun

SWEEP = "digits-1a2b3c4d"
TRIAL = f"{SWEEP}/search/0"


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "home" / "outbox.db") as outbox:
        open_run(outbox, SWEEP)
        yield outbox


def open_run(
    outbox: Outbox,
    key: str,
    parent: str | None = None,
    params: Mapping[str, object] | None = None,
    tags: Mapping[str, object] | None = None,
) -> None:
    outbox.open_run(
        key,
        sweep_id=key.split("/")[0],
        experiment="digits",
        name=key.rpartition("/")[2],
        parent=parent,
        params=params,
        tags=tags,
    )


def get(outbox: Outbox, key: str) -> OutboxRun:
    run = outbox.run(key)
    assert run is not None
    return run


def reconcile(outbox: Outbox) -> None:
    """Mark everything as sent."""
    for run in outbox.pending_runs():
        outbox.note_metrics(run.key, outbox.pending_metrics(run.key, 1000))
        outbox.note_run(run)
    for artifact in outbox.pending_artifacts():
        outbox.note_artifact(artifact)


def test_history_has_one_row_per_epoch_in_order(outbox: Outbox) -> None:
    outbox.log(SWEEP, 10, {"train/recon": 1.0})
    outbox.log(SWEEP, 2, {"train/recon": 2.0, "val/recon": 3.0})
    outbox.log(SWEEP, 10, {"val/recon": 4.0})
    assert outbox.history(SWEEP) == [
        {"epoch": 2, "train/recon": 2.0, "val/recon": 3.0},
        {"epoch": 10, "train/recon": 1.0, "val/recon": 4.0},
    ]
    assert outbox.last(SWEEP) == {"epoch": 10, "train/recon": 1.0, "val/recon": 4.0}


def test_history_of_a_new_run_is_empty(outbox: Outbox) -> None:
    assert outbox.history(SWEEP) == []
    assert outbox.last(SWEEP) == {}


def test_repeated_epoch_keeps_its_value_and_its_time(outbox: Outbox) -> None:
    outbox.log(SWEEP, 1, {"val/recon": 1.0})
    (first,) = outbox.pending_metrics(SWEEP, 10)
    outbox.log(SWEEP, 1, {"val/recon": 2.0})
    assert outbox.pending_metrics(SWEEP, 10) == [first]


def test_non_finite_values_are_stored_and_never_sent(outbox: Outbox) -> None:
    outbox.log(SWEEP, 1, {"a": math.nan, "b": math.inf, "c": 1.0})
    assert outbox.history(SWEEP) == [
        {"epoch": 1, "a": pytest.approx(math.nan, nan_ok=True), "b": math.inf, "c": 1.0}
    ]
    outbox.forget()
    assert [metric.name for metric in outbox.pending_metrics(SWEEP, 10)] == ["c"]


def test_reopened_run_keeps_params_and_start_and_renews_tags(outbox: Outbox) -> None:
    open_run(outbox, TRIAL, SWEEP, params={"lr": 0.1}, tags={"attempt": 0, "stage": "search"})
    before = get(outbox, TRIAL)
    outbox.close_run(TRIAL, "KILLED")
    assert get(outbox, TRIAL).status == "KILLED"
    open_run(outbox, TRIAL, SWEEP, params={"lr": 9, "code_dim": 8}, tags={"attempt": 1})
    after = get(outbox, TRIAL)
    assert after.params == {"lr": "0.1", "code_dim": "8"}
    assert after.tags == {"attempt": "1", "stage": "search"}
    assert (after.status, after.end_ms, after.start_ms) == ("RUNNING", None, before.start_ms)


def test_tags_are_replaced_and_params_are_not(outbox: Outbox) -> None:
    for value in (1, 2):
        outbox.set_tags(SWEEP, {"best": value})
        outbox.set_params(SWEEP, {"data": value})
    assert get(outbox, SWEEP).tags == {"best": "2"}
    assert get(outbox, SWEEP).params == {"data": "1"}


def test_epoch_keeps_the_time_of_its_first_metrics(outbox: Outbox) -> None:
    outbox.log(SWEEP, 1, {"val/recon": 1.0})
    first = outbox.time_of(SWEEP, 1)
    time.sleep(0.01)
    outbox.log(SWEEP, 1, {"val/recon": 1.0, "test/recon": 1.0})
    outbox.log(SWEEP, 2, {"val/recon": 1.0})
    assert outbox.time_of(SWEEP, 1) == first < outbox.time_of(SWEEP, 2)
    assert outbox.time_of(SWEEP, 0) == get(outbox, SWEEP).start_ms


def test_dataset_of_a_sweep_is_the_last_one_set(outbox: Outbox) -> None:
    assert outbox.dataset(SWEEP) is None
    for name in ("digits", "mnist"):
        outbox.set_dataset(SWEEP, {"name": name})
    assert outbox.dataset(SWEEP) == {"name": "mnist"}


def test_outbox_refuses_unknown_runs_and_parents(outbox: Outbox) -> None:
    outbox.log("nobody", 1, {"a": 1.0})
    with pytest.raises(sqlite3.IntegrityError):
        outbox.save()
    with pytest.raises(sqlite3.IntegrityError):
        open_run(outbox, TRIAL, "nobody")


def test_parents_are_pending_before_their_children(outbox: Outbox) -> None:
    open_run(outbox, TRIAL, SWEEP)
    outbox.set_tags(SWEEP, {"later": True})
    assert [run.key for run in outbox.pending_runs()] == [SWEEP, TRIAL]


def test_unsynced_counts_runs_metrics_and_artifacts_of_one_sweep(
    outbox: Outbox, tmp_path: Path
) -> None:
    open_run(outbox, "other-00000000")
    outbox.log(SWEEP, 1, {"a": 1.0, "b": math.nan})
    (tmp_path / "config.json").write_text("{}")
    outbox.attach(SWEEP, tmp_path / "config.json")
    assert outbox.unsynced(SWEEP) == 3
    assert outbox.unsynced() == 4
    reconcile(outbox)
    assert outbox.unsynced() == 0


def test_run_changed_while_sending_stays_pending(outbox: Outbox) -> None:
    (sent,) = outbox.pending_runs()
    outbox.set_tags(SWEEP, {"best": 1})
    outbox.note_run(sent)
    assert outbox.unsynced() == 1


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_artifact_is_pending_again_after_a_change(
    outbox: Outbox, tmp_path: Path, folder: bool
) -> None:
    target = tmp_path / "checkpoint"
    file = target / "manifest.json" if folder else target
    file.parent.mkdir(exist_ok=True)
    file.write_text("1")
    outbox.attach(SWEEP, target)
    reconcile(outbox)
    outbox.attach(SWEEP, target)
    assert outbox.pending_artifacts() == []
    file.write_text("12")
    outbox.attach(SWEEP, target)
    assert len(outbox.pending_artifacts()) == 1


def test_forget_keeps_the_runs_of_the_given_store(outbox: Outbox) -> None:
    open_run(outbox, "other-00000000")
    for key, store in ((SWEEP, "here"), ("other-00000000", "there")):
        outbox.log(key, 1, {"a": 1.0})
        outbox.note_created(key, store=store, experiment_id="1", run_id=key)
    reconcile(outbox)
    outbox.forget(keep=["here"])
    assert outbox.run_ids(SWEEP) == {SWEEP: SWEEP}
    assert outbox.run_ids("other-00000000") == {}
    assert outbox.unsynced(SWEEP) == 0
    assert outbox.unsynced() == 2


def test_read_only_outbox_creates_no_file(tmp_path: Path) -> None:
    with Outbox(tmp_path / "absent" / "outbox.db", read_only=True) as reader:
        assert reader.runs() == []
        assert reader.unsynced() == 0
    assert list(tmp_path.iterdir()) == []


def test_read_only_outbox_without_tables_is_empty(tmp_path: Path) -> None:
    made = sqlite3.connect(tmp_path / "outbox.db")
    made.execute("PRAGMA journal_mode = WAL")
    with Outbox(tmp_path / "outbox.db", read_only=True) as reader:
        assert reader.runs() == []
    made.close()


def test_read_only_outbox_follows_the_driver_and_refuses_writes(outbox: Outbox) -> None:
    with Outbox(outbox.path, read_only=True) as reader:
        outbox.log(SWEEP, 1, {"a": 1.0})
        assert reader.history(SWEEP) == []
        outbox.save()
        assert reader.history(SWEEP) == [{"epoch": 1, "a": 1.0}]
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader.close_run(SWEEP, "FINISHED")


@pytest.mark.parametrize("step", ["read", "change", "close"])
def test_metrics_are_written_before_whatever_follows(step: str, outbox: Outbox) -> None:
    with Outbox(outbox.path, read_only=True) as reader:
        outbox.log(SWEEP, 1, {"a": 1.0})
        match step:
            case "read":
                assert outbox.last(SWEEP) == {"epoch": 1, "a": 1.0}
            case "change":
                outbox.close_run(SWEEP, "FINISHED")
            case "close":
                outbox.close()
        assert reader.history(SWEEP) == [{"epoch": 1, "a": 1.0}]


def test_outbox_rows_outlive_the_driver(outbox: Outbox) -> None:
    outbox.log(SWEEP, 1, {"a": 1.0})
    outbox.close()
    with Outbox(outbox.path, read_only=True) as reader:
        assert reader.last(SWEEP) == {"epoch": 1, "a": 1.0}
        assert reader.id == outbox.id


def test_damaged_outbox_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    path.write_bytes(b"not a database " * 100)
    with pytest.raises(EnvironmentUnusable, match="move a damaged file"):
        Outbox(path)


def test_outbox_is_shared_by_threads(outbox: Outbox) -> None:
    def log(thread: int) -> None:
        for epoch in range(1, 51):
            outbox.log(SWEEP, epoch, {f"m{thread}": 1.0, "shared": 1.0})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(log, range(4)))
    assert [len(row) for row in outbox.history(SWEEP)] == [6] * 50


DRIVER = """
import sys
from pathlib import Path
from orchestrator.tracking.outbox import Outbox
with Outbox(Path(sys.argv[1])) as outbox:
    outbox.open_run(sys.argv[2], sweep_id=sys.argv[2], experiment="e", name="n")
    for epoch in range(1, 51):
        outbox.log(sys.argv[2], epoch, {"a": 1.0, "b": 2.0})
"""


def test_outbox_file_is_shared_by_drivers(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    command = [sys.executable, "-c", DRIVER, str(path)]
    drivers = [subprocess.Popen([*command, f"sweep-{i}"]) for i in range(4)]
    assert [driver.wait() for driver in drivers] == [0] * 4
    with Outbox(path, read_only=True) as reader:
        assert reader.unsynced() == 4 * (1 + 50 * 2)
