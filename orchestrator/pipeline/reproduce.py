"""Train a recorded run again from its MLflow record alone, and compare number by number.

A resumed run equals an uninterrupted run, so this module trains without interruption.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from sqlalchemy import make_url

from aae_core.config import TrialConfig
from aae_core.data import load_training_data
from aae_core.errors import ConfigError
from aae_core.training import TrainState
from orchestrator.errors import EnvironmentUnusable, SweepError, UsageError
from orchestrator.pipeline import local
from orchestrator.records import SYSTEM
from orchestrator.settings import Settings
from orchestrator.study.database import sqlite_file
from orchestrator.sweepfile.checks import require_same_data
from orchestrator.tracking.mlflow_writer import described, make_store, prepare_client
from orchestrator.tracking.provenance import (
    DATA,
    DEVICE,
    THREADS,
    latest,
    params_of,
    plugins,
    provenance,
)

if TYPE_CHECKING:  # importing MLflow takes seconds
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

_TRAINED = ("train/", "val/")  # `evaluate` adds test/…
_UNKNOWN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # error codes of an unknown run


@dataclass(frozen=True)
class Recorded:
    """A trial as recorded in MLflow."""

    run_id: str
    tags: dict[str, str]
    params: dict[str, str]
    config: TrialConfig
    curve: dict[int, dict[str, float]]  # by epoch, only metrics that training produces
    others: list[str]  # metrics that training does not produce

    @property
    def validated(self) -> set[int]:
        """Epochs with validation metrics; some may have been validated only for a pruner."""
        return {
            epoch
            for epoch, row in self.curve.items()
            if any(name.startswith("val/") for name in row)
        }

    @property
    def name(self) -> str:
        return f"{self.tags['aae.sweep']}/{self.tags['mlflow.runName']}"

    @property
    def epochs(self) -> int:
        return max(self.curve, default=0)

    @property
    def divergence(self) -> str | None:
        """Reason and epoch of a divergence; None if the trial did not diverge."""
        return self.tags.get("aae.reason") if self.tags.get("aae.state") == "diverged" else None

    @property
    def threads(self) -> int:
        return int(latest(self.tags.get(THREADS, "1")))

    @property
    def on_gpu(self) -> bool:
        return latest(self.tags.get(DEVICE, "cpu")).startswith("cuda")


@dataclass
class Difference:
    """Difference between a metric's recorded and reproduced values."""

    first_epoch: int
    recorded: float | None  # in that epoch; None: missing
    here: float | None
    epochs: int = 0  # in which the values differ
    largest: float = 0.0  # infinite if only one of the two is a number


@dataclass
class CurveComparison:
    values: int = 0  # number of compared values
    differences: dict[str, Difference] = field(default_factory=dict)

    @property
    def largest(self) -> float:
        return max((found.largest for found in self.differences.values()), default=0.0)

    def add(
        self, epoch: int, recorded: Mapping[str, float], here: Mapping[str, float]
    ) -> list[str]:
        """Compare the metrics of an epoch; return the names of those that differ."""
        names = sorted(recorded.keys() | here.keys())
        pairs = {name: (recorded.get(name), here.get(name)) for name in names}
        apart = {name: gap for name, pair in pairs.items() if (gap := _distance(*pair))}
        for name, gap in apart.items():
            found = self.differences.setdefault(name, Difference(epoch, *pairs[name]))
            found.epochs += 1
            found.largest = max(found.largest, gap)
        self.values += len(names)
        return list(apart)


def recorded(settings: Settings, run_id: str) -> Recorded:
    """Read a trial's run.

    Raises UsageError for an unknown run, EnvironmentUnusable if MLflow cannot be read.
    """
    from mlflow.exceptions import MlflowException

    store = settings.tracking_uri
    _require_database(store)
    prepare_client()
    try:
        return _read(store, run_id)
    except SweepError:
        raise
    except Exception as error:
        if isinstance(error, MlflowException) and error.error_code in _UNKNOWN:
            raise UsageError(
                f"MLflow has no run `{run_id}`; give its run id, or its sweep and trial as in "
                "digits/search-3: aae-sweep show"
            ) from error
        raise EnvironmentUnusable(
            f"MLflow cannot be read ({described(error)}); "
            "set MLFLOW_TRACKING_URI to where the run was recorded"
        ) from error


def reproduce(
    run: Recorded, settings: Settings, data_path: Path | None = None
) -> Iterator[dict[str, Any]]:
    """Train again as many epochs as were recorded; yield the events start, epoch …, end.

    `data_path` replaces the recorded `data.path`.  Raises EnvironmentUnusable before the training
    if the data differ from the recorded data, UsageError if nothing was recorded.
    """
    if not run.epochs and run.divergence is None:
        reason = run.tags.get("aae.reason") or "it may not have begun"
        raise UsageError(f"{run.name} has no recorded epoch to compare with ({reason})")
    config = _with_data_at(run.config, data_path)
    data = load_training_data(config.data, settings.data)
    require_same_data(data, run.tags.get(DATA), run.name, "set AAE_DATA or --data-path to them")
    device = "cuda" if run.on_gpu and torch.cuda.is_available() else "cpu"
    torch.set_num_threads(run.threads)
    here = {DATA: data.sha256} | provenance(run.threads, gpu=device == "cuda")
    here |= plugins(config)
    yield {
        "event": "start",
        "run": run.name,
        "seed": config.seed,
        "device": device,
        "threads": run.threads,
        "epochs": run.epochs,
    }
    comparison, divergence, reached = CurveComparison(), None, 0
    state = TrainState.create(config, data, device)
    steps = run.epochs + (run.divergence is not None)
    for event in islice(local.epochs(state, data, run.validated), steps):
        if event["event"] == "end":
            divergence = event["reason"]
            break
        reached = event["epoch"]
        differing = comparison.add(reached, run.curve.get(reached, {}), event["metrics"])
        yield {"event": "epoch", "epoch": reached, "differing": differing}
    for epoch in range(reached + 1, run.epochs + 1):
        comparison.add(epoch, run.curve.get(epoch, {}), {})
    yield {
        "event": "end",
        "run": run.name,
        "run_id": run.run_id,
        "identical": not comparison.differences and divergence == run.divergence,
        "epochs": run.epochs,
        "values": comparison.values,
        "diverged": {"recorded": run.divergence, "here": divergence},
        "max_difference": _number(comparison.largest),
        "metrics": [
            {"metric": name} | {key: _number(value) for key, value in asdict(found).items()}
            for name, found in comparison.differences.items()
        ],
        "not_compared": run.others,
        "conditions": _other_conditions(run, here),
    }


def _read(store: str, run_id: str) -> Recorded:
    from mlflow.tracking import MlflowClient

    make_store(store)
    client = MlflowClient(store)
    run = client.get_run(run_id)
    tags: dict[str, str] = run.data.tags
    if "aae.config_hash" not in tags:
        raise UsageError(
            f"{run_id} ({tags.get('mlflow.runName')}) is not a trial; "
            "list a sweep's trials with: aae-sweep show"
        )
    others = sorted(name for name in run.data.metrics if not name.startswith((*_TRAINED, SYSTEM)))
    config, curve = _config(client, run), _curve(client, run)
    return Recorded(run_id, tags, run.data.params, config, curve, others)


def _config(client: "MlflowClient", run: "Run") -> TrialConfig:
    """Return the configuration that the driver resolved, with every default."""
    try:
        with TemporaryDirectory() as folder:
            file = client.download_artifacts(run.info.run_id, "config.json", folder)
            return TrialConfig.from_dict(json.loads(Path(file).read_text()))
    except ConfigError as error:
        version = run.data.tags.get("aae.version.aae-sweep", "the version that recorded it")
        raise EnvironmentUnusable(
            f"its config.json is of another version of aae-sweep ({error}); install {version}"
        ) from error
    except Exception as error:
        raise EnvironmentUnusable(
            f"MLflow has no readable config.json of {run.info.run_id} ({error}); "
            "send it from the machine that ran the sweep: aae-sweep sync"
        ) from error


def _curve(client: "MlflowClient", run: "Run") -> dict[int, dict[str, float]]:
    curve: dict[int, dict[str, float]] = {}
    for name in run.data.metrics:
        if name.startswith(_TRAINED):
            for point in client.get_metric_history(run.info.run_id, name):
                curve.setdefault(point.step, {})[name] = point.value
    return curve


def _require_database(store: str) -> None:
    """Refuse a missing SQLite file: MLflow would create an empty one."""
    path = sqlite_file(make_url(store)) if store.startswith("sqlite") else None
    if path is not None and not path.exists():
        raise EnvironmentUnusable(
            f"no MLflow database at {path}; "
            "set AAE_HOME or MLFLOW_TRACKING_URI to where the run was recorded"
        )


def _with_data_at(config: TrialConfig, path: Path | None) -> TrialConfig:
    if path is None:
        return config
    if config.data.path is None:
        raise UsageError(f"the run's data, {config.data.name}, are not a file; drop --data-path")
    return replace(config, data=replace(config.data, path=str(path.resolve())))


def _other_conditions(run: Recorded, here: Mapping[str, str]) -> list[dict[str, str | None]]:
    """Return the conditions that differ between the recorded and the present training."""
    config = {path: str(value) for path, value in params_of(run.config).items()}
    pairs = {name.removeprefix("aae."): (run.tags.get(name), now) for name, now in here.items()}
    pairs |= {path: (run.params.get(path), now) for path, now in config.items()}
    return [
        {"what": what, "recorded": then, "here": now}
        for what, (then, now) in pairs.items()
        if then != now
    ]


def _distance(a: float | None, b: float | None) -> float:
    """Return |a − b|: 0 for equal values or two NaNs, infinite if only one is a number."""
    if a is None or b is None:
        return math.inf
    if a == b or (math.isnan(a) and math.isnan(b)):
        return 0.0
    return math.inf if math.isnan(a - b) else abs(a - b)


def _number(value: float | None) -> float | None:
    """Return None for a non-finite number, which JSON cannot hold."""
    return value if value is not None and math.isfinite(value) else None
