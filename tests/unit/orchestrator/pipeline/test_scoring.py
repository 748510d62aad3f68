"""Control rows: the protocol's figures at each N, scored once."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from straw_sweep import StrawArray

from aae_core.data import TestData, TrainingData
from aae_core.evaluation.controls import centroids, training_images
from aae_core.evaluation.parzen import ArraySource, in_process, one_thread, run_protocol
from orchestrator.execution.parzen_pool import ParzenPool
from orchestrator.pipeline import scoring
from orchestrator.pipeline.scoring import ModelScorer

CURVE = [40, 90, 100_000]
ROWS = [("train_images", 40), ("train_images", 90), ("train_images", 200), ("kmeans", 40)]


def pixels(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 9), dtype=np.uint8)


@pytest.fixture
def scorer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelScorer:
    monkeypatch.setattr(scoring, "SharedArray", StrawArray)
    data = TrainingData.of("tiny", (3, 3), (pixels(200, 0), None), (pixels(30, 1), None))
    test = TestData.of(pixels(20, 2), None)
    return ModelScorer(data, test, tmp_path, ParzenPool(1), lambda *_: None, lambda _: tmp_path)


class NoPool(ParzenPool):
    """A pool that scores `left` sets of samples, and no more."""

    def __init__(self, left: int) -> None:
        super().__init__(1)
        self.left = left

    def score(self, *arguments: Any, **options: Any) -> Any:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return super().score(*arguments, **options)


def test_control_rows_hold_protocol_figures_at_each_curve_n(scorer: ModelScorer) -> None:
    rows = scorer.controls(CURVE)
    assert [(row["kind"], row["n_samples"]) for row in rows] == ROWS
    x = scorer.data.x_train
    for row in rows:
        kind, n = row["kind"], row["n_samples"]
        with one_thread():
            samples = training_images(x, n) if kind == "train_images" else centroids(x, n)
        source = in_process(ArraySource(samples))
        want = run_protocol(source, n, scorer.data.x_valid, scorer.test.x).to_dict()
        assert {**row, "seconds": 0} == {"kind": kind} | {
            name: want[name] for name in row if name not in ("kind", "seconds")
        } | {"seconds": 0}


def test_control_rows_that_are_known_are_not_scored_again(scorer: ModelScorer) -> None:
    rows = scorer.controls(CURVE)
    restarted = replace(scorer, pool=NoPool(0))
    assert restarted.controls(CURVE) == rows
    assert restarted.controls(CURVE[:1]) == [rows[0], rows[2], rows[3]]  # the rows of another model


def test_control_rows_resume_at_the_interrupted_row(scorer: ModelScorer) -> None:
    with pytest.raises(KeyboardInterrupt):
        replace(scorer, pool=NoPool(3)).controls(CURVE)
    assert len(replace(scorer, pool=NoPool(1)).controls(CURVE)) == len(ROWS)


def test_control_rows_of_other_images_are_scored_anew(scorer: ModelScorer) -> None:
    scorer.controls(CURVE)
    other = replace(scorer.test, sha256="other")
    with pytest.raises(KeyboardInterrupt):
        replace(scorer, test=other, pool=NoPool(0)).controls(CURVE)
