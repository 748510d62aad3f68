"""`aae-sweep` as a user starts it: in a separate process with a separate home."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from orchestrator.records import RunRecord
from orchestrator.results.reader import SweepReader
from orchestrator.settings import Settings
from orchestrator.tracking.outbox import Outbox

COMMAND = Path(sys.executable).with_name("aae-sweep")
PATIENCE = 240.0  # seconds, on a busy machine


class Bench:
    """A folder with one sweep file and its home."""

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
            [COMMAND, "run", str(self.file), "--json", *arguments],
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

    def run(
        self, *arguments: str, patience: float = PATIENCE
    ) -> "subprocess.CompletedProcess[str]":
        with self.started(*arguments) as process:
            out, err = process.communicate(timeout=patience)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def ask(self, *arguments: str) -> Any:
        """Return the --json output of a reading command."""
        command = [COMMAND, *arguments, "--json"]
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout)

    @property
    def sweep(self) -> str:
        return self._reader.resolve("latest")

    def trials(self) -> list[RunRecord]:
        """Return the current trials; an empty list before the driver writes the first."""
        if not (self.settings.home / "outbox.db").exists():
            return []
        return self._reader.trials(self.sweep) if self._reader.sweeps() else []

    @cached_property
    def _reader(self) -> SweepReader:
        """Keep one reader for repeated use; the home must contain a sweep."""
        return SweepReader(self.settings)

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


def workers_of(process: "subprocess.Popen[str]") -> list[int]:
    """Return the ids of the processes in which Ray trains for `process`."""
    return processes_of(process, "ray::ImplicitFunc")


def processes_of(process: "subprocess.Popen[str]", name: str) -> list[int]:
    """Return the descendants of `process` whose program name starts with `name`."""
    return [
        pid
        for pid, parent in _parents()
        if _program(pid).startswith(name) and process.pid in _ancestors(parent)
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


def _program(pid: int) -> str:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ""
    return Path(command.partition(b"\0")[0].decode(errors="replace")).name
