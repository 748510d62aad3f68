"""Test that a new home whose first drivers are killed still ends with every run in MLflow.

`make chaos ROUNDS=…` kills more of them.
"""

import os
import signal
import subprocess
from random import Random

import pytest
from mlflow.tracking import MlflowClient
from sweep_command import Bench
from sweep_file import make_text
from tracking_server import assert_same

from orchestrator.tracking.outbox import Outbox

START = 12.0  # seconds in which a driver makes its databases, locks, folders and its Ray
ROUNDS = int(os.environ.get("CHAOS_ROUNDS", 0))
KILLS = 20 if ROUNDS else 4


@pytest.mark.parametrize("seed", range(max(ROUNDS, 1)))
def test_new_home_survives_kills_at_any_moment_of_its_first_starts(
    seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    draw = Random(seed)
    small = {"parzen": {"samples": 10_000, "screen_samples": 10_000}}
    bench = Bench(tmp_path_factory.mktemp("new"), make_text(seed=seed, evaluate=small))
    for seconds in sorted(draw.uniform(0.3, START) for _ in range(KILLS)):
        with bench.started() as driver:
            try:
                driver.wait(seconds)
            except subprocess.TimeoutExpired:
                os.killpg(driver.pid, signal.SIGKILL)
            else:
                assert driver.returncode == 0, driver.communicate()
    done = bench.run()
    assert done.code == 0, done.err
    status = bench.ask("status", "tiny")
    assert (status["state"], status["unsynced"]) == ("done", 0)
    assert set(bench.mlflow_states().values()) == {"FINISHED"}
    with Outbox(bench.settings.outbox, read_only=True) as outbox:
        assert_same(MlflowClient(bench.settings.tracking_uri), outbox, "tiny")
