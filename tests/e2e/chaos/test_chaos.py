"""Test that a sweep under a seeded schedule of faults ends as the undisturbed sweep does.

The default is one short round; `make chaos ROUNDS=10 SEED=0` runs long rounds (docs/faults.md).
"""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from faults import FAULTS, MISSING, StruckBench
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from postgresql_server import serving
from schedule import schedule
from small_disk import small_disk
from storm import LONG, Storm, endure, epochs
from sweep_command import Bench
from sweep_file import make_long_text

from aae_core import checkpoint
from orchestrator.records import SYSTEM, RunRecord
from orchestrator.results.reader import run_key

pytestmark = pytest.mark.timeout(2 * LONG)

RATES = [1.2, 0.05, 0.04, 0.03, 0.02, 0.015, 0.01, 0.005]  # with the first, most trials diverge
SPACE = {
    "training.adversarial.lr": {"choice": RATES},
    "model.prior.std": {"float": [0.5, 4], "log": True},
    "model.encoder.kind": {"choice": ["deterministic", "gaussian", "universal"]},
}


@dataclass(frozen=True)
class Round:
    seed: int
    trials: int
    epochs: int  # per trial
    strikes: int
    faults: tuple[str, ...]

    @property
    def sweep_file(self) -> str:
        training = {
            "batch_size": 5,  # an epoch then takes over half a second, and each leaves a checkpoint
            "adversarial": {"optimizer": "sgd"},
            "schedule": {"kind": "constant", "warmup_epochs": self.epochs - 1},
        }
        search = {"trials": self.trials, "balance": "training.adversarial.lr", "space": SPACE}
        return make_long_text(
            "chaos",
            self.epochs,
            seed=self.seed,
            model={"hidden": [200, 200]},
            training=training,
            search=search,
            resources={"trial_timeout": 15},
        )


SHORT = Round(seed=1, trials=4, epochs=6, strikes=4, faults=("torn", "raylet", "server", "driver"))


def rounds() -> list[Round]:
    """Return CHAOS_ROUNDS rounds with seeds from CHAOS_SEED on, or else the short round."""
    count, first = (int(os.environ.get(f"CHAOS_{name}", 0)) for name in ("ROUNDS", "SEED"))
    possible = tuple(fault for fault in FAULTS if fault not in MISSING)
    faults = tuple(os.environ.get("CHAOS_FAULTS", "").split()) or possible
    seeds = range(first, first + count)
    return [Round(seed, trials=16, epochs=10, strikes=20, faults=faults) for seed in seeds] or [
        SHORT
    ]


@pytest.fixture(scope="module", params=rounds(), ids=lambda r: f"seed {r.seed}")
def chaos(request: pytest.FixtureRequest) -> Round:
    this: Round = request.param
    return this


@pytest.fixture(scope="module")
def undisturbed(chaos: Round, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    bench = Bench(tmp_path_factory.mktemp("undisturbed"), chaos.sweep_file)
    done = bench.run(patience=LONG)
    assert done.code == 0, done.err
    return bench


@pytest.fixture(scope="module")
def disturbed(chaos: Round, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StruckBench]:
    folder = tmp_path_factory.mktemp("disturbed")
    with ExitStack() as stack:
        study = stack.enter_context(serving()) if "study" in chaos.faults else None
        bench = StruckBench(folder, chaos.sweep_file, study, "clock" in chaos.faults)
        if "full" in chaos.faults:
            stack.enter_context(small_disk(bench.settings.home, 400))
        bench.start_server()
        yield bench
        bench.stop_server()
        bench.close()


@pytest.fixture(scope="module")
def storm(chaos: Round, disturbed: StruckBench) -> Storm:
    most = 2 * chaos.trials * chaos.epochs // 3  # not all epochs: a diverging trial has fewer
    storm = endure(disturbed, schedule(chaos.seed, chaos.faults, chaos.strikes, most))
    records = disturbed.trials()
    repeated = sum(r.epochs_computed - r.epochs for r in records)
    struck = ", ".join(f"{n} {fault}" for fault, n in Counter(storm.struck).items())
    for fault, tool in MISSING.items():
        print(f"\nleft out: {fault}, because {tool} is not installed", end="")
    print(
        f"\nseed {chaos.seed}: {len(storm.struck)} strikes ({struck}), {storm.starts} starts, "
        f"{len(records)} trials, {epochs(records)} epochs, {repeated} repeated "
        f"(at most {storm.cost}), {storm.seconds:.0f} s"
    )
    return storm


@pytest.fixture(scope="module")
def records(disturbed: StruckBench, storm: Storm) -> list[RunRecord]:
    """Return the trials of the disturbed sweep at its end."""
    return disturbed.trials()


@pytest.fixture(scope="module")
def client(disturbed: StruckBench, storm: Storm) -> Iterator[MlflowClient]:
    """Yield a client of the tracking server after `aae-sweep sync` has sent all missing data."""
    with disturbed.serving() as client:
        done = disturbed.sync()
        assert done.code == 0, done.err
        yield client


@pytest.fixture(scope="module")
def runs(disturbed: StruckBench, client: MlflowClient) -> dict[str, Run]:
    return disturbed.runs(client)


def ends(records: list[RunRecord]) -> list[tuple[Any, ...]]:
    return [
        (r.stage, r.number, r.state, r.reason, r.epochs, r.config_hash, r.params, r.seed)
        for r in records
    ]


def test_trials_after_faults_end_as_the_undisturbed_trials(
    chaos: Round, undisturbed: Bench, records: list[RunRecord]
) -> None:
    assert ends(records) == ends(undisturbed.trials())
    assert Counter(r.stage for r in records) == {"search": chaos.trials, "confirm": 1}
    states = {r.state for r in records}
    assert states <= {"complete", "diverged"}
    assert "diverged" in states or chaos != SHORT


def test_curves_after_faults_equal_the_undisturbed_curves(
    undisturbed: Bench, disturbed: StruckBench, records: list[RunRecord]
) -> None:
    for record in records:
        assert disturbed.curve(record) == undisturbed.curve(record), record
    assert disturbed.ask("best", "chaos")["metrics"] == undisturbed.ask("best", "chaos")["metrics"]


def test_models_after_faults_equal_the_undisturbed_models(
    undisturbed: Bench, disturbed: StruckBench, records: list[RunRecord]
) -> None:
    for record, other in zip(records, undisturbed.trials(), strict=True):
        if record.state == "complete":
            assert other.checkpoint is not None
            found = disturbed.model(record)
            expected, _ = checkpoint.load(Path(other.checkpoint))
            assert found.keys() == expected.keys()
            for name, tensor in found.items():
                assert torch.equal(tensor, expected[name]), (record, name)


def test_repeated_epochs_stay_within_the_cost_of_the_faults(
    storm: Storm, records: list[RunRecord]
) -> None:
    for record in records:
        assert record.epochs_computed >= record.epochs, record
    assert sum(r.epochs_computed - r.epochs for r in records) <= storm.cost


def test_mlflow_metrics_after_faults_have_no_gap_or_duplicate(
    disturbed: StruckBench, records: list[RunRecord], client: MlflowClient, runs: dict[str, Run]
) -> None:
    disturbed.assert_same(client)
    for record in records:
        run = runs[run_key(disturbed.sweep, record.stage, record.number)]
        for name in run.data.metrics:
            if not name.startswith(("test/", SYSTEM)):
                steps = [m.step for m in client.get_metric_history(run.info.run_id, name)]
                assert sorted(steps) == list(range(1, record.epochs + 1)), (record, name)


def test_study_and_mlflow_agree_after_faults(
    disturbed: StruckBench, records: list[RunRecord], runs: dict[str, Run]
) -> None:
    statuses = {"complete": "FINISHED", "diverged": "FAILED"}
    keys = [run_key(disturbed.sweep, r.stage, r.number) for r in records]
    assert set(runs) == {disturbed.sweep, *keys}
    assert runs[disturbed.sweep].info.status == "FINISHED"
    for key, record in zip(keys, records, strict=True):
        run = runs[key]
        assert run.info.status == statuses[record.state]
        assert run.data.tags["aae.state"] == record.state
        of_model = {k: v for k, v in run.data.metrics.items() if not k.startswith(SYSTEM)}
        assert of_model == record.metrics
    status = disturbed.ask("status", "chaos")
    assert (status["state"], status["unsynced"]) == ("done", 0)
