"""The recorder's entries for MLflow besides metrics: data set, epoch pictures and machine."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from straw_sweep import driven
from sweep_file import make_spec

from aae_core.data import TrainingData, load_training_data
from aae_core.training import TrainState
from orchestrator.execution.worker import Report
from orchestrator.pipeline.context import Recorder, SweepContext
from orchestrator.results.figures import draw_epoch
from orchestrator.settings import Settings
from orchestrator.study.study import TrialAttempt
from orchestrator.tracking.outbox import OutboxArtifact
from orchestrator.tracking.provenance import dataset

SPEC = make_spec(model={"hidden": [8]}, training=None, resources={"cpu": 1, "gpu": 0})


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return load_training_data(SPEC.data, Path())


@pytest.fixture
def sweep(settings: Settings) -> Iterator[SweepContext]:
    with driven(settings, SPEC) as sweep:
        Recorder(sweep).trial_started(_attempt())
        yield sweep


def _attempt(attempt: int = 1) -> TrialAttempt:
    return TrialAttempt("confirm", 0, attempt, SPEC.trial_config({}, 5), None)


def _report(sweep: SweepContext, data: TrainingData, epoch: int, attempt: int = 1) -> Report:
    """Return a worker's report with pictures of an untrained model."""
    state = TrainState.create(SPEC.trial_config({}, 5), data)
    state.epoch = epoch
    drawn = draw_epoch(state, data, sweep.folder_of(_attempt(attempt)))
    return Report(
        number=0,
        attempt=attempt,
        node="here",
        epoch=epoch,
        metrics={"val/recon": 1.0 / epoch},
        system={"system/cpu_utilization_percentage": 50.0},
        pictures=[str(path) for path in drawn],
    )


def _pictures(sweep: SweepContext) -> list[OutboxArtifact]:
    return [a for a in sweep.outbox.pending_artifacts(sweep.id) if a.folder == "images"]


def test_recorder_gives_the_sweep_one_data_set(sweep: SweepContext, data: TrainingData) -> None:
    document = sweep.outbox.dataset(sweep.id)
    assert document == dataset({"name": "digits", "path": None}, data) | {
        "source": json.dumps(
            {"tags": {k: v for k, v in SPEC.resolved()["data"].items() if v is not None}}
        )
    }
    assert (document["name"], document["digest"]) == ("digits", data.sha256[:36])
    profile, schema = json.loads(document["profile"]), json.loads(document["schema"])
    assert profile["images"] == {"train": 1197, "valid": 300}
    assert profile["sha256"] == data.sha256
    [features] = json.loads(schema["mlflow_tensorspec"]["features"])
    assert features["tensor-spec"]["shape"] == [-1, 64]
    parent = sweep.outbox.run(sweep.id)
    assert parent.tags["aae.data_sha256"] == data.sha256


def test_trial_run_names_its_departures_from_the_paper(sweep: SweepContext) -> None:
    config = SPEC.trial_config({"training.phases": "joint", "training.discriminator_steps": 2}, 5)
    Recorder(sweep).trial_started(TrialAttempt("confirm", 1, 1, config, None))
    runs = [sweep.outbox.run(f"{sweep.id}/confirm/{number}") for number in (0, 1)]
    assert [run.tags["aae.departures"] for run in runs if run] == [
        "",
        "joint phases; 2 discriminator steps per batch",
    ]


def test_dataset_names_a_file_of_images_as_source(data: TrainingData) -> None:
    document = dataset({"name": "arrays", "path": "/images.npz"}, data)
    assert document["source_type"] == "local"
    assert json.loads(document["source"]) == {"uri": "/images.npz"}


def test_epoch_pictures_are_named_as_mlflow_names_step_images(
    sweep: SweepContext, data: TrainingData
) -> None:
    Recorder(sweep).trial_epoch("confirm", _report(sweep, data, 4))
    key = f"{sweep.id}/confirm/0"
    moment = sweep.outbox.time_of(key, 4)
    names = {Path(artifact.path).name for artifact in _pictures(sweep)}
    assert f"samples+step+4+timestamp+{moment}+samples.png" in names
    assert f"samples+step+4+timestamp+{moment}+samples+compressed.webp" in names
    assert {artifact.run for artifact in _pictures(sweep)} == {key}
    run = sweep.outbox.run(key)
    assert run.tags["mlflow.loggedImages"] == "True"


def test_pictures_of_a_repeated_epoch_replace_the_first_pictures(
    sweep: SweepContext, data: TrainingData
) -> None:
    Recorder(sweep).trial_epoch("confirm", _report(sweep, data, 4))
    before = [artifact.path for artifact in _pictures(sweep)]
    time.sleep(0.01)
    again = _report(sweep, data, 4, attempt=2)
    history = [{"epoch": 4, "val/recon": 0.25}]
    resumed = Report(0, 2, "here", 4, {}, resumed_from=4, history=history, pictures=again.pictures)
    Recorder(sweep).trial_begun("confirm", resumed)
    assert [artifact.path for artifact in _pictures(sweep)] == before
    assert all(Path(path).exists() for path in before)


def test_system_metrics_reach_only_mlflow(sweep: SweepContext, data: TrainingData) -> None:
    Recorder(sweep).trial_epoch("confirm", _report(sweep, data, 1))
    key = f"{sweep.id}/confirm/0"
    sent = {metric.name for metric in sweep.outbox.pending_metrics(key, 100)}
    assert sent == {"val/recon", "system/cpu_utilization_percentage"}
    assert sweep.outbox.history(key) == [{"epoch": 1, "val/recon": 1.0}]
    assert sweep.outbox.last(key) == {"epoch": 1, "val/recon": 1.0}
