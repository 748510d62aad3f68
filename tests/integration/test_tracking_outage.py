"""Test a sweep without MLflow's server and with a killed driver: `sync` sends everything."""

import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sweep_command import PATIENCE, under_way, wait_until_gone, workers_of
from sweep_file import make_long_text
from tracking_server import TrackedBench, assert_same

from orchestrator.results.reader import run_key
from orchestrator.tracking.mlflow_writer import MlflowWriter
from orchestrator.tracking.outbox import Outbox

EPOCHS = 10
OUTAGE = make_long_text("outage", EPOCHS, search={"trials": 2})
NOTHING = {"runs": 0, "metrics": 0, "artifacts": 0}


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> TrackedBench:
    """Return a sweep whose driver was killed during a trial; its server has never run."""
    bench = TrackedBench(tmp_path_factory.mktemp("outage"), OUTAGE)
    with bench.started() as process:
        bench.wait_for(process, under_way(EPOCHS))
        workers = workers_of(process)
        process.kill()
    wait_until_gone(workers)  # Ray ends with its driver
    return bench


@pytest.fixture(scope="module")
def ended(killed: TrackedBench) -> TrackedBench:
    """Return the same sweep at its end, with the server still or again away."""
    done = killed.run()
    assert done.code == 0, done.err
    assert "MLflow has not received everything yet" in done.err
    return killed


def test_sync_without_a_server_reports_unsent_metrics(killed: TrackedBench) -> None:
    before = killed.waiting()
    assert before["metrics"] > 0
    done = killed.sync()
    assert done.code == 4
    assert f"MLflow at {killed.url} did not accept everything" in done.err
    assert f"{before['metrics']} metrics" in done.err
    assert killed.waiting() == before


def test_sync_marks_runs_of_a_killed_driver_as_killed(killed: TrackedBench) -> None:
    with killed.serving() as client:
        sent: dict[str, Any] = killed.ask("sync", "outage")["sent"]
        killed.assert_same(client)
        runs = killed.runs(client)
        assert runs[killed.sweep].info.status == "KILLED"
        assert {run.info.status for run in runs.values()} <= {"KILLED", "FINISHED"}
        assert sent["runs"] == len(runs)
        assert killed.ask("sync", "outage")["sent"] == NOTHING
        killed.assert_same(client)


def test_sync_sends_every_metric_of_a_sweep_without_server(ended: TrackedBench) -> None:
    records = ended.trials()
    assert {r.state for r in records} == {"complete"}
    waited = ended.waiting()
    assert waited["metrics"] > 0
    with ended.serving() as client:
        assert ended.ask("sync", "outage") == {"sweep": ended.sweep, "killed": 0, "sent": waited}
        assert ended.waiting() == NOTHING
        ended.assert_same(client)
        assert ended.sync().out == "nothing to send\n"
        ended.assert_same(client)
        runs = ended.runs(client)
        assert len(runs) == 1 + len(records)
        assert {run.info.status for run in runs.values()} == {"FINISHED"}
        for r in records:
            run_id = runs[run_key(ended.sweep, r.stage, r.number)].info.run_id
            curve = client.get_metric_history(run_id, "val/recon")
            assert sorted(metric.step for metric in curve) == list(range(1, EPOCHS + 1))


def test_writer_delivers_everything_to_an_intermittent_server(tmp_path: Path) -> None:
    bench = TrackedBench(tmp_path, OUTAGE)
    with Outbox(bench.settings.outbox) as outbox:
        outbox.open_run("own", sweep_id="own", experiment="own", name="own")
        writer = MlflowWriter(outbox, bench.url, bench.settings.mlflow_artifacts, "own")
        writer.start()

        def log(first: int, last: int) -> None:
            for epoch in range(first, last + 1):
                outbox.log("own", epoch, {"val/recon": 1 / epoch, "val/error": float(epoch)})

        log(1, 10)
        eventually(lambda: writer.error is not None)
        (tmp_path / "config.json").write_text("served")
        outbox.attach("own", tmp_path / "config.json")
        with bench.serving() as client:
            eventually(lambda: outbox.unsynced() == 0)
            assert_same(client, outbox, "own")
            run_id = outbox.run_ids("own")["own"]
            url = f"{bench.url}/get-artifact?run_uuid={run_id}&path=config.json"
            with urllib.request.urlopen(url) as answer:
                assert answer.read() == b"served"
            log(11, 20)  # the server is killed in the middle of these epochs
        log(21, 30)
        outbox.close_run("own", "FINISHED")
        assert not writer.flush(0.5)
        with bench.serving() as client:
            eventually(lambda: outbox.unsynced() == 0)
            assert writer.stop(30)
            assert_same(client, outbox, "own")


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
