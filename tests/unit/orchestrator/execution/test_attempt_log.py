"""The log of an attempt: complete up to its bound, and only the attempt's."""

import subprocess
import sys
from pathlib import Path

from orchestrator.execution.attempt_log import MOST_BYTES

WORKER = """
import os, sys
from pathlib import Path
from orchestrator.execution.attempt_log import printing_to

print("before")
with printing_to([Path(folder) for folder in sys.argv[2:]]) as log:
    for line in range(int(sys.argv[1])):
        print("line", line, flush=True)
        os.write(2, b"from native code\\n")
        log.trim()
print("after")
"""


def printed(lines: int, *folders: Path) -> str:
    """Return what a process prints elsewhere while it prints `lines` lines to attempts' logs."""
    command = [sys.executable, "-c", WORKER, str(lines), *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


def test_attempt_log_has_python_and_native_output_of_its_attempt_only(
    tmp_path: Path,
) -> None:
    pack = tmp_path / "0" / "2", tmp_path / "1" / "1"
    assert printed(2, *pack) == "before\nafter\n"
    for log in (pack[0] / "attempt-2.log", pack[1] / "attempt-1.log"):
        lines = log.read_text().splitlines()
        assert lines == ["line 0", "from native code", "line 1", "from native code"]


def test_attempt_log_beyond_its_bound_keeps_its_end(tmp_path: Path) -> None:
    lines = MOST_BYTES // 12
    printed(lines, tmp_path / "1")
    text = (tmp_path / "1" / "attempt-1.log").read_text()
    assert text.startswith("[earlier output removed]\n")
    assert text.endswith(f"line {lines - 1}\nfrom native code\n")
    assert len(text) <= MOST_BYTES


def test_attempt_that_prints_nothing_leaves_no_log(tmp_path: Path) -> None:
    printed(0, tmp_path / "1")
    assert not list((tmp_path / "1").iterdir())
