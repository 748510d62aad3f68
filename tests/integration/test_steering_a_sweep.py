"""Test a detached sweep: watch, stop, stop at once, extend, retry."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sweep_command import COMMAND, PATIENCE, Bench

from orchestrator.records import RunRecord
from orchestrator.study.lock import is_held

EPOCHS = 12
HUGE = 2**31 - 1  # units: more than a machine has memory for
STEERED = f"""
name: steered
seed: 5
data: {{name: digits}}
model: {{code_dim: 4, init_std: 0.05}}
training:
  epochs: {EPOCHS}
  batch_size: 25
  reconstruction: {{optimizer: adam, lr: 1e-3}}
  adversarial: {{optimizer: sgd, lr: 1e-2}}
search:
  sampler: {{kind: grid}}
  objective: {{metric: val/recon}}
  trials: 2
  space:
    model.hidden: {{choice: [[500, 500], [{HUGE}], [400, 400]]}}
confirm: {{seeds: 1, baseline: false}}
evaluate: {{parzen: {{samples: 10_000, screen_samples: 10_000}}}}
"""


class Steered(Bench):
    left = ""  # id of the detached sweep

    def tell(self, *arguments: object) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [COMMAND, *map(str, arguments)],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )

    def leave_running(self) -> int:
        """Start the sweep detached and return its driver's process id."""
        started = self.tell("run", self.file, "-d", "--json")
        assert started.returncode == 0, started.stderr
        output = json.loads(started.stdout)
        self.left = output["sweep"]
        assert is_held(self.settings, self.left)
        return int(output["pid"])

    def wait_until(self, what: Callable[[list[RunRecord]], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not what(self.trials()):
            assert is_held(self.settings, self.left), self.tell("logs").stdout
            assert time.monotonic() < deadline, self.trials()
            time.sleep(0.1)


def under_way(records: list[RunRecord]) -> bool:
    return any(r.state == "running" and 2 <= r.epochs < EPOCHS - 4 for r in records)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Steered]:
    bench = Steered(tmp_path_factory.mktemp("steered"), STEERED)
    yield bench
    bench.tell("stop", "steered", "--now")


@pytest.fixture(scope="module")
def _stopped(bench: Steered) -> None:
    pid = bench.leave_running()
    assert os.getsid(pid) == pid != os.getsid(0)
    bench.wait_until(under_way)
    stopped = bench.tell("stop", "steered", "--json")
    assert stopped.returncode == 0, stopped.stderr
    assert json.loads(stopped.stdout)["state"] == "stopped"
    assert "RUNNING" not in bench.mlflow_states().values()
    log = bench.tell("logs", "steered", "-f").stdout
    assert "stop requested: the driver finishes the current epochs" in log
    assert f"was stopped. Resume with: aae-sweep run {bench.file}" in log


@pytest.fixture(scope="module")
def _given_up(bench: Steered, _stopped: None) -> None:
    bench.leave_running()
    bench.wait_until(lambda records: any(r.resumed_from and under_way([r]) for r in records))
    began = time.monotonic()
    assert bench.tell("stop", "steered", "--now").returncode == 0
    assert time.monotonic() - began < 60
    assert bench.ask("status", "steered")["state"] == "stopped"
    assert "RUNNING" not in bench.mlflow_states().values()


@pytest.fixture(scope="module")
def status(bench: Steered, _given_up: None) -> Any:
    """Return the status at the end; the sweep was extended meanwhile."""
    bench.leave_running()
    extended = bench.tell("extend", "steered", "--trials", 3)
    assert (
        "3 trials, hours unlimited; the running driver continues to these limits" in extended.stdout
    )
    log = bench.tell("logs", "steered", "-f").stdout
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
    assert bench.tell("retry", "steered").stdout.endswith(
        f"Resume with: aae-sweep run {bench.sweep}\n"
    )
    assert bench.tell("run", "steered").returncode == 3  # the retry must fail again
    [again] = [r for r in bench.trials() if r.state == "failed"]
    assert (again.params, again.seed, again.attempts) == (failed.params, failed.seed, 2)
    assert again.number == 3
    after = bench.ask("status", "steered")
    assert (after["state"], after["trials"]) == ("done", status["trials"])
    assert after["best"]["value"] == status["best"]["value"]
    assert not Path(bench.settings.sweep_folder(bench.sweep) / ".tune").exists()
    assert bench.tell("run", bench.file).stderr.endswith("is done; nothing to run\n")


def test_sigterm_interrupts_a_detached_sweep(bench: Steered, status: Any) -> None:
    bench.file.write_text(STEERED.replace("name: steered", "name: another"))
    pid = bench.leave_running()
    os.kill(pid, signal.SIGTERM)
    log = bench.tell("logs", "another", "-f").stdout
    assert "was interrupted. Resume with: aae-sweep run" in log
    assert bench.ask("status", "another")["state"] == "interrupted"
