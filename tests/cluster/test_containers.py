"""`aae-sweep up` for real: what it starts, whom it admits, a sweep that loses a worker and a night.

The tests build on each other, in this order.
"""

import base64
import configparser
import json
import socket
import stat
import subprocess
import time
import urllib.error
import urllib.request
from typing import Any

import pytest
from compose_cluster import EPOCHS, Cluster

pytestmark = pytest.mark.timeout(1800)
API = "/api/2.0/mlflow/experiments/search?max_results=1"
SERVICES = {"head", "worker", "mlflow", "db", "databases"}


def ask_mlflow(
    cluster: Cluster, authorization: str | None = None, host: str = "127.0.0.1", **headers: str
) -> int:
    """The status of its answer."""
    if authorization is not None:
        headers["Authorization"] = "Basic " + base64.b64encode(authorization.encode()).decode()
    url = f"http://{host}:{cluster.port}{API}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def login(cluster: Cluster) -> str:
    secret = configparser.ConfigParser()
    secret.read(cluster.secrets / "mlflow_auth")
    return f"{secret['mlflow']['admin_username']}:{secret['mlflow']['admin_password']}"


def test_all_is_up_and_healthy(cluster: Cluster) -> None:
    described = cluster.containers()
    services = [c["Config"]["Labels"]["com.docker.compose.service"] for c in described]
    assert sorted(services) == sorted([*SERVICES, "worker"])
    for service, container in zip(services, described, strict=True):
        state = container["State"]
        if service == "databases":
            assert (state["Status"], state["ExitCode"]) == ("exited", 0)
        else:
            assert state["Health"]["Status"] == "healthy", service


def test_secrets_are_for_their_owner_alone(cluster: Cluster) -> None:
    assert stat.S_IMODE(cluster.secrets.stat().st_mode) == 0o700
    modes = {stat.S_IMODE(path.stat().st_mode) for path in cluster.secrets.iterdir()}
    assert modes == {0o600}
    assert len(cluster.secret_values()) == 6


def test_no_secret_shows(cluster: Cluster) -> None:
    """Neither in what the engine tells of containers and images, nor in a log."""
    described = cluster.containers()
    images = {container["Image"] for container in described}
    told = json.dumps(described)
    told += "".join(cluster.docker("history", "--no-trunc", image) for image in images)
    told += cluster.docker("inspect", *images) + cluster.compose("logs").stdout
    told += cluster.compose("config").stdout
    for value in cluster.secret_values():
        assert value not in told


def test_containers_may_do_little(cluster: Cluster) -> None:
    for container in cluster.containers():
        host = container["HostConfig"]
        assert host["CapDrop"] == ["ALL"]
        assert not host["CapAdd"]
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        assert host["ReadonlyRootfs"]
        assert not host["Privileged"]
        assert container["Config"]["User"] in ("aae", "postgres")


def test_only_mlflow_is_published_and_on_loopback_alone(cluster: Cluster) -> None:
    published = {
        (binding["HostIp"], binding["HostPort"])
        for container in cluster.containers()
        for bindings in container["NetworkSettings"]["Ports"].values()
        for binding in bindings or ()
    }
    assert published == {("127.0.0.1", str(cluster.port))}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # nothing is sent: which address would be ours?
        elsewhere = probe.getsockname()[0]
    with (
        pytest.raises(ConnectionRefusedError),
        socket.create_connection((elsewhere, cluster.port), timeout=5),
    ):
        pass


def test_all_but_mlflow_are_on_the_internal_network(cluster: Cluster) -> None:
    for container in cluster.containers():
        networks = sorted(
            name.rpartition("_")[2] for name in container["NetworkSettings"]["Networks"]
        )
        service = container["Config"]["Labels"]["com.docker.compose.service"]
        assert networks == (["inside", "outside"] if service == "mlflow" else ["inside"])
    inside = f"{cluster.environment['COMPOSE_PROJECT_NAME']}_inside"
    assert json.loads(cluster.docker("network", "inspect", inside))[0]["Internal"]


def test_mlflow_wants_the_password_and_its_own_name(cluster: Cluster) -> None:
    assert ask_mlflow(cluster) == 401
    assert ask_mlflow(cluster, "admin:password1234") == 401
    assert ask_mlflow(cluster, login(cluster)) == 200
    assert ask_mlflow(cluster, login(cluster), Host="evil.example") == 403


@pytest.mark.parametrize(
    "token", ["RAY_AUTH_MODE=disabled", "RAY_AUTH_TOKEN_PATH=/etc/hostname"], ids=["none", "wrong"]
)
def test_ray_wants_the_token(cluster: Cluster, token: str) -> None:
    asked = ("head", "ray", "status", "--address=head:6379")
    assert "Active" in cluster.compose("exec", "-T", *asked).stdout
    refused = cluster.compose("exec", "-T", "--env", token, *asked, check=False)
    assert refused.returncode != 0
    assert "Active" not in refused.stdout


def test_postgres_keeps_mlflow_from_the_studies(cluster: Cluster) -> None:
    def enter(database: str) -> "subprocess.CompletedProcess[str]":
        psql = f"psql --no-psqlrc --host=db --username=mlflow --dbname={database} --command=''"
        command = f"PGPASSWORD=$(cut -d: -f5 /run/secrets/mlflow_pgpass) {psql}"
        asked = ("run", "--rm", "-T", "--entrypoint=sh", "databases", "-c", command)
        return cluster.compose(*asked, check=False)

    assert enter("mlflow").returncode == 0
    assert 'permission denied for database "studies"' in enter("studies").stderr


def test_doctor_finds_nothing_wrong(cluster: Cluster) -> None:
    told = cluster.sweep("doctor", "--json")
    checks = {check["check"]: check for check in json.loads(told.stdout)["checks"]}
    assert all(check["ok"] for check in checks.values()), checks
    assert {"nodes", "versions", "shared storage", "room", "tracking from nodes", "clocks"} < set(
        checks
    )
    assert checks["token"]["detail"] == "ours is accepted; without one Ray refuses"
    assert len(checks["nodes"]["detail"].split(", ")) == 2


# -- a sweep, a worker's death, a night ------------------------------------------------------


@pytest.fixture(scope="module")
def driver(cluster: Cluster) -> str:
    """The container of a sweep under way, with trials on both workers."""
    started = cluster.compose("run", "-d", "-T", "sweep", "run", "sweeps/cluster.yaml")
    driver = started.stdout.split()[-1]
    cluster.wait_for(lambda: len({t["node"] for t in under_way(cluster.trials(driver))}) == 2)
    return driver


def under_way(trials: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [t for t in trials if t["state"] == "running" and t["epochs"] >= 2]


@pytest.fixture(scope="module")
def lost(cluster: Cluster, driver: str) -> tuple[str, list[int]]:
    """A worker that is killed with trials on it: its name, their numbers."""
    trials = under_way(cluster.trials(driver))
    nodes = [trial["node"] for trial in trials]
    node = max(nodes, key=nodes.count)
    cluster.docker("kill", node)
    return node, [trial["number"] for trial in trials if trial["node"] == node]


def test_a_killed_workers_trial_goes_on_elsewhere(
    cluster: Cluster, driver: str, lost: tuple[str, list[int]]
) -> None:
    node, numbers = lost
    killed = time.monotonic()

    def resumed() -> list[dict[str, Any]]:
        return [
            t
            for t in cluster.trials(driver)
            if t["number"] in numbers and t["attempts"] > 1 and t["node"] != node
        ]

    trial = cluster.wait_for(resumed)[0]
    assert time.monotonic() - killed < 60
    assert trial["resumed_from"][0] >= 1


def test_down_leaves_what_up_takes_up_again(cluster: Cluster, driver: str) -> None:
    before = cluster.trials(driver)
    cluster.down()
    assert not cluster.containers()
    cluster.up()
    done = json.loads(cluster.sweep("run", "sweeps/cluster.yaml", "--json").stdout)
    assert (done["state"], done["unsynced"]) == ("done", 0)
    assert done["trials"]["complete"] == 4
    after = json.loads(cluster.sweep("show", "cluster", "--json").stdout)["trials"]
    assert {trial["epochs"] for trial in after} == {EPOCHS}
    for was in before:
        (now,) = (t for t in after if (t["stage"], t["number"]) == (was["stage"], was["number"]))
        assert now["resumed_from"][: len(was["resumed_from"])] == was["resumed_from"]
        assert (now["params"], now["seed"]) == (was["params"], was["seed"])
    assert max(trial["epochs_computed"] for trial in after) < 2 * EPOCHS
