"""Ray on this machine: a plan's trials, the doctor's view of a node, and SIGTERM as Ray starts."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import torch
from sweep_file import make_spec

from aae_core.errors import TrialDiverged
from orchestrator.execution import doctor
from orchestrator.pipeline.plan import estimate
from orchestrator.settings import Settings

PLACES = 3  # more than this machine may have CPUs


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Yield the settings of a home, with Ray running and no server at the tracking address."""
    environment = {
        "AAE_HOME": str(tmp_path_factory.mktemp("home")),
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
    }
    ray.init(num_cpus=PLACES, include_dashboard=False, log_to_driver=False)
    yield Settings.from_environment(environment)
    ray.shutdown()


def test_plan_counts_places_of_the_cluster_and_leaves_this_process_alone(
    settings: Settings,
) -> None:
    threads = torch.get_num_threads()
    spec = make_spec(search=None, training={"epochs": 3}, confirm={"seeds": 7})
    document = estimate(spec, settings)
    assert document["parallel"] == PLACES
    assert document["where"].endswith(f"{PLACES} at once, 1 CPU each")
    confirm = document["stages"]["confirm"]
    assert confirm["seconds"] == pytest.approx(3 * 3 * document["epoch_seconds"])  # 7 on 3 places
    assert torch.get_num_threads() == threads


def test_plan_raises_the_error_that_ends_its_timed_trial(settings: Settings) -> None:
    with pytest.raises(TrialDiverged):
        estimate(make_spec(training={"reconstruction": {"lr": 1e38}}), settings)


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")  # Ray's own
def test_doctor_examines_versions_storage_clock_and_tracking_of_a_node(settings: Settings) -> None:
    (node,) = doctor.examine(settings)
    assert node.versions == doctor.versions()
    assert node.storage_problem is None
    assert node.free_gb > 0
    assert abs(node.clock_ahead) < 1
    assert node.tracking_problem is not None
    assert not list(settings.home.iterdir())


# Run in a separate process: the signal stack of a test runner's fault handler is too small for a
# storm of signals on a processor with large registers.
STORM = """
import os, signal, sys, threading, time
from orchestrator.execution import cluster
from orchestrator.settings import Settings

received, over = [], threading.Event()
signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))

def send():
    while not over.wait(0.01):
        os.kill(os.getpid(), signal.SIGTERM)

sender = threading.Thread(target=send)
sender.start()
with cluster.connected(Settings.from_environment({"AAE_HOME": sys.argv[1]})):
    over.set()
    sender.join()
    assert len(received) > 10, received
    time.sleep(4)  # an alarm that a signal has set
    received.clear()
    os.kill(os.getpid(), signal.SIGTERM)
    assert received
received.clear()
os.kill(os.getpid(), signal.SIGTERM)
assert received
print("alive")
"""


def test_sigterm_during_and_after_ray_start_reaches_own_handler(tmp_path: Path) -> None:
    command = [sys.executable, "-c", STORM, str(tmp_path / "home")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (ended.returncode, ended.stdout) == (0, "alive\n"), ended.stderr
