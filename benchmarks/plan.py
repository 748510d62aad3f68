"""Compare the training time that `aae-sweep plan` estimates with the measured time.

    AAE_DATA=… python benchmarks/plan.py [FILE] [--epochs 20]

A sweep's search runs as many trials as the machine trains at once, of so many epochs, without a
pruner. The estimate is the mean of one before and one after the search, since machines drift.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from publishing import publish

_COMMAND = Path(sys.executable).with_name("aae-sweep")
_FILE = Path(__file__).parents[1] / "sweeps" / "likelihood_mnist.yaml"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path, nargs="?", default=_FILE)
    parser.add_argument("--epochs", type=int, default=20)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        command = Command(wanted.file, wanted.epochs, home)
        before = command.plan(1)
        trials = before["parallel"]
        took = command.train(trials)
        after = command.plan(trials)
    planned = wanted.epochs * (before["epoch_seconds"] + after["epoch_seconds"]) / 2
    table = (
        f"{trials} trials at once, {wanted.epochs} epochs: planned {planned:.1f} s "
        f"({before['epoch_seconds']:.2f} and {after['epoch_seconds']:.2f} s an epoch), "
        f"took {took:.1f} s: {planned / took:.2f} of it"
    )
    publish("plan", {"epochs": wanted.epochs, "planned": planned, "took": took}, table)


class Command:
    def __init__(self, file: Path, epochs: int, home: str) -> None:
        self._file = str(file)
        self._set = [
            f"--set=training.epochs={epochs}",
            "--set=search.pruner={kind: none}",
            "--set=confirm.seeds=1",
        ]
        self._environment = os.environ | {"AAE_HOME": home}

    def plan(self, trials: int) -> dict[str, Any]:
        return self._json("plan", self._file, *self._set, f"--set=search.trials={trials}")

    def train(self, trials: int) -> float:
        """Run the search, then kill the driver. Return seconds from first start to last end."""
        options = [*self._set, f"--set=search.trials={trials}"]
        driver = subprocess.Popen(
            [_COMMAND, "run", self._file, *options],
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        ended: list[Any] = []
        while len(ended) < trials:
            if driver.poll() is not None:
                raise SystemExit("the sweep ended before its search; start it by hand to see why")
            time.sleep(5)
            shown = self._json("show", "latest", check=False).get("trials", [])
            ended = [t for t in shown if t["stage"] == "search" and t["state"] == "complete"]
        driver.kill()
        driver.wait()
        began = [datetime.fromisoformat(trial["started"]) for trial in ended]
        ends = [
            at + timedelta(seconds=trial["seconds"]) for at, trial in zip(began, ended, strict=True)
        ]
        return (max(ends) - min(began)).total_seconds()

    def _json(self, *words: str, check: bool = True) -> Any:
        done = subprocess.run(
            [_COMMAND, *words, "--json"], env=self._environment, capture_output=True, text=True
        )
        if check and done.returncode:
            raise SystemExit(done.stderr)
        return json.loads(done.stdout or "{}")


if __name__ == "__main__":
    main()
