"""Test a detached sweep: watch, stop, stop at once, extend, retry."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sweep_command import PATIENCE, Bench, under_way
from sweep_file import make_long_text

from orchestrator.records import RunRecord
from orchestrator.study.lock import is_held

EPOCHS = 12
HUGE = 2**31 - 1  # units: more than a machine has memory for
WIDTHS = {"choice": [[500, 500], [HUGE], [400, 400]]}
GRID = {"sampler": {"kind": "grid"}, "trials": 2, "space": {"model.hidden": WIDTHS}}
STEERED = make_long_text("steered", EPOCHS, search=GRID)


class Steered(Bench):
    left = ""  # id of the detached sweep

    def leave_running(self) -> int:
        """Start the sweep detached and return its driver's process id."""
        started = self.tell("run", self.file, "-d", "--json")
        assert started.code == 0, started.err
        self.left = started.document["sweep"]
        assert is_held(self.settings, self.left)
        return int(started.document["pid"])

    def wait_until(self, what: Callable[[list[RunRecord]], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not what(self.trials()):
            assert is_held(self.settings, self.left), self.tell("logs").out
            assert time.monotonic() < deadline, self.trials()
            time.sleep(0.1)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Steered]:
    bench = Steered(tmp_path_factory.mktemp("steered"), STEERED)
    yield bench
    bench.tell("stop", "steered", "--now")


@pytest.fixture(scope="module")
def _stopped(bench: Steered) -> None:
    pid = bench.leave_running()
    assert os.getsid(pid) == pid != os.getsid(0)
    bench.wait_until(under_way(EPOCHS))
    stopped = bench.tell("stop", "steered", "--json")
    assert stopped.code == 0, stopped.err
    assert stopped.document["state"] == "stopped"
    assert "RUNNING" not in bench.mlflow_states().values()
    log = bench.tell("logs", "steered", "-f").out
    assert "stop requested: the driver finishes the current epochs" in log
    assert f"was stopped. Resume with: aae-sweep run {bench.file}" in log


@pytest.fixture(scope="module")
def _given_up(bench: Steered, _stopped: None) -> None:
    bench.leave_running()
    bench.wait_until(lambda records: under_way(EPOCHS)([r for r in records if r.resumed_from]))
    began = time.monotonic()
    assert bench.tell("stop", "steered", "--now").code == 0
    assert time.monotonic() - began < 60
    assert bench.ask("status", "steered")["state"] == "stopped"
    assert "RUNNING" not in bench.mlflow_states().values()


@pytest.fixture(scope="module")
def status(bench: Steered, _given_up: None) -> Any:
    """Return the status at the end; the sweep was extended meanwhile."""
    bench.leave_running()
    extended = bench.tell("extend", "steered", "--trials", 3)
    assert "3 trials, hours unlimited; the running driver continues to these limits" in extended.out
    log = bench.tell("logs", "steered", "-f").out
    assert "search: extended, now 3 trials" in log
    assert "done after" in log
    return bench.ask("status", "steered")


def test_extended_sweep_ends_with_the_new_number_of_trials(bench: Steered, status: Any) -> None:
    assert (status["state"], status["planned"]) == ("done", {"search": 3, "confirm": 1})
    counts = {state: n for state, n in status["trials"].items() if n}
    assert counts == {"complete": 3, "failed": 1}
    complete = [r for r in bench.trials() if r.state == "complete"]
    assert {r.epochs for r in complete} == {EPOCHS}
    resumed = [r for r in complete if r.resumed_from]
    assert max(len(r.resumed_from) for r in resumed) == 2
    assert status["unsynced"] == 0


def test_retry_by_sweep_name_repeats_the_failed_trial(bench: Steered, status: Any) -> None:
    [failed] = [r for r in bench.trials() if r.state == "failed"]
    assert bench.tell("retry", "steered", "--out-of-memory").out.endswith(
        f"Resume with: aae-sweep run {bench.sweep}\n"
    )
    assert bench.tell("run", "steered").code == 3  # the retry must fail again
    [again] = [r for r in bench.trials() if r.state == "failed"]
    assert (again.params, again.seed, again.attempts) == (failed.params, failed.seed, 2)
    assert again.number == 3
    after = bench.ask("status", "steered")
    assert (after["state"], after["trials"]) == ("done", status["trials"])
    assert after["best"]["value"] == status["best"]["value"]
    assert not Path(bench.settings.sweep_folder(bench.sweep) / ".tune").exists()
    assert bench.tell("run", bench.file).err.endswith("is done; nothing to run\n")


def test_sigterm_interrupts_a_detached_sweep(bench: Steered, status: Any) -> None:
    bench.file.write_text(make_long_text("another", EPOCHS, search=GRID))
    pid = bench.leave_running()
    os.kill(pid, signal.SIGTERM)
    log = bench.tell("logs", "another", "-f").out
    assert "was interrupted. Resume with: aae-sweep run" in log
    assert bench.ask("status", "another")["state"] == "interrupted"
