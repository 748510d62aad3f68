"""Sweeps of small trials with a stand-in for Tune: one trial at a time, in the test's process."""

import json
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ray.tune.search import Searcher
from sweep_file import make_spec, merged

from aae_core.data import TrainingData, load_training_data
from aae_core.evaluation import scores
from aae_core.evaluation.parzen import ArraySource
from orchestrator.execution import worker
from orchestrator.execution.cluster import TrialResources
from orchestrator.execution.tune_driver import StageDriver
from orchestrator.execution.worker import Report, TrialTask
from orchestrator.pipeline import context as sweep_module
from orchestrator.pipeline import scoring, search, stages
from orchestrator.pipeline.context import Request, SweepContext, describe, opened
from orchestrator.records import RunRecord, Stage
from orchestrator.results.reader import ResultsReader
from orchestrator.settings import Settings
from orchestrator.study.study import StageStudy, TrialAttempt, open_storage
from orchestrator.sweepfile.spec import SweepSpec


class Watcher:
    """An observer that records events and may act on each event."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.act: Callable[[str], None] = lambda _: None

    def _see(self, what: str) -> None:
        self.seen.append(what)
        self.act(what)

    def stage_began(self, stage: str, planned: int, known: Iterable[RunRecord]) -> None:
        self._see(f"{stage} of {planned}")

    def trial_started(self, attempt: TrialAttempt) -> None:
        self._see(f"{attempt.stage} {attempt.number} started")

    def trial_begun(self, stage: Stage, report: Report) -> None: ...

    def trial_epoch(self, stage: Stage, report: Report) -> None:
        self._see(f"{stage} {report.number} epoch {report.epoch}")

    def trial_ended(self, stage: Stage, number: int, state: Any, reason: str | None) -> None:
        self._see(f"{stage} {number} {state}")

    def scoring(self, what: str, done: int, total: int) -> None:
        self._see(f"scoring {what}")

    def note(self, message: str) -> None:
        self._see(message)


class NoMlflow:
    def __init__(self, *_: Any) -> None: ...

    def start(self) -> None: ...

    def stop(self, timeout: float, hurry: threading.Event) -> bool:
        return True

    def notes(self) -> Iterator[str]:
        yield from ()


def straw_stage(
    driver: StageDriver, data: TrainingData, resources: TrialResources, scratch: Path
) -> None:
    """Stand in for Tune: train one trial at a time, in this process."""
    while (suggested := driver.suggest("t")) != Searcher.FINISHED:
        if not isinstance(suggested, dict):
            time.sleep(0.01)  # the driver is paused
            continue
        tasks = [TrialTask(**task) for task in json.loads(suggested["tasks"])]
        stopped = [False]

        def report(result: dict[str, Any], stopped: list[bool] = stopped) -> None:
            stopped[0] = driver.should_stop("t", result)
            if stopped[0]:
                raise SystemExit

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(worker.tune, "report", report)
            try:
                worker.train_pack(tasks, data)
            except SystemExit:
                driver.tune_ended("t")


class StrawArray:
    """A SharedArray that stays in this process."""

    @staticmethod
    def put(array: np.ndarray) -> Any:
        return SimpleNamespace(n_samples=len(array), open=lambda: ArraySource(array))


class StrawActors:
    """An ActorPool whose only actor is this process."""

    def __init__(self, kind: Any, resources: TrialResources, what: str, shared: Any) -> None:
        self._actor = kind(*shared)

    def __class_getitem__(cls, job: type) -> Any:
        return cls

    def __enter__(self) -> "StrawActors":
        return self

    def __exit__(self, *_: object) -> None: ...

    def run(self, size: int, jobs: dict[Any, Any]) -> Iterator[tuple[Any, Any]]:
        for job, arguments in jobs.items():
            yield job, self._actor.score(*arguments)


@contextmanager
def _no_ray(settings: Settings) -> Iterator[None]:
    yield


def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(search, "run_stage", straw_stage)
    monkeypatch.setattr(sweep_module, "MlflowWriter", NoMlflow)
    monkeypatch.setattr(stages.cluster, "connected", _no_ray)
    monkeypatch.setattr(stages.cluster, "trial_resources", lambda _: TrialResources(1.0, 0.0))
    monkeypatch.setattr(StageDriver, "capacity", lambda _: 1)
    monkeypatch.setattr(stages.cluster, "cpus", lambda: 1)
    monkeypatch.setattr(stages.cluster, "slots", lambda _: 1)
    monkeypatch.setattr(scoring, "ActorPool", StrawActors)
    monkeypatch.setattr(scoring, "SharedArray", StrawArray)
    monkeypatch.setattr(worker, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(worker, "SAVING_SHARE", math.inf)
    monkeypatch.setattr(worker, "is_drawn", lambda *_: False)  # drawing takes longer than training
    monkeypatch.setattr(scoring, "draw_pictures", lambda *_: [])
    monkeypatch.setattr(scores, "PARZEN_SAMPLES", 400)
    monkeypatch.setattr(scores, "_CHUNK", 400)
    monkeypatch.setattr(scores, "_IMPORTANCE_DRAWS", 2)


def images(path: Path, *, test: bool) -> Path:
    random = np.random.default_rng(0)
    members = {"x_train": random.random((60, 9), dtype=np.float32)}
    if test:
        members["x_test"] = random.random((10, 9), dtype=np.float32)
    np.savez(path, **members)  # type: ignore[arg-type]
    return path


def sweep(path: Path, trials: int = 3, **changes: Any) -> SweepSpec:
    sections = {
        "data": {"name": "arrays", "path": str(path)},
        "model": {"hidden": [4]},
        "training": {"batch_size": 9},
        "search": {"objective": {"metric": "val/recon"}, "trials": trials},
        "confirm": {"baseline": False},
        "evaluate": {"parzen": {"samples": 200, "screen_samples": 200}},
    }
    return make_spec(changes.pop("name", "straw"), **merged(sections, changes))


def run(
    settings: Settings,
    spec: SweepSpec,
    watcher: Watcher | None = None,
    draining: threading.Event | None = None,
    priority: int | None = None,
) -> ResultsReader:
    def write_report(sweep: str) -> Path:
        report = settings.sweep_folder(sweep) / "report.html"
        report.write_text("<html></html>")
        return report

    stages.run(
        Request(spec, "name: straw", "aae-sweep run straw.yaml", priority),
        settings,
        watcher or Watcher(),
        draining or threading.Event(),
        write_report,
    )
    return ResultsReader(settings)


@dataclass(frozen=True)
class StrawHome:
    """A home, and images with a test split."""

    settings: Settings
    images: Path

    def sweep(self, trials: int = 3, **changes: Any) -> SweepSpec:
        return sweep(self.images, trials, **changes)

    def run(self, spec: SweepSpec, *arguments: Any) -> ResultsReader:
        return run(self.settings, spec, *arguments)

    def study(self, spec: SweepSpec, stage: Stage = "search") -> StageStudy:
        """Return the stage's study as another process reads it."""
        study = StageStudy.read(open_storage(self.settings), spec.sweep_id, stage)
        assert study is not None
        return study


def numbers(reader: ResultsReader, spec: SweepSpec) -> list[Any]:
    return [
        (r.stage, r.number, r.params, r.seed, reader.curve(spec.sweep_id, r)[0])
        for r in reader.trials(spec.sweep_id)
    ]


def digits_with_labels(**changes: Any) -> SweepSpec:
    sections = {
        "data": {"labels": 100},
        "model": {"kind": "semi_supervised", "hidden": [8]},
        "training": {"epochs": 1},
        "search": {"space": {"training.classification.lr": {"float": [1e-3, 0.3], "log": True}}},
        "confirm": {"baseline": False},
    }
    return make_spec("straw", **merged(sections, changes))


class Nobody:
    """An observer that ignores every event."""

    def __getattr__(self, _: str) -> Any:
        return lambda *_: None


@contextmanager
def driven(settings: Settings, spec: SweepSpec) -> Iterator[SweepContext]:
    """Yield the sweep in its driver's hands, described to MLflow, before the first trial."""
    request = Request(spec, f"name: {spec.name}", f"aae-sweep run {spec.name}.yaml")
    with opened(request, settings, Nobody(), threading.Event()) as sweep:
        settings.sweep_folder(sweep.id).mkdir(parents=True, exist_ok=True)
        data = load_training_data(spec.data, settings.data)
        sweep.note(data_sha256=data.sha256)
        describe(sweep, data)
        yield sweep
