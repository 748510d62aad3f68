"""The lock on a sweep: at most one driver, whatever its host and its home.

The lock is stored with the study and ends with its holder.  Beside a SQLite file the lock is a file
lock, in PostgreSQL an advisory lock of a connection without other use.  The server drops a silent
connection after 20 seconds at the earliest.  The holder notices a silent server within 11 seconds
and a closed connection at once.  A driver that takes the lock of a server that has just started
waits a moment, so that the last holder notices first.
"""

import hashlib
import json
import os
import selectors
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout
from sqlalchemy import Connection, NullPool, create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.errors import StudyLost, SweepLocked
from orchestrator.settings import Settings
from orchestrator.study import database

_BEAT_SECONDS = 1.0  # between two queries to the server
_GRACE_SECONDS = 5  # after a server's start, for drivers that held a lock before it
_NAME = "aae-sweep "  # the connection's name starts so, then "PID@HOST"; PostgreSQL keeps 63 bytes

_TAKE = text("SELECT pg_try_advisory_lock(:key)")
_GRACE = text(
    "SELECT pg_sleep(greatest(0, :grace -"
    " extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())))"
)
_PATIENCE = text(  # how long the server keeps a silent holder's connection: seconds, the last in ms
    "SELECT set_config('tcp_keepalives_idle', '20', false),"
    " set_config('tcp_keepalives_interval', '5', false),"
    " set_config('tcp_keepalives_count', '4', false),"
    " set_config('tcp_user_timeout', '40000', false)"
)
_HOLDER = text(
    "SELECT application_name, backend_start FROM pg_locks JOIN pg_stat_activity USING (pid)"
    " WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND datname = current_database()"
    " AND (classid::bigint << 32 | objid::bigint) = :key"
)


@dataclass(frozen=True)
class Holder:
    process: str  # PID@HOST
    since: str  # ISO 8601, UTC

    def __str__(self) -> str:
        pid, _, host = self.process.partition("@")
        return f"process {pid} on {host}, since {self.since}"

    @classmethod
    def here(cls) -> "Holder":
        return cls(f"{os.getpid()}@{socket.gethostname()}", _iso(datetime.now(UTC)))


class SweepLock:
    """The lock on a sweep, held by this process."""

    def __init__(self, settings: Settings, connection: Connection | None) -> None:
        self._settings = settings
        self._connection = connection

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Raise StudyLost in the main thread, out of a `with`, as soon as the lock is lost."""
        lost = threading.Event()
        try:
            with ExitStack() as stack:
                if self._connection is not None:
                    stack.enter_context(_watching(self._connection, lost))
                yield
        except BaseException as error:
            if lost.is_set() or database.is_away(error):
                raise _lost(self._settings) from error
            raise


@contextmanager
def held(settings: Settings, sweep_id: str) -> Iterator[SweepLock]:
    """Hold the sweep's lock against other drivers; the lock ends with this process.

    Raises SweepLocked, which names the holder, and StudyLost if the server goes away meanwhile.
    """
    settings.sweep_folder(sweep_id).mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(_file_held(settings, sweep_id))
        try:
            connection = None
            if _is_on_postgresql(settings):
                connection = stack.enter_context(_server_held(settings, sweep_id))
            yield SweepLock(settings, connection)
        except BaseException as error:
            if database.is_away(error) and not isinstance(error, StudyLost):
                raise _lost(settings) from error
            raise


def is_held(settings: Settings, sweep_id: str) -> bool:
    if _is_on_postgresql(settings):
        with _connected(settings) as connection:
            return _holder_on_server(connection, sweep_id) is not None
    path = _lock_file(settings, sweep_id)
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True


def _is_on_postgresql(settings: Settings) -> bool:
    return database.url_of(settings).get_backend_name() == "postgresql"


def _refusal(sweep_id: str, holder: Holder | None) -> SweepLocked:
    by = f"by {holder}" if holder else "by another process"
    return SweepLocked(
        f"{sweep_id} is already being run {by}; "
        f"watch it with: aae-sweep status {sweep_id}, stop it with: aae-sweep stop {sweep_id}"
    )


def _lost(settings: Settings) -> StudyLost:
    where = database.shown(database.url_of(settings))
    return StudyLost(f"the study storage {where} has gone away")


# -- a file ----------------------------------------------------------------------------------


@contextmanager
def _file_held(settings: Settings, sweep_id: str) -> Iterator[None]:
    path = _lock_file(settings, sweep_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    note = path.with_suffix(".json")
    try:
        with FileLock(path, timeout=1):  # `is_held` may take the lock for a moment
            with suppress(OSError):  # only people read the note: a full disk must not stop `gc`
                note.write_text(json.dumps(vars(Holder.here())))
            yield
    except Timeout:
        raise _refusal(sweep_id, _noted(note)) from None


def _lock_file(settings: Settings, sweep_id: str) -> Path:
    """Return the lock file: beside a SQLite study, which homes may share, else in the home."""
    file = database.sqlite_file(database.url_of(settings))
    root = file.absolute().parent if file else settings.home
    return root / "sweeps" / sweep_id / "driver.lock"


def _noted(note: Path) -> Holder | None:
    try:
        return Holder(**json.loads(note.read_text()))
    except (OSError, ValueError, TypeError):  # another process is writing the note
        return None


# -- a server --------------------------------------------------------------------------------


@contextmanager
def _connected(settings: Settings, name: str = _NAME) -> Iterator[Connection]:
    url = database.url_of(settings)
    arguments = {**database.connect_arguments(url), "application_name": name}
    try:
        engine = create_engine(
            url, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args=arguments
        )
        connection = engine.connect()
    except (SQLAlchemyError, ImportError) as error:
        raise database.unusable(url, error) from error
    with connection:
        yield connection


@contextmanager
def _server_held(settings: Settings, sweep_id: str) -> Iterator[Connection]:
    with _connected(settings, _NAME + Holder.here().process) as connection:
        connection.execute(_PATIENCE)
        connection.execute(_GRACE, {"grace": _GRACE_SECONDS})
        if not connection.scalar(_TAKE, {"key": _key(sweep_id)}):
            raise _refusal(sweep_id, _holder_on_server(connection, sweep_id))
        try:
            yield connection
        except BaseException as error:
            if database.is_away(error):
                connection.invalidate()  # the server cannot receive an orderly close
            raise


def _holder_on_server(connection: Connection, sweep_id: str) -> Holder | None:
    row = connection.execute(_HOLDER, {"key": _key(sweep_id)}).first()
    if row is None:
        return None
    since = _iso(row.backend_start) if row.backend_start else "an unknown time"
    return Holder(row.application_name.removeprefix(_NAME), since)


def _key(sweep_id: str) -> int:
    """Return the 64-bit key of the sweep's advisory lock in PostgreSQL."""
    return int.from_bytes(hashlib.sha256(sweep_id.encode()).digest()[:8], signed=True)


@contextmanager
def _watching(connection: Connection, lost: threading.Event) -> Iterator[None]:
    """Interrupt the main thread once the server closes the connection or does not answer."""
    before = signal.signal(signal.SIGUSR2, signal.default_int_handler)
    over, stop = socket.socketpair()
    watcher = threading.Thread(target=_watch, args=(connection, over, lost), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.close()
        watcher.join()
        over.close()
        signal.signal(signal.SIGUSR2, before)


def _watch(connection: Connection, over: socket.socket, lost: threading.Event) -> None:
    driver_connection = connection.connection.driver_connection
    assert driver_connection is not None
    main_thread = threading.main_thread().ident
    assert main_thread is not None
    with selectors.DefaultSelector() as either:
        either.register(over, selectors.EVENT_READ)
        either.register(driver_connection.fileno(), selectors.EVENT_READ)
        while over not in [key.fileobj for key, _ in either.select(_BEAT_SECONDS)]:
            try:
                connection.exec_driver_sql("SELECT 1")
            except SQLAlchemyError:
                lost.set()
                signal.pthread_kill(main_thread, signal.SIGUSR2)
                return


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")
