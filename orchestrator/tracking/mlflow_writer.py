"""The only writer to MLflow: retries until the tracking server agrees with the outbox.

Every step may be repeated without harm. A run is searched for before it is created, metrics keep
their first timestamp (part of MLflow's primary key), and tags and artifacts are overwritten.
"""

import logging
import os
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from datetime import datetime
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from filelock import FileLock
from sqlalchemy import make_url

from aae_core.files import replacing
from orchestrator.errors import EnvironmentUnusable
from orchestrator.settings import Settings, sqlite_address
from orchestrator.study.database import sqlite_file
from orchestrator.text import masked, one_line
from orchestrator.tracking import refusals
from orchestrator.tracking.outbox import Outbox, OutboxArtifact, OutboxMetric, OutboxRun

if TYPE_CHECKING:  # importing MLflow takes seconds, so the thread does it
    from mlflow.entities import Experiment, Metric
    from mlflow.tracking import MlflowClient

RUN_KEY_TAG = "aae.run_key"
OUTBOX_TAG = "aae.outbox"

_MOMENT = 0.15  # seconds
INTERVAL, LONGEST_INTERVAL = 2.0, 10.0  # seconds between two passes
LOAD = 0.05  # target share of one CPU for passes: training needs the CPUs
FIRST_BACKOFF, LONGEST_BACKOFF = 0.5, 30.0  # seconds

UI_HOST = "127.0.0.1"

_CLIENT_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # this module retries
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",  # seconds
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # `error` holds the failure
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is for data
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_UV_AUTO_DETECT": "false",  # a model copies no file from the working folder
}

_TABLES = (  # without those that MLflow fills before its store is finished
    "SELECT name FROM sqlite_master WHERE type = 'table'"
    " AND name NOT IN ('alembic_version', 'workspaces')"
)
_ARTIFACTS = "mlartifacts"  # the folder beside a bare database
_ADDRESSES = (  # where MLflow records the address of an artifact or of a folder of artifacts
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
_log = logging.getLogger(__name__)
_Item = TypeVar("_Item", OutboxRun, OutboxArtifact)


class MlflowWriter:
    """Sender of one sweep's part of the outbox to MLflow, or of the whole outbox without a sweep.

    `start` starts a thread that no failure ends and that blocks no caller. `error` describes the
    failure of the last pass. `sync_once` makes one pass in the caller's thread.
    """

    def __init__(
        self, outbox: Outbox, tracking_uri: str, artifact_root: Path, sweep_id: str | None = None
    ) -> None:
        self.error: str | None = None
        self.remedy: str | None = None  # for an error that no retry resolves
        self.restored: list[str] = []  # what had been deleted in MLflow, one message each
        self.sent: Counter[str] = Counter()  # so far: runs, metrics, artifacts
        self._outbox = outbox
        self._uri = tracking_uri
        self._store = masked(tracking_uri)
        file = store_file(tracking_uri)
        beside = file is not None and file.parent == outbox.path.parent
        self._name = file.name if file and beside else self._store  # valid wherever the home is
        self._artifact_root = artifact_root
        self._sweep_id = sweep_id
        self._client: MlflowClient | None = None
        self._experiments: dict[str, str] = {}  # id by name
        self._sending = FileLock(f"{outbox.path}.sync.lock")  # MLflow supports one sender at a time
        self._passed = threading.Condition()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="mlflow-writer", daemon=True)
        prepare_client()

    def start(self) -> None:
        self._thread.start()

    def flush(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds; return True if MLflow has everything by then."""
        self._wake.set()
        with self._passed:
            return self._passed.wait_for(self._in_agreement, timeout)

    def stop(self, timeout: float, hurry: threading.Event | None = None) -> bool:
        """Make a last pass; return True if MLflow has everything. The outbox keeps unsent items.

        Once `hurry` is set, the pass has a moment left: a batch system is about to kill the driver.
        """
        self._stopping.set()
        self._wake.set()
        deadline = time.monotonic() + timeout
        while self._thread.is_alive() and time.monotonic() < deadline:
            self._thread.join(_MOMENT)
            if hurry is not None and hurry.is_set():
                self._thread.join(_MOMENT)
                break
        return self._in_agreement()

    def notes(self) -> Iterator[str]:
        """Yield notes for the user after `stop`: what was restored, and what MLflow lacks."""
        yield from self.restored
        if not self._in_agreement():
            remedy = self.remedy or "the next run sends the missing records, or run: aae-sweep sync"
            yield (
                f"MLflow has not received everything yet ({self.error or 'it is slow'}); "
                f"nothing is lost: {remedy}"
            )

    def sync_once(self) -> int:
        """Send pending items; return the number of runs, metrics and artifacts sent.

        Raises EnvironmentUnusable if MLflow did not accept everything; unsent items stay pending.
        """
        before = self.sent.total()
        try:
            self._pass()
        except Exception as error:
            waiting = in_words(self._outbox.waiting(self._sweep_id))
            remedy = refusals.remedy(error, self._store)
            raise EnvironmentUnusable(
                f"MLflow at {self._store} did not accept everything: {described(error)}; "
                f"the rest ({waiting}) is in {self._outbox.path}; "
                f"{remedy or 'once it answers, send it with: aae-sweep sync'}"
            ) from error
        return self.sent.total() - before

    def start_over(self) -> Path | None:
        """Mark everything as unsent, so that the next pass fills an empty store.

        A bare database is set aside: return its new path. A server keeps its runs, which the next
        pass completes.
        """
        with self._sending:
            self._outbox.forget(self._sweep_id)
            self._client = None
            file = store_file(self._uri)
            if file is None or not file.exists():
                return None
            aside = file.with_name(f"{file.name}.{datetime.now():%Y%m%d-%H%M%S}")
            for part in _parts(file):
                part.rename(part.with_name(part.name.replace(file.name, aside.name, 1)))
            return aside

    def _in_agreement(self) -> bool:
        return self._outbox.unsynced(self._sweep_id) == 0

    def _follow(self) -> None:
        backoff = FIRST_BACKOFF
        while True:
            last = self._stopping.is_set()
            began = time.thread_time()
            try:
                self._pass()
            except Exception as error:  # after any error the outbox is complete
                self.error, self.remedy = described(error), refusals.remedy(error, self._store)
                pause, backoff = backoff, min(2 * backoff, LONGEST_BACKOFF)
            else:
                self.error = self.remedy = None
                spent = time.thread_time() - began
                pause = min(max(INTERVAL, spent / LOAD), LONGEST_INTERVAL)
                backoff = FIRST_BACKOFF
            with self._passed:
                self._passed.notify_all()
            if last:
                return
            self._wake.wait(pause)
            self._wake.clear()

    def _pass(self) -> None:
        from mlflow.exceptions import MlflowException

        with self._sending:
            client = self._connected()
            self._outbox.make_durable()  # MLflow must not have more than the outbox
            try:
                self._send_all(client)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                self._experiments.clear()  # the store was emptied: fill the store again
                self._outbox.forget(self._sweep_id)
                self._send_all(client)

    def _connected(self) -> "MlflowClient":
        from mlflow.tracking import MlflowClient

        if self._client is None:
            make_store(self._uri)
            client = MlflowClient(self._uri)
            # forget what was sent only to another server
            self._outbox.forget(self._sweep_id, keep=[self._name, self._store])
            self._client = client
        return self._client

    def _send_all(self, client: "MlflowClient") -> None:
        runs = self._outbox.pending_runs(self._sweep_id)
        refused = self._each(client, runs, lambda run: self._send_run(client, run))
        artifacts = self._outbox.pending_artifacts(self._sweep_id)
        refused += self._each(client, artifacts, lambda each: self._upload(client, each))
        if refused:
            raise refusals.Refused(refused)

    def _each(
        self, client: "MlflowClient", items: Iterable[_Item], send: Callable[[_Item], None]
    ) -> list[tuple[str, Exception]]:
        """Send all items; return the key and error of each that MLflow refuses, and continue."""
        found: list[tuple[str, Exception]] = []
        for item in items:
            try:
                self._send_restoring(client, item, send)
            except Exception as error:
                if not refusals.is_of_one_item(error):
                    raise
                found.append((_key(item), error))
        return found

    def _send_restoring(
        self, client: "MlflowClient", item: _Item, send: Callable[[_Item], None]
    ) -> None:
        """Send an item; if its run was deleted in MLflow's pages, restore the run and send again.

        MLflow keeps deleted runs and experiments, and their names, until `mlflow gc`. Hence a
        deleted experiment cannot be replaced by a new one of that name.
        """
        try:
            send(item)
        except Exception as error:
            key = item.key if isinstance(item, OutboxRun) else item.run
            if not refusals.is_of_one_item(error) or not self._restore(client, key):
                raise
            send(item)

    def _restore(self, client: "MlflowClient", key: str) -> bool:
        """Restore a run's experiment, else the run; return False if neither was deleted."""
        run = self._outbox.run(key)
        if run is None or run.run_id is None:
            return False
        info = client.get_run(run.run_id).info
        experiment = client.get_experiment(info.experiment_id)
        if experiment.lifecycle_stage == "deleted":
            self._restore_experiment(client, experiment)
        elif info.lifecycle_stage == "deleted":
            client.restore_run(run.run_id)
            self.restored.append(f"MLflow: restored the run {run.name}, which had been deleted")
        else:
            return False
        return True

    def _restore_experiment(self, client: "MlflowClient", experiment: "Experiment") -> None:
        client.restore_experiment(experiment.experiment_id)
        self.restored.append(
            f"MLflow: restored the experiment {experiment.name}, which had been deleted"
        )

    def _send_run(self, client: "MlflowClient", run: OutboxRun) -> None:
        run_id = self._run_id(client, run)
        changed = run.version > run.synced
        if changed:
            self._send_description(client, run, run_id)
        self._send_metrics(client, run.key, run_id)
        if changed:
            if run.status == "RUNNING":
                client.update_run(run_id, status="RUNNING")
            else:
                client.set_terminated(run_id, run.status, run.end_ms)
            self._outbox.note_run(run)
            self.sent["runs"] += 1

    def _run_id(self, client: "MlflowClient", run: OutboxRun) -> str:
        """Return the run's id in MLflow; create the run if MLflow lacks it.

        A crash may have left a run in MLflow whose id the outbox lacks.
        """
        if run.run_id is not None:
            return run.run_id
        experiment_id = self._experiment_id(client, run.experiment)
        query = f"tags.`{RUN_KEY_TAG}` = '{run.key}' AND tags.`{OUTBOX_TAG}` = '{self._outbox.id}'"
        found = client.search_runs([experiment_id], query, max_results=1)
        if found:
            mlflow_run = found[0]
        else:
            tags = self._identity(client, run)
            mlflow_run = client.create_run(experiment_id, run.start_ms, tags, run.name)
        run_id: str = mlflow_run.info.run_id
        self._send_dataset(client, run.sweep, run_id)
        self._outbox.note_created(
            run.key, store=self._name, experiment_id=experiment_id, run_id=run_id
        )
        return run_id

    def _send_dataset(self, client: "MlflowClient", sweep: str, run_id: str) -> None:
        """Send the sweep's data set; MLflow stores a repeated data set once."""
        from mlflow.entities import Dataset, DatasetInput, InputTag
        from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

        document = self._outbox.dataset(sweep)
        if document is not None:
            context = InputTag(MLFLOW_DATASET_CONTEXT, "training")
            client.log_inputs(run_id, [DatasetInput(Dataset(**document), [context])])

    def _identity(self, client: "MlflowClient", run: OutboxRun) -> dict[str, str]:
        tags = {RUN_KEY_TAG: run.key, OUTBOX_TAG: self._outbox.id}
        if run.parent is not None:
            tags["mlflow.parentRunId"] = self._run_id_of(client, run.parent)
        return tags

    def _run_id_of(self, client: "MlflowClient", key: str) -> str:
        run = self._outbox.run(key)
        assert run is not None, key  # the outbox's foreign keys ensure this
        return self._run_id(client, run)

    def _experiment_id(self, client: "MlflowClient", name: str) -> str:
        if name not in self._experiments:
            found = client.get_experiment_by_name(name) or self._new_experiment(client, name)
            if found.lifecycle_stage == "deleted":
                self._restore_experiment(client, found)
            self._experiments[name] = found.experiment_id
        return self._experiments[name]

    def _new_experiment(self, client: "MlflowClient", name: str) -> "Experiment":
        from mlflow.exceptions import MlflowException

        try:
            client.create_experiment(name, artifact_location=self._artifact_location)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another driver was faster
                raise
        found = client.get_experiment_by_name(name)
        assert found is not None
        return found

    @property
    def _artifact_location(self) -> str | None:
        """Folder for artifacts of a bare database; None for a server, which has its own."""
        return None if _is_server(self._uri) else self._artifact_root.as_uri()

    def _send_description(self, client: "MlflowClient", run: OutboxRun, run_id: str) -> None:
        from mlflow.entities import Param, RunTag
        from mlflow.utils.validation import (
            MAX_PARAM_VAL_LENGTH,
            MAX_PARAMS_TAGS_PER_BATCH,
            MAX_TAG_VAL_LENGTH,
        )

        named = run.tags | self._identity(client, run)
        params = [Param(name, value[:MAX_PARAM_VAL_LENGTH]) for name, value in run.params.items()]
        tags = [RunTag(name, value[:MAX_TAG_VAL_LENGTH]) for name, value in named.items()]
        for start in range(0, max(len(params), len(tags)), MAX_PARAMS_TAGS_PER_BATCH):
            batch = slice(start, start + MAX_PARAMS_TAGS_PER_BATCH)
            client.log_batch(run_id, params=params[batch], tags=tags[batch])

    def _send_metrics(self, client: "MlflowClient", key: str, run_id: str) -> None:
        from mlflow.utils.validation import MAX_METRICS_PER_BATCH

        while batch := self._outbox.pending_metrics(key, MAX_METRICS_PER_BATCH):
            client.log_batch(run_id, metrics=[_mlflow_metric(metric) for metric in batch])
            self._outbox.note_metrics(key, batch)
            self.sent["metrics"] += len(batch)

    def _upload(self, client: "MlflowClient", artifact: OutboxArtifact) -> None:
        path = self._outbox.file_of(artifact)
        if path.exists():
            run_id = self._run_id_of(client, artifact.run)
            client.log_artifact(run_id, str(path), artifact.folder or None)
            self.sent["artifacts"] += 1
        else:
            _log.warning("%s no longer exists and is not sent to MLflow", path)
        self._outbox.note_artifact(artifact)


def make_store(tracking_uri: str) -> None:
    """Create the tables of a bare database: all or none, whenever this process is killed.

    MLflow creates the tables in many transactions, and fails for ever in a database that holds
    some of them. Nothing is lost with such a database: no run was recorded in it.
    """
    file = store_file(tracking_uri)
    if file is None:
        return
    if not _is_empty(file):
        _follow_move(file)
        return
    prepare_client()
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock"):
        if not _is_empty(file):  # another process has created the tables meanwhile
            return
        for part in file.parent.glob(f".{escape(file.name)}.*"):
            part.unlink()
        with replacing(file) as part:
            store = SqlAlchemyStore(sqlite_address(part), _artifacts_beside(file))  # type: ignore[no-untyped-call]
            store.engine.dispose()
            for left in _parts(file):  # SQLite would apply an old journal to the new file
                left.unlink()


def _follow_move(file: Path) -> None:
    """Correct the places of artifacts in a database that was moved or copied with its folder.

    MLflow records absolute addresses. That of the default experiment, which no user chooses, says
    where `make_store` made the database.
    """
    now = _artifacts_beside(file)
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True)) as db, db:
        query = "SELECT artifact_location FROM experiments WHERE experiment_id = 0"
        try:
            (default,) = db.execute(query).fetchone() or ("",)
        except sqlite3.OperationalError:  # the tables are not MLflow's, which will say so
            return
        before = default.removesuffix("/0")
        if not before.endswith(f"/{_ARTIFACTS}") or before == now:
            return
        for table, column in _ADDRESSES:
            db.execute(
                f"UPDATE {table} SET {column} = :now || substr({column}, length(:before) + 1)"
                f" WHERE substr({column} || '/', 1, length(:before) + 1) = :before || '/'",
                {"before": before, "now": now},
            )


def _artifacts_beside(file: Path) -> str:
    return (file.absolute().parent / _ARTIFACTS).as_uri()


def store_file(tracking_uri: str) -> Path | None:
    """Return the file of a SQLite store; None for a server."""
    return sqlite_file(make_url(tracking_uri)) if tracking_uri.startswith("sqlite") else None


def _parts(file: Path) -> list[Path]:
    """Return the existing files of a SQLite database."""
    named = [file.with_name(file.name + suffix) for suffix in ("-journal", "-wal", "-shm", "")]
    return [part for part in named if part.exists()]


def _is_empty(file: Path) -> bool:
    """Return True if no table of the database has a row, apart from those of MLflow's own state.

    A finished store always has a row: MLflow's default experiment.
    """
    if not file.exists():
        return True
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True)) as db:
        tables = [name for (name,) in db.execute(_TABLES)]
        return not any(db.execute(f'SELECT 1 FROM "{name}" LIMIT 1').fetchone() for name in tables)


def prepare_client() -> None:
    """Set the options that MLflow reads only from the environment."""
    for name, value in _CLIENT_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # if MLflow has been imported before
    logging.getLogger("mlflow").setLevel(os.environ["MLFLOW_LOGGING_LEVEL"].upper())


def ui_url(settings: Settings, port: int = 5000) -> str:
    """Return the address of MLflow's pages, valid for a bare database once `ui_command` runs."""
    if _is_server(settings.tracking_uri):
        return masked(settings.mlflow_ui or settings.tracking_uri)
    return f"http://{UI_HOST}:{port}"


def ui_command(settings: Settings, port: int = 5000) -> tuple[list[str], dict[str, str]]:
    """Return the arguments and additional environment of a server for a bare database.

    The environment holds the database's address, which may contain a password.
    """
    command = [sys.executable, "-m", "mlflow", "server", "--host", UI_HOST, "--port", str(port)]
    return [*command, "--workers", "1"], {
        "MLFLOW_BACKEND_STORE_URI": settings.tracking_uri,
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": settings.mlflow_artifacts.as_uri(),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # a quarter of the memory
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_UVICORN_OPTS": "--log-level warning",  # not a line for every request
        "PYTHONWARNINGS": "ignore::UserWarning:mlflow.server.fastapi_app",  # about MLflow's code
    }


def in_words(counts: Mapping[str, int]) -> str:
    """Describe counts: {"runs": 2, "metrics": 1, "artifacts": 0} -> 2 runs, 1 metric."""
    some = {what: n for what, n in counts.items() if n}
    return ", ".join(
        f"{n:,} {what.removesuffix('s') if n == 1 else what}" for what, n in some.items()
    )


def _key(item: OutboxRun | OutboxArtifact) -> str:
    return item.key if isinstance(item, OutboxRun) else f"{item.run}: {item.path}"


def _mlflow_metric(metric: OutboxMetric) -> "Metric":
    from mlflow.entities import Metric

    return Metric(metric.name, metric.value, metric.timestamp_ms, metric.epoch)


def _is_server(tracking_uri: str) -> bool:
    return tracking_uri.startswith(("http://", "https://"))


def described(error: Exception) -> str:
    """Return the error in one line, without passwords."""
    said = str(error).partition("\n")[0]
    return masked(said if isinstance(error, EnvironmentUnusable) else one_line(error))
