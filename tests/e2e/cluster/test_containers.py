"""Test `aae-sweep up` for real: services, access, a sweep through lost workers and a shutdown.

The tests build on each other, in this order.
"""

import base64
import configparser
import json
import shutil
import stat
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from uuid import uuid4
from zipfile import ZipFile

import boto3
import numpy as np
import psutil
import pytest
from compose_cluster import EPOCHS, Cluster
from moto.server import ThreadedMotoServer
from sklearn.datasets import load_digits

from orchestrator.cli import cluster as cluster_commands

pytestmark = pytest.mark.timeout(1800)
API = "/api/2.0/mlflow"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
SERVICES = {"head", "worker", "mlflow", "db", "databases"}

Trials = dict[tuple[str, int], dict[str, Any]]  # by stage and number


def ask_mlflow(
    cluster: Cluster,
    path: str,
    *,
    authorization: str | None = None,
    body: bytes | None = None,
    method: str | None = None,
    **headers: str,
) -> bytes:
    """Return MLflow's answer; raise HTTPError if MLflow refuses."""
    if authorization is not None:
        headers["Authorization"] = "Basic " + base64.b64encode(authorization.encode()).decode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{cluster.port}{path}", data=body, headers=headers, method=method
    )
    with urllib.request.urlopen(request) as answer:
        output: bytes = answer.read()
    return output


def status(cluster: Cluster, authorization: str | None = None, **headers: str) -> int:
    try:
        search = f"{API}/experiments/search?max_results=1"
        ask_mlflow(cluster, search, authorization=authorization, **headers)
    except urllib.error.HTTPError as error:
        return error.code
    return 200


def login(cluster: Cluster) -> str:
    secret = configparser.ConfigParser()
    secret.read(cluster.secrets / "mlflow_auth")
    return f"{secret['mlflow']['admin_username']}:{secret['mlflow']['admin_password']}"


def test_cluster_up_starts_all_services_healthy(cluster: Cluster) -> None:
    described = cluster.containers()
    services = [c["Config"]["Labels"]["com.docker.compose.service"] for c in described]
    assert sorted(services) == sorted([*SERVICES, "worker"])
    for service, container in zip(services, described, strict=True):
        state = container["State"]
        if service == "databases":
            assert (state["Status"], state["ExitCode"]) == ("exited", 0)
        else:
            assert state["Health"]["Status"] == "healthy", service


def test_secret_files_are_readable_only_by_their_owner(cluster: Cluster) -> None:
    assert stat.S_IMODE(cluster.secrets.stat().st_mode) == 0o700
    modes = {stat.S_IMODE(path.stat().st_mode) for path in cluster.secrets.iterdir()}
    assert modes == {0o600}
    assert len(cluster.secret_values()) == 6


def test_secrets_appear_in_no_description_and_no_log(cluster: Cluster) -> None:
    """Test the engine's descriptions of containers and images, and all logs."""
    described = cluster.containers()
    images = {container["Image"] for container in described}
    output = json.dumps(described)
    output += "".join(cluster.docker("history", "--no-trunc", image) for image in images)
    output += cluster.docker("inspect", *images) + cluster.compose("logs").stdout
    output += cluster.compose("config").stdout
    for value in cluster.secret_values():
        assert value not in output


def test_containers_have_no_capabilities_and_no_root(cluster: Cluster) -> None:
    for container in cluster.containers():
        host = container["HostConfig"]
        assert host["CapDrop"] == ["ALL"]
        assert not host["CapAdd"]
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        assert host["ReadonlyRootfs"]
        assert not host["Privileged"]
        assert int(container["Config"]["User"]) > 0


def test_cluster_publishes_only_mlflow_and_only_on_loopback(cluster: Cluster) -> None:
    published = {
        (binding["HostIp"], binding["HostPort"])
        for container in cluster.containers()
        for bindings in container["NetworkSettings"]["Ports"].values()
        for binding in bindings or ()
    }
    assert published == {("127.0.0.1", str(cluster.port))}
    listening = {
        socket.laddr.ip
        for socket in psutil.net_connections("tcp")
        if socket.status == psutil.CONN_LISTEN and socket.laddr.port == cluster.port
    }
    assert listening == {"127.0.0.1"}


def test_services_except_mlflow_are_only_on_the_internal_network(cluster: Cluster) -> None:
    for container in cluster.containers():
        networks = sorted(
            name.rpartition("_")[2] for name in container["NetworkSettings"]["Networks"]
        )
        service = container["Config"]["Labels"]["com.docker.compose.service"]
        assert networks == (["inside", "outside"] if service == "mlflow" else ["inside"])
    inside = cluster.docker("network", "inspect", cluster.network("inside"))
    assert json.loads(inside)[0]["Internal"]


def test_mlflow_requires_the_password_and_its_own_host_name(cluster: Cluster) -> None:
    assert status(cluster) == 401
    assert status(cluster, "admin:password1234") == 401
    assert status(cluster, login(cluster)) == 200
    assert status(cluster, login(cluster), Host="evil.example") == 403


@pytest.mark.parametrize(
    "token", ["RAY_AUTH_MODE=disabled", "RAY_AUTH_TOKEN_PATH=/etc/hostname"], ids=["none", "wrong"]
)
def test_ray_requires_the_cluster_token(cluster: Cluster, token: str) -> None:
    asked = ("head", "ray", "status", "--address=head:6379")
    assert "Active" in cluster.compose("exec", "-T", *asked).stdout
    refused = cluster.compose("exec", "-T", "--env", token, *asked, check=False)
    assert refused.returncode != 0
    assert "Active" not in refused.stdout


def test_postgresql_denies_mlflow_the_studies_database(cluster: Cluster) -> None:
    def enter(database: str) -> "subprocess.CompletedProcess[str]":
        psql = f"psql --no-psqlrc --host=db --username=mlflow --dbname={database} --command=''"
        command = f"PGPASSWORD=$(cut -d: -f5 /run/secrets/mlflow_pgpass) {psql}"
        asked = ("run", "--rm", "-T", "--entrypoint=sh", "databases", "-c", command)
        return cluster.compose(*asked, check=False)

    assert enter("mlflow").returncode == 0
    assert 'permission denied for database "studies"' in enter("studies").stderr


def test_doctor_in_the_cluster_reports_every_check_as_ok(cluster: Cluster) -> None:
    output = cluster.sweep("doctor", "--json")
    checks = {check["check"]: check for check in json.loads(output.stdout)["checks"]}
    assert all(check["ok"] for check in checks.values()), checks
    assert {"nodes", "versions", "shared storage", "room", "tracking from nodes", "clocks"} < set(
        checks
    )
    assert checks["token"]["detail"] == "Ray accepts our token and refuses clients without one"
    assert len(checks["nodes"]["detail"].split(", ")) == 2


# -- a sweep: killed worker, restarted services, shutdown, worker out of reach -----------------


def start(cluster: Cluster) -> str:
    """Start a sweep; return its driver's container once both workers run trials."""
    started = cluster.compose("run", "-d", "-T", "sweep", "run", "sweeps/cluster.yaml")
    driver = started.stdout.split()[-1]
    workers = {container["Config"]["Hostname"] for container in cluster.containers("worker")}
    cluster.wait_for(
        lambda: {t["node"] for t in under_way(cluster.trials(driver)).values()} == workers
    )
    return driver


def under_way(trials: list[dict[str, Any]]) -> Trials:
    return {
        (t["stage"], t["number"]): t for t in trials if t["state"] == "running" and t["epochs"] >= 2
    }


def on_the_fullest(trials: Trials) -> tuple[str, Trials]:
    """Return the worker with the most trials, and those trials."""
    nodes = [trial["node"] for trial in trials.values()]
    node = max(nodes, key=nodes.count)
    return node, {key: trial for key, trial in trials.items() if trial["node"] == node}


def wait_for_another_attempt(
    cluster: Cluster, driver: str, was: Trials
) -> tuple[dict[str, Any], float]:
    """Return the first of these trials that resumes elsewhere, and the seconds until then."""
    began = time.monotonic()

    def moved() -> list[dict[str, Any]]:
        now = under_way(cluster.trials(driver))
        return [
            now[key]
            for key, trial in was.items()
            if key in now
            and now[key]["attempts"] > trial["attempts"]
            and now[key]["node"] != trial["node"]
        ]

    trial: dict[str, Any] = cluster.wait_for(moved)[0]
    return trial, time.monotonic() - began


@pytest.fixture(scope="module")
def driver(cluster: Cluster) -> str:
    return start(cluster)


@pytest.fixture(scope="module")
def lost(cluster: Cluster, driver: str) -> Trials:
    """Kill a worker and return its trials."""
    node, trials = on_the_fullest(under_way(cluster.trials(driver)))
    cluster.docker("kill", node)
    return trials


def test_trial_of_a_killed_worker_resumes_on_another(
    cluster: Cluster, driver: str, lost: Trials
) -> None:
    trial, seconds = wait_for_another_attempt(cluster, driver, lost)
    assert seconds < 60
    assert trial["resumed_from"][0] >= 1


def test_search_continues_while_database_and_mlflow_restart(cluster: Cluster, driver: str) -> None:
    def epochs() -> int:
        return sum(trial["epochs"] for trial in cluster.trials(driver))

    cluster.compose("restart", "db", "mlflow")
    before = cluster.wait_for(epochs)
    cluster.wait_for(lambda: epochs() > before)


@pytest.fixture(scope="module")
def again(cluster: Cluster, driver: str) -> tuple[list[dict[str, Any]], str]:
    """Shut the cluster down and start it again; return the earlier trials and the next driver."""
    before = cluster.trials(driver)
    assert before
    cluster.down()
    assert not cluster.containers()
    cluster.up()
    return before, start(cluster)


def test_trial_of_a_disconnected_worker_resumes_on_another(
    cluster: Cluster, again: tuple[list[dict[str, Any]], str]
) -> None:
    """Test a lost network: no connection is closed, so waiting processes receive no error."""
    _, driver = again
    node, trials = on_the_fullest(under_way(cluster.trials(driver)))
    cluster.docker("network", "disconnect", cluster.network("inside"), node)
    trial, seconds = wait_for_another_attempt(cluster, driver, trials)
    cluster.docker("network", "connect", cluster.network("inside"), node)
    assert seconds < 90
    assert trial["resumed_from"][-1] >= 1


def test_sweep_resumes_after_cluster_down_and_up(
    cluster: Cluster, again: tuple[list[dict[str, Any]], str]
) -> None:
    before, driver = again
    assert cluster.docker("wait", driver).strip() == "0", cluster.docker("logs", driver)
    done = json.loads(cluster.sweep("run", "sweeps/cluster.yaml", "--json").stdout)
    assert (done["state"], done["unsynced"]) == ("done", 0)
    after = json.loads(cluster.sweep("show", "cluster", "--json").stdout)["trials"]
    assert [trial["state"] for trial in after] == ["complete"] * 4
    assert {trial["epochs"] for trial in after} == {EPOCHS}
    for was in before:
        (now,) = (t for t in after if (t["stage"], t["number"]) == (was["stage"], was["number"]))
        assert now["resumed_from"][: len(was["resumed_from"])] == was["resumed_from"]
        assert (now["params"], now["seed"]) == (was["params"], was["seed"])
    assert max(trial["epochs_computed"] for trial in after) < 2 * EPOCHS


def test_commands_that_a_driver_prints_run_on_the_host(cluster: Cluster, tmp_path: Path) -> None:
    output = cluster.sweep("status", "cluster").stdout
    printed = {line.split()[0]: line.split(maxsplit=1)[1] for line in output.splitlines()[1:]}
    ended = {
        name: subprocess.run(
            ["sh", "-c", printed[name]],
            cwd=tmp_path,
            env=cluster.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
        )
        for name in ("again", "report")
    }
    assert "is done; nothing to run" in ended["again"].stderr
    assert "</html>" in (tmp_path / "report.html").read_text()


def test_mlflow_has_every_epoch_of_every_trial(cluster: Cluster) -> None:
    def ask(path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        output = ask_mlflow(cluster, API + path, authorization=login(cluster), body=data, **headers)
        answer: dict[str, Any] = json.loads(output)
        return answer

    (experiment,) = ask("/experiments/get-by-name?experiment_name=cluster").values()
    wanted = {"experiment_ids": [experiment["experiment_id"]], "max_results": 100}
    runs = {r["info"]["run_name"]: r["info"]["run_id"] for r in ask("/runs/search", wanted)["runs"]}
    for trial in ("search-0000", "search-0001", "search-0002", "confirm-0000"):
        query = f"run_id={runs[trial]}&metric_key=val/recon&max_results=1000"
        history = ask(f"/metrics/get-history?{query}")["metrics"]
        assert sorted(int(value["step"]) for value in history) == list(range(1, EPOCHS + 1))


def test_parzen_runs_on_both_workers_after_a_reconnection(cluster: Cluster) -> None:
    images = (load_digits().data / 16).astype("float32")
    np.save(cluster.sweeps / "test.npy", images[:300])
    np.save(cluster.sweeps / "valid.npy", images[300:500])
    files = ("--test", "sweeps/test.npy", "--valid", "sweeps/valid.npy")
    asked = ("sweep", "parzen", "cluster", "-n", "1000000", *files)
    driver = cluster.compose("run", "-d", "-T", *asked).stdout.split()[-1]
    workers = [container["Id"] for container in cluster.containers("worker")]
    assert len(workers) == 2
    cluster.wait_for(
        lambda: all("ray::_Actor.score" in cluster.docker("top", worker) for worker in workers)
    )
    assert cluster.docker("wait", driver).strip() == "0", cluster.docker("logs", driver)


# -- the image and its options -----------------------------------------------------------------


def test_image_is_at_most_2500_megabytes(cluster: Cluster) -> None:
    (worker, _) = cluster.containers("worker")
    (image,) = json.loads(cluster.docker("image", "inspect", worker["Image"]))
    assert image["Size"] <= 2.5e9


def test_image_holds_the_shipped_sweeps(cluster: Cluster) -> None:
    said = cluster.sweep("validate", "likelihood_mnist_two_cores").stdout
    assert said.startswith("likelihood_mnist_two_cores is valid")


def test_image_rebuild_after_a_source_change_installs_no_package(
    cluster: Cluster, tmp_path: Path
) -> None:
    context = tmp_path / "image"
    shutil.copytree(cluster.folder / "image", context)
    [wheel] = context.glob("*.whl")
    with ZipFile(wheel, "a") as archive:  # unique, so in no cache from an earlier build
        archive.writestr("aae_core/changed.py", f"# {uuid4()}\n")
    cluster.environment["AAE_WHEELS"] = cluster_commands._wheels()
    head = json.loads(cluster.compose("config", "--format=json").stdout)["services"]["head"]
    built = head["build"]
    arguments = [f"--build-arg={name}={value}" for name, value in built["args"].items()]
    done = subprocess.run(
        [
            *("docker", "build", "--progress=plain", f"--target={built['target']}"),
            "--secret=id=pip_conf,src=/dev/null",
            f"--build-context=wheels={built['additional_contexts']['wheels']}",
            *(*arguments, context),
        ],
        env=cluster.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line.split(maxsplit=1) for line in done.stderr.splitlines() if line.startswith("#")]
    cached = {number for number, rest in lines if rest == "CACHED"}
    installed = {number for number, rest in lines if "pip install" in rest}
    changed = {number for number, rest in lines if "COPY *.whl" in rest}
    assert len(installed) == 2
    assert installed <= cached
    assert changed
    assert not changed & cached


def test_mlflow_artifacts_can_go_to_an_s3_store(cluster: Cluster) -> None:
    """Test a store on this machine, at an address that containers reach: the network's gateway."""
    outside = json.loads(cluster.docker("network", "inspect", cluster.network("outside")))
    store = ThreadedMotoServer(ip_address=outside[0]["IPAM"]["Config"][0]["Gateway"], port=0)
    store.start()
    host, port = store.get_host_and_port()
    keys = {"aws_access_key_id": "somebody", "aws_secret_access_key": "nobody knows"}
    where = keys | {"endpoint_url": f"http://{host}:{port}"}
    s3 = boto3.client("s3", region_name="us-east-1", **where)
    s3.create_bucket(Bucket="bucket")
    lines = [f"{name} = {value}" for name, value in where.items()]
    (cluster.secrets / "s3_credentials").write_text("\n".join(["[default]", *lines]))
    cluster.environment |= {
        "COMPOSE_FILE": f"{cluster.folder}/compose.yaml:{cluster.folder}/compose.s3.yaml",
        "AAE_ARTIFACTS": "s3://bucket/artifacts",
    }
    cluster.up()
    path, mine = f"{ARTIFACTS}/deep/picture.txt", {"authorization": login(cluster)}
    ask_mlflow(cluster, path, body=b"a picture", method="PUT", **mine)
    assert ask_mlflow(cluster, path, **mine) == b"a picture"
    stored = s3.get_object(Bucket="bucket", Key="artifacts/deep/picture.txt")
    assert stored["Body"].read() == b"a picture"
    store.stop()
