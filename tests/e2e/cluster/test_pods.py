"""Test the pods of docker/kuberay.yaml as local containers, started as KubeRay starts them.

The tests read what a kubelet reads: user, restrictions, environment, mounts, probes. The tests do
not cover Kubernetes itself, such as NetworkPolicies and restarts of a Job.
"""

import json
import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from compose_cluster import DOCKER, PATIENCE, Cluster
from ruamel.yaml import YAML

pytestmark = pytest.mark.timeout(1200)
Document = dict[str, Any]

MANIFEST = {doc["kind"]: doc for doc in YAML(typ="safe").load_all(DOCKER / "kuberay.yaml")}
HEAD = MANIFEST["RayCluster"]["spec"]["headGroupSpec"]
WORKER = MANIFEST["RayCluster"]["spec"]["workerGroupSpecs"][0]
DRIVER = MANIFEST["Job"]["spec"]
SERVICE = "aae-head-svc"


class Pods:
    def __init__(self, folder: Path) -> None:
        self.name = f"aae-pods-{os.getpid()}"
        self.home = folder / "home"
        self.home.mkdir()
        self.home.chmod(0o777)  # as fsGroup does
        self.secrets = folder / "secrets"
        self.secrets.mkdir()
        (self.secrets / "ray_token").write_text(secrets.token_hex(32) + "\n")  # as openssl does

    def docker(self, *words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0 or not check, f"{words}\n{done.stdout}\n{done.stderr}"
        return done

    def run(self, role: str, group: Document, command: list[str], *options: str) -> str:
        """Run the only container of a pod with the command from KubeRay or the manifest."""
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        named = [f"--name={self.name}-{role}", f"--hostname={role}", f"--network={self.name}"]
        entrypoint, *arguments = command
        given = [*named, *_locks(pod), *_environment(container), *self._mounts(pod), *options]
        return self.docker(
            "run", *given, f"--entrypoint={entrypoint}", container["image"], *arguments
        ).stdout

    def start(self, role: str, group: Document, gcs: str, *options: str, **flags: str) -> None:
        """Start a Ray pod with the command, address and shared memory that KubeRay sets."""
        shell = ["/bin/bash", "-c", "--", f"ulimit -n 65536; {_ray_start(group, flags)}"]
        given = ["--detach", "--shm-size=2g", f"--env=RAY_ADDRESS={gcs}:6379", *options]
        self.run(role, group, shell, *given)

    def wait_for(self, role: str) -> None:
        """Wait until the startup probe succeeds."""
        probe = HEAD["template"]["spec"]["containers"][0]["startupProbe"]["exec"]["command"]
        deadline = time.monotonic() + PATIENCE
        while self.docker("exec", f"{self.name}-{role}", *probe, check=False).returncode:
            assert time.monotonic() < deadline, self.docker("logs", f"{self.name}-{role}")
            time.sleep(1)

    def drive(self, *arguments: str) -> str:
        return self.run("driver", DRIVER, ["driver", *arguments], "--rm")

    def remove(self) -> None:
        for role in ("driver", "worker", "head"):
            self.docker("rm", "--force", f"{self.name}-{role}", check=False)
        self.docker("network", "rm", self.name)

    def _mounts(self, pod: Document) -> Iterator[str]:
        sources = {"ray-token": self.secrets, "home": self.home, "sweeps": DOCKER.parent / "sweeps"}
        for mount in pod["containers"][0]["volumeMounts"]:
            if mount["mountPath"] == "/dev/shm":
                yield "--shm-size=3g"
            elif mount["name"] in sources:
                suffix = ":ro" if mount.get("readOnly") else ""
                yield f"--volume={sources[mount['name']]}:{mount['mountPath']}{suffix}"
            else:
                yield f"--tmpfs={mount['mountPath']}"


def _locks(pod: Document) -> Iterator[str]:
    (container,) = pod["containers"]
    user, locks = pod["securityContext"], container["securityContext"]
    yield f"--user={user['runAsUser']}:{user['runAsGroup']}"
    yield f"--read-only={str(locks['readOnlyRootFilesystem']).lower()}"
    yield from (f"--cap-drop={capability}" for capability in locks["capabilities"]["drop"])
    yield f"--security-opt=no-new-privileges={str(not locks['allowPrivilegeEscalation']).lower()}"


def _environment(container: Document) -> Iterator[str]:
    configured = MANIFEST["ConfigMap"]["data"]
    named = {each["name"]: each["value"] for each in container["env"]}
    yield from (f"--env={name}={value}" for name, value in (configured | named).items())


def _ray_start(group: Document, flags: dict[str, str]) -> str:
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    flags = {
        "num-cpus": limits["cpu"],
        "metrics-export-port": "8080",
        "dashboard-agent-listen-port": "52365",
        "block": "true",
        **flags,
        **group["rayStartParams"],
    }
    words = (
        f"--{name}" if value == "true" else f"--{name}={value}" for name, value in flags.items()
    )
    return " ".join(["ray", "start", *words])


@pytest.fixture(scope="module")
def pods(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pods]:
    """Yield a head and a worker; `cluster` has built the image."""
    pods = Pods(tmp_path_factory.mktemp("pods"))
    pods.docker("network", "create", "--internal", pods.name)
    try:
        dashboard = {"dashboard-host": "0.0.0.0"}
        pods.start(
            "head", HEAD, "127.0.0.1", f"--network-alias={SERVICE}", head="true", **dashboard
        )
        pods.wait_for("head")
        pods.start("worker", WORKER, SERVICE, address=f"{SERVICE}:6379")
        pods.wait_for("worker")
        yield pods
    finally:
        pods.remove()


def test_doctor_in_the_driver_pod_reports_every_check_as_ok(pods: Pods) -> None:
    checks = {c["check"]: c for c in json.loads(pods.drive("doctor", "--json"))["checks"]}
    assert all(check["ok"] for check in checks.values()), checks
    assert checks["nodes"]["detail"] == "worker"
    assert checks["Ray"]["detail"] == "4 CPUs, 0 GPUs"
    assert checks["token"]["detail"] == "Ray accepts our token and refuses clients without one"


def test_sweep_of_the_job_runs_on_the_worker_pod(pods: Pods) -> None:
    """Test the sweep with `--smoke`."""
    (container,) = DRIVER["template"]["spec"]["containers"]
    done = json.loads(pods.drive(*container["args"], "--smoke", "--json"))
    assert (done["state"], done["unsynced"]) == ("done", 0)
    trials = json.loads(pods.drive("show", "latest", "--json"))["trials"]
    assert {trial["node"] for trial in trials} == {"worker"}
