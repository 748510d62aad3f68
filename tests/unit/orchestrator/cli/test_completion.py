"""Shell completion of commands, sweep names and the keys of --set."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sweep_file import make_spec

from orchestrator.settings import Settings
from orchestrator.study.study import StageStudy, open_storage
from orchestrator.sweepfile.messages import keys
from orchestrator.sweepfile.parameters import SETTINGS
from orchestrator.sweepfile.spec import SweepSpec

COMMAND = Path(sys.executable).with_name("aae-sweep")


@pytest.fixture
def swept_home(settings: Settings) -> Path:
    StageStudy.create(open_storage(settings), make_spec(), "search")
    return settings.home


def completed(shell: str, *words: str) -> list[str]:
    """Call the command as the shell's completion function does, and return the completions."""
    line = " ".join(["aae-sweep", *words])
    asked = {
        "bash": {"COMP_WORDS": line, "COMP_CWORD": str(len(words))},
        "zsh": {"_TYPER_COMPLETE_ARGS": line},
    }[shell]
    environment = {**os.environ, **asked, "_AAE_SWEEP_COMPLETE": f"complete_{shell}"}
    ended = subprocess.run(
        [COMMAND], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    assert ended.stderr == ""
    if shell == "bash":
        return ended.stdout.split()
    return re.findall(r'"([^"]+)"(?::"[^"]*")?', ended.stdout)  # each with its help, if any


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_lists_commands_by_prefix(shell: str) -> None:
    assert completed(shell, "re") == ["resume", "retry", "report", "reproduce"]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_lists_sweeps_of_the_home(shell: str, swept_home: Path) -> None:
    (sweep,) = [name for name in completed(shell, "status", "tiny") if name != "tiny"]
    assert sweep.startswith("tiny-")
    assert completed(shell, "show", "la") == ["latest"]


def test_completion_without_a_home_lists_no_sweep(home: Path) -> None:
    assert completed("bash", "status", "t") == []
    assert not home.exists()


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_lists_keys_of_set(shell: str) -> None:
    found = completed(shell, "run", "x.yaml", "--set", "training.epo")
    assert found == ["training.epochs="]


def test_keys_hold_every_setting_and_every_part_of_the_file() -> None:
    known = set(keys(SweepSpec))
    assert set(SETTINGS) <= known
    assert {"name", "data.labels", "search.sampler.startup_trials", "confirm.set"} <= known


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_completion_function_of_a_real_bash_completes_a_command() -> None:
    script = """
    eval "$(aae-sweep --show-completion bash)"
    COMP_WORDS=(aae-sweep val) COMP_CWORD=1
    _aae_sweep_completion aae-sweep val aae-sweep
    echo "${COMPREPLY[@]}"
    """
    path = f"{COMMAND.parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    ended = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert ended.stdout.split() == ["validate"]
