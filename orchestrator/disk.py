"""Detect a disk that is full or refuses files, by its errors, and describe it in words."""

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

from orchestrator.errors import DiskFull, EnvironmentUnusable, causes

_ERRNO = (errno.ENOSPC, errno.EDQUOT)
_SQLITE = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)
_POSTGRESQL = "53100"  # SQLSTATE disk_full, of the server's disk


def is_full(error: BaseException) -> bool:
    return any(
        (isinstance(each, OSError) and each.errno in _ERRNO)
        or getattr(each, "sqlite_errorcode", None) in _SQLITE
        or getattr(each, "sqlstate", None) == _POSTGRESQL
        for each in causes(error)
    )


def has_room(path: Path) -> bool:
    """Return whether the disk of a path has a megabyte free, enough for a driver to write."""
    return shutil.disk_usage(_existing(path)).free >= 1e6


def described(path: Path, error: BaseException) -> str:
    """Return one line that names the full disk and its free space."""
    *_, first = causes(error)
    if getattr(first, "sqlstate", None) == _POSTGRESQL:
        return f"the disk of the study's server is full ({first})"
    there = _existing(path)
    mount = next(folder for folder in (there, *there.parents) if folder.is_mount())
    usage = shutil.disk_usage(there)
    return (
        f"the disk at {mount} on {os.uname().nodename} is full ({first}): "
        f"{usage.free / 1e6:,.1f} of {usage.total / 1e6:,.0f} MB are free"
    )


def _existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def require_writable(home: Path) -> None:
    """Raise EnvironmentUnusable if no file can be created in the home. Leaves nothing behind."""
    try:
        with TemporaryFile(dir=_existing(home)):
            pass
    except OSError as error:
        if is_full(error):
            raise
        raise EnvironmentUnusable(
            f"{home} cannot be written ({error.strerror}); set AAE_HOME to a folder that you can "
            "write"
        ) from error


def refusal(error: BaseException) -> str | None:
    """Describe the file or database that the operating system refused; None for other errors."""
    for each in causes(error):
        if isinstance(each, OSError) and each.filename is not None:
            return f"{os.fsdecode(each.filename)} cannot be used: {each.strerror}"
        if isinstance(each, sqlite3.OperationalError):
            return f"a database of AAE_HOME cannot be used: {each}"
    return None


@contextmanager
def explaining(home: Path) -> Iterator[None]:
    """Turn an error caused by a full disk into DiskFull.

    The full disk is that of the file named in the error, or else that of `home`, the folder that
    holds nearly all files.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, DiskFull) or not is_full(error):
            raise
        *_, first = causes(error)
        path = Path(getattr(first, "filename", None) or home)
        raise DiskFull(described(path.absolute(), error)) from error
