"""Unusable environments: a message with the remedy, exit code 4, and nothing started."""

import gzip
import os
import re
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO

import pytest
from plugins import Install
from sweep_command import aae

from aae_core.data import fetch
from aae_core.data.mnist import MNIST
from aae_core.errors import PluginError
from orchestrator.cli import environment, streams
from orchestrator.errors import EnvironmentUnusable
from orchestrator.execution import doctor
from orchestrator.execution.doctor import Node, versions
from orchestrator.settings import Settings
from orchestrator.tracking import mlflow_writer
from orchestrator.tracking.mlflow_writer import ui_command

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
    assert f"a trial needs {wanted} {unit.upper()}s" in ended.err
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
    assert ended.err == (f"no sweep has been run in {home}; begin with: aae-sweep run quickstart\n")
    assert not home.exists()


def test_version_option_prints_the_version() -> None:
    said = aae("--version").out
    assert said.startswith(f"aae-sweep {version('aae-sweep')} (ray {version('ray')}, optuna ")
    assert said.endswith(f"mlflow {version('mlflow')}, torch {version('torch')})\n")


def test_ls_of_an_empty_home_is_empty(home: Path) -> None:
    assert aae("ls", "--json").document == []
    ended = aae("ls")
    assert (ended.code, ended.out) == (0, "")
    assert "aae-sweep run quickstart" in ended.err
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
    assert ended.out.count("download it with `aae-sweep data fetch mnist`") == 4


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


def test_ui_server_has_the_home_on_localhost_only(home: Path) -> None:
    settings = Settings.from_environment({"AAE_HOME": str(home)})
    (program, *command), environment = ui_command(settings, 5123)
    assert program == sys.executable
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--port") + 1] == "5123"
    assert environment["MLFLOW_BACKEND_STORE_URI"] == f"sqlite:///{home / 'mlflow.db'}"
    assert not any("sqlite" in argument for argument in command)


SERVER = """
import http.server, sys, time
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.BaseHTTPRequestHandler)
server.handle_request()
time.sleep(2)
sys.exit(7)
"""


@pytest.mark.parametrize(
    ("program", "code", "announced"), [(SERVER, 7, True), ("raise SystemExit(5)", 5, False)]
)
def test_ui_announces_only_a_server_that_answers(
    monkeypatch: pytest.MonkeyPatch,
    program: str,
    code: int,
    announced: bool,
) -> None:
    def command(_: Settings, port: int) -> tuple[list[str], dict[str, str]]:
        return [sys.executable, "-c", program, str(port)], {}

    monkeypatch.setattr(mlflow_writer, "ui_command", command)
    monkeypatch.setattr(mlflow_writer, "make_store", lambda _: None)
    before = signal.getsignal(signal.SIGTERM)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        taken = aae("ui", "--port", port)
    ended = aae("ui", "--port", port)
    assert signal.getsignal(signal.SIGTERM) == before
    assert (taken.code, taken.out) == (2, "")
    assert "try another --port" in taken.err
    assert (ended.code, ended.out) == (code, "")
    assert (f"http://127.0.0.1:{port}" in ended.err) == announced


def test_interrupted_ui_ends_its_server(monkeypatch: pytest.MonkeyPatch) -> None:
    servers = []

    class Server(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            servers.append(self)

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    sleeping = [sys.executable, "-c", "import time; time.sleep(600)"]
    monkeypatch.setattr(mlflow_writer, "ui_command", lambda *_: (sleeping, {}))
    monkeypatch.setattr(mlflow_writer, "make_store", lambda _: None)
    monkeypatch.setattr(environment, "time", SimpleNamespace(sleep=interrupt))
    monkeypatch.setattr(subprocess, "Popen", Server)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert aae("ui", "--port", port).code == 130
    [server] = servers
    assert server.wait(60) == -signal.SIGTERM


def test_ui_of_a_tracking_server_prints_its_address_if_it_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:secret@127.0.0.1:9")
    ended = aae("ui")
    assert (ended.code, ended.out) == (4, "")
    assert "MLflow at http://127.0.0.1:9 does not answer" in ended.err
    monkeypatch.setattr(doctor, "unreachable", lambda _: None)
    assert aae("ui").out == "http://127.0.0.1:9\n"


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
        ("versions", {"versions": versions() | {"mine": "2.0"}}, "mine 2.0, here missing"),
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


@pytest.mark.usefixtures("example")
def test_doctor_lists_the_declarations_of_other_packages() -> None:
    assert "ring of aae-example 1.2" in environment._plugins()
    assert versions()["aae-example"] == "1.2"


def test_doctor_names_a_package_that_cannot_be_loaded(install: Install) -> None:
    install("broken", "[aae_sweep.metrics]\nodd = no_such_module:ODD\n")
    with pytest.raises(PluginError, match=r"`odd` of broken 1\.2 cannot be loaded"):
        environment._plugins()


# -- standard output and error as failing devices ------------------------------------------------

FULL = Path("/dev/full")  # a device without space
needs_dev_full = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")


@pytest.fixture
def full() -> Iterator[TextIO]:
    stream = FULL.open("w")
    yield stream
    stream.close()


@needs_dev_full
@pytest.mark.parametrize(
    "command",
    [("ls", "--json"), ("data", "list"), ("--help",), ("--version",), ("validate", "FILE")],
)
def test_full_standard_output_is_named_and_exits_with_4(
    sweep_file: Path, full: TextIO, command: tuple[str, ...]
) -> None:
    words = (sweep_file if word == "FILE" else word for word in command)
    ended = aae(*words, stdout=full)
    assert ended.code == 4
    assert ended.err.splitlines()[-1] == (
        "standard output cannot be written: No space left on device; "
        "send it to another file or program"
    )
    assert "AAE_HOME" not in ended.err


def test_file_that_ends_too_early_keeps_its_traceback(
    sweep_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise EOFError

    monkeypatch.setattr("orchestrator.sweepfile.loader.load_sweep", fail)
    with pytest.raises(RuntimeError, match="ends too early"):
        aae("validate", sweep_file)


@pytest.mark.parametrize("command", [("data", "list"), ("data", "list", "--json")])
def test_closed_standard_output_is_named_and_exits_with_4(
    command: tuple[str, ...],
) -> None:
    ended = aae(*command, stdout=None)
    assert (ended.code, ended.out) == (4, "")
    assert "standard output cannot be written: it is closed" in ended.err


@pytest.mark.parametrize("command", [("data", "list"), ("data", "list", "--json")])
def test_command_ends_silently_when_the_reader_of_its_output_exits(
    command: tuple[str, ...],
) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        ended = aae(*command, stdout=pipe)
        assert ended.code == 0
        assert "cannot be written" not in ended.err


@needs_dev_full
@pytest.mark.parametrize("broken", ["full", "closed"])
@pytest.mark.parametrize(("command", "code"), [(("ls",), 0), (("status",), 2), (("nonsense",), 2)])
def test_failing_standard_error_leaves_the_exit_status(
    full: TextIO, command: tuple[str, ...], code: int, broken: str
) -> None:
    assert aae(*command, stderr=full if broken == "full" else None).code == code


def test_characters_beyond_the_encoding_of_standard_output_are_escaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "out").open("w", encoding="ascii") as out:
        monkeypatch.setattr(sys, "stdout", out)
        with streams.standard_streams():
            print("312.4 ± 1.9")
    assert (tmp_path / "out").read_text() == "312.4 \\xb1 1.9\n"
