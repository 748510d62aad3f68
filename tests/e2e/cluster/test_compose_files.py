"""Test the compose files alone, without a Docker engine."""

import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.execution import containers

DOCKER = Path(__file__).parents[3] / "docker"
EXTRA = sorted(path.name for path in DOCKER.glob("compose.*.yaml"))


def test_extra_compose_files_were_found() -> None:
    assert EXTRA


@pytest.fixture(scope="module")
def _compose() -> None:
    if (
        shutil.which("docker") is None
        or subprocess.run(
            ["docker", "compose", "version"], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("there is no `docker compose`")


@pytest.mark.usefixtures("_compose")
@pytest.mark.parametrize(
    "extra",
    [c for n in range(len(EXTRA) + 1) for c in itertools.combinations(EXTRA, n)],
    ids=lambda extra: "+".join(extra) or "alone",
)
def test_compose_files_are_valid_in_every_combination(
    extra: tuple[str, ...], tmp_path: Path
) -> None:
    files = [word for name in ("compose.yaml", *extra) for word in ("--file", name)]
    containers.write_files(tmp_path)
    command = ["docker", "compose", *files, "--profile", "commands", "config", "--quiet"]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AAE_", "COMPOSE_"))}
    done = subprocess.run(
        command, cwd=tmp_path, env=kept, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_dockerfile_has_no_hadolint_warning() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [hadolint, DOCKER / "image" / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_compose_variables_are_in_the_env_example() -> None:
    """Test that names and defaults are equal in both places."""
    texts = [path.read_text() for path in DOCKER.glob("compose*.yaml")]
    used = {m for text in texts for m in re.findall(r"\$\{(\w+):-([^}]*)\}", text)}
    listed = dict(
        line.removeprefix("#").split("=", 1)
        for line in (DOCKER / ".env.example").read_text().splitlines()
        if re.match(r"#\w+=", line)
    )
    of_up = {"AAE_UID", "AAE_WORKERS"}  # `aae-sweep up` sets these
    assert {name: default for name, default in used if name not in of_up} == {
        name: default for name, default in listed.items() if name != "COMPOSE_FILE"
    }
