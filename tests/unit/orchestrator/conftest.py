"""Fixtures shared by several test modules."""

from pathlib import Path
from typing import Any

import pytest
from straw_sweep import images, numbers, run, sweep, without_ray

from orchestrator.pipeline import stages
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


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The numbers of an uninterrupted sweep."""
    folder = tmp_path_factory.mktemp("undisturbed")
    spec = sweep(images(folder / "i.npz", test=True))
    with pytest.MonkeyPatch.context() as patch:
        without_ray(patch)
        settings = Settings.from_environment({"AAE_HOME": str(folder / "home")})
        return numbers(run(settings, spec), spec)
