"""The commands `up` and `down` without a container engine, and the secrets that `up` creates."""

import os
import stat
from pathlib import Path

import pytest
from sweep_command import aae

from orchestrator.cli import cluster as cluster_commands
from orchestrator.errors import EnvironmentUnusable


@pytest.mark.parametrize("command", ["up", "down"])
def test_up_and_down_without_engine_say_what_to_install(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("AAE_SECRETS", str(tmp_path / "secrets"))
    ended = aae(command)
    assert ended.code == 4
    assert "install Docker Engine" in ended.err
    assert not (tmp_path / "secrets").exists()


def test_secrets_are_created_once_and_only_for_their_owner(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    cluster_commands._make_secrets(folder, os.getuid(), s3=False)
    made = {path.name: path.read_text() for path in folder.iterdir()}
    assert len(set(made.values())) == len(made)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    (folder / "ray_token").unlink()
    cluster_commands._make_secrets(folder, os.getuid(), s3=False)
    again = {path.name: path.read_text() for path in folder.iterdir()}
    assert {name for name in made if made[name] != again[name]} == {"ray_token"}


def test_s3_store_needs_credentials_and_limits_them_to_their_owner(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    with pytest.raises(EnvironmentUnusable, match="aws_access_key_id"):
        cluster_commands._make_secrets(folder, os.getuid(), s3=True)
    (folder / "s3_credentials").write_text("[default]\n")
    (folder / "s3_credentials").chmod(0o644)
    cluster_commands._make_secrets(folder, os.getuid(), s3=True)
    assert stat.S_IMODE((folder / "s3_credentials").stat().st_mode) == 0o600
    assert (folder / "s3_credentials").read_text() == "[default]\n"
