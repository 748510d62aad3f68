"""Test a sweep without MLflow's server and with a killed driver: `sync` sends everything."""

from typing import Any

import pytest
from sweep_command import wait_until_gone, workers_of
from tracking_server import TrackedBench, assert_same, runs_by_key

from orchestrator.results.reader import run_key

EPOCHS = 10
OUTAGE = f"""
name: outage
data: {{name: digits}}
model: {{hidden: [500, 500], code_dim: 4, init_std: 0.05}}
training:
  epochs: {EPOCHS}
  batch_size: 25
  reconstruction: {{optimizer: adam, lr: 1e-3}}
  adversarial: {{optimizer: sgd, lr: 1e-2}}
search:
  sampler: {{kind: random}}
  objective: {{metric: val/recon}}
  trials: 2
  space:
    model.prior.std: {{float: [0.5, 4], log: true}}
confirm: {{seeds: 1, baseline: false}}
evaluate: {{parzen: {{samples: 10_000, screen_samples: 10_000}}}}
"""
NOTHING = {"runs": 0, "metrics": 0, "artifacts": 0}


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> TrackedBench:
    """Return a sweep whose driver was killed during a trial; its server has never run."""
    bench = TrackedBench(tmp_path_factory.mktemp("outage"), OUTAGE)
    with bench.started() as process:
        bench.wait_for(
            process,
            lambda records: any(
                r.state == "running" and 2 <= r.epochs < EPOCHS - 3 for r in records
            ),
        )
        workers = workers_of(process)
        process.kill()
    wait_until_gone(workers)  # Ray ends with its driver
    return bench


@pytest.fixture(scope="module")
def ended(killed: TrackedBench) -> TrackedBench:
    """Return the same sweep at its end, with the server still or again away."""
    done = killed.run()
    assert done.returncode == 0, done.stderr
    assert "MLflow has not received everything yet" in done.stderr
    return killed


def test_sync_without_a_server_reports_unsent_metrics(killed: TrackedBench) -> None:
    before = killed.waiting()
    assert before["metrics"] > 0
    done = killed.sync()
    assert done.returncode == 4
    assert f"MLflow at {killed.url} did not accept everything" in done.stderr
    assert f"{before['metrics']} metrics" in done.stderr
    assert killed.waiting() == before


def test_sync_marks_runs_of_a_killed_driver_as_killed(killed: TrackedBench) -> None:
    with killed.serving() as client:
        sent: dict[str, Any] = killed.ask("sync", "outage")["sent"]
        assert_same(client, killed)
        runs = runs_by_key(client, killed)
        assert runs[killed.sweep].info.status == "KILLED"
        assert {run.info.status for run in runs.values()} <= {"KILLED", "FINISHED"}
        assert sent["runs"] == len(runs)
        assert killed.ask("sync", "outage")["sent"] == NOTHING
        assert_same(client, killed)


def test_sync_sends_every_metric_of_a_sweep_without_server(ended: TrackedBench) -> None:
    records = ended.trials()
    assert {r.state for r in records} == {"complete"}
    waited = ended.waiting()
    assert waited["metrics"] > 0
    with ended.serving() as client:
        assert ended.ask("sync", "outage") == {"sweep": ended.sweep, "killed": 0, "sent": waited}
        assert ended.waiting() == NOTHING
        assert_same(client, ended)
        assert ended.sync().stdout == "nothing to send\n"
        assert_same(client, ended)
        runs = runs_by_key(client, ended)
        assert len(runs) == 1 + len(records)
        assert {run.info.status for run in runs.values()} == {"FINISHED"}
        for r in records:
            run_id = runs[run_key(ended.sweep, r.stage, r.number)].info.run_id
            curve = client.get_metric_history(run_id, "val/recon")
            assert sorted(metric.step for metric in curve) == list(range(1, EPOCHS + 1))
