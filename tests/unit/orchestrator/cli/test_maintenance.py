"""The commands `sync` and `gc` on homes that killed drivers left."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from sweep_command import aae

from orchestrator.results.reader import run_key
from orchestrator.settings import Settings
from orchestrator.study.lock import held
from orchestrator.study.study import StageStudy, open_storage
from orchestrator.sweepfile.loader import load_sweep
from orchestrator.sweepfile.spec import SweepSpec
from orchestrator.tracking.outbox import Outbox

Command = Callable[..., Any]
NOWHERE = "http://127.0.0.1:9"  # the discard port: no server listens
NOTHING = {"runs": 0, "metrics": 0, "artifacts": 0}


@pytest.fixture
def spec(sweep_file: Path) -> SweepSpec:
    return load_sweep(sweep_file)


@pytest.fixture
def abandoned(settings: Settings, spec: SweepSpec, empty_mlflow: Path) -> str:
    """A sweep with one complete and one running trial, whose driver was killed."""
    shutil.copy(empty_mlflow, settings.home)
    sweep = spec.sweep_id
    study = StageStudy.create(open_storage(settings), spec, "search")
    study.note(spec=spec.resolved(), name=spec.name)
    with Outbox(settings.outbox) as outbox:
        outbox.open_run(sweep, sweep_id=sweep, experiment="tiny", name=sweep)
        for number in range(2):
            study.ask(spec)
            study.started(number, "here", None)
            folder = settings.trial_folder(sweep, "search", number)
            key = run_key(sweep, "search", number)
            outbox.open_run(key, sweep_id=sweep, experiment="tiny", name=key, parent=sweep)
            for epoch in range(1, 4):
                checkpoint = folder / "1" / f"epoch-{epoch:06d}"
                checkpoint.mkdir(parents=True)
                (checkpoint / "tensors.safetensors").write_bytes(b"x" * 2000)
                study.epoch(number, epoch, [1.0], str(checkpoint), trained=True)
                outbox.log(key, epoch, {"val/recon": 1.0, "train/recon": 2.0})
            (folder / "config.json").write_text("{}")
            outbox.attach(key, folder / "config.json")
        study.end(0, "complete", 1.0, None)
        outbox.close_run(run_key(sweep, "search", 0), "FINISHED")
    return sweep


def statuses(settings: Settings, sweep: str) -> list[str]:
    """Return MLflow's statuses of the sweep and its two trials, which must be the only runs."""
    client = MlflowClient(settings.tracking_uri)
    experiment = client.get_experiment_by_name("tiny")
    assert len(client.search_runs([experiment.experiment_id])) == 3
    with Outbox(settings.outbox) as outbox:
        return [client.get_run(run.run_id or "").info.status for run in outbox.runs(sweep)]


def test_sync_sends_the_outbox_and_ends_killed_runs(settings: Settings, abandoned: str) -> None:
    done = aae("sync", "tiny", "--json")
    assert done.document == {
        "sweep": abandoned,
        "killed": 2,
        "sent": {"runs": 3, "metrics": 12, "artifacts": 2},
    }
    assert statuses(settings, abandoned) == ["KILLED", "FINISHED", "KILLED"]
    assert aae("sync", "--json").document == {"sweep": None, "killed": 0, "sent": NOTHING}
    again = aae("sync")
    assert (again.code, again.out) == (0, "nothing to send\n")


def test_sync_leaves_runs_of_a_live_driver_running(settings: Settings, abandoned: str) -> None:
    with held(settings, abandoned):
        assert aae("sync", "--json").document["killed"] == 0
    assert statuses(settings, abandoned) == ["RUNNING", "FINISHED", "RUNNING"]
    done = aae("sync")
    assert (done.code, done.out) == (0, "sent to MLflow: 2 runs\n")
    assert done.err == "marked as killed with their driver: 2 runs\n"
    assert statuses(settings, abandoned) == ["KILLED", "FINISHED", "KILLED"]


def test_abandoned_run_ends_at_its_last_metric_and_reopens(
    settings: Settings, abandoned: str
) -> None:
    trial = run_key(abandoned, "search", 1)
    with Outbox(settings.outbox) as outbox:
        last = max(metric.timestamp_ms for metric in outbox.pending_metrics(trial, 100))
        assert outbox.abandon("another") == 0
        assert outbox.abandon(abandoned) == 2
        ends = {run.key: (run.status, run.end_ms) for run in outbox.runs()}
        assert ends[trial] == ends[abandoned] == ("KILLED", last)
        outbox.open_run(trial, sweep_id=abandoned, experiment="tiny", name="again")
        run = outbox.run(trial)
        assert (run.status, run.end_ms) == ("RUNNING", None)


def test_sync_without_mlflow_reports_pending_records(
    abandoned: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOWHERE)
    done = aae("sync", "--json")
    assert (done.code, done.out) == (4, "")
    assert f"MLflow at {NOWHERE} did not accept everything" in done.err
    assert "the rest (3 runs, 12 metrics, 2 artifacts) is in" in done.err
    shown = aae("status", abandoned)
    assert "MLflow    lacks 17 records; send them with: aae-sweep sync" in shown.out


@pytest.mark.parametrize("command", ["sync", "gc"])
def test_sync_and_gc_refuse_an_unknown_sweep(home: Path, abandoned: str, command: str) -> None:
    done = aae(command, "other")
    assert done.code == 2
    assert "`other` names no sweep" in done.err


@pytest.mark.parametrize(
    ("command", "output"), [("sync", "nothing to send\n"), ("gc", "nothing to remove\n")]
)
def test_sync_and_gc_before_the_first_sweep_do_nothing(
    home: Path, command: str, output: str
) -> None:
    done = aae(command)
    assert (done.code, done.out) == (0, output)
    assert not home.exists()


def test_gc_prints_the_freed_folders_and_sizes(settings: Settings, abandoned: str) -> None:
    (settings.home / "parzen" / "1a.unfinished").mkdir(parents=True)
    assert aae("gc", "--dry-run").out == (
        f"{abandoned}: 3 folders, 6 kB would be freed\n"
        "unfinished Parzen jobs: 1 folder, 0 bytes would be freed\n"
    )
    assert aae("gc", "tiny").out == f"{abandoned}: 3 folders, 6 kB freed\n"
    assert (settings.home / "parzen" / "1a.unfinished").exists()
    assert aae("gc").out == "unfinished Parzen jobs: 1 folder, 0 bytes freed\n"
    assert aae("gc").out == "nothing to remove\n"


def test_gc_json_lists_the_removed_folders(settings: Settings, abandoned: str) -> None:
    trials = settings.sweep_folder(abandoned) / "trials"
    done = aae("gc", "--json")
    assert done.document == {
        "dry_run": False,
        "sweeps": [
            {
                "sweep": abandoned,
                "folders": [
                    str(trials / "search-0000" / "1" / "epoch-000001"),
                    str(trials / "search-0000" / "1" / "epoch-000002"),
                    str(trials / "search-0001" / "1" / "epoch-000001"),
                ],
                "bytes": 6000,
            }
        ],
        "parzen": {"folders": [], "bytes": 0},
        "bytes": 6000,
    }


def test_gc_changes_no_output_of_show_and_best(abandoned: str) -> None:
    commands = [("show", "tiny", "--json"), ("show", "tiny", "0", "--json"), ("best", "--json")]
    before = [aae(*command).document for command in commands]
    aae("gc")
    after = [aae(*command).document for command in commands]
    for documents in (before, after):  # the time of the running trial advances
        for trial in documents[0]["trials"]:
            del trial["seconds"]
    assert after == before
    assert aae("show", "tiny", "0").code == 0


def test_sync_rebuild_fills_a_new_store_from_the_outbox(
    home: Path, settings: Settings, abandoned: str
) -> None:
    store = home / "mlflow.db"
    store.write_bytes(b"damaged, not a database")
    assert aae("sync").code == 4
    with held(settings, abandoned):
        done = aae("sync", "--rebuild")
        assert (done.code, done.out) == (4, "")
        assert f"stop it first: aae-sweep stop {abandoned}" in done.err
    assert aae("sync", "tiny", "--rebuild").code == 2
    done = aae("sync", "--rebuild", "--json")
    assert done.document["sent"] == {"runs": 3, "metrics": 12, "artifacts": 2}
    (aside,) = home.glob("mlflow.db.2*")
    assert aside.read_bytes() == b"damaged, not a database"
    assert f"the former database is {aside}: registered models" in done.err
    assert statuses(settings, abandoned) == ["KILLED", "FINISHED", "KILLED"]
