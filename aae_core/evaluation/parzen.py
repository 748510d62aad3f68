"""Parzen-window log-likelihood with the protocol of Goodfellow et al. 2014 (arXiv:1406.2661).

    ℓ(x) = logsumexp_j(−‖x − s_j‖² / 2σ²) − log N − D log(σ√(2π))

The same samples s_j serve to choose σ on validation points and to score the test points. Samples
are read once: the first block narrows σ to a window, and the test points are summed at all σ of
the window. Samples come in fixed blocks. Each block is summed on one thread, and the sums are added
in block order, so the figures do not depend on which process computes which block.

Shapes: n points x, N samples s in blocks of m, D pixels, S widths σ.
Units: pixels in [0, 1], σ in the same unit, likelihoods in nats.
"""

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Protocol, Self, TypeAlias

import numpy as np
import torch
from torch import Tensor

from aae_core import streams
from aae_core.data.sets import holds_pixels, unit_interval
from aae_core.errors import DataError
from aae_core.evaluation.kernel_sums import (
    Cloud,
    KernelSums,
    check_pixels,
    check_sigma,
    kernel_sums,
    log_likelihood,
    nearest_bound,
    reach,
)

SIGMA_GRID: tuple[float, ...] = tuple(np.logspace(-1, 0, 10).tolist())
STEPS = 8  # refined steps per step of the grid
LADDER: tuple[float, ...] = tuple(
    SIGMA_GRID[i // STEPS] * 10 ** (i % STEPS / (9 * STEPS)) for i in range(9 * STEPS + 1)
)
BLOCK = 10_000  # samples a block: part of the protocol, since each block has its own stream
CURVE = (10_000, 100_000, 1_000_000, 10_000_000)  # numbers of samples with a result of their own
VALID_POINTS = 1_000  # number of first validation points, which choose σ
PROTOCOL = 3  # version: a new number means other figures for the same samples
DROPPED = 1e-6  # largest share of a sum to drop for speed; also its error in nats
_SPAN = 10 ** (1 / 3) * 1.001  # σ within this factor share one reach

Pixels: TypeAlias = np.ndarray | Tensor


class SampleSource(Protocol):
    """N samples in blocks of BLOCK; the last may be smaller. `block(i)` always returns the same."""

    @property
    def n_samples(self) -> int: ...

    def block(self, index: int) -> Tensor:
        """Return block `index`, (m, D), floats."""
        ...


class Sampler(Protocol):
    def sample(self, n: int, *, generator: torch.Generator) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class ArraySource:
    """Rows of an array, memory-mapped or not, of any type that `to_float64` accepts."""

    array: Pixels

    @property
    def n_samples(self) -> int:
        return len(self.array)

    def block(self, index: int) -> Tensor:
        return to_float64(self.array[index * BLOCK : (index + 1) * BLOCK], "samples")


@dataclass(frozen=True)
class ModelSource:
    """Samples of a model; block i uses only the stream (seed, "parzen", i)."""

    model: Sampler
    seed: int
    n_samples: int

    def block(self, index: int) -> Tensor:
        size = min(BLOCK, self.n_samples - index * BLOCK)
        return self.model.sample(size, generator=streams.generator(self.seed, "parzen", index))


def to_float64(pixels: Pixels, name: str) -> Tensor:
    """Convert to float64 in the same shape; uint8 is scaled by 1/255.

    Raises DataError, naming `name`, for other types than uint8 and floats.
    """
    if isinstance(pixels, np.ndarray):
        if not holds_pixels(pixels.dtype):
            raise DataError(f"{name}: type {pixels.dtype}; give uint8, or floats of any size")
        # Copy, since memory-mapped or shared arrays may be read-only.
        doubles = torch.from_numpy(np.array(pixels, np.float64))
        return doubles / 255 if pixels.dtype == np.uint8 else doubles
    if not (pixels.dtype == torch.uint8 or pixels.is_floating_point()):
        raise DataError(f"{name}: type {pixels.dtype}; give uint8, or floats of any size")
    return unit_interval(pixels, "float64")


def block_count(n_samples: int) -> int:
    return math.ceil(n_samples / BLOCK)


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit torch to one thread: products and sums split over threads round differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# -- sums ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class SigmaSums:
    """Kernel sums of some points, a row for each σ."""

    sigmas: tuple[float, ...]
    sums: KernelSums

    def __add__(self, other: "SigmaSums") -> "SigmaSums":
        """Sum over the samples of both, for the σ common to both."""
        common = tuple(sigma for sigma in self.sigmas if sigma in other.sigmas)
        return SigmaSums(common, self.rows(common) + other.rows(common))

    def rows(self, sigmas: Sequence[float]) -> KernelSums:
        indices = [self.sigmas.index(sigma) for sigma in sigmas]
        return KernelSums(self.sums.log_sums[indices], self.sums.log_errors[indices])

    def log_likelihood(self, sigma: float, n_samples: int, dim: int) -> Tensor:
        """Return ℓ of every point, (n,)."""
        return log_likelihood(self.rows([sigma]).log_sums[0], n_samples, dim, sigma)


_NOTHING = SigmaSums((), KernelSums(torch.empty(0, 0).double(), torch.empty(0, 0).double()))


@dataclass(frozen=True, eq=False)
class Sums:
    """Kernel sums of validation and test points over some samples."""

    valid: SigmaSums
    test: SigmaSums

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(self.valid + other.valid, self.test + other.test)

    def to_tensors(self) -> dict[str, Tensor]:
        return {
            f"{name}.{part}": tensor
            for name, widths in vars(self).items()
            for part, tensor in (
                ("sigmas", torch.tensor(widths.sigmas, dtype=torch.float64)),
                *vars(widths.sums).items(),
            )
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        def widths(name: str) -> SigmaSums:
            sums = KernelSums(tensors[f"{name}.log_sums"], tensors[f"{name}.log_errors"])
            return SigmaSums(tuple(tensors[f"{name}.sigmas"].tolist()), sums)

        return cls(widths("valid"), widths("test"))


@dataclass(frozen=True)
class Window:
    """The σ to sum points for, and the sums so far, which are lower bounds of the total."""

    sigmas: tuple[float, ...] | None = None  # None: chosen from the block's samples
    before: Sums | None = None


class Scorer:
    """Sums of every point over a block of samples; holds all data that a worker needs."""

    def __init__(self, valid: Tensor, test: Tensor, n_samples: int, sigma: float | None) -> None:
        points = torch.cat([test, valid])
        self.n_samples, self.dim, self.sigma = n_samples, points.shape[1], sigma
        self._n_test = len(test)
        self._points = Cloud.of_points(points, points.mean(0))

    @cached_property
    def test(self) -> Cloud:
        return self._points[: self._n_test]

    @cached_property
    def valid(self) -> Cloud:
        return self._points[self._n_test :]

    @one_thread()
    @torch.no_grad()
    def score(self, source: SampleSource, index: int, window: Window) -> Sums:
        """Sum over one block of the source, with the same bits in every process.

        Raises DataError for samples that cannot be scored.
        """
        samples = self.test.of_samples(source.block(index))
        before = window.before or Sums(_NOTHING, _NOTHING)
        if self.sigma is not None:
            return Sums(_NOTHING, self._widths(self.test, samples, (self.sigma,), before.test))
        wanted = {*SIGMA_GRID, *(window.sigmas or ())}
        valid = self._widths(self.valid, samples, wanted, before.valid)
        sigmas = window.sigmas or self.window(valid, len(samples))
        fine = {*sigmas} - wanted
        valid = _side_by_side([valid, self._widths(self.valid, samples, fine, before.valid)])
        if len(samples) == self.n_samples:
            choice = choose_sigma(valid, self.n_samples, self.dim)
            sigmas = tuple({choice.grid, choice.refined})
        return Sums(valid, self._widths(self.test, samples, sigmas, before.test))

    def next_window(self, total: Sums, n: int) -> tuple[float, ...]:
        """Return the σ to sum from n samples on, a subset of the σ summed so far."""
        if self.sigma is not None:
            return (self.sigma,)
        wanted = self.window(total.valid, n)
        return tuple(sigma for sigma in wanted if sigma in total.test.sigmas) or total.test.sigmas

    def window(self, valid: SigmaSums, n: int) -> tuple[float, ...]:
        """Return the expected range of the best σ for all numbers of samples from n on.

        The best σ falls as N^(−1/(d + 4)) for points that fill d dimensions: from d = 5 on, by at
        most one step of the grid per decade. If the range is too narrow, samples are read again.
        """
        best = int(np.argmax(_means(valid, SIGMA_GRID, n, self.dim)))
        decades = math.ceil(math.log10(self.n_samples / n))
        return _ladder(best - 1 - decades, best + 1)

    def _widths(
        self, points: Cloud, samples: Cloud, sigmas: Collection[float], before: SigmaSums
    ) -> SigmaSums:
        """Sum for every σ; lower bounds of the sums come from `before`, or from a near sample."""
        if not sigmas:
            return _NOTHING
        if not before.sigmas:
            nearest = nearest_bound(points, samples)
        found = []
        for some in _spans(sigmas):
            if before.sigmas:
                least = before.rows(some).least
            else:
                least = torch.stack([-nearest / (2 * sigma**2) for sigma in some])
            limit = reach(least, some, DROPPED / self.n_samples)
            found.append(SigmaSums(some, kernel_sums(points, samples, some, limit)))
        return _side_by_side(found)


def _side_by_side(parts: Sequence[SigmaSums]) -> SigmaSums:
    parts = [part for part in parts if part.sigmas]
    return SigmaSums(
        tuple(sigma for part in parts for sigma in part.sigmas),
        KernelSums(
            torch.cat([part.sums.log_sums for part in parts]),
            torch.cat([part.sums.log_errors for part in parts]),
        ),
    )


def _spans(sigmas: Collection[float]) -> list[tuple[float, ...]]:
    spans: list[list[float]] = []
    for sigma in sorted(sigmas):
        if not spans or sigma > _SPAN * spans[-1][0]:
            spans.append([])
        spans[-1].append(sigma)
    return [tuple(span) for span in spans]


def _ladder(lowest: int, highest: int) -> tuple[float, ...]:
    """Return all refined σ from one index of the grid to another."""
    return LADDER[max(0, lowest) * STEPS : min(len(SIGMA_GRID) - 1, highest) * STEPS + 1]


# -- the choice of σ ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """Chosen σ for one number of samples."""

    grid: float
    refined: float  # the best of LADDER within one grid step of `grid`
    at_edge: bool = False
    valid_ll: tuple[float, ...] = ()  # mean over validation points, for each σ of the grid


def _around(grid: float) -> tuple[float, ...]:
    place = SIGMA_GRID.index(grid)
    return _ladder(place - 1, place + 1)


def choose_sigma(valid: SigmaSums, n_samples: int, dim: int) -> Choice:
    """Choose σ by the mean over validation points; refined = grid if no refined σ is better."""
    valid_ll = _means(valid, SIGMA_GRID, n_samples, dim)
    best = int(np.argmax(valid_ll))
    grid = SIGMA_GRID[best]
    near = [grid, *(sigma for sigma in _around(grid) if sigma in valid.sigmas)]
    refined = near[int(np.argmax(_means(valid, near, n_samples, dim)))]
    return Choice(grid, refined, best in (0, len(SIGMA_GRID) - 1), tuple(valid_ll))


def _means(valid: SigmaSums, sigmas: Sequence[float], n_samples: int, dim: int) -> list[float]:
    return [float(valid.log_likelihood(sigma, n_samples, dim).mean()) for sigma in sigmas]


# -- the protocol -------------------------------------------------------------------------------

# (scorer, window, blocks) -> the blocks' sums, in order
Runner: TypeAlias = Callable[[Scorer, Window, range], Iterator[Sums]]


class Memory(Protocol):
    """Storage of totals over the first blocks, which lets an interrupted job resume."""

    def totals(self) -> dict[int, Sums]:
        """Return the stored totals by number of blocks."""
        ...

    def keep(self, blocks: int, total: Sums, *, needed: bool) -> None:
        """Store a total; one with needed=False may be deleted once a later total is stored."""
        ...

    def again(self, blocks: int) -> "Memory":
        """Return a separate memory for another pass over the first blocks."""
        ...


class NoMemory:
    def totals(self) -> dict[int, Sums]:
        return {}

    def keep(self, blocks: int, total: Sums, *, needed: bool) -> None: ...

    def again(self, blocks: int) -> "NoMemory":
        return self


def in_process(source: SampleSource) -> Runner:
    """Return a runner that computes all blocks in this process, in order."""

    def run(scorer: Scorer, window: Window, blocks: range) -> Iterator[Sums]:
        return (scorer.score(source, index, window) for index in blocks)

    return run


@dataclass(frozen=True)
class Score:
    """Score of the test points with the first `n_samples` samples."""

    n_samples: int
    log_likelihood: float  # mean over test points, at `sigma`
    standard_error: float | None  # None for a single point
    sigma: float
    log_likelihood_grid: float | None = None  # at `sigma_grid`; None in older documents
    standard_error_grid: float | None = None
    sigma_grid: float | None = None

    @classmethod
    def of(cls, n_samples: int, choice: Choice, refined: Tensor, on_grid: Tensor) -> Self:
        """Build a score from ℓ of every test point, (n,), at the refined σ and at the grid's σ."""
        best, strict = _mean_and_error(refined), _mean_and_error(on_grid)
        return cls(n_samples, *best, choice.refined, *strict, choice.grid)


def _mean_and_error(ll: Tensor) -> tuple[float, float | None]:
    error = float(ll.std() / math.sqrt(len(ll))) if len(ll) > 1 else None
    return float(ll.mean()), error


@dataclass(frozen=True, eq=False)
class ParzenResult:
    n_samples: int
    n_valid: int  # validation points used to choose σ
    n_test: int
    dim: int
    sigma: float  # refined if a refined σ is better on the validation points
    sigma_grid: float
    sigma_at_edge: bool  # a better σ may lie outside the grid
    sigmas: list[float]  # the grid; empty if σ was given
    valid_ll: list[float]  # mean over validation points, for each of `sigmas`
    log_likelihood: float  # mean over test points, at `sigma`
    standard_error: float | None  # over test points; None for a single point
    log_likelihood_grid: float  # at `sigma_grid`, as in publications
    standard_error_grid: float | None
    blocks: int
    blocks_repeated: int  # computed again after a process was lost
    pairs_scored: int  # pairs of a point and a sample, including dropped pairs
    seconds: float
    max_abs_error_bound: float  # nats, maximum over test points
    per_point: Tensor  # (n_test,), float64, at `sigma`
    curve: list[Score]  # for every requested number of samples

    def to_dict(self) -> dict[str, Any]:
        """Return all fields except `per_point` as plain JSON."""
        document = {name: value for name, value in vars(self).items() if name != "per_point"}
        return document | {"curve": [asdict(score) for score in self.curve]}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], per_point: Tensor) -> Self:
        curve = [Score(**score) for score in document["curve"]]
        return cls(**{**document, "curve": curve}, per_point=per_point)


@one_thread()
def run_protocol(
    runner: Runner,
    n_samples: int,
    x_valid: Pixels | None,
    x_test: Pixels,
    *,
    sigma: float | None = None,
    curve: Sequence[int] = (),
    memory: Memory | None = None,
) -> ParzenResult:
    """Choose σ on the first VALID_POINTS of `x_valid`, then score `x_test`: (n, D) both.

    A given `sigma` skips the choice. `curve` lists numbers of samples, in whole blocks. For each of
    these numbers n, σ is chosen again and the test points are scored with only the first n samples.

    Raises DataError for images or settings that cannot be scored.
    """
    began = time.perf_counter()
    sizes = _prefixes(curve, n_samples)
    test = _points(x_test, "test images")
    if sigma is None:
        valid = _choosing_points(x_valid, test.shape[1])
    else:
        check_sigma(sigma)
        valid = test[:0]
    scorer = Scorer(valid, test, n_samples, sigma)
    found = _scored(runner, scorer, sizes, memory or NoMemory())
    last = found[n_samples]
    refined, refined_error = _mean_and_error(last.per_point)
    on_grid, on_grid_error = _mean_and_error(last.on_grid)
    return ParzenResult(
        n_samples=n_samples,
        n_valid=len(valid),
        n_test=len(test),
        dim=scorer.dim,
        sigma=last.choice.refined,
        sigma_grid=last.choice.grid,
        sigma_at_edge=last.choice.at_edge,
        sigmas=list(SIGMA_GRID) if sigma is None else [],
        valid_ll=list(last.choice.valid_ll),
        log_likelihood=refined,
        standard_error=refined_error,
        log_likelihood_grid=on_grid,
        standard_error_grid=on_grid_error,
        blocks=block_count(n_samples),
        blocks_repeated=0,
        pairs_scored=(len(valid) + len(test)) * n_samples,
        seconds=time.perf_counter() - began,
        max_abs_error_bound=last.error_bound,
        per_point=last.per_point,
        curve=[Score.of(n, found[n].choice, found[n].per_point, found[n].on_grid) for n in curve],
    )


def _prefixes(curve: Sequence[int], n_samples: int) -> set[int]:
    if n_samples < 1:
        raise DataError("samples: none")
    for n in curve:
        if not 0 < n <= n_samples or (n % BLOCK and n != n_samples):
            raise DataError(f"curve: {n} samples; give multiples of {BLOCK}, or all {n_samples}")
    return {*curve, n_samples}


def _points(pixels: Pixels, name: str, dim: int | None = None) -> Tensor:
    points = to_float64(pixels, name)
    check_pixels(points, name, dim)
    return points


def _choosing_points(x_valid: Pixels | None, dim: int) -> Tensor:
    if x_valid is None:
        raise DataError("no validation images to choose sigma on; give them, or a sigma")
    return _points(x_valid[:VALID_POINTS], "validation images", dim)


@dataclass(frozen=True, eq=False)
class _Scored:
    choice: Choice
    per_point: Tensor  # at the refined σ
    on_grid: Tensor
    error_bound: float

    @classmethod
    def of(cls, total: Sums, choice: Choice, n: int, dim: int) -> Self:
        sigmas = [choice.refined, choice.grid]
        rows = total.test.rows(sigmas)
        best, on_grid = (total.test.log_likelihood(sigma, n, dim) for sigma in sigmas)
        return cls(choice, best, on_grid, float(rows.error_bound.max()))


def _scored(
    runner: Runner, scorer: Scorer, sizes: Collection[int], memory: Memory
) -> dict[int, _Scored]:
    """Score every number of samples; read the samples again if σ lies outside its window."""
    found: dict[int, _Scored] = {}
    totals = _totals(runner, scorer, sizes, memory)
    for n in sizes:
        total, choice = totals[n], _choice(scorer, totals[n], n)
        if not _is_within(choice, total):
            around = _around(choice.grid)
            again = memory.again(block_count(n))
            total = _totals(runner, scorer, [n], again, around)[n]
            choice = choose_sigma(total.valid, n, scorer.dim)
        found[n] = _Scored.of(total, choice, n, scorer.dim)
    return found


def _choice(scorer: Scorer, total: Sums, n: int) -> Choice:
    if scorer.sigma is not None:
        return Choice(scorer.sigma, scorer.sigma)
    return choose_sigma(total.valid, n, scorer.dim)


def _is_within(choice: Choice, total: Sums) -> bool:
    """Return True if all σ around the choice were compared and the chosen σ have test sums."""
    known = not choice.valid_ll or set(_around(choice.grid)) <= set(total.valid.sigmas)
    return known and {choice.grid, choice.refined} <= set(total.test.sigmas)


def _totals(
    runner: Runner,
    scorer: Scorer,
    sizes: Collection[int],
    memory: Memory,
    sigmas: tuple[float, ...] | None = None,
) -> dict[int, Sums]:
    """Return the totals by number of samples.

    The window of σ and the reach are recomputed at every tenfold increase of N.
    `sigmas`, if given, are the σ of the test points.
    """
    sums = memory.totals()
    ends = {block_count(n): n for n in sizes}
    starts = [0, *(10**i for i in range(9) if 10**i < max(ends))]
    for first, last in pairwise([*starts, max(ends)]):
        before = sums.get(first)
        chosen = sigmas if before is None else sigmas or scorer.next_window(before, first * BLOCK)
        window = Window(chosen, before)
        done = max((blocks for blocks in sums if first <= blocks <= last), default=first)
        total = sums.get(done)
        for blocks, more in enumerate(runner(scorer, window, range(done, last)), done + 1):
            total = more if total is None else total + more
            needed = blocks in ends or blocks in starts
            memory.keep(blocks, total, needed=needed)
            if needed:
                sums[blocks] = total
    return {n: sums[blocks] for blocks, n in ends.items()}


def validation_score(samples: Tensor, x_valid: Tensor) -> dict[str, float]:
    """Choose σ on the first half of the images, at most 1000, and score the remaining images.

    Shapes: (N, D), (n, D) with n ≥ 2, on one device. The keys are those of `test_score`.
    """
    half = min(VALID_POINTS, len(x_valid) // 2)
    return test_score(samples, x_valid[:half], x_valid[half:])


def test_score(samples: Tensor, x_valid: Tensor, x_test: Tensor) -> dict[str, float]:
    """Return the protocol's figures as metrics; no standard error for a single point."""
    result = run_protocol(in_process(ArraySource(samples)), len(samples), x_valid, x_test)
    metrics = {
        "parzen_ll": result.log_likelihood_grid,
        "parzen_ll_refined": result.log_likelihood,
        "parzen_se": result.standard_error_grid,
        "parzen_sigma": result.sigma_grid,
    }
    return {name: value for name, value in metrics.items() if value is not None}
