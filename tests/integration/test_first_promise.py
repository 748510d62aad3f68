"""Search and confirm need no test split. A failing trial ends alone, with its reason."""

from pathlib import Path

import numpy as np
import pytest
from sweep_command import Bench
from sweep_file import make_text


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("own")
    space = {
        "training.reconstruction.lr": {"choice": [1e-3, 1e18]},
        "model.hidden": {"choice": [[16], [2**31 - 1]]},
    }
    sweep = make_text(
        "own",
        data={"name": "arrays", "path": str(folder / "images.npz")},
        model={"output": "linear"},
        training={"batch_size": 20},
        search={
            "trials": 50,
            "sampler": {"kind": "grid"},
            "objective": {"metric": "val/recon"},
            "space": space,
        },
        confirm={"baseline": False},
        evaluate={"parzen": {"samples": 1_000, "screen_samples": 1_000}},
    )
    return Bench(folder, sweep)


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
    assert without.code == 4
    assert "no member x_test" in without.err
    assert "can't allocate memory" in without.err
    assert "search and confirm are complete and kept" in without.err
    assert f"aae-sweep run {bench.file}" in without.err
    status = bench.ask("status", "own")
    assert (status["state"], status["stage"]) == ("failed", "evaluate")
    trials = bench.trials()

    write_images(images, test=True)
    done = bench.run()
    assert done.code == 3, done.err  # 3 for the trials that failed
    assert done.document["state"] == "done"
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
    assert str(by_case[False, True].reason).startswith("out of host memory: ")
    assert "can't allocate memory" in str(by_case[False, True].reason)
    assert {r.attempts for r in search.values()} == {1}
    states = bench.mlflow_states()
    assert sum(state == "FAILED" for state in states.values()) == 3
