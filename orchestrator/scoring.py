"""The confirmed models meet the test set: metrics, Parzen likelihood, controls, pictures.

Whatever has been scored is kept by the content it depends on, so that asking twice costs nothing.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import aae_core
from aae_core.config import digest
from aae_core.data import TestData, TrainingData, unit_interval
from aae_core.evaluation.latent import basis_2d, project_2d
from aae_core.evaluation.samples import sample_grid
from aae_core.evaluation.scores import test_metrics
from aae_core.models import AAE
from aae_core.seeding import stream_seed
from aae_core.streams import generator
from aae_core.training.loop import resident
from orchestrator.parzen_job import CheckpointSamples, ParzenPool, SharedArray
from orchestrator.pictures import save_grid, save_scatter
from orchestrator.records import RunRecord
from orchestrator.selection import Candidate
from orchestrator.spec import ParzenSpec

_CURVE = (10_000, 100_000, 1_000_000, 10_000_000)
_CENTROIDS = 1_000
_GRID = (10, 10)  # rows, columns of samples
_CODES = 5_000  # drawn in the picture of the code space

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
        """The Parzen document of one confirmed model, its test metrics and its curve."""
        assert run.checkpoint is not None
        checkpoint = Path(run.checkpoint)
        seed = stream_seed(run.seed, "evaluate")
        content = {
            "checkpoint": (checkpoint / "manifest.json").read_text(),
            "seed": seed,
            "samples": samples,
        }

        def compute() -> dict[str, Any]:
            x_valid, x_test = resident(self.data.x_valid, _CPU), resident(self.test.x, _CPU)
            model = aae_core.load(checkpoint)
            metrics = test_metrics(model, x_valid, x_test, run.seed, run.epochs)
            what = f"{run.stage}-{run.number}: {samples:,} samples"
            result = self.pool.score(
                CheckpointSamples(checkpoint, seed, samples),
                self.data.x_valid,
                self.test.x,
                curve=[n for n in _CURVE if n < samples] + [samples],
                progress=partial(self.progress, what),
            )
            curve = [asdict(point) for point in result.curve]
            return {**result.to_dict(), "metrics": metrics, "curve": curve}

        return self._kept(content, compute)

    def controls(self) -> dict[str, Any]:
        """Two memories scored as if they were models: Parzen figures flatter memorisation."""

        def compute() -> dict[str, Any]:
            centroids = _centroids(unit_interval(self.data.x_train))
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
        self, content: dict[str, Any], compute: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        key = digest({**content, "data": self.data.sha256, "test": self.test.sha256})
        path = self.folder / f"{key}.json"
        if not path.exists():
            write_json(path, compute())
        document: dict[str, Any] = json.loads(path.read_text())
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


def draw_pictures(run: RunRecord, data: TrainingData, folder: Path) -> list[Path]:
    """samples.png with nearest training images, latent.png with validation codes."""
    assert run.checkpoint is not None
    model = aae_core.load(run.checkpoint)
    paths = [folder / "samples.png", folder / "latent.png"]
    with torch.no_grad():
        save_grid(_samples_canvas(model, run.seed, data), paths[0])
        _draw_codes(model, run.seed, data, paths[1])
    return paths


def _samples_canvas(model: AAE, seed: int, data: TrainingData) -> np.ndarray:
    rows, columns = _GRID
    samples = model.sample(rows * columns, generator=generator(seed, "pictures"))
    train = unit_interval(resident(data.x_train, _CPU))
    return sample_grid(samples, train, rows, columns, data.image_shape)


def _draw_codes(model: AAE, seed: int, data: TrainingData, path: Path) -> None:
    x = unit_interval(resident(data.x_valid[:_CODES], _CPU))
    stream = generator(seed, "pictures", "codes")
    codes = model.encode(x, generator=stream)
    prior = model.prior.sample(len(codes), generator=stream)
    labels = None if data.y_valid is None else data.y_valid[:_CODES]
    basis = basis_2d(codes)
    points, reference = project_2d(codes, basis), project_2d(prior, basis)
    save_scatter(points.numpy(), labels, reference.numpy(), path, title="validation codes")


def _centroids(x: np.ndarray) -> np.ndarray:
    from sklearn.cluster import MiniBatchKMeans  # slow to import

    k = min(_CENTROIDS, max(1, len(x) // 10))
    kmeans = MiniBatchKMeans(k, random_state=0, n_init=1, batch_size=max(4096, k))
    centres: np.ndarray = kmeans.fit(x).cluster_centers_.astype(np.float32)
    return centres


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    building = path.with_suffix(f".{os.getpid()}.tmp")
    building.write_text(json.dumps(document, indent=2))
    building.replace(path)
