"""Stop and kill a sweep's workers, interrupt the sweep, kill its driver: equal metrics."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sweep_command import PATIENCE, Bench, under_way, wait_until_gone, workers_of
from sweep_file import make_long_text

from aae_core.config import TrialConfig
from aae_core.data import load_training_data
from aae_core.training import TrainState, fit
from orchestrator.records import RunRecord
from orchestrator.study.study import StageStudy, open_storage
from orchestrator.sweepfile.loader import load_sweep

EPOCHS, TRIAL_TIMEOUT = 14, 10
FAULTS = make_long_text(
    "faults",
    EPOCHS,
    seed=5,
    search={
        "trials": 4,
        "space": {
            "model.prior.std": {"float": [0.5, 4], "log": True},
            "model.encoder.kind": {"choice": ["deterministic", "gaussian", "universal"]},
        },
    },
    resources={"trial_timeout": TRIAL_TIMEOUT},
)


def resumptions(records: list[RunRecord]) -> int:
    return sum(len(r.resumed_from) for r in records)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("faults"), FAULTS)


@pytest.fixture(scope="module")
def _killed_worker_then_interrupted(bench: Bench) -> None:
    with bench.started() as process:
        for strikes, strike in enumerate((signal.SIGSTOP, signal.SIGKILL), start=1):
            bench.wait_for(process, under_way(EPOCHS))
            os.kill(workers_of(process)[0], strike)
            began = time.monotonic()
            bench.wait_for(process, lambda records, n=strikes: resumptions(records) >= n)
            assert time.monotonic() - began < TRIAL_TIMEOUT + 60  # the trial goes on elsewhere
        bench.wait_for(process, under_way(EPOCHS))
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers get the signal too
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    assert f"Resume with: aae-sweep run {bench.file}" in err
    status = bench.ask("status", "faults")
    assert status["state"] == "interrupted"
    assert status["resume"] == f"aae-sweep run {bench.file}"
    assert "RUNNING" not in bench.mlflow_states().values()


@pytest.fixture(scope="module")
def _killed_driver(bench: Bench, _killed_worker_then_interrupted: None) -> None:
    before = resumptions(bench.trials())
    with bench.started() as process:
        bench.wait_for(process, lambda records: resumptions(records) > before)
        bench.wait_for(process, under_way(EPOCHS))
        workers = workers_of(process)
        process.kill()
    assert workers
    assert bench.ask("status", "faults")["state"] == "interrupted"
    wait_until_gone(workers)  # Ray ends with its driver


@pytest.fixture(scope="module")
def records(bench: Bench, _killed_driver: None) -> list[RunRecord]:
    """Return the trials of the sweep at its end, after three faults."""
    done = bench.run()
    assert done.code == 0, done.err
    assert done.document["state"] == "done"
    return bench.trials()


def test_sweep_after_faults_has_exactly_the_planned_trials(records: list[RunRecord]) -> None:
    assert [(r.stage, r.number) for r in records] == [
        *(("search", n) for n in range(4)),
        ("confirm", 0),
    ]
    assert {r.state for r in records} == {"complete"}
    assert {r.epochs for r in records} == {EPOCHS}


def test_sweep_after_faults_has_the_trials_of_an_undisturbed_search(
    bench: Bench, records: list[RunRecord], tmp_path: Path
) -> None:
    spec = load_sweep(bench.file)
    storage = open_storage(replace(bench.settings, study_uri=f"sqlite:///{tmp_path / 'other.db'}"))
    undisturbed = StageStudy.create(storage, spec, "search")
    asked = [undisturbed.ask(spec).config for _ in range(4)]
    assert [spec.trial_config(r.params, r.seed) for r in records[:4]] == asked


def test_lost_trials_resume_from_their_checkpoints(records: list[RunRecord]) -> None:
    resumed = [r for r in records if r.attempts > 1]
    assert max(r.attempts for r in resumed) >= 3
    for record in resumed:
        assert all(1 <= epoch < EPOCHS for epoch in record.resumed_from)
        repeated = record.epochs_computed - EPOCHS
        assert 0 <= repeated < EPOCHS
    assert any(r.resumed_from for r in resumed)


def test_stopped_worker_is_recorded_as_hung(records: list[RunRecord]) -> None:
    causes = [cause for record in records for cause in record.lost.values()]
    assert any(cause.startswith("it hung: no report for 1") for cause in causes), causes


@pytest.fixture
def _one_thread() -> Iterator[None]:
    """Set one thread, as a trial of one CPU has; another number adds in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_one_thread")
def test_metrics_after_faults_equal_undisturbed_training(
    bench: Bench, records: list[RunRecord]
) -> None:
    """Train each trial once more, here, without Ray, from start to end."""
    spec = load_sweep(bench.file)
    data = load_training_data(spec.data, bench.settings.data)
    for record in records:
        config: TrialConfig = spec.trial_config(record.params, record.seed)
        state = TrainState.create(config, data)
        undisturbed = [{"epoch": e.epoch, **e.metrics} for e in fit(state, data)]
        found = [
            {name: value for name, value in row.items() if not name.startswith("test/")}
            for row in bench.curve(record)
        ]
        assert found == undisturbed, record


def test_mlflow_lists_every_run_as_finished_after_faults(
    bench: Bench, records: list[RunRecord]
) -> None:
    assert set(bench.mlflow_states().values()) == {"FINISHED"}
    assert len(bench.mlflow_states()) == 1 + len(records)
    assert bench.ask("status", "faults")["unsynced"] == 0


def test_tune_folder_is_removed_after_the_sweep(bench: Bench, records: list[RunRecord]) -> None:
    folder = bench.settings.sweep_folder(bench.sweep)
    assert not (folder / ".tune").exists()
