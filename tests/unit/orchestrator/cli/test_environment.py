"""Unusable environments: a message with the remedy, exit code 4, and nothing started."""

import gzip
import os
import re
import struct
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from sweep_command import aae

from aae_core.data import fetch
from aae_core.data.mnist import MNIST
from orchestrator.cli import environment
from orchestrator.errors import EnvironmentUnusable
from orchestrator.execution.doctor import Node, versions

IMAGES = "train-images-idx3-ubyte"


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """A folder of four files with valid headers and no data."""
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    for split in (MNIST.train, MNIST.test):
        for file in (split.images, split.labels):
            (folder / file.name).write_bytes(file.header)
    return folder


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str, path: Path) -> None:
        raise ConnectionError

    monkeypatch.setattr(fetch, "_download", refuse)


def header(*dimensions: int, magic: int = 0x0803) -> bytes:
    return struct.pack(f">I{len(dimensions)}I", magic, *dimensions)


DAMAGED = {
    "truncated": (header(60_000, 28, 28) + bytes(1000), "only 1000 bytes of data"),
    "wrong magic": (header(60_000, 28, 28, magic=0xDEADBEEF), "begins with 0xdeadbeef"),
    "absurd dimensions": (header(2**32 - 1, 2**32 - 1, 28), "dimensions [4294967295, 4294967295"),
    "too much": (gzip.compress(header(60_000, 28, 28) + bytes(48_000_000)), "bytes of data"),
    "other pixels": (gzip.compress(header(60_000, 28, 28) + bytes(47_040_000)), "sha256"),
    "empty": (b"", "begins with"),
}


@pytest.mark.parametrize("command", ["train", "run", "plan"])
@pytest.mark.parametrize(("content", "words"), DAMAGED.values(), ids=DAMAGED.keys())
def test_commands_name_a_damaged_data_file(
    sweep_file: Path, mnist: Path, home: Path, command: str, content: bytes, words: str
) -> None:
    (mnist / IMAGES).write_bytes(content)
    ended = aae(command, sweep_file, "--set", "data.name=mnist")
    assert (ended.code, ended.out) == (4, "")
    assert str(mnist / IMAGES) in ended.err
    assert words in ended.err
    assert "aae-sweep data fetch mnist" in ended.err
    assert not home.exists()


@pytest.mark.parametrize("command", ["train", "run", "plan"])
@pytest.mark.usefixtures("no_network")
def test_commands_without_data_and_network_name_the_remedies(
    sweep_file: Path, tmp_path: Path, home: Path, command: str
) -> None:
    ended = aae(command, sweep_file, "--set", "data.name=mnist")
    assert (ended.code, ended.out) == (4, "")
    for word in (f"{IMAGES}.gz", str(tmp_path / "data" / "mnist"), "AAE_DATA", "digits"):
        assert word in ended.err
    assert not home.exists()


@pytest.mark.parametrize(("unit", "wanted"), [("cpu", 10_000), ("gpu", 1000)])
def test_run_refuses_more_than_the_machine_before_ray_starts(
    sweep_file: Path, home: Path, unit: str, wanted: int
) -> None:
    ended = aae("run", sweep_file, "--set", f"resources.{unit}={wanted}")
    assert (ended.code, ended.out) == (4, "")
    assert f"a trial asks for {wanted} {unit.upper()}s" in ended.err
    assert f"lower resources.{unit}" in ended.err
    assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized()
    assert not home.exists()


@pytest.mark.parametrize("name", ["AAE_HOME", "AAE_DATA"])
@pytest.mark.parametrize("command", ["run", "train", "status"])
def test_object_store_as_folder_is_refused_with_the_remedy(
    sweep_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, "s3://key:word@bucket/aae")
    before = set(tmp_path.rglob("*"))
    ended = aae(command, sweep_file)
    assert (ended.code, ended.out) == (4, "")
    assert ended.err.startswith(f"{name} is an address (s3://…) and must be a folder")
    assert "--artifacts-destination s3://…" in ended.err
    assert "word" not in ended.err
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("command", ["status", "show", "best", "export", "report", "evaluate"])
def test_commands_in_an_empty_home_name_the_first_command(home: Path, command: str) -> None:
    ended = aae(command, "--json")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == (
        f"no sweep has been run in {home}; begin with: aae-sweep run sweeps/quickstart.yaml\n"
    )
    assert not home.exists()


def test_version_option_prints_the_version() -> None:
    assert aae("--version").out == f"{version('aae-sweep')}\n"


def test_ls_of_an_empty_home_is_empty(home: Path) -> None:
    assert aae("ls", "--json").document == []
    ended = aae("ls")
    assert (ended.code, ended.out) == (0, "")
    assert "aae-sweep run sweeps/quickstart.yaml" in ended.err
    assert not home.exists()


def test_data_list_reports_which_data_are_present(mnist: Path) -> None:
    sets = {described["name"]: described for described in aae("data", "list", "--json").document}
    assert sets["digits"]["present"]
    assert sets["digits"]["sizes"] == {"train": 1197, "valid": 300, "test": 300}
    assert sets["mnist"]["present"]  # only verify reads the contents
    assert not sets["fashion_mnist"]["present"]
    listed = aae("data", "list")
    assert [row.split()[:2] for row in listed.out.splitlines()[1:]] == [
        ["digits", "yes"],
        ["mnist", "yes"],
        ["fashion_mnist", "no"],
        ["svhn", "no"],
        ["tfd", "no"],
    ]
    assert "Josh Susskind" in sets["tfd"]["obtain"]
    assert listed.err == f"{sets['tfd']['obtain']}\n"


def test_data_verify_names_each_file(mnist: Path) -> None:
    assert aae("data", "verify", "digits", "--json").code == 0
    ended = aae("data", "verify", "mnist", "--json")
    assert ended.code == 4
    assert [verdict["ok"] for verdict in ended.document] == [False] * 4
    for path in mnist.iterdir():
        path.unlink()
    ended = aae("data", "verify", "mnist")
    assert ended.code == 4
    assert ended.out.count("`aae-sweep data fetch mnist` downloads it") == 4


@pytest.mark.usefixtures("no_network")
def test_data_fetch_needs_no_network_for_present_data() -> None:
    assert aae("data", "fetch", "digits").code == 0
    assert aae("data", "fetch", "fashion_mnist").code == 4
    ended = aae("data", "fetch", "tfd")
    assert ended.code == 4
    assert "TFD is not public: ask its authors" in ended.err
    ended = aae("data", "fetch", "svhn", "--extra")
    assert ended.code == 4
    assert "extra_32x32.mat" in ended.err
    assert aae("data", "fetch", "mnist", "--extra").code == 2
    ended = aae("data", "fetch", "mnits")
    assert ended.code == 2
    assert "digits, mnist, fashion_mnist" in ended.err


def test_ui_serves_the_home_on_localhost_only(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []
    monkeypatch.setattr(os, "execvpe", lambda *call: called.append(call))
    ended = aae("ui", "--port", "5123")
    assert (ended.code, ended.out) == (0, "")
    assert "http://127.0.0.1:5123" in ended.err
    ((program, command, environment),) = called
    assert program == sys.executable
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--port") + 1] == "5123"
    assert environment["MLFLOW_BACKEND_STORE_URI"] == f"sqlite:///{home / 'mlflow.db'}"
    assert not any("sqlite" in argument for argument in command)


def test_ui_of_a_tracking_server_prints_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:secret@mlflow:5000")
    assert aae("ui").out == "http://mlflow:5000\n"


def test_unexpected_error_keeps_its_traceback(
    sweep_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("orchestrator.sweepfile.loader.load_sweep", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        aae("validate", sweep_file)


def test_interrupted_command_exits_with_130(
    sweep_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("orchestrator.pipeline.local.train", interrupt)
    assert aae("train", sweep_file).code == 130


def _node(**wrong: Any) -> Node:
    sound: dict[str, Any] = {
        "name": "worker-1",
        "versions": versions(),
        "storage_problem": None,
        "tracking_problem": None,
        "free_gb": 100.0,
        "clock_ahead": 0.0,
    }
    return Node(**sound | wrong)


@pytest.mark.parametrize(
    ("check", "wrong", "output"),
    [
        ("versions", {"versions": versions() | {"torch": "1.0"}}, "torch 1.0, here"),
        ("shared storage", {"storage_problem": "Read-only file system"}, "set AAE_HOME"),
        ("room", {"free_gb": 0.2}, "0.2 GB free"),
        ("tracking from nodes", {"tracking_problem": "timed out"}, "set MLFLOW_TRACKING_URI"),
        ("clocks", {"clock_ahead": -7.0}, "-7.0 s"),
    ],
)
def test_doctor_names_the_node_that_fails_a_check(
    check: str, wrong: dict[str, Any], output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    judge = environment._NODE_CHECKS[check]
    judge([_node()])
    with pytest.raises(EnvironmentUnusable, match=f"^worker-1: .*{re.escape(output)}"):
        judge([_node(), _node(**wrong)])
