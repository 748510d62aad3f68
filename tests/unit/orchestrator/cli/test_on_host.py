"""Output of a containerised driver: commands and files of the host."""

import ast
import re
import shlex
from pathlib import Path

import pytest
from sweep_command import aae

import orchestrator.cli
from orchestrator.cli import on_host
from orchestrator.settings import Settings

FOLDER = "/home/me/my cluster"
COMPOSE = "docker compose --project-directory '/home/me/my cluster'"
HOME = Path("/home/aae/aae-home")


@pytest.fixture(name="container")
def _container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AAE_CLUSTER", FOLDER)
    monkeypatch.setenv("AAE_CLUSTER_HOME", "home")


@pytest.mark.usefixtures("container")
@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ("see: aae-sweep show a-1", f"see: {COMPOSE} run --rm sweep show a-1"),
        ("`aae-sweep gc` removes", f"`{COMPOSE} run --rm sweep gc` removes"),
        (
            "run aae-sweep data fetch mnist, then aae-sweep run a.yaml",
            f"run {COMPOSE} run --rm data fetch mnist, then {COMPOSE} run --rm sweep run a.yaml",
        ),
        ("stop it on the host: aae-sweep down", "stop it on the host: aae-sweep down"),
        ("aae-sweep 0.1.0 wrote aae-sweep-run", "aae-sweep 0.1.0 wrote aae-sweep-run"),
        ("another version of aae-sweep showed it", "another version of aae-sweep showed it"),
    ],
)
def test_container_message_names_the_commands_of_the_host(message: str, wanted: str) -> None:
    assert on_host.commands(message) == wanted


@pytest.mark.usefixtures("container")
def test_container_command_is_one_that_a_shell_splits_at_the_right_places() -> None:
    words = shlex.split(on_host.commands("aae-sweep status latest"))
    assert words[:4] == ["docker", "compose", "--project-directory", FOLDER]
    assert words[4:] == ["run", "--rm", "sweep", "status", "latest"]


def test_message_outside_a_container_stays_as_it_is() -> None:
    assert on_host.commands("see: aae-sweep show a-1") == "see: aae-sweep show a-1"


@pytest.mark.parametrize(
    ("place", "wanted"),
    [
        ("/srv/aae", "/srv/aae/sweeps/a/report.html"),
        ("../shared", "/home/me/shared/sweeps/a/report.html"),
        ("~/aae", "~/aae/sweeps/a/report.html"),
        ("home", f"{COMPOSE} cp worker:{HOME}/sweeps/a/report.html ."),
    ],
    ids=["folder", "relative", "of-the-user", "volume"],
)
@pytest.mark.usefixtures("container")
def test_file_of_a_container_is_named_by_its_place_on_the_host(
    place: str, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AAE_CLUSTER_HOME", place)
    settings = Settings.from_environment({"AAE_HOME": str(HOME)})
    assert on_host.file(f"{HOME}/sweeps/a/report.html", settings) == wanted
    assert on_host.file("/tmp/report.html", settings) == "/tmp/report.html"


@pytest.mark.usefixtures("container")
def test_error_of_a_containerised_command_names_the_commands_of_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AAE_HOME", str(tmp_path))
    ended = aae("status", "latest")
    assert ended.code == 2
    assert f"begin with: {COMPOSE} run --rm sweep run quickstart" in ended.err


@pytest.mark.usefixtures("container")
def test_container_refuses_to_detach_and_names_the_command_that_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AAE_HOME", str(tmp_path))
    ended = aae("run", "quickstart", "-d", "--set", "seed=3")
    assert ended.code == 2
    assert f"{COMPOSE} run -d sweep run quickstart --set=seed=3" in ended.err


def test_commands_are_printed_only_in_the_form_of_the_host() -> None:
    """Test the sources: `print` leaves a message alone, `tell` and `say` adapt its commands."""
    command, printed = re.compile(rf"aae-sweep ({'|'.join(on_host._names())})\b"), []
    for path in sorted(Path(orchestrator.cli.__file__).parent.glob("*.py")):
        calls = [
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
        ]
        named = [call for call in calls if command.search(ast.unparse(call))]
        printed += [(path.name, ast.unparse(call.func)) for call in named]
    assert {"common.tell", "UsageError"} <= {function for _, function in printed}
    assert "print" not in {function for _, function in printed}
