"""A sweep under faults, which its user restarts until the sweep is done."""

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random

from faults import FAULTS, StruckBench, Victim
from schedule import Strike

from orchestrator.records import RunRecord

LONG = 1800.0  # seconds that a whole sweep may take on a busy machine


@dataclass
class Storm:
    """Faults so far, in order, and the largest number of epochs that they may have cost."""

    struck: list[str] = field(default_factory=list)
    cost: int = 0
    starts: int = 0
    seconds: float = 0.0


def endure(bench: StruckBench, strikes: Iterable[Strike]) -> Storm:
    """Run the sweep to its end through all strikes, each at its number of epochs."""
    storm, coming, began = Storm(), deque(strikes), time.monotonic()
    then = 0  # finished epochs at the last strike
    while True:
        storm.starts += 1
        with bench.started() as driver:
            while coming and driver.poll() is None:
                strike = coming.popleft()
                due = then + strike.after
                bench.wait_for(driver, lambda records, due=due: epochs(records) >= due)
                storm.cost += FAULTS[strike.fault](Victim(bench, driver), Random(strike.seed))
                storm.struck.append(strike.fault)
                then = epochs(bench.trials())
            if driver.poll() is None:
                _, err = driver.communicate(timeout=LONG)
                assert driver.returncode == 0, err
                storm.seconds = time.monotonic() - began
                return storm


def epochs(records: Iterable[RunRecord]) -> int:
    """Return the finished epochs of all trials together; a repeated epoch counts once."""
    return sum(record.epochs for record in records)
