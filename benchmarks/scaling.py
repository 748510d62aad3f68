"""How many workers one driver serves: simulated from measured costs, and with fake workers.

    python benchmarks/scaling.py [--minutes 10]

The simulation follows `aae-sweep run`. Workers are reused for the next trial. One driver serves
requests in sequence: the start and end of a trial, and each epoch's report, whose verdict the
worker waits for. Asynchronous successive halving works as in Optuna. The driver's cost of an epoch
and of a trial is its CPU time in three sweeps over digits, with Tune, study, outbox and MLflow. One
of these sweeps has more trials, one has longer trials.

Epochs have the given duration ± 10 %. A trial's quality is random.

Then the real driver runs with workers that only sleep (fake_workers.py), for some minutes each.
"""

import argparse
import heapq
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from publishing import publish
from sweep_overhead import cpu_seconds

GPUS = (2, 8, 64, 256, 1000)
EPOCH_SECONDS = (2.0, 10.0, 60.0)
TRIALS_A_GPU, EPOCHS = 16, 50
GRACE, FACTOR = 5, 3
START_SECONDS = 0.5  # of the next trial on a reused worker
DRIVEN = ((1000, 10.0), (250, 2.0))  # fake workers, seconds of an epoch

_SWEEP = """\
name: costs
data: {{name: digits}}
model: {{hidden: [20], init_std: 0.15}}
training: {{epochs: {epochs}, reconstruction: {{optimizer: adam, lr: 5e-3}}}}
search:
  sampler: {{kind: tpe}}
  pruner: {{kind: successive_halving, grace_epochs: {epochs}}}
  objective: {{metric: val/recon}}
  trials: {trials}
  space: {{model.prior.std: {{float: [0.5, 8], log: true}}}}
confirm: {{seeds: 1, baseline: false}}
evaluate: {{parzen: {{samples: 10000, screen_samples: 10000}}}}
"""


@dataclass(frozen=True)
class Costs:
    """CPU seconds of the driver."""

    trial: float
    epoch: float


def measured() -> Costs:
    few, more, longer = driver_seconds(8, 2), driver_seconds(40, 2), driver_seconds(8, 42)
    epoch = (longer - few) / (8 * 40)
    return Costs(trial=(more - few) / 32 - 2 * epoch, epoch=epoch)


def driver_seconds(trials: int, epochs: int) -> float:
    """Return the driver's CPU time in the search of a sweep."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "costs.yaml"
        file.write_text(_SWEEP.format(trials=trials, epochs=epochs))
        command = [Path(sys.executable).with_name("aae-sweep"), "run", file]
        environment = os.environ | {"AAE_HOME": folder}
        used = 0.0
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if line.startswith("search ") and "  trial " in line:
                    used = cpu_seconds(process.pid)
        if process.returncode:
            raise SystemExit(f"aae-sweep run ended with {process.returncode}")
    return used


def driven(workers: int, epoch_seconds: float, minutes: float) -> dict[str, Any]:
    """Return what the real driver did with fake workers."""
    command = [sys.executable, Path(__file__).with_name("fake_workers.py")]
    sizes = ["--workers", workers, "--epoch-seconds", epoch_seconds, "--minutes", minutes]
    ended = subprocess.run([*command, *map(str, sizes)], stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


# -- the simulation --------------------------------------------------------------------------


@dataclass
class Halving:
    """Asynchronous halving: the best 1 / FACTOR of the trials seen so far at a rung continue."""

    rungs: dict[int, list[float]] = field(default_factory=dict)

    def prunes(self, epoch: int, value: float) -> bool:
        rung, beyond = epoch / GRACE, 1
        while beyond < rung:
            beyond *= FACTOR
        if beyond != rung or epoch == EPOCHS:
            return False
        seen = self.rungs.setdefault(epoch, [])
        seen.append(value)
        seen.sort(reverse=True)
        return value < seen[max(len(seen) // FACTOR, 1) - 1]


class Driver:
    """A driver that serves one request after the other."""

    def __init__(self) -> None:
        self.free, self.busy = 0.0, 0.0

    def serve(self, now: float, cost: float) -> float:
        self.busy += cost
        self.free = max(now, self.free) + cost
        return self.free


@dataclass
class Trial:
    epoch_seconds: float
    quality: float
    epoch: int = 0


def simulate(gpus: int, epoch_seconds: float, costs: Costs, seed: int = 0) -> dict[str, float]:
    draw, driver, halving = random.Random(seed), Driver(), Halving()
    left = gpus * TRIALS_A_GPU
    events: list[tuple[float, int, Trial | None]] = [(0.0, gpu, None) for gpu in range(gpus)]
    trained, epochs, now = 0.0, 0, 0.0
    while events:
        now, gpu, trial = heapq.heappop(events)
        if trial is not None:
            trial.epoch += 1
            epochs += 1
            trained += trial.epoch_seconds
            now = driver.serve(now, costs.epoch)
            value = trial.quality + draw.gauss(0, 1) / trial.epoch
            if trial.epoch == EPOCHS or halving.prunes(trial.epoch, value):
                trial = None
        if trial is None:
            if not left:
                continue
            left -= 1
            trial = Trial(epoch_seconds * draw.uniform(0.9, 1.1), draw.gauss(0, 1))
            now = driver.serve(now, costs.trial) + START_SECONDS
        heapq.heappush(events, (now + trial.epoch_seconds, gpu, trial))
    return {
        "gpus": gpus,
        "epoch_seconds": epoch_seconds,
        "trials": gpus * TRIALS_A_GPU,
        "epochs": epochs,
        "hours": now / 3600,
        "gpus_busy": trained / (gpus * now),
        "driver_busy": driver.busy / now,
    }


def in_words(
    costs: Costs, sweeps: list[dict[str, float]], drives: list[dict[str, Any]]
) -> Iterator[str]:
    yield f"driver: {1e3 * costs.trial:.0f} ms a trial, {1e3 * costs.epoch:.1f} ms an epoch"
    yield "epoch, s    GPUs   trials   epochs    hours   GPUs busy   driver busy"
    for s in sweeps:
        yield (
            f"{s['epoch_seconds']:8.0f} {s['gpus']:7} {s['trials']:8,} {s['epochs']:8,} "
            f"{s['hours']:8.2f} {s['gpus_busy']:11.0%} {s['driver_busy']:13.0%}"
        )
    yield "the real driver, fake workers"
    yield "epoch, s  workers   trials   epochs        busy   CPU of driver   MB"
    for d in drives:
        yield (
            f"{d['epoch_seconds']:8.0f} {d['workers']:8,} {d['trials']:8,} "
            f"{d['epochs_trained']:8,} {d['workers_busy']:11.0%} {d['cpu_share']:15.0%}   "
            f"{d['mb'][0]} to {d['mb'][-1]}"
        )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--minutes", type=float, default=10.0, help="of each drive")
    minutes = options.parse_args().minutes
    costs = measured()
    sweeps = [simulate(gpus, seconds, costs) for seconds in EPOCH_SECONDS for gpus in GPUS]
    drives = [driven(workers, seconds, minutes) for workers, seconds in DRIVEN]
    found = {"driver_seconds": asdict(costs), "sweeps": sweeps, "drives": drives}
    publish("scaling", found, "\n".join(in_words(costs, sweeps, drives)))


if __name__ == "__main__":
    main()
