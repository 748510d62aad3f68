"""Connections to the studies' database: a SQLite file, or a server that may go away."""

import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import sqlalchemy
from optuna.storages import RDBStorage
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import DBAPIError

from orchestrator.errors import EnvironmentUnusable, causes
from orchestrator.settings import Settings
from orchestrator.text import masked


class StudyStorage(RDBStorage):
    """The database of all studies, and the settings of the home where their checkpoints lie."""

    def __init__(self, settings: Settings, address: str, arguments: dict[str, Any]) -> None:
        super().__init__(address, arguments)
        self.settings = settings


class _Connection(sqlite3.Connection):
    """SQLite connection that syncs only at WAL checkpoints, since a trial is twenty transactions.

    A killed process loses nothing. A power cut may lose the last moments, which trials repeat from
    their checkpoints. No attempt that a worker has received is lost: the study makes attempts
    durable first.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.execute("PRAGMA synchronous = NORMAL")


_SQLITE = {"factory": _Connection, "timeout": 60}  # seconds to wait for another process's write
_POSTGRESQL = {  # when a silent server counts as lost; libpq's names, seconds except the last
    "connect_timeout": 10,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # ms
}
_SHUT_DOWN = ("08", "57P")  # SQLSTATE classes: connection exception, operator intervention


def url_of(settings: Settings) -> URL:
    """Return the database's address. Raises EnvironmentUnusable if AAE_STUDY_URI is invalid."""
    try:
        return make_url(settings.study_uri)
    except (sqlalchemy.exc.ArgumentError, ValueError):  # the message may quote the password
        raise EnvironmentUnusable(
            "AAE_STUDY_URI is not a database address; write it as "
            "postgresql+psycopg://USER:PASSWORD@HOST:PORT/DATABASE, the password URL-encoded"
        ) from None


def sqlite_file(url: URL) -> Path | None:
    """Return the path of a SQLite database; None for a server, and for a database in memory."""
    if url.get_backend_name() != "sqlite":
        return None
    file = url.database or ""
    if "uri" in url.query and file.startswith("file:"):
        file = url2pathname(urlsplit(file).path)
    return Path(file) if file not in ("", ":memory:") else None


def connect_arguments(url: URL) -> dict[str, Any]:
    backends: dict[str, dict[str, Any]] = {"sqlite": _SQLITE, "postgresql": _POSTGRESQL}
    return dict(backends.get(url.get_backend_name(), {}))


def make_durable(engine: Engine) -> None:
    """Write all commits so far to the disk; a server has already done so by itself."""
    if engine.name == "sqlite":
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")


def unusable(url: URL, error: Exception) -> EnvironmentUnusable:
    return EnvironmentUnusable(
        f"the study storage {shown(url)} cannot be used: {masked(str(error), *_secrets(url))}\n"
        "set AAE_STUDY_URI to a database that answers, or unset it for a local one"
    )


def shown(url: URL) -> str:
    """Return the address without user, password and options."""
    place = URL.create(url.drivername, host=url.host, port=url.port, database=url.database)
    return str(place)


def _secrets(url: URL) -> list[str]:
    return [str(secret) for secret in (url.password, url.query.get("password")) if secret]


def is_away(error: BaseException) -> bool:
    """Return True if the cause is a server that closed the connection or is out of reach."""
    return any(
        isinstance(each, DBAPIError)
        and (each.connection_invalidated or _sqlstate(each).startswith(_SHUT_DOWN))
        for each in causes(error)
    )


def _sqlstate(error: DBAPIError) -> str:
    """Return PostgreSQL's error code; without a reply of a server, the lost connection's code."""
    state = getattr(error.orig, "sqlstate", "")  # SQLite's errors have none
    if state is None and isinstance(error, sqlalchemy.exc.OperationalError):
        return "08000"
    return state or ""
