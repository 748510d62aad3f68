"""SIGTERM during Ray's start and end reaches the handler of the connecting process."""

import subprocess
import sys
from pathlib import Path

# Run in a separate process: the signal stack of a test runner's fault handler is too small for a
# storm of signals on a processor with large registers.
STORM = """
import os, signal, sys, threading, time
from orchestrator.execution import cluster
from orchestrator.settings import Settings

received, over = [], threading.Event()
signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))

def send():
    while not over.wait(0.01):
        os.kill(os.getpid(), signal.SIGTERM)

sender = threading.Thread(target=send)
sender.start()
with cluster.connected(Settings.from_environment({"AAE_HOME": sys.argv[1]})):
    over.set()
    sender.join()
    assert len(received) > 10, received
    time.sleep(4)  # an alarm that a signal has set
    received.clear()
    os.kill(os.getpid(), signal.SIGTERM)
    assert received
received.clear()
os.kill(os.getpid(), signal.SIGTERM)
assert received
print("alive")
"""


def test_sigterm_during_and_after_ray_start_reaches_own_handler(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", STORM, str(tmp_path / "home")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (ended.returncode, ended.stdout) == (0, "alive\n"), ended.stderr
