"""The log of an attempt: all that its worker printed while it trained, native code included."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from orchestrator.settings import attempt_log

MOST_BYTES = 1_000_000
_REMOVED = b"[earlier output removed]\n"


class AttemptLog:
    """A file that standard output and standard error go to; beyond MOST_BYTES, its end is kept."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def trim(self) -> None:
        size = os.fstat(self._descriptor).st_size
        if size <= MOST_BYTES:
            return
        kept = os.pread(self._descriptor, MOST_BYTES // 2, size - MOST_BYTES // 2)
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, _REMOVED + kept)


@contextmanager
def printing_to(folders: Sequence[Path]) -> Iterator[AttemptLog]:
    """Send what this process prints to the logs of attempts, which are links to one file.

    Raises OSError if the file cannot be made. An empty log is removed.
    """
    first, *others = [attempt_log(folder) for folder in folders]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    log = os.open(first, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    for other in others:
        with suppress(OSError):  # a file system without links keeps one log for the pack
            os.link(first, other)
    streams = sys.stdout, sys.stderr
    before = [os.dup(number) for number in (1, 2)]
    try:
        _send_to([log, log], streams)
        yield AttemptLog(log)
    finally:
        _send_to(before, streams)
        if os.fstat(log).st_size == 0:
            for path in (first, *others):
                path.unlink(missing_ok=True)
        for descriptor in (log, *before):
            os.close(descriptor)


def _send_to(targets: Sequence[int], streams: Sequence[TextIO]) -> None:
    """Send standard output and standard error to two descriptors from now on."""
    for number, (target, stream) in enumerate(zip(targets, streams, strict=True), start=1):
        with suppress(OSError):  # a full disk
            stream.flush()
        os.dup2(target, number)
