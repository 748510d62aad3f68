"""Settings: every home has databases of its own, and a home that cannot be meant is refused."""

import os
from pathlib import Path

import pytest
from sqlalchemy import make_url

from orchestrator.errors import EnvironmentUnusable
from orchestrator.settings import Settings
from orchestrator.study.database import sqlite_file, url_of
from orchestrator.study.lock import held, is_held

ODD = ["why?x=1", "a#b", "100%41", "a b+c", "é:x@y", "br{a}ce;&", "x://y"]


@pytest.mark.parametrize("name", ["plain-home_1.0", *ODD])
def test_databases_lie_in_a_home_with_any_characters(tmp_path: Path, name: str) -> None:
    home = tmp_path / name
    settings = Settings.from_environment({"AAE_HOME": str(home)})
    assert sqlite_file(url_of(settings)) == home / "studies.db"
    assert make_url(settings.tracking_uri).database == str(home / "mlflow.db")


def test_address_of_a_plain_home_is_its_path(tmp_path: Path) -> None:
    settings = Settings.from_environment({"AAE_HOME": str(tmp_path)})
    assert settings.study_uri == f"sqlite:///{tmp_path}/studies.db"
    assert settings.tracking_uri == f"sqlite:///{tmp_path}/mlflow.db"


def test_lock_of_homes_that_differ_after_a_question_mark_is_not_shared(tmp_path: Path) -> None:
    here, there = (
        Settings.from_environment({"AAE_HOME": str(tmp_path / f"why?x={n}")}) for n in (1, 2)
    )
    with held(here, "a"):
        assert is_held(here, "a")
        assert not is_held(there, "a")


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("sqlite:////q/why%3Fx%3D1/s.db", "/q/why?x=1/s.db"),
        ("sqlite:////q/a#b/s.db", "/q/a#b/s.db"),
        ("sqlite:////q/s.db?timeout=5", "/q/s.db"),
        ("sqlite:///file:/q/100%2525/s.db?uri=true", "/q/100%/s.db"),
        ("sqlite:///:memory:", None),
        ("postgresql+psycopg://u:p@host/studies", None),
    ],
)
def test_sqlite_file_is_the_path_that_the_address_names(address: str, path: str | None) -> None:
    settings = Settings.from_environment({"AAE_STUDY_URI": address})
    assert sqlite_file(url_of(settings)) == (None if path is None else Path(path))


@pytest.mark.parametrize("name", ["AAE_STUDY_URI", "MLFLOW_TRACKING_URI"])
@pytest.mark.parametrize("options", ["x=1/s.db", "timeout=1/s.db", "y.db", "x"])
def test_path_that_reads_as_an_option_is_refused(name: str, options: str) -> None:
    with pytest.raises(EnvironmentUnusable, match=rf"{name}: .*\nwrite %3F") as caught:
        Settings.from_environment({name: f"sqlite:////q/why?{options}"})
    assert f"`{options}`" in str(caught.value)


@pytest.mark.parametrize("name", ["AAE_HOME", "AAE_DATA"])
def test_unusable_folder_is_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    for folder, reason in {
        "file": "Not a directory",
        "file/below": "Not a directory",
        "loop": "loop",
        "x" * 300: "File name too long",
        os.fsdecode(b"\xe9t"): "not UTF-8",
    }.items():
        with pytest.raises(EnvironmentUnusable, match=f"{name}=.*{reason}"):
            Settings.from_environment({name: str(tmp_path / folder)})
