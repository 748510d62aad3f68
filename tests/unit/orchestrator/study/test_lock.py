"""The lock of a sweep: a second driver is refused, and the lock ends with its process."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.errors import SweepLocked
from orchestrator.settings import Settings
from orchestrator.study.lock import held, is_held

HOLD = """
import sys
from orchestrator.study.lock import held
from orchestrator.settings import Settings
with held(Settings.from_environment(), 'a'):
    print('held', flush=True); sys.stdin.read()
"""


def test_lock_held_by_a_driver_refuses_a_second_driver(settings: Settings) -> None:
    assert not is_held(settings, "a")
    with held(settings, "a"):
        assert is_held(settings, "a")
        assert not is_held(settings, "b")
        with pytest.raises(SweepLocked, match="aae-sweep status a"), held(settings, "a"):
            pass
    assert not is_held(settings, "a")


def test_lock_covers_all_homes_that_share_a_study(tmp_path: Path) -> None:
    here, there = (
        Settings.from_environment(
            {
                "AAE_HOME": str(tmp_path / home),
                "AAE_STUDY_URI": f"sqlite:///{tmp_path / 'shared' / 'studies.db'}",
            }
        )
        for home in ("here", "there")
    )
    with held(here, "a"):
        assert is_held(there, "a")
        with pytest.raises(SweepLocked), held(there, "a"):
            pass


def test_lock_of_a_killed_process_is_released(settings: Settings) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD],
        env=os.environ | {"AAE_HOME": str(settings.home)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        assert is_held(settings, "a")
        who = re.escape(f"process {holder.pid} on {socket.gethostname()}, since 20")
        with pytest.raises(SweepLocked, match=who), held(settings, "a"):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert not is_held(settings, "a")
    with held(settings, "a"):
        pass
