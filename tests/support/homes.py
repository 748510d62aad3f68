"""Fixtures of homes, and of sweeps in them without Ray."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from straw_sweep import StrawHome, images, numbers, run, sweep, without_ray

from orchestrator.pipeline import stages
from orchestrator.settings import Settings
from orchestrator.study.study import open_storage
from orchestrator.tracking.mlflow_writer import make_store


@pytest.fixture
def straw(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StrawHome:
    """A home whose sweeps need no Ray."""
    without_ray(monkeypatch)
    return StrawHome(settings, images(tmp_path / "i.npz", test=True))


@pytest.fixture
def attentive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "_LISTENING_SECONDS", 0.01)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study database to copy: Optuna takes half a second to create its tables."""
    home = tmp_path_factory.mktemp("empty")
    open_storage(Settings.from_environment({"AAE_HOME": str(home)})).engine.dispose()
    return home / "studies.db"


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database to copy: MLflow takes seconds to create its tables."""
    settings = Settings.from_environment({"AAE_HOME": str(tmp_path_factory.mktemp("mlflow"))})
    make_store(settings.tracking_uri)
    return settings.home / "mlflow.db"


@pytest.fixture
def new_home(empty_database: Path, tmp_path: Path) -> Callable[[str], Settings]:
    """Return a function that makes a home with an empty study database."""

    def make(name: str) -> Settings:
        settings = Settings.from_environment({"AAE_HOME": str(tmp_path / name)})
        settings.home.mkdir()
        shutil.copy(empty_database, settings.home)
        return settings

    return make


@pytest.fixture
def settings(new_home: Callable[[str], Settings]) -> Settings:
    return new_home("home")


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The numbers of an uninterrupted sweep."""
    folder = tmp_path_factory.mktemp("undisturbed")
    spec = sweep(images(folder / "i.npz", test=True))
    with pytest.MonkeyPatch.context() as patch:
        without_ray(patch)
        settings = Settings.from_environment({"AAE_HOME": str(folder / "home")})
        return numbers(run(settings, spec), spec)
