"""`aae-sweep` in this process, and as a user starts it: in a separate process and home."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any, TextIO

import pytest

from orchestrator.cli import main
from orchestrator.records import RunRecord
from orchestrator.results.reader import ResultsReader
from orchestrator.settings import Settings
from orchestrator.tracking.outbox import Outbox

# GNU readline, which pytest imports, sets this for pytest's workers; a pipe has no width
os.environ.pop("COLUMNS", None)

COMMAND = Path(sys.executable).with_name("aae-sweep")
PATIENCE = 240.0  # seconds, on a busy machine


@dataclass(frozen=True)
class Outcome:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


def aae(*arguments: object, **streams: TextIO | None) -> Outcome:
    """Run a command in this process, where all imports are done.

    streams: `stdout` and `stderr` of the command, in place of those that are recorded.
    """
    out, err, code = StringIO(), StringIO(), 0
    with pytest.MonkeyPatch.context() as patch:
        for name, stream in {"stdout": out, "stderr": err, **streams}.items():
            patch.setattr(sys, name, stream)
        patch.setattr(sys, "argv", ["aae-sweep", *map(str, arguments)])
        patch.setattr(os, "_exit", sys.exit)
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return Outcome(code, out.getvalue(), err.getvalue())


class Bench:
    """A folder with one sweep file and its home."""

    command = COMMAND

    def __init__(self, folder: Path, sweep_file: str) -> None:
        self.folder = folder
        self.file = folder / "sweep.yaml"
        self.file.write_text(sweep_file)
        self.settings = Settings.from_environment(
            {"AAE_HOME": str(folder / "home"), "AAE_DATA": str(folder / "no-data")}
        )

    @property
    def environment(self) -> dict[str, str]:
        kept = {
            k: v for k, v in os.environ.items() if not k.startswith(("AAE_", "MLFLOW_", "RAY_"))
        }
        return kept | {"AAE_HOME": str(self.settings.home), "AAE_DATA": str(self.settings.data)}

    @contextmanager
    def started(self, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
        """Yield a running sweep in its own process group, as a shell starts a sweep."""
        with subprocess.Popen(
            [self.command, "run", str(self.file), "--json", *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def run(self, *arguments: str, patience: float = PATIENCE) -> Outcome:
        with self.started(*arguments) as process:
            out, err = process.communicate(timeout=patience)
        return Outcome(process.returncode, out, err)

    def tell(self, *arguments: object) -> Outcome:
        """Run a command in a process of its own."""
        command = [self.command, *map(str, arguments)]
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=PATIENCE
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    def here(self, *arguments: object) -> Outcome:
        """Run a command in this process, in the sweep's environment."""
        wanted = self.environment
        with pytest.MonkeyPatch.context() as patch:
            for name in os.environ.keys() - wanted.keys():
                patch.delenv(name)
            for name, value in wanted.items():
                patch.setenv(name, value)
            return aae(*arguments)

    def ask(self, *arguments: object) -> Any:
        """Return the --json output of a reading command."""
        ended = self.here(*arguments, "--json")
        assert ended.code == 0, ended.err
        return ended.document

    @property
    def sweep(self) -> str:
        return self._reader.resolve("latest")

    def trials(self) -> list[RunRecord]:
        """Return the current trials; an empty list before the driver writes the first."""
        if not (self.settings.home / "outbox.db").exists():
            return []
        return self._reader.trials(self.sweep) if self._reader.sweeps() else []

    @cached_property
    def _reader(self) -> ResultsReader:
        """Keep one reader for repeated use; the home must contain a sweep."""
        return ResultsReader(self.settings)

    def curve(self, record: RunRecord) -> list[dict[str, float]]:
        return self._reader.curve(self.sweep, record)

    def mlflow_states(self) -> dict[str, str]:
        """Return the status of every run in the outbox, by run key."""
        with Outbox(self.settings.outbox, read_only=True) as outbox:
            return {run.key: run.status for run in outbox.runs(self.sweep)}

    def wait_for(
        self, process: "subprocess.Popen[str]", what: Callable[[list[RunRecord]], bool]
    ) -> None:
        """Wait until the trials satisfy `what`; fail if the process ends first."""
        deadline = time.monotonic() + PATIENCE
        while not what(self.trials()):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, self.trials()
            time.sleep(0.1)


def under_way(epochs: int) -> Callable[[list[RunRecord]], bool]:
    """Return whether any of given trials is in the middle of its `epochs` epochs."""
    return lambda records: any(r.state == "running" and 2 <= r.epochs < epochs - 3 for r in records)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def workers_of(process: "subprocess.Popen[str]") -> list[int]:
    """Return the ids of the processes in which Ray trains for `process`."""
    return processes_of(process, "ray::ImplicitFunc")


def processes_of(process: "subprocess.Popen[str]", name: str) -> list[int]:
    """Return the descendants of `process` whose program name starts with `name`."""
    return [
        pid
        for pid, parent in _parents()
        if program_of(pid).startswith(name) and process.pid in _ancestors(parent)
    ]


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + PATIENCE
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline, pids
        time.sleep(0.01)


def _parents() -> Iterator[tuple[int, int]]:
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        yield pid, _parent(pid)


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError):  # the process has just ended
        return 0


def _ancestors(pid: int) -> Iterator[int]:
    while pid > 1:
        yield pid
        pid = _parent(pid)


def program_of(pid: int) -> str:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ""
    return Path(command.partition(b"\0")[0].decode(errors="replace")).name
