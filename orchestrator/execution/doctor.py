"""Checks of each node of a Ray cluster: versions, storage, tracking server and clock."""

import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

from aae_core.plugins import packages
from orchestrator.errors import EnvironmentUnusable
from orchestrator.settings import Settings
from orchestrator.text import masked

PACKAGES = ("aae-sweep", "torch", "ray", "numpy")
_PATIENCE = 60.0  # seconds for a node to answer


@dataclass(frozen=True)
class Node:
    name: str
    versions: dict[str, str]
    storage_problem: str | None
    tracking_problem: str | None
    free_gb: float  # on the disk of AAE_HOME
    clock_ahead: float  # seconds, beyond what the request's round trip explains


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that must be the same on all nodes.

    Among them are the packages that declare models, priors, data sets or metrics.
    """
    python = ".".join(map(str, sys.version_info[:2]))
    return {"python": python} | {name: version(name) for name in PACKAGES} | packages()


def examine(settings: Settings) -> list[Node]:
    """Examine all nodes that have CPUs, in parallel, from within `cluster.connected`.

    Raises EnvironmentUnusable if a node does not answer.
    """
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    probe = settings.home / f".doctor-{uuid4().hex}"
    probe.mkdir(parents=True)
    (probe / "driver").touch()
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    look = ray.remote(num_cpus=0, max_retries=0)(_look_around)
    asked = time.time()
    try:
        answers = {
            node["NodeManagerHostname"]: look.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(str(probe), settings.tracking_uri)
            for node in nodes
        }
        return [
            _node(name, ray.get(answer, timeout=_PATIENCE), asked, probe)
            for name, answer in answers.items()
        ]
    except RayError as error:
        raise EnvironmentUnusable(
            f"a node does not answer: {error}; see its log (docker compose logs worker)"
        ) from error
    finally:
        shutil.rmtree(probe)


def _look_around(probe: str, tracking_uri: str) -> dict[str, Any]:
    """Examine the node that runs this function."""
    clock = time.time()
    folder, name = Path(probe), uuid4().hex
    storage_problem, free_gb = None, 0.0
    try:
        (folder / "driver").stat()
        (folder / name).touch()
        free_gb = shutil.disk_usage(folder).free / 1e9
    except OSError as error:
        storage_problem = str(error)
    return {
        "mark": name,
        "versions": versions(),
        "storage_problem": storage_problem,
        "tracking_problem": unreachable(tracking_uri),
        "free_gb": free_gb,
        "clock": clock,
    }


def unreachable(uri: str) -> str | None:
    """Return why `uri` gives no HTTP answer, else None; a password request is an answer."""
    try:
        urllib.request.urlopen(masked(uri), timeout=5).close()
    except urllib.error.HTTPError:
        return None
    except (OSError, HTTPException, ValueError) as error:  # no server, no HTTP, no address
        return str(error)
    return None


def _node(name: str, answer: dict[str, Any], asked: float, probe: Path) -> Node:
    answered = time.time()
    clock, mark = answer.pop("clock"), answer.pop("mark")
    if answer["storage_problem"] is None and not (probe / mark).exists():
        answer["storage_problem"] = "its files are not visible on this machine"
    ahead = max(0.0, clock - answered) or min(0.0, clock - asked)
    return Node(name=name, clock_ahead=ahead, **answer)


def admits_strangers(address: str) -> bool:
    """Return True if the cluster answers a client without a token."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH_")}
    command = [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", address]
    done = subprocess.run(
        command,
        env=environment | {"RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        timeout=_PATIENCE,
        check=False,
    )
    return done.returncode == 0
