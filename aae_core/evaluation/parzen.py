"""Parzen-window log-likelihood, by the protocol of Goodfellow et al. 2014 (arXiv:1406.2661).

    ℓ(x) = logsumexp_j(−‖x − s_j‖² / 2σ²) − log N − D log(σ√(2π))

One set of samples s_j serves both to choose σ, on validation points, and to score the test
points. The samples come in fixed blocks whose sums are added in block order, in float64 and on
one thread, so that the figures do not depend on who computes which block.

Shapes: n points x, N samples s in blocks of m, D pixels, S widths σ.
Units: pixels in [0, 1], σ in the same unit, likelihoods in nats.
"""

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol, Self, TypeAlias

import numpy as np
import torch
from torch import Tensor

from aae_core import streams
from aae_core.errors import DataError
from aae_core.evaluation.kernel_sums import (
    block_log_sums,
    check_pixels,
    check_sigma,
    error_bound,
    log_likelihood,
)

SIGMA_GRID: tuple[float, ...] = tuple(np.logspace(-1, 0, 10).tolist())
BLOCK = 10_000  # samples in a block: part of the protocol, since block i is one random stream
VALID_POINTS = 1_000  # the first ones choose σ

Pixels: TypeAlias = np.ndarray | Tensor
# (points, sigmas) -> `block_log_sums` of every block, in block order
Runner: TypeAlias = Callable[[Tensor, Sequence[float]], Iterator[Tensor]]


class SampleSource(Protocol):
    """N samples in blocks of BLOCK, the last perhaps smaller; `block(i)` is always the same."""

    @property
    def n_samples(self) -> int: ...

    def block(self, index: int) -> Tensor:
        """(m, D), float64."""
        ...


class Sampler(Protocol):
    def sample(self, n: int, *, generator: torch.Generator) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class ArraySource:
    """The rows of an array, perhaps memory-mapped, of any type that `to_float64` takes."""

    array: Pixels

    @property
    def n_samples(self) -> int:
        return len(self.array)

    def block(self, index: int) -> Tensor:
        return to_float64(self.array[index * BLOCK : (index + 1) * BLOCK], "samples")


@dataclass(frozen=True)
class ModelSource:
    """Block i is drawn from the stream (seed, "parzen", i), whatever became of the others."""

    model: Sampler
    seed: int
    n_samples: int

    def block(self, index: int) -> Tensor:
        size = min(BLOCK, self.n_samples - index * BLOCK)
        stream = streams.generator(self.seed, "parzen", index)
        return self.model.sample(size, generator=stream).double()


def to_float64(pixels: Pixels, name: str) -> Tensor:
    """The same shape; uint8 is scaled by 1/255.

    Raises DataError, about `name`, for other types than uint8, float32 and float64.
    """
    # a copy, since what is memory-mapped or shared may be read-only
    tensor = pixels if isinstance(pixels, Tensor) else torch.from_numpy(np.array(pixels))
    if tensor.dtype == torch.uint8:
        return tensor.double() / 255
    if tensor.dtype not in (torch.float32, torch.float64):
        raise DataError(f"{name}: type {tensor.dtype}; give uint8, float32 or float64")
    return tensor.double()


def block_count(n_samples: int) -> int:
    return math.ceil(n_samples / BLOCK)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Products and sums split over threads would round differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@_one_thread()
@torch.no_grad()
def score_block(
    source: SampleSource, index: int, points: Tensor, sigmas: Sequence[float]
) -> Tensor:
    """`block_log_sums` of one block of the source: the same bits in every process."""
    return block_log_sums(points, source.block(index), sigmas)


def in_process(source: SampleSource) -> Runner:
    """The runner that computes every block here, one after the other."""

    def run(points: Tensor, sigmas: Sequence[float]) -> Iterator[Tensor]:
        for index in range(block_count(source.n_samples)):
            yield score_block(source, index, points, sigmas)

    return run


@dataclass(frozen=True)
class Choice:
    """The σ for one number of samples."""

    grid: float
    refined: float  # between the grid's points; whether it is better shows later
    at_edge: bool = False
    valid_ll: tuple[float, ...] = ()  # mean over validation points, for each σ of the grid


def choose_sigma(valid_ll: Sequence[float]) -> Choice:
    """The best σ of SIGMA_GRID, and the top of the parabola in ln σ through its neighbours."""
    best = int(np.argmax(valid_ll))
    at_edge = best in (0, len(SIGMA_GRID) - 1)
    shift = 0.0  # in steps of the grid, at most ½
    if not at_edge:
        before, after = np.diff(valid_ll[best - 1 : best + 2])
        shift = 0.5 * (before + after) / (before - after) if before > after else 0.0
    refined = SIGMA_GRID[best] * (SIGMA_GRID[1] / SIGMA_GRID[0]) ** shift
    return Choice(SIGMA_GRID[best], float(refined), at_edge, tuple(valid_ll))


@dataclass(frozen=True)
class Score:
    """The test points, scored with the first `n_samples` samples."""

    n_samples: int
    log_likelihood: float  # mean over test points
    standard_error: float | None  # None for a single point
    sigma: float

    @classmethod
    def of(cls, ll: Tensor, n_samples: int, sigma: float) -> Self:
        error = float(ll.std() / math.sqrt(len(ll))) if len(ll) > 1 else None
        return cls(n_samples, float(ll.mean()), error, sigma)


@dataclass(frozen=True, eq=False)
class ParzenResult:
    n_samples: int
    n_valid: int  # points that chose σ
    n_test: int
    dim: int
    sigma: float  # refined where that is better on the validation points
    sigma_grid: float
    sigma_at_edge: bool  # a better σ may lie outside the grid
    sigmas: list[float]  # the grid; empty if σ was given
    valid_ll: list[float]  # for each of them
    log_likelihood: float  # mean over test points, at `sigma`
    standard_error: float | None  # over test points; None for a single one
    log_likelihood_grid: float  # at `sigma_grid`, as figures are published
    standard_error_grid: float | None
    blocks: int
    blocks_repeated: int  # lost with the process that had them
    pairs_scored: int
    seconds: float
    max_abs_error_bound: float  # nats, of any test point
    per_point: Tensor  # (n_test,), float64, at `sigma`
    curve: list[Score]  # for every number of samples asked for

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: all but `per_point` and `curve`."""
        return {k: v for k, v in vars(self).items() if k not in ("per_point", "curve")}


@_one_thread()
def run_protocol(
    runner: Runner,
    n_samples: int,
    x_valid: Pixels | None,
    x_test: Pixels,
    *,
    sigma: float | None = None,
    curve: Sequence[int] = (),
) -> ParzenResult:
    """Choose σ on the first VALID_POINTS of `x_valid`, then score `x_test`: (n, D) both.

    A given `sigma` skips the choice. `curve` lists numbers of samples, whole blocks, for which σ
    is chosen again and the test points are scored with those samples alone.

    Raises DataError for images or settings that cannot be scored.
    """
    began = time.perf_counter()
    sizes = _prefixes(curve, n_samples)
    test = _points(x_test, "test images")
    n_test, dim = test.shape
    if sigma is None:
        valid = _choosing_points(x_valid, dim)
        choices = _choices(_likelihoods(runner, valid, SIGMA_GRID, n_samples, sizes))
    else:
        check_sigma(sigma)
        valid, choices = test[:0], dict.fromkeys(sizes, Choice(sigma, sigma))

    points = torch.cat([test, valid])
    sigmas = sorted({s for choice in choices.values() for s in (choice.grid, choice.refined)})
    ll = _likelihoods(runner, points, sigmas, n_samples, sizes)

    def score(n: int, s: float) -> Score:
        return Score.of(ll[n][s][:n_test], n, s)

    best = {n: _better(choice, ll[n], n_test) for n, choice in choices.items()}
    choice, at_best = choices[n_samples], score(n_samples, best[n_samples])
    at_grid = score(n_samples, choice.grid)
    bounds = [
        error_bound(ll[n_samples][s], points, n_samples, s)[:n_test]
        for s in {at_best.sigma, at_grid.sigma}
    ]
    return ParzenResult(
        n_samples=n_samples,
        n_valid=len(valid),
        n_test=n_test,
        dim=dim,
        sigma=at_best.sigma,
        sigma_grid=at_grid.sigma,
        sigma_at_edge=choice.at_edge,
        sigmas=list(SIGMA_GRID) if sigma is None else [],
        valid_ll=list(choice.valid_ll),
        log_likelihood=at_best.log_likelihood,
        standard_error=at_best.standard_error,
        log_likelihood_grid=at_grid.log_likelihood,
        standard_error_grid=at_grid.standard_error,
        blocks=block_count(n_samples),
        blocks_repeated=0,
        pairs_scored=(len(valid) + len(points)) * n_samples,
        seconds=time.perf_counter() - began,
        max_abs_error_bound=max(float(bound.max()) for bound in bounds),
        per_point=ll[n_samples][at_best.sigma][:n_test],
        curve=[score(n, best[n]) for n in curve],
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


def _likelihoods(
    runner: Runner,
    points: Tensor,
    sigmas: Sequence[float],
    n_samples: int,
    sizes: Collection[int],
) -> dict[int, dict[float, Tensor]]:
    """ℓ of every point, (n,), by number of samples and σ: one pass over the blocks."""
    dim = points.shape[1]
    ends = [*range(BLOCK, n_samples, BLOCK), n_samples]
    sums = accumulate(runner(points, sigmas), torch.logaddexp)
    return {
        n: {s: log_likelihood(row, n, dim, s) for s, row in zip(sigmas, rows, strict=True)}
        for n, rows in zip(ends, sums, strict=True)
        if n in sizes
    }


def _choices(ll: Mapping[int, Mapping[float, Tensor]]) -> dict[int, Choice]:
    return {n: choose_sigma([float(x.mean()) for x in rows.values()]) for n, rows in ll.items()}


def _better(choice: Choice, ll: Mapping[float, Tensor], n_test: int) -> float:
    """The refined σ if it gains on the validation points, which follow the test points."""
    if choice.refined == choice.grid:
        return choice.grid
    gain = ll[choice.refined][n_test:].mean() - ll[choice.grid][n_test:].mean()
    return choice.refined if gain > 0 else choice.grid


def validation_score(samples: Tensor, x_valid: Tensor) -> dict[str, float]:
    """σ chosen on the first half of the images, 1000 at most, and the others scored.

    Shapes: (N, D), (n, D) with n ≥ 2, on one device. Keys as of `test_score`.
    """
    half = min(VALID_POINTS, len(x_valid) // 2)
    return test_score(samples, x_valid[:half], x_valid[half:])


def test_score(samples: Tensor, x_valid: Tensor, x_test: Tensor) -> dict[str, float]:
    """The protocol's figures as metrics; no standard error for a single point."""
    result = run_protocol(in_process(ArraySource(samples)), len(samples), x_valid, x_test)
    metrics = {
        "parzen_ll": result.log_likelihood_grid,
        "parzen_ll_refined": result.log_likelihood,
        "parzen_se": result.standard_error_grid,
        "parzen_sigma": result.sigma_grid,
    }
    return {name: value for name, value in metrics.items() if value is not None}
