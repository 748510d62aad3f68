"""The command `reproduce`: trials that a sweep recorded in a real MLflow, trained again."""

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlflow.tracking import MlflowClient
from straw_sweep import driven
from sweep_command import aae
from sweep_file import make_spec

from aae_core.data import load_training_data
from aae_core.errors import TrialDiverged
from aae_core.training import TrainState, fit
from orchestrator.execution.worker import Report
from orchestrator.pipeline.context import Recorder, SweepContext
from orchestrator.records import Stage, TrialState
from orchestrator.results.reader import ResultsReader
from orchestrator.settings import Settings
from orchestrator.sweepfile.spec import SweepSpec
from orchestrator.tracking.mlflow_writer import MlflowWriter
from orchestrator.tracking.provenance import provenance

pytestmark = pytest.mark.usefixtures("threads")

RATE = "training.reconstruction.lr"
EPOCHS = 3


class Home:
    """The home of the tests' sweeps, and MLflow's view of the home."""

    def __init__(self, folder: Path, empty_mlflow: Path) -> None:
        self.settings = Settings.from_environment({"AAE_HOME": str(folder / "home")})
        self.settings.home.mkdir()
        shutil.copy(empty_mlflow, self.settings.home)
        self.images = folder / "images.npz"
        self.client = MlflowClient(self.settings.tracking_uri)

    def run_id(self, trial: str) -> str:
        """Return the run id of the trial `sweep/stage-number`."""
        sweep, _, name = trial.partition("/")
        reader = ResultsReader(self.settings)
        trials = reader.trials(reader.resolve(sweep))
        return next(str(t.run_id) for t in trials if f"{t.stage}-{t.number}" == name)

    def config_file(self, trial: str) -> Path:
        uri = str(self.client.get_run(self.run_id(trial)).info.artifact_uri)
        return Path(uri.removeprefix("file://")) / "config.json"

    def alter_metrics(self, statement: str, trial: str) -> None:
        """Change MLflow's database directly: the run is added to the WHERE of `statement`."""
        with sqlite3.connect(self.settings.home / "mlflow.db") as database:
            changed = database.execute(f"{statement} AND run_uuid = ?", [self.run_id(trial)])
            assert changed.rowcount == 1
        database.close()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, empty_mlflow: Path) -> Iterator[Home]:
    """Two sweeps as their driver records them: one on digits, one on a file of images."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as in resources.cpu
    home = Home(tmp_path_factory.mktemp("recorded"), empty_mlflow)
    write_images(home.images, seed=0)
    with driven(home.settings, spec_of("tiny", {})) as sweep:
        sweep.confirm.enqueue([{"params": {RATE: 1e18}, "seed": 7}])
        carry_out(sweep, "search", "complete")
        carry_out(sweep, "search", "pruned", epochs=2)
        carry_out(sweep, "search", "failed", epochs=0)
        carry_out(sweep, "confirm", "diverged")
        send(sweep)
    own = {"name": "arrays", "path": str(home.images)}
    with driven(home.settings, spec_of("own", own)) as sweep:
        carry_out(sweep, "search", "complete")
        send(sweep)
        carry_out(sweep, "search", "complete")  # not sent to MLflow
    yield home
    torch.set_num_threads(before)


def spec_of(name: str, data: dict[str, Any]) -> SweepSpec:
    return make_spec(
        name,
        data=data,
        model={"output": "linear"},
        training={"epochs": EPOCHS},
        search={"space": {RATE: {"float": [1e-3, 1e-2]}}},
        resources={"cpu": 1, "gpu": 0},
    )


def carry_out(sweep: SweepContext, stage: Stage, end: TrialState, epochs: int = EPOCHS) -> None:
    """Train the stage's next trial, and record the trial as a stage's driver does."""
    recorder, study, reason = Recorder(sweep), sweep.study(stage), None
    attempt = study.ask(sweep.spec) if stage == "search" else study.pop(sweep.spec)
    number = attempt.number
    recorder.trial_started(attempt)
    study.started(number, "node", None)
    made_by = provenance(1, gpu=False)
    recorder.trial_begun(stage, Report(number, 1, "node", 0, {}, machine=made_by))
    data = load_training_data(sweep.spec.data, sweep.settings.data)
    state = TrainState.create(attempt.config, data)
    try:
        for epoch in islice(fit(state, data), epochs):
            system = {"system/cpu_utilization_percentage": 50.0}
            report = Report(number, 1, "node", epoch.epoch, epoch.metrics, system=system)
            recorder.trial_epoch(stage, report)
    except TrialDiverged as diverged:
        reason = str(diverged)
    recorder.trial_ended(stage, number, end, reason)
    study.end(number, end, 0.0, reason)


def send(sweep: SweepContext) -> None:
    uri, artifacts = sweep.settings.tracking_uri, sweep.settings.mlflow_artifacts
    MlflowWriter(sweep.outbox, uri, artifacts, sweep.id).sync_once()


def write_images(path: Path, seed: int) -> None:
    images = np.random.default_rng(seed).random((200, 9), dtype=np.float32)
    np.savez(path, x_train=images)


@pytest.fixture
def reproduce(recorded: Home, home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The command, run in the home of the recorded sweeps."""
    monkeypatch.setenv("AAE_HOME", str(recorded.settings.home))
    return lambda *arguments: aae("reproduce", *arguments)


# -- identical -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tiny/search-0", "tiny/0", "tiny/search-0000"])
def test_reproduce_of_a_complete_trial_is_identical(
    name: str, reproduce: Callable[..., Any]
) -> None:
    ended = reproduce(name, "--json")
    assert ended.code == 0, ended.err
    found = ended.document
    assert found["identical"]
    assert found["run"].endswith("/search-0000")
    assert (found["epochs"], found["metrics"], found["conditions"]) == (EPOCHS, [], [])
    assert found["values"] >= EPOCHS * 5  # recon, disc, gen; recon, likelihood …
    assert found["max_difference"] == 0
    assert "1 thread, 3 epochs to compare" in ended.err
    assert "epoch 3  identical" in ended.err


def test_reproduce_needs_only_the_record_in_mlflow(
    recorded: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run in a home without sweeps."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", recorded.settings.tracking_uri)
    ended = aae("reproduce", recorded.run_id("tiny/search-0"))
    assert ended.code == 0, ended.err
    assert "search-0000 is identical, bit for bit" in ended.out
    assert "recorded" not in ended.out


def test_reproduce_of_a_pruned_trial_compares_its_epochs(reproduce: Callable[..., Any]) -> None:
    found = reproduce("tiny/search-1", "--json").document
    assert (found["identical"], found["epochs"], found["not_compared"]) == (True, 2, [])


def test_reproduce_does_not_compare_metrics_of_evaluate(
    recorded: Home, reproduce: Callable[..., Any]
) -> None:
    recorded.client.log_metric(recorded.run_id("tiny/search-1"), "test/recon", 1.0, step=2)
    ended = reproduce("tiny/search-1")
    assert ended.code == 0, ended.err
    assert "not compared, because training does not produce them: test/recon" in ended.out


def test_reproduce_of_a_diverged_trial_diverges_again(
    recorded: Home, reproduce: Callable[..., Any]
) -> None:
    ended = reproduce("tiny/confirm-0")
    assert ended.code == 0, ended.err
    assert "diverges as it did" in ended.out
    run = recorded.run_id("tiny/confirm-0")
    recorded.client.set_tag(run, "aae.state", "pruned")
    recorded.client.log_metric(run, "val/recon", 1.0, step=1)
    ended = reproduce("tiny/confirm-0")
    assert ended.code == 3
    assert "did not diverge when recorded, here it diverged (" in ended.out


def test_reproduce_reports_other_conditions_without_effect(
    recorded: Home, reproduce: Callable[..., Any]
) -> None:
    run = recorded.run_id("tiny/search-0")
    cpu = recorded.client.get_run(run).data.tags["aae.cpu"]
    recorded.client.set_tag(run, "aae.cpu", "i486DX2, DEFAULT")
    recorded.client.delete_tag(run, "aae.version.numpy")
    ended = reproduce("tiny/search-0", "--json")
    assert ended.code == 0, ended.err
    assert ended.document["conditions"] == [
        {"what": "version.numpy", "recorded": None, "here": np.__version__},
        {"what": "cpu", "recorded": "i486DX2, DEFAULT", "here": cpu},
    ]
    shown = reproduce("tiny/search-0").out
    recorded.client.set_tag(run, "aae.cpu", cpu)
    recorded.client.set_tag(run, "aae.version.numpy", np.__version__)
    assert "bit for bit" in shown
    assert "without effect" in shown
    assert "i486DX2" in shown
    assert "not recorded" in shown


def test_reproduce_trains_with_the_recorded_number_of_threads(
    recorded: Home, reproduce: Callable[..., Any]
) -> None:
    run = recorded.run_id("tiny/search-0")
    recorded.client.set_tag(run, "aae.threads", "1, then 2")
    ended = reproduce(run, "--json")
    recorded.client.set_tag(run, "aae.threads", "1")
    assert "on cpu, 2 threads" in ended.err
    assert torch.get_num_threads() == 2
    [threads] = ended.document["conditions"]
    assert threads == {"what": "threads", "recorded": "1, then 2", "here": "2"}


# -- not identical ---------------------------------------------------------------------------


def test_reproduce_names_a_changed_setting_and_the_differences(
    recorded: Home, reproduce: Callable[..., Any]
) -> None:
    file = recorded.config_file("tiny/search-0")
    text = file.read_text()
    config = json.loads(text)
    rate = config["training"]["reconstruction"]["lr"]
    config["training"]["reconstruction"]["lr"] = 2 * rate
    file.write_text(json.dumps(config))
    ended, result = reproduce("tiny/search-0", "--json"), reproduce("tiny/search-0")
    file.write_text(text)
    assert (ended.code, result.code) == (3, 3)
    found = ended.document
    assert not found["identical"]
    assert found["conditions"] == [{"what": RATE, "recorded": str(rate), "here": str(2 * rate)}]
    by_name = {m["metric"]: m for m in found["metrics"]}
    assert (by_name["val/recon"]["first_epoch"], by_name["val/recon"]["epochs"]) == (1, EPOCHS)
    assert found["max_difference"] == max(m["largest"] for m in found["metrics"]) > 0
    assert RATE in result.out
    assert f"differs, by {found['max_difference']:.3g} at most" in result.out
    assert "epoch 1  differs in " in result.err


def test_reproduce_finds_one_value_that_differs(
    recorded: Home, reproduce: Callable[..., Any]
) -> None:
    where = "WHERE key = 'val/recon' AND step = 2"
    recorded.alter_metrics(f"UPDATE metrics SET value = value + 1.5 {where}", "tiny/search-0")
    ended, result = reproduce("tiny/search-0", "--json"), reproduce("tiny/search-0")
    recorded.alter_metrics(f"UPDATE metrics SET value = value - 1.5 {where}", "tiny/search-0")
    assert ended.code == 3
    [found] = ended.document["metrics"]
    assert (found["metric"], found["first_epoch"], found["epochs"]) == ("val/recon", 2, 1)
    assert found["recorded"] - found["here"] == pytest.approx(1.5)
    assert found["largest"] == pytest.approx(1.5)
    assert ended.err.count("identical") == EPOCHS - 1
    assert "epoch 2  differs in val/recon" in ended.err
    assert "match the record" in result.out


def test_reproduce_counts_a_gap_in_the_record_as_difference(
    recorded: Home, reproduce: Callable[..., Any]
) -> None:
    """Run last of the tests on this trial, because its record stays changed."""
    statement = "DELETE FROM metrics WHERE key = 'train/recon' AND step = 2"
    recorded.alter_metrics(statement, "tiny/search-0")
    ended = reproduce("tiny/search-0", "--json")
    assert ended.code == 3
    [found] = ended.document["metrics"]
    assert (found["metric"], found["recorded"], found["largest"]) == ("train/recon", None, None)
    assert ended.document["max_difference"] is None


# -- the data --------------------------------------------------------------------------------


def test_reproduce_refuses_other_data_before_training(
    recorded: Home, reproduce: Callable[..., Any]
) -> None:
    assert reproduce("own/search-0").code == 0
    write_images(recorded.images, seed=1)
    refused = reproduce("own/search-0")
    write_images(recorded.images, seed=0)
    assert refused.code == 4
    assert "the data are not those of own-" in refused.err
    assert "epoch" not in refused.err
    assert refused.out == ""


def test_reproduce_reads_moved_data_from_the_given_path(
    recorded: Home, reproduce: Callable[..., Any], tmp_path: Path
) -> None:
    moved = Path(shutil.move(recorded.images, tmp_path / "elsewhere.npz"))
    missing = reproduce("own/search-0")
    found = reproduce("own/search-0", "--data-path", moved, "--json")
    write_images(recorded.images, seed=0)
    assert missing.code == 4
    assert str(recorded.images) in missing.err
    assert found.code == 0, found.err
    assert found.document["conditions"] == []
    needless = reproduce("tiny/search-0", "--data-path", moved)
    assert needless.code == 2
    assert "drop --data-path" in needless.err


# -- what cannot be compared -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("0" * 32, 2, "MLflow has no run `000"),
        ("nonsense", 2, "MLflow has no run `nonsense`"),
        ("tiny/search-9", 2, "no trial `search-9`"),
        ("tiny/nonsense", 2, "no trial `nonsense`"),
        ("tinny/search-0", 2, "names no sweep"),
        ("tiny/search-2", 2, "search-0002 has no recorded epoch to compare with"),
        ("own/search-1", 4, "send it: aae-sweep sync"),
    ],
)
def test_reproduce_refuses_a_trial_without_a_record(
    name: str, code: int, message: str, reproduce: Callable[..., Any]
) -> None:
    ended = reproduce(name)
    assert (ended.code, ended.out) == (code, "")
    assert message in ended.err


def test_reproduce_refuses_the_run_of_a_sweep(
    recorded: Home, reproduce: Callable[..., Any]
) -> None:
    reader = ResultsReader(recorded.settings)
    parent = reader.status(reader.resolve("tiny"))["mlflow"]["run_id"]
    ended = reproduce(parent)
    assert ended.code == 2
    assert "is not a trial" in ended.err


def test_reproduce_refuses_a_run_without_readable_configuration(
    recorded: Home, reproduce: Callable[..., Any]
) -> None:
    file = recorded.config_file("tiny/search-1")
    text = file.read_text()
    file.unlink()
    missing = reproduce("tiny/search-1")
    file.write_text(json.dumps(json.loads(text) | {"weather": "fine"}))
    foreign = reproduce("tiny/search-1")
    file.write_text(text)
    assert (missing.code, foreign.code) == (4, 4)
    assert "no readable config.json" in missing.err
    assert "another version of aae-sweep (weather: unknown key); install 0." in foreign.err
