"""What several modules here build on."""

from pathlib import Path

import pytest
from straw_sweep import without_ray

from orchestrator import stages
from orchestrator.settings import Settings


@pytest.fixture
def straw(monkeypatch: pytest.MonkeyPatch) -> None:
    without_ray(monkeypatch)


@pytest.fixture
def attentive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "_LISTENING_SECONDS", 0.01)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.from_environment({"AAE_HOME": str(tmp_path / "home")})
