"""A sweep with an MLflow server to start and stop, and a check of server against outbox."""

import math
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from sweep_command import PATIENCE, Bench, Outcome, free_port

from orchestrator.records import SYSTEM
from orchestrator.settings import Settings
from orchestrator.tracking.mlflow_writer import RUN_KEY_TAG, ui_command
from orchestrator.tracking.outbox import Outbox


class TrackedBench(Bench):
    """A sweep whose tracking server is up only between `start_server` and `stop_server`.

    The server's address and data outlast each run.
    """

    def __init__(self, folder: Path, sweep_file: str) -> None:
        super().__init__(folder, sweep_file)
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self.settings = replace(self.settings, tracking_uri=self.url)
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | {"MLFLOW_TRACKING_URI": self.url}

    @property
    def serves(self) -> bool:
        return self._server is not None

    def start_server(self) -> None:
        """Start the server, which answers a few seconds later."""
        server = Settings.from_environment({"AAE_HOME": str(self.folder / "server")})
        server.home.mkdir(exist_ok=True)
        command, environment = ui_command(server, self._port)
        self._server = subprocess.Popen(
            command,
            env=self.environment | environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def stop_server(self) -> None:
        """Kill the server at once."""
        if self._server is not None:
            os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait()
            self._server = None

    @contextmanager
    def serving(self) -> Iterator[MlflowClient]:
        """Yield a client of the server, which runs for the length of a `with`."""
        if self._server is None:
            self.start_server()
        deadline = time.monotonic() + PATIENCE
        try:
            while not _answers(f"{self.url}/health"):
                assert self._server.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield MlflowClient(self.url)
        finally:
            self.stop_server()

    def sync(self) -> Outcome:
        return self.here("sync", self.sweep)

    @property
    def experiment(self) -> str:
        return self.sweep.rpartition("-")[0]

    def runs(self, client: MlflowClient) -> dict[str, Run]:
        return runs_by_key(client, self.experiment)

    def assert_same(self, client: MlflowClient) -> None:
        with Outbox(self.settings.outbox, read_only=True) as outbox:
            assert_same(client, outbox, self.experiment)

    def waiting(self) -> dict[str, int]:
        with Outbox(self.settings.outbox, read_only=True) as outbox:
            return outbox.waiting(self.sweep)


def runs_by_key(client: MlflowClient, experiment: str) -> dict[str, Run]:
    """Return MLflow's runs of an experiment by run key; fail if a run is given twice."""
    found = client.get_experiment_by_name(experiment)
    runs = list(client.search_runs([found.experiment_id]))
    by_key = {run.data.tags[RUN_KEY_TAG]: run for run in runs}
    assert len(by_key) == len(runs)
    return by_key


def assert_same(client: MlflowClient, outbox: Outbox, experiment: str) -> None:
    """Assert that MLflow has every run and every metric point of the outbox exactly once."""
    found = runs_by_key(client, experiment)
    assert set(found) == {run.key for run in outbox.runs()}
    for run in outbox.runs():
        mlflow_run = found[run.key]
        assert mlflow_run.info.status == run.status
        points = [
            (name, row["epoch"], value)
            for row in outbox.history(run.key)
            for name, value in row.items()
            if name != "epoch" and math.isfinite(value)
        ]
        stored = [
            (metric.key, metric.step, metric.value)
            for name in mlflow_run.data.metrics
            if not name.startswith(SYSTEM)
            for metric in client.get_metric_history(mlflow_run.info.run_id, name)
        ]
        assert sorted(stored) == sorted(points)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
