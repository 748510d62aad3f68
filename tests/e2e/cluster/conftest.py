import subprocess
from collections.abc import Iterator

import pytest
from compose_cluster import Cluster


@pytest.fixture(scope="session")
def engine() -> None:
    try:
        subprocess.run(["docker", "info"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no Docker engine answers `docker info`")


@pytest.fixture(scope="session")
def cluster(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.compose(
            "--profile", "commands", "down", "--volumes", "--remove-orphans", "--timeout=1"
        )
