"""The Parzen protocol on Ray: actors share the blocks of samples.

An actor opens the samples itself and gets a new block whenever it has finished one. A lost actor is
replaced, and only its current block is computed again. With a folder, a job whose driver was lost
resumes from the finished blocks. Results are passed on in block order, so the figures are those of
`aae_core.evaluation.parzen.in_process`, bit for bit.
"""

import hashlib
import heapq
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import ray

from aae_core import checkpoint
from aae_core.data import open_array
from aae_core.errors import CheckpointError
from aae_core.evaluation.controls import centroids
from aae_core.evaluation.parzen import (
    PROTOCOL,
    ArraySource,
    ModelSource,
    ParzenResult,
    Pixels,
    SampleSource,
    Scorer,
    Sums,
    Window,
    block_count,
    one_thread,
    run_protocol,
)
from orchestrator.execution import cluster
from orchestrator.execution.actors import ActorPool
from orchestrator.execution.cluster import TrialResources
from orchestrator.execution.once import Result, once

Progress = Callable[[int, int], None]  # blocks done, blocks in all

_AHEAD = 4  # blocks per actor that may wait in the driver for an earlier one
_EVERY = 20  # blocks after which the finished ones are merged into one file

_log = logging.getLogger(__name__)


class SampleFile(Protocol):
    """A source of samples, small enough to be sent to the actors, which open the source."""

    @property
    def n_samples(self) -> int: ...

    def open(self) -> SampleSource: ...


@dataclass(frozen=True)
class ArrayFile:
    """A .npy of samples (N, D), on a disk that every node sees; the path is absolute."""

    path: Path

    @property
    def n_samples(self) -> int:
        return len(open_array(self.path))

    @property
    def content(self) -> dict[str, Any]:
        """Identity of the samples, independent of their path, as JSON."""
        with self.path.open("rb") as file:
            return {"sha256": hashlib.file_digest(file, "sha256").hexdigest()}

    def open(self) -> SampleSource:
        return ArraySource(open_array(self.path))


@dataclass(frozen=True)
class SharedArray:
    """An array of samples (N, D) in Ray's object store."""

    ref: Any
    n_samples: int

    @classmethod
    def put(cls, array: np.ndarray) -> Self:
        return cls(ray.put(array), len(array))

    def open(self) -> ArraySource:
        return ArraySource(ray.get(self.ref))


@dataclass(frozen=True)
class CentroidSamples:
    """N k-means centroids of shared images.

    Each process that scores a block computes the centroids on one thread: the same bits everywhere.
    """

    images: SharedArray
    n_samples: int

    def open(self) -> ArraySource:
        with one_thread():
            return ArraySource(centroids(np.asarray(self.images.open().array), self.n_samples))


@dataclass(frozen=True)
class CheckpointSamples:
    """N samples drawn from the model in a checkpoint folder; the path is absolute."""

    path: Path
    seed: int
    n_samples: int

    @property
    def content(self) -> dict[str, Any]:
        """Identity of the samples, independent of their path, as JSON."""
        manifest = (self.path / "manifest.json").read_text()
        return {"checkpoint": manifest, "seed": self.seed, "samples": self.n_samples}

    def open(self) -> SampleSource:
        from aae_core import load
        from aae_core.models import Samples

        model = load(self.path)
        assert isinstance(model, Samples)
        return ModelSource(model, self.seed, self.n_samples)


def score_samples(
    samples: SampleFile,
    x_valid: Pixels | None,
    x_test: Pixels,
    *,
    actors: int,
    sigma: float | None = None,
    curve: Sequence[int] = (),
    progress: Progress = lambda _done, _total: None,
    folder: Path | None = None,
) -> ParzenResult:
    """Run `run_protocol` on `actors` processes of one CPU each, in the initialised Ray.

    A single actor is this process. `folder` keeps finished blocks of exactly these samples and
    images; the caller removes the folder when the result is in a safe place.

    Raises DataError for images or samples that cannot be scored, and SweepError if the actors
    that hold one block keep dying.
    """
    with ParzenPool(actors) as pool:
        return pool.score(
            samples, x_valid, x_test, sigma=sigma, curve=curve, progress=progress, folder=folder
        )


def score_once(
    folder: Path, content: Mapping[str, Any], score: Callable[[Path], ParzenResult]
) -> tuple[ParzenResult, bool]:
    """Return the result for `content`, and whether it was stored before; see `once`."""

    def compute(unfinished: Path) -> Result:
        result = score(unfinished)
        return {"per_point": result.per_point}, result.to_dict()

    (tensors, document), known = once(folder, {**content, "protocol": PROTOCOL}, compute)
    return ParzenResult.from_dict(document, tensors["per_point"]), known


class Unfinished:
    """The finished blocks of a job: on disk, or without a folder only counted."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._begun = 0
        self._pass, self.read_again = "", 0
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._log = folder / "begun"
            self._begun = self._log.stat().st_size if self._log.exists() else 0

    @property
    def begun(self) -> int:
        """Number of blocks handed out since the job first started, restarts included."""
        return self._begun

    def begin(self) -> None:
        self._begun += 1
        if self._folder is not None:
            with self._log.open("ab") as log:
                log.write(b".")

    def blocks(self, wanted: range, window: Window) -> dict[int, Sums]:
        return {
            block: sums
            for block, sums in self._load("block").items()
            if block in wanted and window.sigmas in (None, sums.test.sigmas)
        }

    def keep_block(self, block: int, sums: Sums) -> None:
        self._save("block", block, sums)

    def again(self, blocks: int) -> "Unfinished":
        """Begin another pass over the first blocks, with files of its own."""
        self._pass, self.read_again = f"again-{blocks}-", self.read_again + blocks
        return self

    def totals(self) -> dict[int, Sums]:
        return self._load("latest") | self._load("total")

    def keep(self, blocks: int, total: Sums, *, needed: bool) -> None:
        """Save the total if due, then remove the files of blocks that the total covers."""
        if self._folder is None or not (needed or blocks % _EVERY == 0):
            return
        self._save("total" if needed else "latest", blocks, total)
        for kind in ("block", "latest"):
            for number, path in self._files(kind):
                if number < blocks:
                    path.unlink()

    def _files(self, kind: str) -> list[tuple[int, Path]]:
        paths = sorted(self._folder.glob(f"{self._pass}{kind}-*")) if self._folder else []
        return [(int(path.name.rpartition("-")[2]), path) for path in paths]

    def _save(self, kind: str, number: int, sums: Sums) -> None:
        if self._folder is not None:
            name = f"{self._pass}{kind}-{number:06d}"
            checkpoint.save_part(self._folder / name, sums.to_tensors())

    def _load(self, kind: str) -> dict[int, Sums]:
        """Return the sums of intact files; remove damaged files."""
        found = {}
        for number, path in self._files(kind):
            try:
                found[number] = Sums.from_tensors(checkpoint.load_part(path))
            except CheckpointError as error:
                _log.warning("Parzen: %s; it is computed again", error)
                path.unlink()
        return found


@dataclass(frozen=True)
class _Decade:
    """The data that a decade's blocks share, with references that actors resolve once."""

    samples: SampleFile
    scorer: Any
    window: Any


class _Actor:
    def __init__(self) -> None:
        self._known: dict[str, tuple[Any, Any]] = {}  # by kind: its last key and value

    def ready(self) -> None:
        """Return once the actor has found a place to run."""

    def score(self, decade: _Decade, block: int) -> Sums:
        source = self._once("samples", decade.samples, lambda samples: samples.open())
        scorer: Scorer = self._once("scorer", decade.scorer, ray.get)
        return scorer.score(source, block, self._once("window", decade.window, ray.get))

    def _once(self, kind: str, key: Any, make: Callable[[Any], Any]) -> Any:
        if kind not in self._known or self._known[kind][0] != key:
            self._known[kind] = (key, make(key))
        return self._known[kind][1]


class ParzenPool:
    """Actors that score one set of samples after another, until the end of the `with`.

    The pool starts at most as many actors as the cluster has CPUs.
    """

    def __init__(self, actors: int) -> None:
        self._size = actors
        self._actors = ActorPool[int](_Actor, TrialResources(cpu=1, gpu=0), "Parzen: block")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._actors.close()

    def score(
        self,
        samples: SampleFile,
        x_valid: Pixels | None,
        x_test: Pixels,
        *,
        sigma: float | None = None,
        curve: Sequence[int] = (),
        progress: Progress = lambda _done, _total: None,
        folder: Path | None = None,
    ) -> ParzenResult:
        """Score samples like `score_samples`. After an error the pool is unusable."""
        n_samples = samples.n_samples
        total = block_count(n_samples)
        kept = Unfinished(folder)

        def run(scorer: Scorer, window: Window, blocks: range) -> Iterator[Sums]:
            sums_of = self._run if self._size > 1 else _run_here
            for block, sums in zip(
                blocks, sums_of(samples, scorer, window, blocks, kept), strict=True
            ):
                progress(block + 1, total)
                yield sums

        result = run_protocol(
            run, n_samples, x_valid, x_test, sigma=sigma, curve=curve, memory=kept
        )
        return replace(result, blocks_repeated=kept.begun - total - kept.read_again)

    def _run(
        self, samples: SampleFile, scorer: Scorer, window: Window, blocks: range, kept: Unfinished
    ) -> Iterator[Sums]:
        """Yield every block's sums, in block order."""
        self._actors.grow(min(self._size, cluster.cpus()))
        decade = _Decade(samples, ray.put(scorer), ray.put(window))
        finished = kept.blocks(blocks, window)
        waiting = [block for block in blocks if block not in finished]  # sorted, hence a heap
        for block in blocks:
            while block not in finished:
                while self._actors.idle and waiting and waiting[0] < block + _AHEAD * self._size:
                    kept.begin()
                    ahead = heapq.heappop(waiting)
                    self._actors.hand_out(ahead, decade, ahead)
                for done, sums in self._actors.collect(partial(heapq.heappush, waiting)):
                    kept.keep_block(done, sums)
                    finished[done] = sums
            yield finished.pop(block)


def _run_here(
    samples: SampleFile, scorer: Scorer, window: Window, blocks: range, kept: Unfinished
) -> Iterator[Sums]:
    source, finished = samples.open(), kept.blocks(blocks, window)
    for block in blocks:
        if block not in finished:
            kept.begin()
            finished[block] = scorer.score(source, block, window)
            kept.keep_block(block, finished[block])
        yield finished.pop(block)
