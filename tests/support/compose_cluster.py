"""A cluster of containers made by `aae-sweep up`, with its own name and secrets."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sweep_command import free_port
from sweep_file import make_long_text

from orchestrator.execution.containers import cluster_folder, compose

DOCKER = Path(__file__).parents[2] / "docker"
COMMAND = Path(sys.executable).with_name("aae-sweep")
PATIENCE = 300.0  # seconds, on a busy machine
EPOCHS = 40
SWEEP = make_long_text("cluster", EPOCHS, seed=3)


class Cluster:
    """Two workers of two CPUs each: room for all three trials, or for two without one worker."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.environment = os.environ | {
            "XDG_CONFIG_HOME": str(folder),
            "COMPOSE_PROJECT_NAME": f"aae-sweep-test-{os.getpid()}",
            "AAE_MLFLOW_PORT": str(self.port),
            "AAE_OBJECT_STORE": "200000000",
            "AAE_WORKER_CPUS": "2",
        }
        self.folder = cluster_folder(self.environment)
        self.secrets, self.sweeps = self.folder / "secrets", self.folder / "sweeps"
        self.sweeps.mkdir(parents=True)
        (self.sweeps / "cluster.yaml").write_text(SWEEP)

    def up(self) -> str:
        return self._run(COMMAND, "up", "--workers", "2").stdout

    def down(self) -> None:
        self._run(COMMAND, "down")

    def compose(self, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        return self._run(*compose(self.folder), *arguments, check=check)

    def docker(self, *arguments: str) -> str:
        return self._run("docker", *arguments).stdout

    def trials(self, driver: str) -> list[dict[str, Any]]:
        """Return the trials that the driver's container lists, or none before its first output."""
        asked = ("docker", "exec", driver, "aae-sweep", "show", "cluster", "--json")
        result = self._run(*asked, check=False)
        trials: list[dict[str, Any]] = json.loads(result.stdout)["trials"] if result.stdout else []
        return trials

    def sweep(self, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        return self.compose("run", "--rm", "-T", "sweep", *arguments, check=check)

    def containers(self, *services: str) -> list[dict[str, Any]]:
        """Return the description by `docker inspect` of each container."""
        ids = self.compose("ps", "--all", "--quiet", *services).stdout.split()
        if not ids:
            return []
        described: list[dict[str, Any]] = json.loads(self.docker("inspect", *ids))
        return described

    def network(self, name: str) -> str:
        return f"{self.environment['COMPOSE_PROJECT_NAME']}_{name}"

    def secret_values(self) -> set[str]:
        """Return the random part of each secret."""
        words = (re.split(r"[\s:=]", path.read_text()) for path in self.secrets.iterdir())
        return {word for found in words for word in found if len(word) >= 40}

    def wait_for(self, what: Callable[[], Any], seconds: float = PATIENCE) -> Any:
        """Wait until `what` returns a true value, and return that value."""
        deadline = time.monotonic() + seconds
        while not (found := what()):
            assert time.monotonic() < deadline, self.compose("logs", "--tail=30").stdout
            time.sleep(0.5)
        return found

    def _run(self, *command: str | Path, check: bool = True) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0 or not check, f"{command}\n{done.stdout}\n{done.stderr}"
        return done
