"""The confirmed models meet the test set: metrics, Parzen likelihood, controls.

Whatever has been scored is kept by the content it depends on, so that asking twice costs nothing.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import aae_core
from aae_core.architectures import ARCHITECTURES
from aae_core.config import digest
from aae_core.data import TestData, TrainingData, unit_interval
from aae_core.data.resident import Images
from aae_core.data.splits import permutation
from aae_core.evaluation.parzen import CURVE, PROTOCOL
from aae_core.evaluation.scores import test_metrics
from aae_core.seeding import stream_seed
from orchestrator.history import finite
from orchestrator.parzen_job import CheckpointSamples, ParzenPool, SharedArray
from orchestrator.records import RunRecord
from orchestrator.selection import Candidate
from orchestrator.spec import ParzenSpec

_CENTROIDS, _CLUSTERED = 1_000, 100_000

Progress = Callable[[str, int, int], None]  # what, done, total


@dataclass(frozen=True)
class Scorer:
    """Scores models against one test set, and keeps what it finds below `folder`."""

    data: TrainingData
    test: TestData
    folder: Path
    pool: ParzenPool
    progress: Progress

    def score(self, run: RunRecord, samples: int) -> dict[str, Any]:
        """The test metrics of one confirmed model; for one that is judged by Parzen likelihood,
        also that document with its curve and the controls.
        """
        assert run.checkpoint is not None
        checkpoint = Path(run.checkpoint)
        drawn = CheckpointSamples(checkpoint, stream_seed(run.seed, "evaluate"), samples)

        def compute(unfinished: Path) -> dict[str, Any]:
            valid = Images.of(self.data.x_valid, self.data.y_valid, _CPU)
            test = Images.of(self.test.x, self.test.y, _CPU)
            model = aae_core.load(checkpoint)
            metrics = finite(test_metrics(model, valid, test, run.seed, run.epochs))
            what = f"{run.stage}-{run.number}"
            if "parzen_ll" not in ARCHITECTURES[model.kind].metrics:
                self.progress(what, 1, 1)
                return {"metrics": metrics}
            result = self.pool.score(
                drawn,
                self.data.x_valid,
                self.test.x,
                curve=[n for n in CURVE if n < samples] + [samples],
                progress=partial(self.progress, f"{what}: {samples:,} samples"),
                folder=unfinished,
            )
            return {**result.to_dict(), "metrics": metrics}

        document = self._kept(drawn.content, compute)
        return document if "curve" not in document else document | {"controls": self.controls()}

    def controls(self) -> dict[str, Any]:
        """Two memories scored as if they were models: Parzen figures flatter memorisation."""

        def compute(_unfinished: Path) -> dict[str, Any]:
            centroids = _centroids(self.data.x_train)
            samples = {"train_images": self.data.x_train, "kmeans": centroids}
            return {name: self._score_array(name, array) for name, array in samples.items()}

        return self._kept({"controls": _CENTROIDS}, compute)

    def _score_array(self, name: str, samples: np.ndarray) -> dict[str, Any]:
        result = self.pool.score(
            SharedArray.put(samples),
            self.data.x_valid,
            self.test.x,
            progress=partial(self.progress, f"control {name}"),
        )
        return result.to_dict()

    def _kept(
        self, content: dict[str, Any], compute: Callable[[Path], dict[str, Any]]
    ) -> dict[str, Any]:
        data = {"data": self.data.sha256, "test": self.test.sha256, "protocol": PROTOCOL}
        path = self.folder / f"{digest({**content, **data})}.json"
        with suppress(FileNotFoundError, json.JSONDecodeError):  # a power cut may leave half
            known: dict[str, Any] = json.loads(path.read_text())
            return known
        unfinished = path.with_suffix(".unfinished")
        document = compute(unfinished)
        write_json(path, document)
        shutil.rmtree(unfinished, ignore_errors=True)
        return document


_CPU = torch.device("cpu")


def planned_samples(
    ranked: Sequence[Candidate], parzen: ParzenSpec
) -> Iterator[tuple[RunRecord, int]]:
    """Every confirmed model with its number of samples, the winner's first.

    The first `models` seeds of the winner, not its luckiest, get the full number.
    """
    for place, candidate in enumerate(ranked):
        for index, run in enumerate(candidate.runs):
            full = place == 0 and index < parzen.models
            yield run, parzen.samples if full else min(parzen.screen_samples, parzen.samples)


def _centroids(images: np.ndarray) -> np.ndarray:
    """Of at most 100,000 images: all of a large set would not fit as floats."""
    from sklearn.cluster import MiniBatchKMeans  # slow to import

    chosen = images if len(images) <= _CLUSTERED else images[permutation(len(images))[:_CLUSTERED]]
    x = unit_interval(chosen)
    k = min(_CENTROIDS, max(1, len(x) // 10))
    kmeans = MiniBatchKMeans(k, random_state=0, n_init=1, batch_size=max(4096, k))
    centres: np.ndarray = kmeans.fit(x).cluster_centers_.astype(np.float32)
    return centres


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    building = path.with_suffix(f".{os.getpid()}.tmp")
    building.write_text(json.dumps(document, indent=2, allow_nan=False))
    building.replace(path)
