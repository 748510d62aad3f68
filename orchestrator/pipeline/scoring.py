"""Score the confirmed models on the test set: metrics, Parzen likelihood, controls.

Workers measure several models at once, then the Parzen actors score one model after another.
Results are cached by the content that they depend on, so scoring twice costs nothing.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, cast

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
from orchestrator.execution.actors import ActorPool
from orchestrator.execution.cluster import TrialResources
from orchestrator.execution.once import once, stored
from orchestrator.execution.parzen_pool import (
    CentroidSamples,
    CheckpointSamples,
    ParzenPool,
    SampleFile,
    SharedArray,
)
from orchestrator.records import RunRecord
from orchestrator.results.figures import draw_pictures
from orchestrator.results.ranking import Candidate
from orchestrator.results.reader import finite
from orchestrator.sweepfile.spec import ParzenSpec
from orchestrator.text import count

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


class Measured(TypedDict):
    """A model's test metrics and pictures, which need no Parzen samples."""

    kind: str
    metrics: dict[str, float | None]  # test/…
    pictures: list[str]  # file names


@dataclass(frozen=True)
class ModelScorer:
    """Score models on one test set, and cache the results below `folder`."""

    data: TrainingData
    test: TestData
    folder: Path
    pool: ParzenPool
    progress: Progress
    folder_of: Callable[[RunRecord], Path]  # of a model's pictures
    metrics: tuple[str, ...] = ()  # of other packages, as in training.metrics

    def unmeasured(self, runs: Iterable[RunRecord]) -> dict[str, RunRecord]:
        """Return the models without test metrics or pictures, by name."""
        return {_name(run): run for run in runs if self._measured(run) is None}

    def measure(
        self, runs: Mapping[str, RunRecord], resources: TrialResources, at_once: int
    ) -> None:
        """Compute the test metrics of models and draw their pictures, each model in a worker."""
        shared = (self.data, self.test, resources, self.metrics)
        jobs = {name: (run, self.folder_of(run)) for name, run in runs.items()}
        advance = partial(self.progress, f"{count(len(jobs), 'model')}: test metrics")
        advance(0, len(jobs))
        with ActorPool[str](_Measurer, resources, "test metrics of", shared) as workers:
            for done, (name, found) in enumerate(workers.run(at_once, jobs), start=1):
                self._keep(_model(runs[name]), found)
                advance(done, len(jobs))

    def pictures(self, run: RunRecord) -> list[Path]:
        """Return the paths of a measured model's pictures."""
        return [self.folder_of(run) / name for name in self._known(run)["pictures"]]

    def score(self, run: RunRecord, samples: int) -> TestScores:
        """Return the test metrics of one measured model.

        A model judged by Parzen likelihood also has the Parzen document, its curve and controls.
        """
        known = self._known(run)
        if "parzen_ll" not in ARCHITECTURES[known["kind"]].metrics:
            return {"metrics": known["metrics"]}
        parzen = self._parzen(run, samples)
        sizes = [point["n_samples"] for point in parzen["curve"]]
        # The Parzen document of an earlier version has metrics, which stay as published.
        scores = {"metrics": known["metrics"], **parzen, "controls": self.controls(sizes)}
        return cast(TestScores, scores)

    def _parzen(self, run: RunRecord, samples: int) -> dict[str, Any]:
        assert run.checkpoint is not None
        seed = stream_seed(run.seed, "evaluate")
        drawn = CheckpointSamples(Path(run.checkpoint), seed, samples)

        def compute(unfinished: Path) -> dict[str, Any]:
            result = self.pool.score(
                drawn,
                self.data.x_valid,
                self.test.x,
                curve=[n for n in CURVE if n < samples] + [samples],
                progress=partial(self.progress, f"{_name(run)}: {samples:,} samples"),
                folder=unfinished,
            )
            return result.to_dict()

        return self._kept(drawn.content, compute)

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
        self, content: Mapping[str, Any], compute: Callable[[Path], Mapping[str, Any]]
    ) -> dict[str, Any]:
        key = self._key(content)
        (_, document), _ = once(self.folder, key, lambda path: ({}, compute(path)))
        return dict(document)

    def _keep(self, content: Mapping[str, Any], document: Mapping[str, Any]) -> None:
        self._kept(content, lambda _: document)

    def _key(self, content: Mapping[str, Any]) -> dict[str, Any]:
        data = {"data": self.data.sha256, "test": self.test.sha256, "protocol": PROTOCOL}
        return {**content, **data}

    def _known(self, run: RunRecord) -> Measured:
        known = self._measured(run)
        assert known is not None, _name(run)
        return known

    def _measured(self, run: RunRecord) -> Measured | None:
        """Return what is known of a model; None if a picture has gone."""
        found = stored(self.folder, self._key(_model(run)))
        if found is None:
            return None
        known = cast(Measured, found[1])
        folder = self.folder_of(run)
        return known if all((folder / name).exists() for name in known["pictures"]) else None


class _Measurer:
    """A worker that measures one model after another, with the resources of a trial.

    Test metrics use the trial's number of threads, like its validation metrics: sums that are
    split over threads round differently. Pictures are drawn on the CPU.
    """

    def __init__(
        self,
        data: TrainingData,
        test: TestData,
        resources: TrialResources,
        metrics: tuple[str, ...],
    ) -> None:
        self._device = "cuda" if resources.gpu else "cpu"
        self._threads, self._data, self._metrics = resources.threads, data, metrics
        self._valid = Images.of(data.x_valid, data.y_valid, self._device)
        self._test = Images.of(test.x, test.y, self._device)

    def ready(self) -> None:
        """Return once the worker has found a place to run."""

    def score(self, run: RunRecord, folder: Path) -> Measured:
        """Compute the test metrics of one confirmed model, and draw its pictures to `folder`."""
        assert run.checkpoint is not None
        torch.set_num_threads(self._threads)
        model = aae_core.load(run.checkpoint, self._device)
        figures = test_metrics(model, self._valid, self._test, run.seed, run.epochs, self._metrics)
        drawn = draw_pictures(run, self._data, folder)
        return {
            "kind": model.kind,
            "metrics": finite(figures),
            "pictures": [path.name for path in drawn],
        }


def _model(run: RunRecord) -> dict[str, Any]:
    """Return the identity of a model and of its test metrics' draws."""
    assert run.checkpoint is not None
    manifest = (Path(run.checkpoint) / "manifest.json").read_text()
    return {"model": manifest, "seed": run.seed}


def _name(run: RunRecord) -> str:
    return f"{run.stage}-{run.number}"


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
