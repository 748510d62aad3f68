"""Downloads: tries mirrors in order, checks each file, and downloads once for all processes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from aae_core.errors import DataError

CONNECT_SECONDS = 5
_READ_SECONDS = 60  # without a single byte
_CHUNK = 1 << 16

Check: TypeAlias = Callable[[Path, str], object]  # (where, name); raises DataError


def fetch_files(names: Sequence[str], folder: Path, mirrors: Sequence[str], check: Check) -> None:
    """Put the named files into the folder, each from the first mirror that serves the right bytes.

    A file appears whole and checked, or not at all. Other processes wait for the folder's lock.

    Raises DataError with every mirror's failure as soon as one file cannot be downloaded.
    """
    from filelock import FileLock

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            for name in _absent(names, folder):  # another process may have downloaded some
                failures = _fetch(name, folder, mirrors, check)
                if failures:
                    raise missing_files(_absent(names, folder), folder, failures)
    except OSError as error:
        reason = (
            f"the folder cannot be written: {_reason(error)}; a user who can write it runs: "
            f"aae-sweep data fetch {folder.name}"
        )
        raise missing_files(_absent(names, folder), folder, [reason]) from error


def missing_files(names: Sequence[str], folder: Path, reasons: Sequence[str]) -> DataError:
    """Return the error that names missing files, reasons and remedies."""
    because = "".join(f"\n  {reason}" for reason in reasons)
    return DataError(
        f"{', '.join(names)}: not in {folder}{because}\n"
        f"Put them there, or set AAE_DATA to the folder that holds {folder.name}/. "
        "To begin without downloads use `data: {name: digits}`, as the sweep quickstart does."
    )


def _absent(names: Sequence[str], folder: Path) -> list[str]:
    return [name for name in names if not (folder / name).exists()]


def _fetch(name: str, folder: Path, mirrors: Sequence[str], check: Check) -> list[str]:
    """Download one file; return each mirror's failure, empty on success."""
    part = folder / f".{name}.part"  # exclusive to this process under the lock
    failures = []
    try:
        for mirror in mirrors:
            try:
                _download(mirror + name, part)
                check(part, name)
            except (OSError, DataError) as error:  # every error of requests is an OSError
                failures.append(f"{mirror}{name}: {_reason(error)}")
            else:
                part.replace(folder / name)
                return []
    finally:
        part.unlink(missing_ok=True)
    return failures


def _download(url: str, path: Path) -> None:
    from pooch import HTTPDownloader

    get = HTTPDownloader(timeout=(CONNECT_SECONDS, _READ_SECONDS), chunk_size=_CHUNK)
    get(url, str(path), None)


def _reason(error: OSError | DataError) -> str:
    if isinstance(error, DataError):
        return f"wrong content: {error}"
    response = getattr(error, "response", None)  # attribute of requests' errors
    if response is not None:
        return f"HTTP status {response.status_code}"
    return error.strerror or type(error).__name__
