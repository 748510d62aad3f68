"""`up` and `down` where there is no engine, and the secrets that `up` makes."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import containers


@pytest.mark.parametrize("command", ["up", "down"])
def test_without_an_engine_it_says_what_to_install(
    aae: Callable[..., Any], command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("AAE_SECRETS", str(tmp_path / "secrets"))
    ended = aae(command)
    assert ended.code == 4
    assert "install Docker Engine" in ended.err
    assert not (tmp_path / "secrets").exists()


def test_secrets_are_made_once_and_for_their_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    containers._make_secrets(folder, os.getuid())
    made = {path.name: path.read_text() for path in folder.iterdir()}
    assert len(set(made.values())) == len(made)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    (folder / "ray_token").unlink()
    containers._make_secrets(folder, os.getuid())
    again = {path.name: path.read_text() for path in folder.iterdir()}
    assert {name for name in made if made[name] != again[name]} == {"ray_token"}
