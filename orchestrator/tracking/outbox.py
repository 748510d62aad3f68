"""The outbox: MLflow's queue in one SQLite file, which the driver fills and MlflowWriter sends.

Rows stay after they were sent, so `show` and the reports read the outbox as their metric store.
Several drivers may share the file. Times are milliseconds since 1970.

The journal is a write-ahead log with synchronous=NORMAL, so an epoch costs no fsync. A killed
process loses nothing. A power cut loses at most the last moments, which the checkpoints' histories
restore. All data is made durable (`make_durable`) before it is sent to MLflow.
"""

import hashlib
import json
import math
import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from filelock import FileLock

from orchestrator.errors import EnvironmentUnusable
from orchestrator.records import SYSTEM

EndStatus = Literal["FINISHED", "FAILED", "KILLED"]

# run.version counts changes, run.synced is the version that MLflow has; artifact.sent likewise.
_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS outbox (id TEXT NOT NULL);
INSERT INTO outbox SELECT lower(hex(randomblob(8))) WHERE NOT EXISTS (SELECT 1 FROM outbox);
CREATE TABLE IF NOT EXISTS run (
    key TEXT PRIMARY KEY,
    sweep TEXT NOT NULL,
    experiment TEXT NOT NULL,
    parent TEXT REFERENCES run (key),
    name TEXT NOT NULL,
    params TEXT NOT NULL,
    tags TEXT NOT NULL,
    status TEXT NOT NULL,
    start_ms INTEGER NOT NULL,
    end_ms INTEGER,
    version INTEGER NOT NULL DEFAULT 1,
    synced INTEGER NOT NULL DEFAULT 0,
    store TEXT,
    experiment_id TEXT,
    run_id TEXT
);
CREATE TABLE IF NOT EXISTS metric (
    run TEXT NOT NULL REFERENCES run (key),
    name TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    value REAL,
    timestamp_ms INTEGER NOT NULL,
    synced INTEGER NOT NULL,
    PRIMARY KEY (run, name, epoch)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS metric_pending ON metric (run) WHERE synced = 0;
CREATE TABLE IF NOT EXISTS artifact (
    run TEXT NOT NULL REFERENCES run (key),
    path TEXT NOT NULL,
    folder TEXT NOT NULL,
    stamp TEXT NOT NULL,
    sent TEXT,
    PRIMARY KEY (run, path, folder)
);
CREATE TABLE IF NOT EXISTS dataset (sweep TEXT PRIMARY KEY, document TEXT NOT NULL);
COMMIT;
"""
_OF_SWEEP = "(:sweep IS NULL OR run.sweep = :sweep)"
_OF_MODEL = f"name NOT LIKE '{SYSTEM}%'"


@dataclass(frozen=True)
class OutboxRun:
    key: str
    sweep: str
    experiment: str
    parent: str | None
    name: str
    params: dict[str, str]
    tags: dict[str, str]
    status: str  # RUNNING or an EndStatus
    start_ms: int
    end_ms: int | None
    version: int
    synced: int
    store: str | None  # the tracking server that has run_id
    experiment_id: str | None
    run_id: str | None


class OutboxMetric(NamedTuple):
    name: str
    epoch: int
    value: float
    timestamp_ms: int


class OutboxArtifact(NamedTuple):
    run: str
    path: str  # when it was attached
    folder: str
    stamp: str


class Outbox:
    """The outbox. Threads share one connection. Unknown run keys raise sqlite3.IntegrityError.

    A reader (`read_only`) creates no file: a missing file reads as empty.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._unsaved: list[tuple[Any, ...]] = []  # rows of metrics
        try:
            self._db = _connect(path, read_only)
            self.id: str = self._db.execute("SELECT id FROM outbox").fetchone()[0]
        except sqlite3.DatabaseError as error:
            raise EnvironmentUnusable(
                f"{path} cannot be used ({error}): check that its disk is writable and not full; "
                "you may move a damaged file aside: the study and the checkpoints are elsewhere"
            ) from error

    def close(self) -> None:
        try:
            self.save()
        finally:
            with self._lock:
                self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # For the driver

    def open_run(
        self,
        key: str,
        *,
        sweep_id: str,
        experiment: str,
        name: str,
        parent: str | None = None,
        params: Mapping[str, object] | None = None,
        tags: Mapping[str, object] | None = None,
    ) -> None:
        """Begin or resume a run: RUNNING, with the newest tags and the first params."""
        now, params_json, tags_json = _now_ms(), _texts(params or {}), _texts(tags or {})
        self._write(
            "INSERT INTO run (key, sweep, experiment, parent, name, params, tags, status, start_ms)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, 'RUNNING', ?)"
            " ON CONFLICT (key) DO UPDATE SET status = 'RUNNING', end_ms = NULL,"
            " params = json_patch(excluded.params, params),"
            " tags = json_patch(tags, excluded.tags), version = version + 1",
            [(key, sweep_id, experiment, parent, name, params_json, tags_json, now)],
        )

    def log(self, key: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """Record an epoch's metrics; metrics recorded before keep their value and their time.

        They are written together, by `save`, before the next change of a run or the next read.
        Non-finite values stay in the outbox: MLflow would store ±inf as ±1.8e308, a normal point.
        """
        now = _now_ms()
        with self._lock:
            self._unsaved += [
                (key, name, epoch, float(value), now, not math.isfinite(value))
                for name, value in metrics.items()
            ]

    def save(self) -> None:
        """Write all metrics recorded so far."""
        if self._unsaved:
            with self._lock, self._db as db:
                self._insert_metrics(db)

    def set_tags(self, key: str, tags: Mapping[str, object]) -> None:
        """Add tags, or replace them."""
        self._write(
            "UPDATE run SET tags = json_patch(tags, ?), version = version + 1 WHERE key = ?",
            [(_texts(tags), key)],
        )

    def set_params(self, key: str, params: Mapping[str, object]) -> None:
        """Add params. An existing param keeps its value, since MLflow refuses changes to params."""
        self._write(
            "UPDATE run SET params = json_patch(?, params), version = version + 1 WHERE key = ?",
            [(_texts(params), key)],
        )

    def attach(self, key: str, path: Path, folder: str = "") -> None:
        """Queue a file, or a folder under its own name, for upload into the run's `folder`.

        A path attached again is uploaded again if its files have changed since.
        """
        self._write(
            "INSERT INTO artifact (run, path, folder, stamp) VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET stamp = excluded.stamp",
            [(key, str(path), folder, _stamp(path))],
        )

    def set_dataset(self, sweep_id: str, document: Mapping[str, str]) -> None:
        """Set the input of all runs of a sweep, as the fields of MLflow's Dataset."""
        self._write(
            "INSERT OR REPLACE INTO dataset (sweep, document) VALUES (?, ?)",
            [(sweep_id, _texts(document))],
        )

    def close_run(self, key: str, status: EndStatus) -> None:
        self._write(
            "UPDATE run SET status = ?, end_ms = ?, version = version + 1 WHERE key = ?",
            [(status, _now_ms(), key)],
        )

    def abandon(self, sweep_id: str) -> int:
        """Close the sweep's RUNNING runs as KILLED at their last metric's time; return how many.

        Only for a sweep without a driver. `open_run` resumes the runs.
        """
        last_metric = (
            "SELECT max(timestamp_ms) FROM metric JOIN run AS r ON r.key = metric.run"
            " WHERE run.key IN (r.key, r.parent)"
        )
        with self._lock, self._db as db:
            self._insert_metrics(db)
            return db.execute(
                "UPDATE run SET status = 'KILLED', version = version + 1,"
                f" end_ms = coalesce(({last_metric}), start_ms)"
                " WHERE sweep = ? AND status = 'RUNNING'",
                (sweep_id,),
            ).rowcount

    # For readers

    def run(self, key: str) -> OutboxRun | None:
        rows = self._read("SELECT * FROM run WHERE key = ?", (key,))
        return _run(rows[0]) if rows else None

    def runs(self, sweep_id: str | None = None) -> list[OutboxRun]:
        """Return the runs of one sweep or of all, parents before children."""
        query = f"SELECT * FROM run WHERE {_OF_SWEEP} ORDER BY rowid"
        return [_run(row) for row in self._read(query, {"sweep": sweep_id})]

    def run_ids(self, sweep_id: str) -> dict[str, str]:
        """Return MLflow's run id by key, for the runs that MLflow has."""
        return {run.key: run.run_id for run in self.runs(sweep_id) if run.run_id is not None}

    def history(self, key: str) -> list[dict[str, float]]:
        """Return one row per epoch, in order: {"epoch": 1, "train/recon": …}, finite or not.

        System metrics are left out; only MLflow shows them.
        """
        query = (
            f"SELECT epoch, name, value FROM metric WHERE run = ? AND {_OF_MODEL}"
            " ORDER BY epoch, name"
        )
        return _by_epoch(self._read(query, (key,)))

    def last(self, key: str) -> dict[str, float]:
        """Return the last row of `history`; empty if there is none."""
        query = (
            f"SELECT epoch, name, value FROM metric WHERE run = :key AND {_OF_MODEL}"
            " AND epoch = (SELECT max(epoch) FROM metric WHERE run = :key) ORDER BY name"
        )
        return next(iter(_by_epoch(self._read(query, {"key": key}))), {})

    def time_of(self, key: str, epoch: int) -> int:
        """Return the time of the epoch's first metrics, or without metrics the run's start.

        A repeat of the epoch does not change the time.
        """
        first = "SELECT min(timestamp_ms) FROM metric WHERE run = key AND epoch = ?"
        query = f"SELECT coalesce(({first}), start_ms) AS time FROM run WHERE key = ?"
        time: int = self._read(query, (epoch, key))[0]["time"]
        return time

    def dataset(self, sweep_id: str) -> dict[str, str] | None:
        rows = self._read("SELECT document FROM dataset WHERE sweep = ?", (sweep_id,))
        document: dict[str, str] | None = json.loads(rows[0]["document"]) if rows else None
        return document

    def waiting(self, sweep_id: str | None = None) -> dict[str, int]:
        """Return how many runs, metrics and artifacts MLflow lacks or has in an older state."""
        query = (
            f"SELECT (SELECT count(*) FROM run WHERE version > synced AND {_OF_SWEEP}) AS runs,"
            " (SELECT count(*) FROM metric JOIN run ON run = key"
            f" WHERE metric.synced = 0 AND {_OF_SWEEP}) AS metrics,"
            " (SELECT count(*) FROM artifact JOIN run ON run = key"
            f" WHERE sent IS NOT stamp AND {_OF_SWEEP}) AS artifacts"
        )
        return dict(self._read(query, {"sweep": sweep_id})[0])

    def unsynced(self, sweep_id: str | None = None) -> int:
        """Return the sum of `waiting`."""
        return sum(self.waiting(sweep_id).values())

    # For MlflowWriter

    def pending_runs(self, sweep_id: str | None = None) -> list[OutboxRun]:
        """Return runs that changed or have metrics to send, parents before children."""
        query = (
            f"SELECT * FROM run WHERE {_OF_SWEEP} AND (version > synced OR EXISTS"
            " (SELECT 1 FROM metric WHERE run = key AND metric.synced = 0)) ORDER BY rowid"
        )
        return [_run(row) for row in self._read(query, {"sweep": sweep_id})]

    def pending_metrics(self, key: str, limit: int) -> list[OutboxMetric]:
        query = (
            "SELECT name, epoch, value, timestamp_ms FROM metric"
            " WHERE run = ? AND synced = 0 ORDER BY epoch, name LIMIT ?"
        )
        return [OutboxMetric(*row) for row in self._read(query, (key, limit))]

    def pending_artifacts(self, sweep_id: str | None = None) -> list[OutboxArtifact]:
        query = (
            "SELECT run, path, folder, stamp FROM artifact JOIN run ON run = key"
            f" WHERE sent IS NOT stamp AND {_OF_SWEEP} ORDER BY artifact.rowid"
        )
        return [OutboxArtifact(*row) for row in self._read(query, {"sweep": sweep_id})]

    def note_created(self, key: str, *, store: str, experiment_id: str, run_id: str) -> None:
        self._write(
            "UPDATE run SET store = ?, experiment_id = ?, run_id = ? WHERE key = ?",
            [(store, experiment_id, run_id, key)],
        )

    def note_run(self, run: OutboxRun) -> None:
        """Record that MLflow has this version of the run; newer changes stay pending."""
        self._write("UPDATE run SET synced = ? WHERE key = ?", [(run.version, run.key)])

    def note_metrics(self, key: str, metrics: Iterable[OutboxMetric]) -> None:
        self._write(
            "UPDATE metric SET synced = 1 WHERE run = ? AND name = ? AND epoch = ?",
            [(key, metric.name, metric.epoch) for metric in metrics],
        )

    def file_of(self, artifact: OutboxArtifact) -> Path:
        """Return the place of an artifact: the home may have been moved since it was attached."""
        folder = f"/sweeps/{artifact.run.partition('/')[0]}/"
        _, inside, rest = artifact.path.partition(folder)
        return Path(f"{self.path.parent}{folder}{rest}" if inside else artifact.path)

    def note_artifact(self, artifact: OutboxArtifact) -> None:
        self._write(
            "UPDATE artifact SET sent = ? WHERE run = ? AND path = ? AND folder = ?",
            [(artifact.stamp, artifact.run, artifact.path, artifact.folder)],
        )

    def forget(self, sweep_id: str | None = None, *, keep: Sequence[str] = ()) -> None:
        """Mark everything as unsent, except what a store of one of the names `keep` has."""
        kept = "(SELECT value FROM json_each(:keep))"
        chosen = f"{_OF_SWEEP} AND coalesce(store, '') NOT IN {kept}"
        theirs = f"run IN (SELECT key FROM run WHERE {chosen})"
        values = {"sweep": sweep_id, "keep": json.dumps(keep)}
        with self._lock, self._db as db:
            self._insert_metrics(db)
            db.execute(
                f"UPDATE metric SET synced = 0 WHERE abs(value) < 9e999 AND {theirs}", values
            )
            db.execute(f"UPDATE artifact SET sent = NULL WHERE {theirs}", values)
            db.execute(
                "UPDATE run SET synced = 0, store = NULL, experiment_id = NULL, run_id = NULL"
                f" WHERE {chosen}",
                values,
            )

    def make_durable(self) -> None:
        """Write all commits so far to the disk, so that they survive a power cut."""
        self._read("PRAGMA wal_checkpoint(PASSIVE)", ())

    def _read(self, query: str, values: Any) -> list[sqlite3.Row]:
        self.save()
        with self._lock:
            return self._db.execute(query, values).fetchall()

    def _write(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
        with self._lock, self._db as db:
            self._insert_metrics(db)
            db.executemany(statement, rows)

    def _insert_metrics(self, db: sqlite3.Connection) -> None:
        """Begin a transaction with the metrics recorded so far.

        If it fails, these metrics are lost, until the next attempt of their trial logs its history.
        """
        metrics, self._unsaved = self._unsaved, []
        db.executemany(
            "INSERT INTO metric VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", metrics
        )


def _connect(path: Path, read_only: bool) -> sqlite3.Connection:
    if read_only and path.exists():
        db = _open(f"{path.absolute().as_uri()}?mode=ro")
        if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'outbox'").fetchone():
            return db
        db.close()  # another process is creating the file
    if read_only:
        db = _open("file::memory:")
        db.executescript(_SCHEMA)
        return db
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):  # SQLite's change to WAL does not wait for other processes
        db = _open(path.absolute().as_uri())
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.executescript(_SCHEMA)
    return db


def _open(uri: str) -> sqlite3.Connection:
    db = sqlite3.connect(uri, uri=True, timeout=30, check_same_thread=False)
    db.row_factory = sqlite3.Row
    db.execute("PRAGMA foreign_keys = ON")
    return db


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _texts(values: Mapping[str, object]) -> str:
    return json.dumps({name: str(value) for name, value in values.items()})


def _run(row: sqlite3.Row) -> OutboxRun:
    fields = dict(row)
    fields["params"] = json.loads(fields["params"])
    fields["tags"] = json.loads(fields["tags"])
    return OutboxRun(**fields)


def _by_epoch(rows: list[sqlite3.Row]) -> list[dict[str, float]]:
    """Group rows by epoch, with NaN for NULL, since SQLite has no NaN."""
    return [
        {"epoch": epoch}
        | {name: math.nan if value is None else value for _, name, value in metrics}
        for epoch, metrics in groupby(rows, key=lambda row: row["epoch"])
    ]


def _stamp(path: Path) -> str:
    """Return a digest that changes with the file, or with any file of the folder."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    stats = [(file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    names = [str(file.relative_to(path)) for file in files]
    return hashlib.sha256(json.dumps([names, stats]).encode()).hexdigest()
