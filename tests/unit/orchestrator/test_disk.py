"""A full disk, a real tmpfs of a few megabytes, under everything that writes to a home."""

import errno
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from small_disk import fill, small_disk
from sweep_file import make_spec

from aae_core import checkpoint
from orchestrator import disk
from orchestrator.errors import DiskFull, EnvironmentUnusable
from orchestrator.settings import Settings
from orchestrator.study.lock import held
from orchestrator.study.study import StageStudy, open_storage
from orchestrator.tracking.outbox import Outbox

SPEC = make_spec("tight", search={"objective": {"metric": "val/recon"}})


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "home", megabytes=4):
        yield tmp_path / "home"


def assert_explained(home: Path, write: Callable[[], object]) -> None:
    with pytest.raises(DiskFull, match="MB are free") as caught, disk.explaining(home):
        write()
    assert f"the disk at {home} on" in str(caught.value)


def test_writers_to_a_full_disk_raise_and_lose_nothing(home: Path) -> None:
    settings = Settings.from_environment({"AAE_HOME": str(home)})
    study = StageStudy.create(open_storage(settings), SPEC, "search")
    attempt = study.ask(SPEC)
    with Outbox(settings.outbox) as outbox:
        outbox.open_run("a", sweep_id="s", experiment="e", name="a")
        fill(home / "ballast")
        tensors = {"weights": torch.zeros(100_000)}
        assert_explained(home, lambda: checkpoint.save(home / "epoch-000001", tensors, {}))
        assert_explained(home, lambda: (home / "sweep.json").write_text("x" * 10_000))
        assert_explained(
            home,
            lambda: [
                (outbox.log("a", n, {"val/recon": 1.0}), outbox.save()) for n in range(10_000)
            ],
        )
        assert_explained(home, lambda: [study.note(name="x" * 500 + str(n)) for n in range(9999)])
        with held(settings, SPEC.sweep_id):  # as `gc` does, to make room
            pass
        (home / "ballast").unlink()
        outbox.log("a", 10_000, {"val/recon": 2.0})
        study.end(attempt.number, "complete", 1.0, None)
        assert outbox.last("a") == {"epoch": 10_000, "val/recon": 2.0}
    assert not list(home.glob("*epoch-*"))
    again = StageStudy.create(open_storage(settings), SPEC, "search")
    assert [record.state for record in again.records()] == ["complete"]


def test_error_other_than_full_disk_is_not_translated(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), disk.explaining(tmp_path):
        (tmp_path / "nowhere" / "file").write_text("")


def test_home_that_is_missing_is_not_created_by_the_check(tmp_path: Path) -> None:
    disk.require_writable(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EIO, errno.ENAMETOOLONG])
def test_home_that_refuses_files_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(**_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(disk, "TemporaryFile", refuse)
    words = re.escape(f"{tmp_path} cannot be written ({os.strerror(number)}); set AAE_HOME")
    with pytest.raises(EnvironmentUnusable, match=words):
        disk.require_writable(tmp_path)


def test_refusal_names_file_and_reason_of_the_first_cause() -> None:
    error = RuntimeError("while saving")
    error.__cause__ = OSError(errno.EIO, "Input/output error", "/q/epoch-1")
    assert disk.refusal(error) == "/q/epoch-1 cannot be used: Input/output error"
    assert disk.refusal(sqlite3.OperationalError("disk I/O error")) == (
        "a database of AAE_HOME cannot be used: disk I/O error"
    )
    assert disk.refusal(RuntimeError("a bug")) is None
    assert disk.refusal(OSError("no file is named")) is None
