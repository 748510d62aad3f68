import os
import signal
import threading
import time
from pathlib import Path

import pytest

from orchestrator.execution import cluster
from orchestrator.settings import Settings


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")  # Ray's own
def test_a_sigterm_as_ray_starts_or_after_it_is_left_to_who_connects(tmp_path: Path) -> None:
    settings = Settings.from_environment({"AAE_HOME": str(tmp_path / "home")})
    heard: list[int] = []
    over = threading.Event()

    def send() -> None:
        while not over.wait(0.01):
            os.kill(os.getpid(), signal.SIGTERM)

    def hear(number: int, frame: object) -> None:
        heard.append(number)

    before = signal.signal(signal.SIGTERM, hear)
    sender = threading.Thread(target=send)
    sender.start()
    try:
        with cluster.connected(settings):
            over.set()
            sender.join()
            assert len(heard) > 10
            time.sleep(4)  # an alarm that a signal has set
            heard.clear()
            os.kill(os.getpid(), signal.SIGTERM)
            assert heard
        heard.clear()
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard
    finally:
        over.set()
        sender.join()
        signal.signal(signal.SIGTERM, before)
