"""The Parzen protocol on Ray: blocks of samples are shared out over actors.

An actor opens the samples itself and is given a new block whenever it has finished one. A lost
actor is replaced and only the block that it held is computed again. Results are passed on in
block order, so the figures are those of `aae_core.evaluation.parzen.in_process`, bit for bit.
"""

import heapq
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import ray
import torch
from ray.exceptions import ObjectLostError, RayActorError, RayTaskError
from torch import Tensor

from aae_core.errors import AAEError, DataError
from aae_core.evaluation.parzen import (
    ArraySource,
    ModelSource,
    ParzenResult,
    Pixels,
    SampleSource,
    block_count,
    run_protocol,
    score_block,
)
from orchestrator import cluster
from orchestrator.errors import SweepError

Progress = Callable[[int, int], None]  # blocks done, blocks in all

_AHEAD = 4  # blocks per actor that may wait in the driver for an earlier one
_LOSSES = 3  # in a row, of one block, until it is taken for the cause

_log = logging.getLogger(__name__)


class SampleFile(Protocol):
    """Where samples come from: small, so that it travels to the actors, which open it."""

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

    def open(self) -> SampleSource:
        return ArraySource(ray.get(self.ref))


@dataclass(frozen=True)
class CheckpointSamples:
    """N draws of the model in a checkpoint folder; the path is absolute."""

    path: Path
    seed: int
    n_samples: int

    def open(self) -> SampleSource:
        from aae_core import load
        from aae_core.models import Samples

        model = load(self.path)
        assert isinstance(model, Samples)
        return ModelSource(model, self.seed, self.n_samples)


def open_array(path: Path) -> np.ndarray:
    """A .npy of shape (n, D), memory-mapped and never unpickled.

    Raises DataError if it is missing, damaged or something else.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, EOFError) as error:
        raise DataError(
            f"{path}: no .npy of numbers, or a damaged one; numpy.save an array (n, D) of uint8 "
            "or floats"
        ) from error
    if not isinstance(array, np.ndarray) or array.ndim != 2:
        raise DataError(f"{path}: give a .npy that holds one array (n, D)")
    return array


def score_samples(
    samples: SampleFile,
    x_valid: Pixels | None,
    x_test: Pixels,
    *,
    actors: int,
    sigma: float | None = None,
    curve: Sequence[int] = (),
    progress: Progress = lambda _done, _total: None,
) -> ParzenResult:
    """`run_protocol` on `actors` processes of one CPU each, in the Ray that is initialised.

    Raises DataError for images or samples that cannot be scored, and SweepError when the actors
    that hold one block keep dying.
    """
    with ParzenPool(actors) as pool:
        return pool.score(samples, x_valid, x_test, sigma=sigma, curve=curve, progress=progress)


class _Scorer:
    def __init__(self) -> None:
        self._opened: tuple[SampleFile, SampleSource] | None = None

    def ready(self) -> None:
        """Returns once the actor has found a place to run."""

    def score(
        self, samples: SampleFile, block: int, points: np.ndarray, sigmas: Sequence[float]
    ) -> np.ndarray:
        if self._opened is None or self._opened[0] != samples:
            self._opened = (samples, samples.open())
        return score_block(self._opened[1], block, torch.tensor(points), sigmas).numpy()


_Actor = ray.remote(num_cpus=1)(_Scorer)


class ParzenPool:
    """Actors that score one set of samples after another, from the first one to the `with`'s end.

    No more are started than the cluster has CPUs, and only one that says it is ready is given
    blocks: where others use the cluster too, an actor may wait long for its place.
    """

    def __init__(self, actors: int) -> None:
        self._size = actors
        self._actors: list[Any] = []
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, int | None]] = {}  # by ref; no block: starting
        self._losses: Counter[int | None] = Counter()
        self._blocks_repeated = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self._actors:
            ray.kill(actor)

    def score(
        self,
        samples: SampleFile,
        x_valid: Pixels | None,
        x_test: Pixels,
        *,
        sigma: float | None = None,
        curve: Sequence[int] = (),
        progress: Progress = lambda _done, _total: None,
    ) -> ParzenResult:
        """As `score_samples`. After an error the pool is of no more use."""
        n_samples = samples.n_samples
        total = block_count(n_samples) * (2 if sigma is None else 1)
        done = count(1)

        def run(points: Tensor, sigmas: Sequence[float]) -> Iterator[Tensor]:
            for sums in self._run(samples, points, sigmas):
                progress(next(done), total)
                yield sums

        before = self._blocks_repeated
        result = run_protocol(run, n_samples, x_valid, x_test, sigma=sigma, curve=curve)
        return replace(result, blocks_repeated=self._blocks_repeated - before)

    def _run(
        self, samples: SampleFile, points: Tensor, sigmas: Sequence[float]
    ) -> Iterator[Tensor]:
        """Every block's sums, in block order."""
        for _ in range(min(self._size, cluster.cpus()) - len(self._actors)):
            self._start_actor()
        work = (samples, ray.put(points.numpy()), sigmas)
        blocks = block_count(samples.n_samples)
        waiting = list(range(blocks))  # sorted, hence a heap
        finished: dict[int, np.ndarray] = {}
        for block in range(blocks):
            while block not in finished:
                while self._idle and waiting and waiting[0] < block + _AHEAD * self._size:
                    self._hand_out(heapq.heappop(waiting), *work)
                self._collect(finished, waiting)
            yield torch.tensor(finished.pop(block))

    def _start_actor(self) -> None:
        actor: Any = _Actor.remote()
        self._actors.append(actor)
        self._busy[actor.ready.remote()] = (actor, None)

    def _hand_out(
        self, block: int, samples: SampleFile, points: Any, sigmas: Sequence[float]
    ) -> None:
        actor = self._idle.pop()
        self._busy[actor.score.remote(samples, block, points, sigmas)] = (actor, block)

    def _collect(self, finished: dict[int, np.ndarray], waiting: list[int]) -> None:
        """Wait for one answer: a block's sums, an actor that is ready, or a loss."""
        [ref], _ = ray.wait(list(self._busy))
        actor, block = self._busy.pop(ref)
        try:
            answer = ray.get(ref)
        except (RayActorError, ObjectLostError) as error:
            self._replace(actor, block, error)
            if block is not None:
                heapq.heappush(waiting, block)
                self._blocks_repeated += 1
        except RayTaskError as error:
            if isinstance(error.cause, AAEError):
                raise error.cause from error
            raise
        else:
            self._losses[block] = 0
            self._idle.append(actor)
            if block is not None:
                finished[block] = answer

    def _replace(self, actor: Any, block: int | None, error: Exception) -> None:
        self._actors.remove(actor)
        ray.kill(actor)  # it may only have been out of reach
        task = "starting" if block is None else f"block {block}"
        self._losses[block] += 1
        if self._losses[block] == _LOSSES:
            raise SweepError(
                f"Parzen: {task}: lost {_LOSSES} actors in a row; look for the cause, often too "
                f"little memory, in Ray's logs of the last one: {error}"
            )
        _log.warning("Parzen: %s: the actor was lost; another one takes over", task)
        self._start_actor()
