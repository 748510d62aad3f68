"""Faults for a sweep. A new fault is a new function in the table `FAULTS`.

A fault acts at once. A fault that ends the driver waits for that end. Each fault returns how many
epochs may be lost: one for each trial whose worker is lost.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import torch
import yaml
from postgresql_server import BINARIES, Server
from small_disk import fill
from sweep_command import PATIENCE, Outcome, processes_of, wait_until_gone, workers_of
from tracking_server import TrackedBench

from aae_core import checkpoint
from orchestrator.records import RunRecord

COMPILER = shutil.which("cc")


class StruckBench(TrackedBench):
    """A sweep whose tracking server, study server and clock can be struck.

    study: the server of the study, or None for a study in the sweep's home.
    has_clock: whether the sweep's processes read their clock from the file `clock`.
    """

    def __init__(
        self, folder: Path, sweep_file: str, study: Server | None, has_clock: bool
    ) -> None:
        super().__init__(folder, sweep_file)
        self._epochs: int = yaml.safe_load(sweep_file)["training"]["epochs"]
        self._kept = folder / "kept"
        self.study, self.clock = study, folder / "shift"
        self._clock_settings: dict[str, str] = {}
        if study is not None:
            self.settings = replace(self.settings, study_uri=study.uri)
        if has_clock:
            self.clock.write_text("0")
            library, source = folder / "clock.so", Path(__file__).with_name("clock.c")
            assert COMPILER is not None
            subprocess.run([COMPILER, "-shared", "-fPIC", "-O2", "-o", library, source], check=True)
            self._clock_settings = {"LD_PRELOAD": str(library), "CLOCK_SHIFT": str(self.clock)}

    @property
    def environment(self) -> dict[str, str]:
        study = {"AAE_STUDY_URI": self.study.uri} if self.study is not None else {}
        return super().environment | study | self._clock_settings

    def here(self, *arguments: object) -> Outcome:
        """Run a command in a process whose end closes its connections to the study's server."""
        return self.tell(*arguments)

    def close(self) -> None:
        """Close the connections to the study's server."""
        self._reader._storage.engine.dispose()

    def keep_models(self) -> None:
        """Copy the checkpoints of last epochs to where no driver removes them."""
        home = self.settings.home
        for saved in home.glob(f"**/epoch-{self._epochs:06d}"):
            copy = self._kept / saved.relative_to(home)
            if not copy.exists():
                shutil.copytree(saved, copy)

    def model(self, record: RunRecord) -> dict[str, torch.Tensor]:
        """Return the tensors of a trial's last checkpoint, or of the copy of a removed one."""
        assert record.checkpoint is not None
        saved = Path(record.checkpoint)
        copy = self._kept / saved.relative_to(self.settings.home)
        return checkpoint.load(saved if saved.exists() else copy)[0]


@dataclass(frozen=True)
class Victim:
    bench: StruckBench
    driver: "subprocess.Popen[str]"


KILL_WAIT = 5.0  # seconds from SIGTERM to SIGKILL: Slurm's and Kubernetes' order of magnitude
Fault = Callable[[Victim, Random], int]


def kill_worker(victim: Victim, draw: Random) -> int:
    os.kill(draw.choice(_workers(victim)), signal.SIGKILL)
    return 1


def stop_worker(victim: Victim, draw: Random) -> int:
    """Stop a worker without killing it; the driver kills the worker after `trial_timeout`."""
    os.kill(draw.choice(_workers(victim)), signal.SIGSTOP)
    return 1


def kill_driver(victim: Victim, draw: Random) -> int:
    """Kill the driver; its Ray and the trials there outlive the driver for a moment."""
    lost = len(_workers(victim))
    victim.driver.kill()
    victim.driver.wait()
    return lost


def kill_raylet(victim: Victim, draw: Random) -> int:
    """Kill the raylet, and with it all of a local Ray."""
    lost = len(_workers(victim))
    [raylet] = processes_of(victim.driver, "raylet")
    os.kill(raylet, signal.SIGKILL)
    victim.driver.communicate(timeout=PATIENCE)
    return lost


def terminate_driver(victim: Victim, draw: Random) -> int:
    """Terminate the driver, as a shutdown of its machine or `docker stop` does."""
    lost = len(_workers(victim))
    victim.driver.terminate()
    _, err = victim.driver.communicate(timeout=PATIENCE)
    assert victim.driver.returncode == 130, err
    return lost


def preempt_driver(victim: Victim, draw: Random) -> int:
    """Terminate the driver and kill it soon after, with its workers, as batch systems do."""
    workers = _workers(victim)
    victim.driver.terminate()
    with suppress(subprocess.TimeoutExpired):
        victim.driver.communicate(timeout=KILL_WAIT)
    if victim.driver.poll() is None:
        os.killpg(victim.driver.pid, signal.SIGKILL)
        victim.driver.wait()
    wait_until_gone(workers)
    return len(workers)


def tear_checkpoint(victim: Victim, draw: Random) -> int:
    """Kill all workers and truncate a trial's last checkpoint, which loses one more epoch."""
    while True:
        workers = _workers(victim)
        with _halted(victim.driver):  # no new worker may read the checkpoint before it is torn
            records = victim.bench.trials()
            saved = [Path(r.checkpoint) for r in records if r.state == "running" and r.checkpoint]
            if saved:
                for pid in workers:
                    os.kill(pid, signal.SIGKILL)
                wait_until_gone(workers)
                part = draw.choice(sorted(draw.choice(saved).iterdir()))
                os.truncate(part, draw.randrange(part.stat().st_size))
                return len(workers) + 1
        time.sleep(0.1)


def toggle_server(victim: Victim, draw: Random) -> int:
    """Stop the running tracking server, or start the stopped one."""
    if victim.bench.serves:
        victim.bench.stop_server()
    else:
        victim.bench.start_server()
    return 0


def fill_disk(victim: Victim, draw: Random) -> int:
    """Fill the disk, and any space that the driver frees, until the driver exits.

    The driver frees space by removing checkpoints of the search that nothing needs.
    """
    lost = len(_workers(victim))
    ballast = victim.bench.settings.home / "ballast"
    while victim.driver.poll() is None:
        with _halted(victim.driver):
            victim.bench.keep_models()
            fill(ballast)
        time.sleep(0.1)
    _, err = victim.driver.communicate()
    assert victim.driver.returncode == 4, err
    ballast.unlink()
    return lost


def restart_study_server(victim: Victim, draw: Random) -> int:
    """Restart the study's server; the driver abandons its trials and resumes by itself."""
    lost, server = len(_workers(victim)), victim.bench.study
    assert server is not None
    server.stop()
    time.sleep(draw.uniform(0, 5))
    server.start()
    return lost


def set_clock(victim: Victim, draw: Random) -> int:
    """Set the clock of the driver and its workers back, at most an hour behind the machine's."""
    victim.bench.clock.write_text(str(-draw.randrange(3600)))
    return 0


FAULTS: dict[str, Fault] = {
    "worker": kill_worker,
    "hang": stop_worker,
    "driver": kill_driver,
    "raylet": kill_raylet,
    "sigterm": terminate_driver,
    "preempt": preempt_driver,
    "torn": tear_checkpoint,
    "server": toggle_server,
    "full": fill_disk,
    "study": restart_study_server,
    "clock": set_clock,
}
MISSING = {  # faults that this machine has no tools for
    fault: tool
    for fault, tool, found in (("study", "PostgreSQL", BINARIES), ("clock", "cc", COMPILER))
    if not found
}


def _workers(victim: Victim) -> list[int]:
    """Wait for the processes in which Ray trains, and return their ids."""
    deadline = time.monotonic() + PATIENCE
    while not (found := workers_of(victim.driver)):
        assert victim.driver.poll() is None, victim.driver.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return sorted(found)


@contextmanager
def _halted(process: "subprocess.Popen[str]") -> Iterator[None]:
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)
