import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from orchestrator.cli.run import _draining
from orchestrator.pipeline.context import SweepContext
from orchestrator.pipeline.stages import _leaving_soon


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
    with _draining(lambda: "the current epochs") as draining:
        print("search: 3 trials", file=sys.stderr, flush=True)
        assert draining.is_set()
        deadline = time.monotonic() + 20
        while b"again to exit" not in stream.written and time.monotonic() < deadline:
            time.sleep(0.01)
    assert b"again to exit" in stream.written
    assert stream.written.startswith(b"search: 3 trials\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_before_trials_run_exits_at_once(number: int) -> None:
    def run() -> None:
        with _draining(lambda: None):
            os.kill(os.getpid(), number)
            time.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        run()
    assert signal.set_wakeup_fd(-1) == -1


class InterruptedAtItsEnd:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)
        time.sleep(0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupt_that_python_drops_starts_a_drain_nevertheless() -> None:
    with _draining(lambda: None) as draining:
        InterruptedAtItsEnd()
        assert draining.is_set()


def test_drain_repeats_its_interrupt_until_the_driver_exits() -> None:
    dropped = 0

    def run() -> None:
        nonlocal dropped
        with _draining(lambda: None) as draining:
            draining.set()
            sweep = SimpleNamespace(draining=draining, is_training=lambda: False)
            with _leaving_soon(cast(SweepContext, sweep)):
                while dropped < 2:
                    try:
                        time.sleep(60)
                    except KeyboardInterrupt:  # as pydantic does, and Python in a destructor
                        dropped += 1
                time.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        run()
    assert dropped == 2


# a mutex is locked twice: unlike a sleep or a read, no signal ends the second call
BLOCKED = """
import ctypes
from orchestrator.cli.run import _draining

mutex, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)
libc.pthread_mutex_lock(mutex)
with _draining(lambda: None):
    print("blocked", flush=True)
    libc.pthread_mutex_lock(mutex)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_while_native_code_blocks_exits(number: int) -> None:
    command = [sys.executable, "-c", BLOCKED]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "blocked\n"
        stat = Path(f"/proc/{process.pid}/stat")
        while stat.read_text().rpartition(")")[2].split()[0] != "S":  # asleep in native code
            time.sleep(0.01)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "interrupted\n")
