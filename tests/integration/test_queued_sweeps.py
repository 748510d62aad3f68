"""Two queued sweeps on one machine: the urgent one goes first, and the other one loses nothing."""

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from sweep_command import PATIENCE, Bench, under_way
from sweep_file import make_long_text, make_text

EPOCHS = 20


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    space = {"model.prior.std": {"float": [0.5, 4]}}
    patient = make_long_text("patient", EPOCHS, search={"trials": 2, "space": space})
    bench = Bench(tmp_path_factory.mktemp("queue"), patient)
    yield bench
    bench.tell("stop", "patient", "--now")


@pytest.fixture(scope="module")
def urgent(bench: Bench) -> Any:
    """Return the status of the patient sweep at the end of the urgent one, which came later."""
    assert bench.tell("run", bench.file, "-d", "--queue").code == 0
    deadline = time.monotonic() + PATIENCE
    while not under_way(EPOCHS)(bench.trials()):
        assert time.monotonic() < deadline, bench.tell("logs", "patient").out
        time.sleep(0.1)
    (place,) = bench.ask("ls", "--queue")
    assert (place["priority"], place["share"]) == (0, place["wants"])
    file = bench.folder / "urgent.yaml"
    samples = {"samples": 1000, "screen_samples": 1000}
    alone = {"seeds": 1, "baseline": False}
    file.write_text(make_text("urgent", confirm=alone, evaluate={"parzen": samples}))
    ended = bench.tell("run", file, "--queue", "--priority", 5, "--json")
    assert ended.code == 0, ended.err
    assert ended.document["resume"] == f"aae-sweep run {file} --queue --priority=5"
    assert ended.document["state"] == "done"
    return bench.ask("status", "patient")


def test_sweep_of_higher_priority_ends_first(bench: Bench, urgent: Any) -> None:
    assert urgent["state"] == "running"
    log = bench.tell("logs", "patient").out
    assert re.search(r"queue: 0 of \d+ places?; waits for urgent-\w+\n", log), log


def test_sweep_of_lower_priority_resumes_and_loses_nothing(bench: Bench, urgent: Any) -> None:
    assert "done after" in bench.tell("logs", "patient", "-f").out
    records = bench._reader.trials(bench._reader.resolve("patient"))
    assert {(r.state, r.epochs) for r in records} == {("complete", EPOCHS)}
    yielded = [r for r in records if r.attempts > 1]
    assert yielded
    assert all(r.resumed_from and not r.lost for r in yielded)
    assert "no queued sweep runs" in bench.here("ls", "--queue").err
