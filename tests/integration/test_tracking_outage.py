"""MLflow's server is away for a whole sweep, whose driver is killed too: `sync` brings it all."""

import math
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from sweep_command import COMMAND, PATIENCE, Bench, workers_of

from orchestrator.history import run_key
from orchestrator.settings import Settings
from orchestrator.spool import Spool
from orchestrator.tracking import RUN_KEY_TAG, ui_command

EPOCHS = 10
OUTAGE = f"""
name: outage
data: {{name: digits}}
model: {{hidden: [500, 500], code_dim: 4, init_std: 0.05}}
training:
  epochs: {EPOCHS}
  batch_size: 25
  reconstruction: {{optimizer: adam, lr: 1e-3}}
  adversarial: {{optimizer: sgd, lr: 1e-2}}
search:
  sampler: {{kind: random}}
  objective: {{metric: val/recon}}
  trials: 2
  space:
    model.prior.std: {{float: [0.5, 4], log: true}}
confirm: {{seeds: 1}}
evaluate: {{parzen: {{samples: 10_000, screen_samples: 10_000}}}}
"""
NOTHING = {"runs": 0, "metrics": 0, "artifacts": 0}


class Outage(Bench):
    """A sweep whose tracking server has an address, but is up only within `serving`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, OUTAGE)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.settings = replace(self.settings, tracking_uri=self.url)

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | {"MLFLOW_TRACKING_URI": self.url}

    @contextmanager
    def serving(self) -> Iterator[MlflowClient]:
        server = Settings.from_environment({"AAE_HOME": str(self.folder / "server")})
        server.home.mkdir(exist_ok=True)
        command, environment = ui_command(server, self.port)
        with subprocess.Popen(
            command,
            env=self.environment | environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            try:
                while not answers(f"{self.url}/health"):
                    assert process.poll() is None
                    time.sleep(0.1)
                yield MlflowClient(self.url)
            finally:
                os.killpg(process.pid, signal.SIGKILL)

    def sync(self) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [COMMAND, "sync", "outage"], env=self.environment, capture_output=True, text=True
        )

    def waiting(self) -> dict[str, int]:
        with Spool(self.settings.spool, read_only=True) as spool:
            return spool.waiting(self.sweep)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def runs_by_key(client: MlflowClient) -> dict[str, Run]:
    """What MLflow has; fails when a run is there twice."""
    experiment = client.get_experiment_by_name("outage")
    assert experiment is not None
    runs = list(client.search_runs([experiment.experiment_id]))
    by_key = {run.data.tags[RUN_KEY_TAG]: run for run in runs}
    assert len(by_key) == len(runs)
    return by_key


def assert_same(client: MlflowClient, bench: Outage) -> None:
    """Run for run and point for point, MLflow has what the spool has, once."""
    found = runs_by_key(client)
    with Spool(bench.settings.spool, read_only=True) as spool:
        noted = spool.runs(bench.sweep)
        assert set(found) == {run.key for run in noted}
        for run in noted:
            mlflow_run = found[run.key]
            assert mlflow_run.info.status == run.status
            points = [
                (name, row["epoch"], value)
                for row in spool.history(run.key)
                for name, value in row.items()
                if name != "epoch" and math.isfinite(value)
            ]
            stored = [
                (metric.key, metric.step, metric.value)
                for name in mlflow_run.data.metrics
                for metric in client.get_metric_history(mlflow_run.info.run_id, name)
            ]
            assert sorted(stored) == sorted(points)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Outage:
    """A driver was killed in the middle of a trial; no server has ever been there."""
    bench = Outage(tmp_path_factory.mktemp("outage"))
    with bench.started() as process:
        bench.wait_for(
            process,
            lambda records: any(
                r.state == "running" and 2 <= r.epochs < EPOCHS - 3 for r in records
            ),
        )
        workers = workers_of(process)
        process.kill()
    deadline = time.monotonic() + PATIENCE
    while any(Path(f"/proc/{pid}").exists() for pid in workers):  # Ray dies with its driver
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return bench


@pytest.fixture(scope="module")
def ended(killed: Outage) -> Outage:
    """The same sweep at its end, the server still or again away."""
    done = killed.run()
    assert done.returncode == 0, done.stderr
    assert "MLflow has not everything yet" in done.stderr
    return killed


def test_without_the_server_sync_says_what_waits(killed: Outage) -> None:
    before = killed.waiting()
    assert before["metrics"] > 0
    done = killed.sync()
    assert done.returncode == 4
    assert f"MLflow at {killed.url} did not take everything" in done.stderr
    assert f"{before['metrics']} metrics" in done.stderr
    assert killed.waiting() == before


def test_what_a_killed_driver_left_as_running_ends_as_killed(killed: Outage) -> None:
    with killed.serving() as client:
        sent: dict[str, Any] = killed.ask("sync", "outage")["sent"]
        assert_same(client, killed)
        runs = runs_by_key(client)
        assert runs[killed.sweep].info.status == "KILLED"
        assert {run.info.status for run in runs.values()} <= {"KILLED", "FINISHED"}
        assert sent["runs"] == len(runs)
        assert killed.ask("sync", "outage")["sent"] == NOTHING
        assert_same(client, killed)


def test_every_metric_of_a_sweep_without_server_arrives(ended: Outage) -> None:
    records = ended.trials()
    assert {r.state for r in records} == {"complete"}
    waited = ended.waiting()
    assert waited["metrics"] > 0
    with ended.serving() as client:
        assert ended.ask("sync", "outage") == {"sweep": ended.sweep, "killed": 0, "sent": waited}
        assert ended.waiting() == NOTHING
        assert_same(client, ended)
        assert ended.sync().stdout == "nothing waited\n"
        assert_same(client, ended)
        runs = runs_by_key(client)
        assert len(runs) == 1 + len(records)
        assert {run.info.status for run in runs.values()} == {"FINISHED"}
        for r in records:
            run_id = runs[run_key(ended.sweep, r.stage, r.number)].info.run_id
            curve = client.get_metric_history(run_id, "val/recon")
            assert sorted(metric.step for metric in curve) == list(range(1, EPOCHS + 1))
