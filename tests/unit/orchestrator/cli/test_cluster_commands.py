"""The commands `up` and `down` without a container engine."""

from pathlib import Path

import pytest
from sweep_command import aae


@pytest.mark.parametrize("command", ["up", "down"])
def test_up_and_down_without_engine_say_what_to_install(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    ended = aae(command)
    assert ended.code == 4
    assert "install Docker Engine" in ended.err
    assert not [*tmp_path.iterdir()]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cluster's folder, with an engine that answers `docker info`."""
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\necho 2\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))
    return tmp_path / "configuration" / "aae-sweep" / "cluster"


def test_up_with_relative_compose_files_names_their_absolute_paths(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / ".env").write_text("COMPOSE_FILE=compose.yaml:compose.gpu.yaml\n")
    ended = aae("up")
    assert ended.code == 4
    assert f"COMPOSE_FILE={folder}/compose.yaml:{folder}/compose.gpu.yaml" in ended.err
    assert not (folder / "secrets").exists()


@pytest.mark.usefixtures("folder")
def test_down_without_a_cluster_says_that_there_is_none() -> None:
    ended = aae("down")
    assert ended.code == 0
    assert "there is nothing to stop" in ended.err
