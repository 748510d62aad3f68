"""Fill the disk of a home: the sweep frees space, or ends with a message and resumes later."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_disk import fill, small_disk
from sweep_command import COMMAND, PATIENCE, Bench

from orchestrator.records import RunRecord

EPOCHS = 8
SWEEP = f"""
name: tight
seed: 2
data: {{name: digits}}
model: {{hidden: [500, 500], code_dim: 4, init_std: 0.05}}  # 10 MB a checkpoint
training:
  epochs: {EPOCHS}
  batch_size: 25
  reconstruction: {{optimizer: adam, lr: 1e-3}}
  adversarial: {{optimizer: sgd, lr: 1e-2}}
search:
  sampler: {{kind: random}}
  objective: {{metric: val/recon}}
  trials: 4
  space:
    model.prior.std: {{float: [0.5, 4], log: true}}
confirm: {{seeds: 1, baseline: false}}
evaluate: {{parzen: {{samples: 10_000, screen_samples: 10_000}}}}
"""


@pytest.fixture
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Yield a sweep whose home is a disk of `request.param` megabytes."""
    bench = Bench(tmp_path, SWEEP)
    with small_disk(bench.settings.home, request.param):
        yield bench


def under_way(records: list[RunRecord]) -> bool:
    return any(r.state == "running" and 2 <= r.epochs < EPOCHS - 3 for r in records)


@pytest.mark.parametrize("bench", [105], indirect=True)
def test_sweep_on_a_small_disk_removes_unneeded_checkpoints(bench: Bench) -> None:
    done = bench.run()
    assert done.returncode == 0, done.stderr
    assert "removed the checkpoints that nothing needs, and resumed" in done.stderr
    assert [(r.state, r.epochs) for r in bench.trials()] == [("complete", EPOCHS)] * 5


@pytest.mark.parametrize("bench", [90], indirect=True)
def test_sweep_on_a_full_disk_ends_with_a_message_and_resumes(bench: Bench) -> None:
    ballast = bench.settings.home / "ballast"
    with bench.started() as process:
        bench.wait_for(process, under_way)
        fill(ballast)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 4, err
    assert "Traceback" not in err
    assert f"the disk at {bench.settings.home} on " in err
    assert "of 94 MB are free" in err
    assert f"Resume with: aae-sweep run {bench.file}" in err
    assert out == ""
    for command in ("status", "gc", "run"):  # on the full disk, without a traceback
        output = subprocess.run(
            [COMMAND, command, *([str(bench.file)] if command == "run" else [])],
            env=bench.environment,
            capture_output=True,
            text=True,
        )
        assert output.returncode in (0, 4), output.stderr
        assert "Traceback" not in output.stderr
    ballast.unlink()
    assert bench.ask("status", "tight")["state"] == "interrupted"
    before = bench.trials()
    assert {r.state for r in before} <= {"running", "waiting", "complete"}
    done = bench.run()
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "done"
    records = bench.trials()
    assert [(r.state, r.epochs) for r in records] == [("complete", EPOCHS)] * 5
    assert any(r.resumed_from for r in records)
    assert set(bench.mlflow_states().values()) == {"FINISHED"}
