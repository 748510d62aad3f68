"""Run the real driver with workers that only sleep.

    python benchmarks/fake_workers.py --workers 250 --epoch-seconds 2 --minutes 10

Everything that a driver does is real: Tune's controller, sampler, pruner, study, outbox, MLflow and
output.  Only Tune's actors are replaced, by entries of a queue that report when an epoch would have
ended.  The command prints one JSON document.
"""

import argparse
import heapq
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from orchestrator.settings import Settings

_SWEEP = """\
name: scaling
data: {{name: digits}}
model: {{hidden: [20], init_std: 0.15}}
training: {{epochs: {epochs}, reconstruction: {{optimizer: adam, lr: 5e-3}}}}
search:
  sampler: {{kind: {sampler}}}
  pruner: {{kind: {pruner}, grace_epochs: {grace}}}
  objective: {{metric: val/recon}}
  trials: {trials}
  space:
    model.prior.std: {{float: [0.5, 8], log: true}}
    training.reconstruction.lr: {{float: [1e-4, 1e-1], log: true}}
confirm: {{seeds: 1, baseline: false}}
"""
_METRICS = {  # of an epoch of this model, besides its objective
    "train/recon": 0.05, "train/disc_style": 1.3, "train/gen_style": 0.7, "val/latent_mmd": 0.01,
    "val/latent_std": 1.9, "train/seconds": 2.0,
}  # fmt: skip
_SYSTEM = {f"system/{name}": 50.0 for name in ("cpu", "memory", "memory_gb", "disk_gb")}
_START_SECONDS = 0.5  # until a worker begins its next trial


@dataclass
class FakeWorker:
    """A worker: the trials of its pack, and the epoch that each has reached."""

    tasks: list[dict[str, Any]] = field(default_factory=list)
    epoch: int = -2  # -2: report the process next, -1: report the start next
    seconds: float = 1.0  # per epoch
    quality: float = 0.0

    def begin(self, config: dict[str, Any], epoch_seconds: float, draw: random.Random) -> None:
        self.tasks, self.epoch = json.loads(config["tasks"]), -2
        self.seconds = epoch_seconds * draw.uniform(0.9, 1.1)
        self.quality = draw.gauss(1, 0.2)

    def result(self, draw: random.Random) -> dict[str, Any]:
        """Return what Tune receives from `worker.train`."""
        self.epoch += 1
        base = {"training_iteration": self.epoch + 2, "time_this_iter_s": self.seconds}
        base |= {"done": False, "hostname": "node", "pid": 1, "date": "2015-11-18_00-00-00"}
        if self.epoch == -1:
            return base | {"process": ["node", 1]}
        return base | {"reports": json.dumps([self._report(task, draw) for task in self.tasks])}

    def _report(self, task: dict[str, Any], draw: random.Random) -> dict[str, Any]:
        epoch = self.epoch
        report = {"number": task["number"], "attempt": task["attempt"], "node": "node"}
        report |= {"epoch": epoch, "metrics": {}, "machine": {"aae.cpu": "none"}}
        if epoch == 0:
            return report
        last = task["config"]["training"]["epochs"] == epoch
        value = self.quality + draw.gauss(0, 1) / epoch
        return report | {
            "machine": None,
            "metrics": {"val/recon": value} | _METRICS,
            "system": _SYSTEM,
            "seconds": self.seconds,
            "checkpoint": f"{task['folder']}/epoch-{epoch:06d}",
            "end": "complete" if last else None,
        }


class _Actor:
    """Tune's handle of a fake worker."""

    def __init__(self, on_start: Any, on_stop: Any, on_error: Any) -> None:
        self.actor_id = uuid.uuid4().int
        self._on_start, self._on_stop, self._on_error = on_start, on_stop, on_error
        self.worker = FakeWorker()

    def set_on_stop(self, on_stop: Any) -> None:
        self._on_stop = on_stop

    def set_on_error(self, on_error: Any) -> None:
        self._on_error = on_error


class _Remote:
    """Any method of an actor, called remotely: nobody reads the result."""

    def __getattr__(self, name: str) -> "_Remote":
        return self

    def __call__(self, *_: Any, **__: Any) -> None:
        """Return no future."""


class FakeActors:
    """In place of Ray's RayActorManager: a queue of events, each due at a time."""

    def __init__(self, workers: int, epoch_seconds: float, on_event: Callable[[], None]) -> None:
        self._workers, self._epoch_seconds, self._on_event = workers, epoch_seconds, on_event
        self._live_actors_to_ray_actors_resources: dict[_Actor, tuple[Any, None]] = {}
        self._waiting: list[tuple[_Actor, dict[str, Any]]] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order, self._draw = count(), random.Random(0)
        self.epochs, self.trained = 0, 0.0

    def __call__(self, resource_manager: Any) -> "FakeActors":
        return self

    # -- what Tune's controller calls --------------------------------------------------------------

    def add_actor(
        self, cls: Any, kwargs: dict[str, Any], resource_request: Any, **callbacks: Any
    ) -> _Actor:
        actor = _Actor(callbacks["on_start"], callbacks["on_stop"], callbacks["on_error"])
        self._waiting.append((actor, kwargs["config"]))
        return actor

    def remove_actor(self, tracked_actor: _Actor, **_: Any) -> bool:
        if self._live_actors_to_ray_actors_resources.pop(tracked_actor, None) is None:
            self._waiting = [each for each in self._waiting if each[0] is not tracked_actor]
            return False
        self._later(0.0, lambda: tracked_actor._on_stop and tracked_actor._on_stop(tracked_actor))
        return True

    def schedule_actor_task(
        self,
        tracked_actor: _Actor,
        method_name: str,
        args: tuple[Any, ...] = (),
        kwargs: Any = None,
        on_result: Any = None,
        on_error: Any = None,
        _return_future: bool = False,
    ) -> None:
        worker = tracked_actor.worker
        if method_name == "reset":
            worker.begin(args[0], self._epoch_seconds, self._draw)
            self._later(0.0, lambda: on_result(tracked_actor, True))
        elif method_name == "train":
            wait = worker.seconds if worker.epoch >= 0 else _START_SECONDS / 2
            self._later(wait, lambda: self._answer(tracked_actor, on_result))

    def next(self, timeout: float) -> bool:
        self._start()
        now = time.monotonic()
        due = self._events[0][0] if self._events else now + timeout
        if due > now:
            time.sleep(min(timeout, due - now))
            if due > now + timeout:
                return False
        _, _, event = heapq.heappop(self._events)
        event()
        self._on_event()
        return True

    def is_actor_started(self, tracked_actor: _Actor) -> bool:
        return tracked_actor in self._live_actors_to_ray_actors_resources

    def is_actor_failed(self, tracked_actor: _Actor) -> bool:
        return False

    def get_live_actors_resources(self) -> dict[str, float]:
        return {}

    def clear_actor_task_futures(self, tracked_actor: _Actor) -> None:
        """Do nothing: no future exists."""

    def cleanup(self) -> None:
        self._events.clear()

    @property
    def num_live_actors(self) -> int:
        return len(self._live_actors_to_ray_actors_resources)

    @property
    def num_pending_actors(self) -> int:
        return len(self._waiting)

    @property
    def num_total_actors(self) -> int:
        return self.num_live_actors + self.num_pending_actors

    @property
    def num_actor_tasks(self) -> int:
        return len(self._events)

    # ----------------------------------------------------------------------------------------------

    def _later(self, seconds: float, event: Callable[[], Any]) -> None:
        heapq.heappush(self._events, (time.monotonic() + seconds, next(self._order), event))

    def _start(self) -> None:
        while self._waiting and self.num_live_actors < self._workers:
            actor, config = self._waiting.pop(0)
            self._live_actors_to_ray_actors_resources[actor] = (_Remote(), None)
            actor.worker.begin(config, self._epoch_seconds, self._draw)
            self._later(0.0, partial(self._started, actor))

    def _started(self, actor: _Actor) -> None:
        if self.is_actor_started(actor):  # Tune drops an actor whose trial another one takes
            actor._on_start(actor)

    def _answer(self, actor: _Actor, on_result: Any) -> None:
        if not self.is_actor_started(actor):
            return
        result = actor.worker.result(self._draw)
        if actor.worker.epoch > 0:
            self.epochs += 1
            self.trained += actor.worker.seconds
        on_result(actor, result)


def drive(options: argparse.Namespace, home: Path) -> dict[str, Any]:
    """Run the search for the given time; return what the driver used of its process's CPU."""
    os.environ["AAE_HOME"] = str(home)
    from orchestrator.execution import cluster

    cluster.prepare(Settings.from_environment())
    from ray.tune.execution import tune_controller

    from orchestrator import Interrupted, run
    from orchestrator.sweepfile.loader import parse_sweep

    readings: list[dict[str, float]] = []

    def read() -> None:
        """Take a reading at the first event and ten times later; then interrupt, as Ctrl-C does."""
        now = time.monotonic()
        if readings and now < readings[0]["time"] + len(readings) * options.minutes * 6:
            return
        done = {"epochs": actors.epochs, "trained": actors.trained}
        readings.append({"time": now, "cpu": time.process_time(), "mb": resident_mb(), **done})
        if len(readings) == 11:
            os.kill(os.getpid(), signal.SIGINT)
            threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()

    actors = FakeActors(options.workers, options.epoch_seconds, read)
    vars(tune_controller)["RayActorManager"] = actors
    vars(cluster)["slots"] = lambda wanted: options.workers
    text = _SWEEP.format(
        trials=10**6,
        epochs=options.epochs,
        sampler=options.sampler,
        pruner=options.pruner,
        grace=min(options.grace, options.epochs),
    )
    with suppress(Interrupted, KeyboardInterrupt):
        run(parse_sweep(text, "scaling.yaml"))
    trials = len(list((home / "sweeps").glob("*/trials/*")))
    first, *_, last = readings
    seconds, cpu = last["time"] - first["time"], last["cpu"] - first["cpu"]
    return vars(options) | {
        "trials": trials,
        "epochs_trained": last["epochs"],
        "cpu_seconds": cpu,
        "cpu_share": cpu / seconds,
        "workers_busy": last["trained"] / (options.workers * seconds),
        "mb": [round(reading["mb"]) for reading in readings],
    }


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    found.add_argument("--workers", type=int, default=250)
    found.add_argument("--epoch-seconds", type=float, default=2.0)
    found.add_argument("--minutes", type=float, default=1.0)
    found.add_argument("--epochs", type=int, default=50)
    found.add_argument("--sampler", default="random")
    found.add_argument("--pruner", default="successive_halving")
    found.add_argument("--grace", type=int, default=5)
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(drive(parser().parse_args(), Path(folder))), file=sys.stdout)
