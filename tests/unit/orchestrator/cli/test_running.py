import io
import os
import signal
import sys
import time

import pytest

from orchestrator.cli.run import _draining


class Interrupted(io.RawIOBase):
    """A stream that sends SIGTERM in the middle of the first written line."""

    def __init__(self) -> None:
        self.written = b""

    def writable(self) -> bool:
        return True

    def write(self, line: "bytes | memoryview") -> int:  # type: ignore[override]
        if not self.written:
            os.kill(os.getpid(), signal.SIGTERM)
        self.written += bytes(line)
        return len(line)


def test_sigterm_in_the_middle_of_a_line_starts_a_drain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = Interrupted()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BufferedWriter(stream)))
    with _draining() as draining:
        print("search: 3 trials", file=sys.stderr, flush=True)
        assert draining.is_set()
        deadline = time.monotonic() + 20
        while b"once more to exit" not in stream.written and time.monotonic() < deadline:
            time.sleep(0.01)
    assert b"once more to exit" in stream.written
    assert stream.written.startswith(b"search: 3 trials\n")
