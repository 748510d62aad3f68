"""The MLflow writer: MLflow receives the outbox's contents exactly once, after any failure."""

import json
import math
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import tracking_server
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    PERMISSION_DENIED,
    REQUEST_LIMIT_EXCEEDED,
    TEMPORARILY_UNAVAILABLE,
)
from mlflow.tracking import MlflowClient

from orchestrator.errors import EnvironmentUnusable
from orchestrator.settings import Settings, sqlite_address
from orchestrator.tracking.mlflow_writer import (
    MlflowWriter,
    make_store,
    ui_url,
)
from orchestrator.tracking.outbox import Outbox

# MLflow raises this warning with SQLAlchemy 2.1.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

SWEEP = "digits-1a2b3c4d"
TRIAL = f"{SWEEP}/search/3"
NOWHERE = "http://127.0.0.1:9"  # the discard port: no server listens


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, empty_mlflow: Path) -> Settings:
    home = tmp_path_factory.mktemp("home")
    shutil.copy(empty_mlflow, home)
    return Settings.from_environment({"AAE_HOME": str(home)})


@pytest.fixture(scope="module")
def client(settings: Settings) -> MlflowClient:
    return MlflowClient(settings.tracking_uri)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "outbox.db") as outbox:
        yield outbox


@pytest.fixture
def writer(outbox: Outbox, settings: Settings) -> MlflowWriter:
    return new_writer(outbox, settings)


def new_writer(outbox: Outbox, settings: Settings, uri: str | None = None) -> MlflowWriter:
    return MlflowWriter(outbox, uri or settings.tracking_uri, settings.mlflow_artifacts, SWEEP)


def open_sweep(outbox: Outbox, sweep_id: str = SWEEP) -> None:
    """Open a sweep and one of its trials in an experiment of this outbox's own."""
    experiment = f"digits {outbox.id}"
    outbox.open_run(sweep_id, sweep_id=sweep_id, experiment=experiment, name="digits")
    outbox.open_run(
        f"{sweep_id}/search/3",
        sweep_id=sweep_id,
        experiment=experiment,
        name="search-0003",
        parent=sweep_id,
        params={"model.code_dim": 8, "note": "x" * 7000},
        tags={"aae.stage": "search"},
    )


def log_epochs(outbox: Outbox, first: int, last: int, metrics: int = 3) -> None:
    for epoch in range(first, last + 1):
        outbox.log(TRIAL, epoch, {f"val/m{i}": epoch + i / 10 for i in range(metrics)})


def runs_by_key(client: MlflowClient, outbox: Outbox) -> dict[str, Run]:
    return tracking_server.runs_by_key(client, f"digits {outbox.id}")


def assert_same(client: MlflowClient, outbox: Outbox) -> None:
    tracking_server.assert_same(client, outbox, f"digits {outbox.id}")


def test_runs_arrive_nested_with_params_tags_and_metrics(
    outbox: Outbox, writer: MlflowWriter, client: MlflowClient
) -> None:
    open_sweep(outbox)
    log_epochs(outbox, 1, 2)
    outbox.log(TRIAL, 3, {"val/m0": math.nan, "val/m1": math.inf})
    outbox.close_run(TRIAL, "FINISHED")
    assert writer.sync_once() == 2 + 2 * 3
    assert_same(client, outbox)
    trial, sweep = (runs_by_key(client, outbox)[key] for key in (TRIAL, SWEEP))
    assert trial.data.tags["mlflow.parentRunId"] == sweep.info.run_id
    assert trial.data.tags["aae.stage"] == "search"
    assert trial.data.params == {"model.code_dim": "8", "note": "x" * 6000}
    assert trial.info.run_name == "search-0003"
    noted = outbox.run(TRIAL)
    assert (trial.info.start_time, trial.info.end_time) == (noted.start_ms, noted.end_ms)
    assert outbox.run_ids(SWEEP) == {SWEEP: sweep.info.run_id, TRIAL: trial.info.run_id}
    assert writer.sync_once() == 0


def test_writer_gives_every_run_the_data_set_once(
    outbox: Outbox, settings: Settings, client: MlflowClient
) -> None:
    document = {
        "name": "digits",
        "digest": "0123456789ab",
        "source_type": "code",
        "source": json.dumps({"tags": {"name": "digits"}}),
        "schema": json.dumps({"mlflow_tensorspec": {"features": None, "targets": None}}),
        "profile": json.dumps({"images": {"train": 1197, "valid": 300}}),
    }
    outbox.set_dataset(SWEEP, document)
    open_sweep(outbox)
    new_writer(outbox, settings).sync_once()
    outbox.forget()
    new_writer(outbox, settings).sync_once()
    for run in runs_by_key(client, outbox).values():
        [found] = run.inputs.dataset_inputs
        assert found.dataset.to_dictionary() == document
        assert [(tag.key, tag.value) for tag in found.tags] == [("mlflow.data.context", "training")]


def test_writer_keeps_a_resumed_run_the_same_run(
    outbox: Outbox, writer: MlflowWriter, client: MlflowClient
) -> None:
    open_sweep(outbox)
    log_epochs(outbox, 1, 3)
    outbox.close_run(TRIAL, "KILLED")
    writer.sync_once()
    open_sweep(outbox)
    outbox.set_tags(TRIAL, {"aae.attempt": 1})
    log_epochs(outbox, 2, 5)
    writer.sync_once()
    assert_same(client, outbox)
    assert runs_by_key(client, outbox)[TRIAL].data.tags["aae.attempt"] == "1"


def test_writer_sends_more_than_one_batch_holds(
    outbox: Outbox, writer: MlflowWriter, client: MlflowClient
) -> None:
    open_sweep(outbox)
    outbox.set_params(TRIAL, {f"p{i}": i for i in range(205)})
    outbox.set_tags(TRIAL, {f"t{i}": i for i in range(105)})
    log_epochs(outbox, 1, 30, metrics=40)
    writer.sync_once()
    assert_same(client, outbox)
    trial = runs_by_key(client, outbox)[TRIAL]
    assert len(trial.data.params) == 205 + 2
    assert {f"t{i}" for i in range(105)} <= trial.data.tags.keys()


def crash(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("note", ["note_created", "note_metrics", "note_run", "note_artifact"])
def test_writer_crash_between_sending_and_noting_duplicates_nothing(
    outbox: Outbox,
    settings: Settings,
    client: MlflowClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    note: str,
) -> None:
    open_sweep(outbox)
    log_epochs(outbox, 1, 3)
    (tmp_path / "config.json").write_text("{}")
    outbox.attach(TRIAL, tmp_path / "config.json", "config")
    outbox.close_run(TRIAL, "FINISHED")
    with monkeypatch.context() as patch:
        patch.setattr(Outbox, note, crash)
        with pytest.raises(KeyboardInterrupt):
            new_writer(outbox, settings).sync_once()
    time.sleep(0.01)  # data sent again must keep the earlier time
    new_writer(outbox, settings).sync_once()
    assert outbox.unsynced() == 0
    assert_same(client, outbox)


def test_writer_uploads_artifacts_again_after_a_change(
    outbox: Outbox, writer: MlflowWriter, client: MlflowClient, tmp_path: Path
) -> None:
    open_sweep(outbox)
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    config = tmp_path / "config.json"
    for text in ("one", "other"):
        config.write_text(text)
        (checkpoint / "manifest.json").write_text(text)
        outbox.attach(TRIAL, config, "config")
        outbox.attach(TRIAL, checkpoint)
        writer.sync_once()
        root = artifact_root(runs_by_key(client, outbox)[TRIAL])
        assert (root / "config" / "config.json").read_text() == text
        assert (root / "checkpoint" / "manifest.json").read_text() == text


def artifact_root(run: Run) -> Path:
    return Path(run.info.artifact_uri.removeprefix("file://"))


def test_writer_skips_an_artifact_that_no_longer_exists(
    outbox: Outbox, writer: MlflowWriter, tmp_path: Path
) -> None:
    open_sweep(outbox)
    picture = tmp_path / "samples.png"
    picture.touch()
    outbox.attach(TRIAL, picture)
    picture.unlink()
    writer.sync_once()
    assert outbox.unsynced() == 0


def test_writer_sends_everything_but_what_mlflow_refuses(
    outbox: Outbox, writer: MlflowWriter, client: MlflowClient
) -> None:
    open_sweep(outbox)
    outbox.log(SWEEP, 1, {"no@name": 1.0})
    log_epochs(outbox, 1, 2)
    with pytest.raises(EnvironmentUnusable, match=f"{SWEEP}: .*no@name"):
        writer.sync_once()
    assert len(client.get_metric_history(outbox.run_ids(SWEEP)[TRIAL], "val/m0")) == 2
    assert outbox.unsynced() == 1 + 1  # the run and its metric


def test_writer_of_one_sweep_sends_only_that_sweep(
    outbox: Outbox, settings: Settings, writer: MlflowWriter, client: MlflowClient
) -> None:
    open_sweep(outbox)
    open_sweep(outbox, "other-00000000")
    writer.sync_once()
    assert set(runs_by_key(client, outbox)) == {SWEEP, TRIAL}
    MlflowWriter(outbox, settings.tracking_uri, settings.mlflow_artifacts).sync_once()
    assert len(runs_by_key(client, outbox)) == 4


def test_writers_in_parallel_create_a_run_once(
    outbox: Outbox, settings: Settings, client: MlflowClient
) -> None:
    open_sweep(outbox)
    log_epochs(outbox, 1, 3)
    outbox.save()

    def sync(_: int) -> None:
        with Outbox(outbox.path) as own:
            new_writer(own, settings).sync_once()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(sync, range(4)))
    assert_same(client, outbox)


def test_writer_refills_an_emptied_store(
    outbox: Outbox, writer: MlflowWriter, client: MlflowClient
) -> None:
    open_sweep(outbox)
    log_epochs(outbox, 1, 3)
    writer.sync_once()
    for run in outbox.runs():  # as if the store had been emptied since
        stale = (run.run_id or "")[::-1]
        outbox.note_created(run.key, store=run.store or "", experiment_id="1", run_id=stale)
    log_epochs(outbox, 4, 4)
    writer.sync_once()
    assert_same(client, outbox)


def test_writer_thread_sends_what_the_driver_logs(
    outbox: Outbox, writer: MlflowWriter, client: MlflowClient, capfd: pytest.CaptureFixture[str]
) -> None:
    writer.start()
    open_sweep(outbox)
    log_epochs(outbox, 1, 5)
    assert writer.flush(30)
    log_epochs(outbox, 4, 9)
    outbox.close_run(TRIAL, "FINISHED")
    outbox.close_run(SWEEP, "FINISHED")
    assert writer.stop(30)
    assert writer.error is None
    assert_same(client, outbox)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("error", [OSError("disk"), RuntimeError("bug"), ValueError("odd")])
def test_writer_thread_survives_any_failure(
    outbox: Outbox, writer: MlflowWriter, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail() -> None:
        raise error

    open_sweep(outbox)
    with monkeypatch.context() as patch:
        patch.setattr(outbox, "make_durable", fail)
        writer.start()
        assert not writer.flush(0.8)
        assert writer.error == f"{type(error).__name__}: {error}"
    assert writer.flush(30)
    assert writer.error is None
    assert writer.stop(30)


def test_writer_without_server_delays_and_loses_nothing(
    outbox: Outbox, settings: Settings, client: MlflowClient
) -> None:
    open_sweep(outbox)
    writer = new_writer(outbox, settings, NOWHERE.replace("//", "//user:secret@"))
    with pytest.raises(EnvironmentUnusable, match="aae-sweep sync") as raised:
        writer.sync_once()
    assert "secret" not in str(raised.value)
    writer.start()
    began = time.monotonic()
    log_epochs(outbox, 1, 100)
    assert time.monotonic() - began < 5
    assert not writer.stop(10)
    assert "secret" not in writer.error
    assert outbox.unsynced(SWEEP) == 2 + 300
    new_writer(outbox, settings).sync_once()
    assert_same(client, outbox)


def test_ui_url_of_a_tracking_server_is_its_own(settings: Settings) -> None:
    remote = {"MLFLOW_TRACKING_URI": "https://user:secret@mlflow.example"}
    assert ui_url(Settings.from_environment(remote)) == "https://mlflow.example"
    known = {**remote, "AAE_MLFLOW_UI": "http://127.0.0.1:5002"}
    assert ui_url(Settings.from_environment(known)) == "http://127.0.0.1:5002"
    assert ui_url(settings, 5001) == "http://127.0.0.1:5001"


def half_made(file: Path) -> None:
    """Write what a process leaves that is killed while MLflow creates its tables."""
    with closing(sqlite3.connect(file)) as db:
        db.executescript(
            "CREATE TABLE experiments (experiment_id INTEGER NOT NULL, name TEXT);"
            "CREATE TABLE alembic_version (version_num TEXT);"
            "INSERT INTO alembic_version VALUES ('451aebb31d03');"
        )
    file.with_name(f"{file.name}-journal").write_bytes(b"of the killed process")
    file.with_name(f".{file.name}.1.tmp").touch()


def test_writer_recreates_a_partly_created_store(
    outbox: Outbox, settings: Settings, tmp_path: Path
) -> None:
    open_sweep(outbox)
    log_epochs(outbox, 1, 3)
    home = tmp_path / "why?x=1"
    home.mkdir()
    half_made(home / "mlflow.db")
    uri = sqlite_address(home / "mlflow.db")
    MlflowWriter(outbox, uri, home / "mlartifacts").sync_once()
    assert_same(MlflowClient(uri), outbox)
    assert {path.name for path in home.iterdir()} == {"mlflow.db", "mlflow.db.lock"}
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [home.name]


def test_store_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(uri: str, _: str) -> None:
        half_made(Path(uri.removeprefix("sqlite:///")))
        crash()

    monkeypatch.setattr("mlflow.store.tracking.sqlalchemy_store.SqlAlchemyStore", die)
    file = tmp_path / "mlflow.db"
    with pytest.raises(KeyboardInterrupt):
        make_store(sqlite_address(file))
    assert not file.exists()


def test_store_with_any_row_is_never_replaced(tmp_path: Path) -> None:
    file = tmp_path / "other.db"
    with closing(sqlite3.connect(file)) as db:
        db.executescript("CREATE TABLE notes (text TEXT); INSERT INTO notes VALUES ('mine');")
    before = file.read_bytes()
    make_store(sqlite_address(file))
    assert file.read_bytes() == before
    file.write_bytes(b"no database at all")
    with pytest.raises(sqlite3.DatabaseError):
        make_store(sqlite_address(file))
    assert file.read_bytes() == b"no database at all"


def test_writer_starts_over_with_everything_unsent(
    outbox: Outbox, settings: Settings, writer: MlflowWriter, tmp_path: Path
) -> None:
    open_sweep(outbox)
    log_epochs(outbox, 1, 3)
    everything = outbox.waiting()
    writer.sync_once()
    file = tmp_path / "mlflow.db"
    file.write_bytes(b"former")
    aside = new_writer(outbox, settings, sqlite_address(file)).start_over()
    assert aside is not None
    assert aside.read_bytes() == b"former"
    assert not file.exists()
    assert outbox.waiting() == everything
    assert new_writer(outbox, settings, NOWHERE).start_over() is None


# -- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent_before", [True, False])
def test_deleted_experiment_is_restored_and_completed(
    outbox: Outbox, settings: Settings, client: MlflowClient, sent_before: bool
) -> None:
    open_sweep(outbox)
    if sent_before:
        log_epochs(outbox, 1, 1)
        new_writer(outbox, settings).sync_once()
    else:
        client.create_experiment(f"digits {outbox.id}")
    experiment = client.get_experiment_by_name(f"digits {outbox.id}")
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    log_epochs(outbox, 2, 3)
    writer = new_writer(outbox, settings)
    writer.sync_once()
    assert_same(client, outbox)
    assert writer.restored == [
        f"MLflow: restored the experiment digits {outbox.id}, which had been deleted"
    ]


def test_deleted_run_is_restored_and_completed(
    outbox: Outbox, writer: MlflowWriter, client: MlflowClient
) -> None:
    open_sweep(outbox)
    writer.sync_once()
    client.delete_run(outbox.run_ids(SWEEP)[TRIAL])
    log_epochs(outbox, 1, 2)
    outbox.close_run(TRIAL, "FINISHED")
    writer.sync_once()
    assert_same(client, outbox)
    assert writer.restored == ["MLflow: restored the run search-0003, which had been deleted"]


def test_experiment_that_another_driver_creates_meanwhile_is_used(
    outbox: Outbox, writer: MlflowWriter, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_sweep(outbox)
    create, look = MlflowClient.create_experiment, MlflowClient.get_experiment_by_name

    def too_late(self: MlflowClient, name: str) -> None:
        monkeypatch.setattr(MlflowClient, "get_experiment_by_name", look)
        create(self, name)

    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", too_late)
    writer.sync_once()
    assert_same(client, outbox)


def test_database_at_another_schema_revision_gets_the_command_that_upgrades_it(
    outbox: Outbox, settings: Settings, client: MlflowClient, tmp_path: Path
) -> None:
    client.search_experiments()  # creates the database
    shutil.copy(settings.home / "mlflow.db", tmp_path)
    settings = Settings.from_environment({"AAE_HOME": str(tmp_path)})
    with sqlite3.connect(tmp_path / "mlflow.db") as db:
        db.execute("UPDATE alembic_version SET version_num = '0123456789ab'")
    db.close()
    open_sweep(outbox)
    with pytest.raises(EnvironmentUnusable, match="then: mlflow db upgrade sqlite:///"):
        new_writer(outbox, settings).sync_once()


@pytest.mark.parametrize("name", ["moved", "b mov%ed_?"])
def test_moved_home_keeps_its_artifacts_and_sends_pending_records(
    empty_mlflow: Path, tmp_path: Path, name: str
) -> None:
    """Test with the first run's artifact sent before the move, and the second's after it."""
    before = Settings.from_environment({"AAE_HOME": str(tmp_path / "home")})
    folder = before.trial_folder(SWEEP, "search", 3)
    folder.mkdir(parents=True)
    shutil.copy(empty_mlflow, before.home)
    for file in ("sent.json", "waits.json"):
        (folder / file).write_text(file)
    with Outbox(before.outbox) as outbox:
        open_sweep(outbox)
        log_epochs(outbox, 1, 3)
        outbox.attach(TRIAL, folder / "sent.json")
        new_writer(outbox, before).sync_once()
        outbox.attach(SWEEP, folder / "waits.json")
    after = Settings.from_environment({"AAE_HOME": str(before.home.rename(tmp_path / name))})
    client = MlflowClient(after.tracking_uri)
    with Outbox(after.outbox) as outbox:
        assert new_writer(outbox, after).sync_once() == 1
        runs = runs_by_key(client, outbox)
        assert_same(client, outbox)
    for run, file in ((runs[TRIAL], "sent.json"), (runs[SWEEP], "waits.json")):
        found = client.download_artifacts(run.info.run_id, file, str(tmp_path))
        assert Path(found).read_text() == file
    assert not before.home.exists()


def test_moved_database_keeps_artifacts_that_lie_elsewhere(
    empty_mlflow: Path, tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    database = Path(shutil.copy(empty_mlflow, tmp_path / "home"))
    make_store(sqlite_address(database))
    client = MlflowClient(sqlite_address(database))
    places = [f"{tmp_path.as_uri()}/home/mlartifacts_2", "s3://bucket/mlartifacts"]
    for place in places:
        client.create_experiment(place.rpartition("/")[2], artifact_location=place)
    moved = (tmp_path / "home").rename(tmp_path / "moved") / "mlflow.db"
    make_store(sqlite_address(moved))
    found = MlflowClient(sqlite_address(moved)).search_experiments()
    default = f"{tmp_path.as_uri()}/moved/mlartifacts/0"
    assert {each.artifact_location for each in found} == {default, *places}


REPLIES = [
    (MlflowException("API request failed with exception HTTPConnectionPool"), None),
    (MlflowException("busy", error_code=TEMPORARILY_UNAVAILABLE), None),
    (MlflowException("slow down", error_code=REQUEST_LIMIT_EXCEEDED), None),
    (MlflowException("API request to endpoint /x failed with error code 502 != 200"), None),
    (sqlite3.OperationalError("database is locked"), None),
    (MlflowException("no", error_code=PERMISSION_DENIED), "MLFLOW_TRACKING_USERNAME"),
    (MlflowException("/x failed with error code 401 != 200"), "MLFLOW_TRACKING_PASSWORD"),
    (MlflowException("/x failed with error code 413 != 200"), "client_max_body_size"),
    (MlflowException("/x failed with error code 404 != 200"), "set MLFLOW_TRACKING_URI"),
    (MlflowException("bad", error_code=INVALID_PARAMETER_VALUE), "refuses this for good"),
]


@pytest.mark.parametrize(("error", "remedy"), REPLIES, ids=[str(e)[:40] for e, _ in REPLIES])
def test_writer_promises_a_retry_only_for_errors_that_a_retry_resolves(
    outbox: Outbox,
    writer: MlflowWriter,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    remedy: str | None,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    open_sweep(outbox)
    monkeypatch.setattr(MlflowClient, "create_run", refuse)
    heals = "once it answers, send it with: aae-sweep sync"
    with pytest.raises(EnvironmentUnusable) as refused:
        writer.sync_once()
    assert (remedy or heals) in str(refused.value)
    assert (heals in str(refused.value)) == (remedy is None)
    assert "aae-sweep sync" in str(refused.value)
    writer.start()
    assert not writer.stop(30)
    (note,) = writer.notes()
    assert (remedy or "the next run sends the missing records") in note
    assert ("the next run" in note) == (remedy is None)


def test_writer_stops_a_slow_pass_soon_after_a_hurry(
    outbox: Outbox, writer: MlflowWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_sweep(outbox)
    answers, hurry = threading.Event(), threading.Event()
    monkeypatch.setattr(writer, "_pass", lambda: answers.wait(60))
    writer.start()
    hurry.set()
    began = time.monotonic()
    assert not writer.stop(30, hurry)
    assert time.monotonic() - began < 10
    assert "it is slow" in next(writer.notes())
    answers.set()
