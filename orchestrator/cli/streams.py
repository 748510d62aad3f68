"""Standard output and error as files that may fail, for as long as a command runs."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from orchestrator.errors import OutputUnread, OutputUnusable, SweepError

_STDOUT, _STDERR = 1, 2


class _Output:
    """Standard output or error, whose failures raise errors that no file raises.

    A message that standard error cannot take is dropped: the exit status still has the result.
    """

    def __init__(self, number: int, stream: TextIO | None) -> None:
        self._stream = stream
        self._number = number

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        if self._stream is None:
            self._fail(OSError(errno.EBADF, "it is closed"))
            return len(text)
        try:
            self._stream.write(text)
        except OSError as error:
            self._fail(error)
        except UnicodeEncodeError as error:
            encoded = text.encode(error.encoding, "backslashreplace")
            self._stream.write(encoded.decode(error.encoding))
        return len(text)

    def flush(self) -> None:
        try:
            if self._stream is not None:
                self._stream.flush()
        except OSError as error:
            self._fail(error)

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def _fail(self, error: OSError) -> None:
        self._discard()
        if self._number != _STDOUT:
            return
        if isinstance(error, BrokenPipeError):
            raise OutputUnread from None
        raise OutputUnusable(
            f"standard output cannot be written: {error.strerror or error}; "
            "send it to another file or program"
        ) from None

    def _discard(self) -> None:
        """Discard the buffered text and all later text."""
        if self._stream is None:
            return
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextmanager
def standard_streams() -> Iterator[None]:
    """Report failures of standard output during a `with`, and ignore those of standard error."""
    before = sys.stdout, sys.stderr
    while (number := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        pass  # a file that is opened later must not take a closed stream's number
    os.close(number)
    out, err = _Output(_STDOUT, sys.stdout), _Output(_STDERR, sys.stderr)
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
    try:
        yield
    finally:
        with suppress(SweepError):
            out.flush()
        err.flush()
        sys.stdout, sys.stderr = before
