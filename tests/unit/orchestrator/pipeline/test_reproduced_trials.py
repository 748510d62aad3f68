"""Circumstances recorded in a trial's run, and the comparison of two trainings."""

import math
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from straw_sweep import driven
from sweep_file import make_spec

from aae_core.data import load_training_data
from aae_core.training import TrainState, fit
from orchestrator.errors import EnvironmentUnusable
from orchestrator.execution.worker import Report
from orchestrator.pipeline.context import Recorder, SweepContext
from orchestrator.pipeline.reproduce import (
    CurveComparison,
    Difference,
    Recorded,
    recorded,
    reproduce,
)
from orchestrator.settings import Settings
from orchestrator.study.study import TrialAttempt
from orchestrator.tracking.provenance import latest, provenance, succession

NOWHERE = "http://127.0.0.1:9"  # the discard port: no server listens


@pytest.fixture
def sweep(settings: Settings) -> Iterator[SweepContext]:
    with driven(settings, make_spec(resources={"cpu": 2, "gpu": 0})) as sweep:
        yield sweep


def tags_of(sweep: SweepContext) -> dict[str, str]:
    run = sweep.outbox.run(f"{sweep.id}/search/0")
    return run.tags


def start(sweep: SweepContext, attempt: int = 1, machine: dict[str, str] | None = None) -> None:
    """Record an attempt that begins on `machine`."""
    config, recorder = sweep.spec.trial_config({}, 5), Recorder(sweep)
    recorder.trial_started(TrialAttempt("search", 0, attempt, config, None))
    recorder.trial_begun("search", Report(0, attempt, "node", 0, {}, machine=machine))


# -- the record ------------------------------------------------------------------------------


def test_trial_run_records_what_its_numbers_depend_on(sweep: SweepContext) -> None:
    start(sweep, machine=provenance(2, gpu=False, pack=4))
    tags = tags_of(sweep)
    assert tags["aae.data_sha256"] == load_training_data(sweep.spec.data, Path()).sha256
    for package in ("aae-sweep", "torch", "numpy"):
        assert tags[f"aae.version.{package}"] == version(package)
    assert (tags["aae.threads"], tags["aae.device"], tags["aae.pack"]) == ("2", "cpu", "4")
    assert len(tags["aae.code"]) == 12
    assert tags["aae.cpu"]


def test_driver_records_no_provenance_for_its_workers(sweep: SweepContext) -> None:
    start(sweep)
    assert "aae.data_sha256" in tags_of(sweep)
    assert not tags_of(sweep).keys() & provenance(1, gpu=False).keys()


def test_trial_resumed_on_another_machine_records_both_machines(sweep: SweepContext) -> None:
    here = {"aae.cpu": "Old, AVX2", "aae.pack": "4", "aae.threads": "2"}
    start(sweep, machine=here)
    start(sweep, attempt=2, machine=here)
    assert tags_of(sweep).items() >= here.items()
    start(sweep, attempt=3, machine=here | {"aae.cpu": "New, AVX512", "aae.pack": "1"})
    tags = tags_of(sweep)
    assert tags["aae.cpu"] == "Old, AVX2, then New, AVX512"
    assert (tags["aae.pack"], tags["aae.threads"]) == ("4, then 1", "2")


def test_latest_returns_the_last_of_a_succession() -> None:
    tags: dict[str, str] = {}
    for machine in ("A", "A", "B", "A"):
        tags = succession(tags, {"cpu": machine})
    assert tags == {"cpu": "A, then B, then A"}
    assert latest(tags["cpu"]) == "A"
    assert latest("A") == "A"


def test_provenance_in_the_driver_initialises_no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse CUDA, whose context in the driver would take GPU memory from the workers."""

    def never() -> None:
        raise AssertionError("CUDA was asked")

    monkeypatch.setattr(torch.cuda, "_lazy_init", never)
    assert provenance(1, gpu=True)["aae.device"].startswith("cuda")


# -- the comparison --------------------------------------------------------------------------


def test_comparison_of_equal_numbers_has_no_difference_even_if_non_finite() -> None:
    comparison = CurveComparison()
    numbers = {"val/recon": 0.1 + 0.2, "val/parzen_ll": math.nan, "val/error": math.inf}
    assert comparison.add(1, numbers, dict(numbers)) == []
    assert (comparison.values, comparison.differences, comparison.largest) == (3, {}, 0.0)


def test_comparison_finds_a_difference_in_the_last_bit() -> None:
    comparison = CurveComparison()
    assert comparison.add(1, {"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 2.0}) == []
    assert comparison.add(2, {"a": 1.0, "b": 2.0}, {"a": 1.0, "b": math.nextafter(2, 3)}) == ["b"]
    assert comparison.add(3, {"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 2.5}) == ["b"]
    assert comparison.differences == {"b": Difference(2, 2.0, math.nextafter(2, 3), 2, 0.5)}
    assert (comparison.values, comparison.largest) == (6, 0.5)


@pytest.mark.parametrize(
    ("then", "here"),
    [
        ({"a": 1.0}, {}),
        ({}, {"a": 1.0}),
        ({"a": math.nan}, {"a": 1.0}),
        ({"a": 1}, {"a": math.inf}),
    ],
)
def test_comparison_with_missing_or_non_finite_number_is_infinite(
    then: dict[str, float], here: dict[str, float]
) -> None:
    comparison = CurveComparison()
    assert comparison.add(1, then, here) == ["a"]
    assert comparison.largest == math.inf


def test_reproduce_validates_the_epochs_that_the_record_has(tmp_path: Path) -> None:
    """Test a pruner's rung, which is in the record and not in the configuration."""
    training = {"epochs": 4, "validate_every": 3, "batch_size": 100}
    spec = make_spec(model={"hidden": [4]}, training=training)
    config = spec.trial_config({}, 5)
    data = load_training_data(config.data, tmp_path)
    rung = fit(TrainState.create(config, data), data, validate_at=(2,))
    curve = {epoch.epoch: epoch.metrics for epoch in rung}
    run = Recorded(
        "0" * 32, {"aae.sweep": "tiny", "mlflow.runName": "search-0"}, {}, config, curve, []
    )
    assert run.validated == {2, 3, 4}
    settings = Settings.from_environment({"AAE_HOME": str(tmp_path)})
    *_, end = reproduce(run, settings)
    assert end["metrics"] == []
    assert end["identical"]


# -- no record -------------------------------------------------------------------------------


def test_recorded_names_an_absent_database_and_creates_none(tmp_path: Path) -> None:
    settings = Settings.from_environment({"AAE_HOME": str(tmp_path / "home")})
    with pytest.raises(EnvironmentUnusable, match=r"no MLflow database at .*mlflow\.db"):
        recorded(settings, "a" * 32)
    assert not (tmp_path / "home").exists()


def test_recorded_reports_an_unreachable_server_rather_than_an_unknown_run(tmp_path: Path) -> None:
    settings = Settings.from_environment(
        {"AAE_HOME": str(tmp_path), "MLFLOW_TRACKING_URI": NOWHERE}
    )
    with pytest.raises(EnvironmentUnusable, match="MLflow cannot be read"):
        recorded(settings, "a" * 32)
