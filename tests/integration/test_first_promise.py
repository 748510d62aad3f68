"""Search and confirm need no test split. A failing trial ends alone, with its reason."""

import json
from pathlib import Path

import numpy as np
import pytest
from sweep_command import Bench

ARRAYS = """
name: own
data: {{name: arrays, path: {path}}}
model: {{hidden: [16], code_dim: 2, init_std: 0.2, output: linear}}
training: {{epochs: 2, batch_size: 20, reconstruction: {{optimizer: adam}}}}
search:
  sampler: {{kind: grid}}
  objective: {{metric: val/recon}}
  trials: 50
  space:
    training.reconstruction.lr: {{choice: [1e-3, 1e18]}}
    model.hidden: {{choice: [[16], [100_000_000_000_000_000]]}}
confirm: {{seeds: 2, baseline: false}}
evaluate: {{parzen: {{samples: 1_000, screen_samples: 1_000}}}}
"""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("own")
    return Bench(folder, ARRAYS.format(path=folder / "images.npz"))


def write_images(path: Path, *, test: bool) -> None:
    random = np.random.default_rng(3)
    members = {"x_train": random.random((200, 9), dtype=np.float32)}
    if test:
        members["x_test"] = random.random((30, 9), dtype=np.float32)
    np.savez(path, **members)  # type: ignore[arg-type]


def test_sweep_needs_its_test_set_only_for_evaluation(bench: Bench) -> None:
    images = bench.folder / "images.npz"
    write_images(images, test=False)
    without = bench.run()
    assert without.returncode == 4
    assert "no member x_test" in without.stderr
    assert "search and confirm are complete and kept" in without.stderr
    assert f"aae-sweep run {bench.file}" in without.stderr
    status = bench.ask("status", "own")
    assert (status["state"], status["stage"]) == ("failed", "evaluate")
    trials = bench.trials()

    write_images(images, test=True)
    done = bench.run()
    assert done.returncode == 3, done.stderr  # 3 for the trials that failed
    assert json.loads(done.stdout)["state"] == "done"
    after = bench.trials()
    assert [(r.stage, r.number, r.params, r.seed, r.attempts) for r in after] == [
        (r.stage, r.number, r.params, r.seed, r.attempts) for r in trials
    ]
    for record, before in zip(after, trials, strict=True):
        assert record.metrics.items() >= before.metrics.items()
        assert ("test/recon" in record.metrics) == (record.stage == "confirm")
        assert not any(name.startswith("test/") for name in before.metrics)


def test_failing_trials_end_alone_with_their_reasons(bench: Bench) -> None:
    """Test the first test's sweep: a diverging rate, a network too large for memory, both."""
    search = {
        (r.params["training.reconstruction.lr"], len(str(r.params["model.hidden"]))): r
        for r in bench.trials()
        if r.stage == "search"
    }
    by_case = {(lr > 1, size > 10): record for (lr, size), record in search.items()}
    assert {case: r.state for case, r in by_case.items()} == {
        (False, False): "complete",
        (True, False): "diverged",
        (False, True): "failed",
        (True, True): "failed",
    }
    assert "not finite in epoch 1" in str(by_case[True, False].reason)
    assert "RuntimeError" in str(by_case[False, True].reason)
    assert "can't allocate memory" in str(by_case[False, True].reason)
    assert {r.attempts for r in search.values()} == {1}
    states = bench.mlflow_states()
    assert sum(state == "FAILED" for state in states.values()) == 3
