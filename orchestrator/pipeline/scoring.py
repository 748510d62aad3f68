"""Score the confirmed models on the test set: metrics, Parzen likelihood, controls.

Results are cached by the content that they depend on, so scoring twice costs nothing.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

import aae_core
from aae_core.data import TestData, TrainingData
from aae_core.data.resident import Images
from aae_core.declarations import ARCHITECTURES
from aae_core.evaluation.controls import (
    ControlKind,
    clustered_images,
    control_sizes,
    training_images,
)
from aae_core.evaluation.parzen import CURVE, PROTOCOL
from aae_core.evaluation.scores import test_metrics
from aae_core.files import replacing
from aae_core.seeding import stream_seed
from orchestrator.documents import Control, TestScores
from orchestrator.execution.once import once
from orchestrator.execution.parzen_pool import (
    CentroidSamples,
    CheckpointSamples,
    ParzenPool,
    SampleFile,
    SharedArray,
)
from orchestrator.records import RunRecord
from orchestrator.results.ranking import Candidate
from orchestrator.results.reader import finite
from orchestrator.sweepfile.spec import ParzenSpec

_CONTROL_FIELDS = (  # kept from a control's Parzen document
    "n_samples",
    "log_likelihood",
    "standard_error",
    "sigma",
    "log_likelihood_grid",
    "standard_error_grid",
    "sigma_grid",
    "sigma_at_edge",
    "seconds",
)

Progress = Callable[[str, int, int], None]  # what, done, total


@dataclass(frozen=True)
class ModelScorer:
    """Score models on one test set, and cache the results below `folder`."""

    data: TrainingData
    test: TestData
    folder: Path
    pool: ParzenPool
    progress: Progress
    metrics: tuple[str, ...] = ()  # of other packages, as in training.metrics

    def score(self, run: RunRecord, samples: int) -> TestScores:
        """Return the test metrics of one confirmed model.

        A model judged by Parzen likelihood also has the Parzen document, its curve and controls.
        """
        assert run.checkpoint is not None
        checkpoint = Path(run.checkpoint)
        drawn = CheckpointSamples(checkpoint, stream_seed(run.seed, "evaluate"), samples)

        def compute(unfinished: Path) -> dict[str, Any]:
            valid = Images.of(self.data.x_valid, self.data.y_valid, _CPU)
            test = Images.of(self.test.x, self.test.y, _CPU)
            model = aae_core.load(checkpoint)
            figures = test_metrics(model, valid, test, run.seed, run.epochs, self.metrics)
            metrics = finite(figures)
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

        document = cast(TestScores, self._kept(drawn.content, compute))
        if "curve" not in document:
            return document
        sizes = [point["n_samples"] for point in document["curve"]]
        return {**document, "controls": self.controls(sizes)}

    def controls(self, curve: Sequence[int]) -> list[Control]:
        """Return the control rows for a model scored at the numbers of samples in `curve`.

        Models with the same training and test images share one scoring of each row.
        """
        sizes = control_sizes(curve, len(self.data.x_train))
        return [self._control(kind, n) for kind, n in sizes]

    def _control(self, kind: ControlKind, n: int) -> Control:
        def compute(unfinished: Path) -> dict[str, Any]:
            result = self.pool.score(
                self._samples(kind, n),
                self.data.x_valid,
                self.test.x,
                progress=partial(self.progress, f"control {kind}: {n:,} samples"),
                folder=unfinished,
            )
            found = result.to_dict()
            return {"kind": kind, **{name: found[name] for name in _CONTROL_FIELDS}}

        return cast(Control, self._kept({"control": kind, "n_samples": n}, compute))

    def _samples(self, kind: ControlKind, n: int) -> SampleFile:
        if kind == "train_images":
            return SharedArray.put(training_images(self.data.x_train, n))
        return CentroidSamples(SharedArray.put(clustered_images(self.data.x_train)), n)

    def _kept(
        self, content: dict[str, Any], compute: Callable[[Path], dict[str, Any]]
    ) -> dict[str, Any]:
        data = {"data": self.data.sha256, "test": self.test.sha256, "protocol": PROTOCOL}
        (_, document), _ = once(self.folder, {**content, **data}, lambda path: ({}, compute(path)))
        return dict(document)


_CPU = torch.device("cpu")


def planned_samples(
    ranked: Sequence[Candidate], parzen: ParzenSpec
) -> Iterator[tuple[RunRecord, int]]:
    """Yield every confirmed model with its number of samples, the winner's models first.

    The winner's first `models` seeds, not its best ones, get the full number.
    """
    for place, candidate in enumerate(ranked):
        for index, run in enumerate(candidate.runs):
            full = place == 0 and index < parzen.models
            yield run, parzen.samples if full else min(parzen.screen_samples, parzen.samples)


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON file atomically."""
    with replacing(path) as part:
        part.write_text(json.dumps(document, indent=2, allow_nan=False))
