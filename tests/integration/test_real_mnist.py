"""Test on real MNIST that search and confirm give the same results without the t10k files."""

import os
from pathlib import Path
from typing import Any

import pytest
from sweep_command import Bench
from sweep_file import make_text

from orchestrator.records import RunRecord

MNIST = make_text(
    "promise",
    data={"name": "mnist"},
    training={"epochs": 1, "batch_size": 1000},
    search={"trials": 2},
    confirm={"seeds": 1, "baseline": False},
    evaluate={"parzen": {"samples": 1_000, "screen_samples": 1_000}},
)


def bench(folder: Path, *patterns: str) -> Bench:
    """Return a sweep over the real files that match `patterns`."""
    real = Path(os.environ.get("AAE_DATA", "")).absolute() / "mnist"
    if not os.environ.get("AAE_DATA") or not real.is_dir():
        pytest.skip("no mnist/ in AAE_DATA")
    made = Bench(folder, MNIST)
    linked = made.settings.data / "mnist"
    linked.mkdir(parents=True)
    for pattern in patterns:
        for file in real.glob(pattern):
            (linked / file.name).symlink_to(file)
    return made


def learned(ran: Bench) -> list[Any]:
    return [
        (r.stage, r.number, r.params, r.seed, [ran.curve(r)[0][m] for m in METRICS])
        for r in ran.trials()
    ]


def confirmed(trials: list[RunRecord]) -> bool:
    return any(r.stage == "confirm" and r.state == "complete" for r in trials)


METRICS = ("train/recon", "train/disc_z", "train/gen_z", "val/recon", "val/parzen_ll")


@pytest.mark.mnist
def test_search_and_confirm_never_read_the_test_files(tmp_path: Path) -> None:
    (tmp_path / "without").mkdir()
    without = bench(tmp_path / "without", "train-*")
    done = without.run()
    assert done.code == 4
    assert "t10k-images-idx3-ubyte" in done.err
    assert len(learned(without)) == 3

    (tmp_path / "whole").mkdir()
    whole = bench(tmp_path / "whole", "*")
    with whole.started() as process:
        whole.wait_for(process, confirmed)
    assert learned(whole) == learned(without)
