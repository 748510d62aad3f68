"""A sweep with packs has the results of a sweep without, even when a worker is killed."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from sweep_command import PATIENCE, Bench, workers_of
from sweep_file import make_text

EPOCHS = 12
SWEEP = make_text(
    "packed",
    model={"init_std": 0.1},
    training={"epochs": EPOCHS},
    search={
        "trials": 6,
        "space": {
            "model.code_dim": {"choice": [2, 3]},
            "model.prior.std": {"float": [0.5, 4], "log": True},
        },
    },
    confirm={"baseline": False},
    evaluate={"parzen": {"samples": 10_000, "screen_samples": 10_000}},
)


def found(bench: Bench) -> list[tuple[Any, ...]]:
    """Return each trial's stage, number, state, progress, seed, code size and curve."""
    return sorted(
        (t.stage, t.number, t.state, t.epochs, t.seed, t.params["model.code_dim"], bench.curve(t))
        for t in bench.trials()
    )


def test_packs_match_separate_trials_after_a_worker_is_killed(tmp_path: Path) -> None:
    alone, packed = (Bench(folder(tmp_path, name), SWEEP) for name in ("alone", "packed"))
    assert alone.run().code == 0
    packed.file.write_text(SWEEP + "resources: {pack: 4}\n")
    with packed.started() as process:
        packed.wait_for(process, lambda trials: any(t.epochs >= 3 for t in trials))
        os.kill(workers_of(process)[0], signal.SIGKILL)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert {t.attempts for t in packed.trials()} == {1, 2}
    for one, other in zip(found(packed), found(alone), strict=True):
        assert one[:-1] == other[:-1]
        for here, there in zip(one[-1], other[-1], strict=True):
            assert here == pytest.approx(there, rel=1e-2, abs=1e-2)


def folder(parent: Path, name: str) -> Path:
    (parent / name).mkdir()
    return parent / name
