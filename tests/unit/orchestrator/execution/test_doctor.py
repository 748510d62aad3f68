from pathlib import Path

import pytest

from orchestrator.execution import cluster, doctor
from orchestrator.settings import Settings


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")  # Ray's own
def test_doctor_examines_versions_storage_clock_and_tracking_of_a_node(tmp_path: Path) -> None:
    nobody = "http://127.0.0.1:9"
    settings = Settings.from_environment(
        {"AAE_HOME": str(tmp_path / "home"), "MLFLOW_TRACKING_URI": nobody}
    )
    with cluster.connected(settings):
        (node,) = doctor.examine(settings)
    assert node.versions == doctor.versions()
    assert node.storage_problem is None
    assert node.free_gb > 0
    assert abs(node.clock_ahead) < 1
    assert node.tracking_problem is not None
    assert not list(settings.home.iterdir())
