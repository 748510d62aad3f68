"""Sums of Gaussian kernels, Σ_j exp(−‖x − s_j‖² / 2σ²), with a guaranteed bound on their error.

Nearly all terms of such a sum are negligible. With P the first principal components of the points,
‖x − s‖² ≥ ‖P(x − s)‖² + (‖x⊥‖ − ‖s⊥‖)², and the right side is one narrow matrix product in single
precision. Samples with this bound beyond a point's reach are dropped; the largest possible values
of their terms count as error. Distances of the remaining samples are computed in single precision,
which drops most of these samples, and then in double. If too few can be dropped, all are summed.

Shapes: n points x, m samples s, D pixels, S widths σ, k components.  Units: log-sums in nats.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from aae_core.errors import DataError

_ROWS, _COLUMNS = 500, 1_000  # tile size, which fits a core's cache
_GPU_ROWS, _GPU_COLUMNS = 4_096, 16_384  # tile size on a GPU, for many threads
_COMPONENTS = (16, 32, 48, 64, 96, 128)  # numbers to try; the cheapest one is used
_PROBED = 100, 500  # points and samples to estimate the share within reach
_FITTED = 2_000  # points that the components are fitted to
_WHOLE = 250, 500  # tile size for sums over all pairs, which take more passes
_CHUNK = 32  # pixels per partial sum in single precision: short sums round less
_FEW = 1_000_000  # up to so many pairs, single precision does not pay
_FEW_NEAR = 5_000  # below so many pairs within reach, compute differences
_LARGEST = 1e30  # limit of pixels, σ and 1/σ, whose squares stay finite
_LEAST = -80.0  # least exponent in single precision: lower ones give slow denormal numbers
_EPS_TF32 = 2.0**-10  # relative error of a factor on a tensor core, truncated to ten bits
_EPS, _EPS32 = torch.finfo(torch.float64).eps, torch.finfo(torch.float32).eps / 2


class Arithmetic(Enum):
    """Ways to compute squared distances, from fast to exact; a value is the error limit in nats."""

    SINGLE = 8e-4  # by a product in single precision
    DOUBLE = 1e-4  # by a product in double precision
    DIFFERENCE = math.inf  # by differences in double precision, without cancellation


@dataclass(frozen=True, eq=False)
class KernelSums:
    """log Σ_j exp(…) over some samples, and the log of each sum's error bound: (S, n)."""

    log_sums: Tensor
    log_errors: Tensor

    @classmethod
    def off_by(cls, share: Tensor | float, log_sums: Tensor) -> Self:
        """Build sums whose error bound is a share of each sum."""
        log_share = torch.as_tensor(share, dtype=log_sums.dtype, device=log_sums.device).log()
        return cls(log_sums, torch.where(log_sums.isfinite(), log_sums + log_share, -math.inf))

    def __add__(self, other: "KernelSums") -> "KernelSums":
        """Sum over the samples of both."""
        log_sums = torch.logaddexp(self.log_sums, other.log_sums)
        rounding = KernelSums.off_by(4 * _EPS * (1 + log_sums.abs()), log_sums)
        errors = torch.logaddexp(self.log_errors, other.log_errors)
        return KernelSums(log_sums, torch.logaddexp(errors, rounding.log_errors))

    @property
    def least(self) -> Tensor:
        """Lower bounds of the log-sums, (S, n)."""
        share = (self.log_errors - self.log_sums).exp().nan_to_num(nan=1.0).clamp(max=1.0)
        return self.log_sums + torch.log1p(-share)

    @property
    def error_bound(self) -> Tensor:
        """Error bounds of the log-sums in nats, (S, n), possibly infinite."""
        return torch.where(self.least.isfinite(), self.log_sums - self.least, math.inf)


@dataclass(frozen=True, eq=False)
class Cloud:
    """Points or samples relative to the points' mean, with the points' principal components."""

    pixels: Tensor  # (n, D), as passed by the caller
    centre: Tensor  # (D,), float64
    basis: Tensor  # (D, K), orthonormal
    single: Tensor  # (n, D), x = pixels − centre in single precision
    squares: Tensor  # (n,), ‖x‖²
    _coordinates: dict[int, Tensor] = field(default_factory=dict, repr=False)

    @classmethod
    def of_points(cls, points: Tensor, centre: Tensor) -> Self:
        """Build a cloud of points.  Raises DataError for empty, non-finite or huge points."""
        check_pixels(points, "points")
        fitted = points[:: math.ceil(len(points) / _FITTED)].to(centre) - centre
        return cls(points, centre, principal_components(fitted), *_centred(points, centre))

    def of_samples(self, samples: Tensor) -> "Cloud":
        """Build a cloud of samples with the centre and components of these points.

        Raises DataError as `of_points` does, and for another number of pixels.
        """
        check_pixels(samples, "samples", dim=len(self.basis))
        samples = samples.to(self.centre.device)
        return Cloud(samples, self.centre, self.basis, *_centred(samples, self.centre))

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, rows: slice) -> "Cloud":
        parts = self.single[rows], self.squares[rows]
        return Cloud(self.pixels[rows], self.centre, self.basis, *parts)

    @property
    def dim(self) -> int:
        return len(self.centre)

    @cached_property
    def x(self) -> Tensor:
        """Centred pixels (n, D), float64."""
        return self.pixels.to(self.centre) - self.centre

    @cached_property
    def lengths(self) -> Tensor:
        return self.squares.sqrt()

    def coordinates(self, k: int) -> Tensor:
        """Coordinates along k components and a bound of the residual's length: (n, k + 1), single.

        k = D has no residual: (n, D).
        """
        if k not in self._coordinates:
            self._coordinates[k] = self._along(k)
        return self._coordinates[k]

    def _along(self, k: int) -> Tensor:
        if k == self.dim:
            return self.single
        along = _product(self.single, self.basis[:, :k].T.float())
        left = self.squares - _squares(along.double()) + 2 * self.off(k) * self.squares
        return torch.cat([along, left.clamp_(min=0).sqrt_().float()[:, None]], 1)

    def off(self, k: int) -> float:
        """Error bound of `coordinates`, as a share of ‖x‖."""
        if k == self.dim:
            return 2 * _EPS32
        return math.sqrt(k) * (_additions(self.dim) + 4) * _EPS32


def _centred(pixels: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:
    """Return x in single precision and ‖x‖² in double, computed in tiles that fit the cache."""
    single = torch.empty_like(pixels, dtype=torch.float32)
    squares = centre.new_empty(len(pixels))
    for rows in _tiles(len(pixels), _ROWS):
        x = pixels[rows].to(centre) - centre
        single[rows], squares[rows] = x, _squares(x)
    return single, squares


def principal_components(x: Tensor) -> Tensor:
    """Principal components of (n, D), the largest first: (D, K)."""
    x = x / x.abs().max().clamp(min=1 / _LARGEST)
    if len(x) >= x.shape[1]:
        vectors: Tensor = torch.linalg.eigh(x.T @ x).eigenvectors.flip(1)
    else:
        left = torch.linalg.eigh(x @ x.T).eigenvectors.flip(1)
        vectors = torch.linalg.qr(x.T @ left).Q
    return vectors[:, : _COMPONENTS[-1]].contiguous()


def kernel_sums(
    points: Cloud, samples: Cloud, sigmas: Sequence[float], reach: Tensor
) -> KernelSums:
    """Sum over all samples, or over at least the samples within the points' reach.

    `reach`: squared distances (n,), possibly infinite.  Raises DataError unless σ > 0.
    """
    for sigma in sigmas:
        check_sigma(sigma)
    k = _components(points, samples, sigmas, reach)
    if k is None:
        return _over_all(points, samples, sigmas)
    return _over_near(points, samples, sigmas, reach, k)


def log_sums(points: Tensor, samples: Tensor, sigmas: Sequence[float]) -> KernelSums:
    """Sum over all samples: (n, D), (m, D) -> (S, n).  Raises DataError for invalid pixels or σ."""
    centre = points.double().mean(0)
    cloud = Cloud.of_points(points, centre)
    everywhere = torch.full_like(cloud.squares, math.inf)
    return kernel_sums(cloud, cloud.of_samples(samples), sigmas, everywhere)


def reach(least: Tensor, sigmas: Sequence[float], share: float) -> Tensor:
    """Squared distance beyond which a term is less than a share of its sum at every σ, (n,).

    `least`: lower bounds of the log-sums, (S, n).
    """
    rates = torch.tensor([_rate(sigma) for sigma in sigmas], dtype=least.dtype, device=least.device)
    return (-(least + math.log(share)) / rates[:, None]).amax(0)


def nearest_bound(points: Cloud, samples: Cloud) -> Tensor:
    """Upper bound of the squared distance to the nearest sample, (n,).

    The bound is the smaller distance of two samples: the nearest in few components, and the nearest
    of a few samples, in case few components are not informative.
    """
    k = next(k for k in _candidates(points) if k >= _COMPONENTS[1] or k == points.dim)
    left, right = _scores_of(points, k), _scores_of(samples, k, samples=True)
    stride = math.ceil(len(samples) / _PROBED[1])
    few, half = samples.single[::stride], 0.5 * samples.squares[::stride].float()
    found = []
    for rows in _tiles(len(points), _ROWS):
        looks = (left[rows] @ right.T).argmax(1)
        of_few = stride * (points.single[rows] @ few.T - half).argmax(1)
        place = torch.arange(len(looks), device=looks.device)
        apart = [
            _squared_differences(points.pixels[rows], samples.pixels, place, sample)
            for sample in (looks, of_few)
        ]
        found.append(torch.minimum(*apart))
    return torch.cat(found) * (1 + 1e-9)


def log_likelihood(log_sums: Tensor, n_samples: int, dim: int, sigma: float) -> Tensor:
    """Return ℓ from the log-sums over all samples, of any shape."""
    return log_sums - math.log(n_samples) - dim * math.log(sigma * math.sqrt(2 * math.pi))


def squared_distances(x: Tensor, s: Tensor) -> Tensor:
    """Return ‖x‖² + ‖s‖² − 2 x·s, (n, m).

    x and s must be float64 and centred near 0, to avoid cancellation.
    """
    norms = x.square().sum(1)[:, None] + s.square().sum(1)
    return norms.addmm_(x, s.T, alpha=-2).clamp_(min=0)


def check_pixels(pixels: Tensor, name: str, dim: int | None = None) -> None:
    """Raise DataError unless `pixels` are finite and (n, dim), neither of them zero."""
    if pixels.ndim != 2 or pixels.numel() == 0:
        raise DataError(f"{name}: shape {tuple(pixels.shape)}; give (n, D), n and D above 0")
    if dim is not None and pixels.shape[1] != dim:
        raise DataError(f"{name}: {pixels.shape[1]} pixels per image where others have {dim}")
    least, most = torch.aminmax(pixels)  # NaN if any pixel is NaN
    if not (least >= -_LARGEST and most <= _LARGEST):
        raise DataError(f"{name}: some pixels are not finite, or larger than {_LARGEST:g}")


def check_sigma(sigma: float) -> None:
    """Raise DataError unless σ is positive and finite."""
    if not 1 / _LARGEST <= sigma <= _LARGEST:
        raise DataError(f"sigma: {sigma}; give a positive, finite number")


def _rate(sigma: float) -> float:
    return 0.5 / sigma**2


def _squares(x: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(x, dim=1)
    return lengths.square_()


def _tiles(n: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def _additions(dim: int) -> int:
    """Number of additions that a pixel goes through in `_product`."""
    return _CHUNK + math.ceil(dim / _CHUNK)


def _product(x: Tensor, s: Tensor) -> Tensor:
    """Compute x sᵀ by short sums, in the factors' precision."""
    chunks = list(_tiles(x.shape[1], _CHUNK))
    found = x[:, chunks[0]] @ s[:, chunks[0]].T
    for pixels in chunks[1:]:
        found.addmm_(x[:, pixels], s[:, pixels].T)
    return found


# -- choice of method ---------------------------------------------------------------------------


def _arithmetic(
    points: Cloud, samples: Cloud, sigmas: Sequence[float], kinds: Sequence[Arithmetic]
) -> Arithmetic:
    """Return the first of `kinds` that is exact enough, else DIFFERENCE."""
    for kind in kinds:
        if bool((_rounding(points, samples, min(sigmas), kind) <= kind.value).all()):
            return kind
    return Arithmetic.DIFFERENCE


def _rounding(points: Cloud, samples: Cloud, sigma: float, kind: Arithmetic) -> Tensor:
    """Error bound of a point's exponents from products, in nats: (n,).

    The error that is proportional to the exponents is added by `_share`. A product x·s has an error
    of ε ‖x‖‖s‖ times the number of additions. In double precision ‖s‖ does not enter, since
    ‖s‖² ≤ 2‖x‖² + 2‖x − s‖².
    """
    dim, rate = points.dim, _rate(sigma)
    if kind is Arithmetic.DIFFERENCE:
        return torch.zeros_like(points.squares)
    if kind is Arithmetic.DOUBLE:
        return 3 * (dim + 8) * _EPS * rate * points.squares
    longest = samples.lengths.max()
    additions = _additions(dim) + 4
    product = 2.02 * rate * _EPS32 * additions * longest * (points.lengths + longest / additions)
    return product + _EPS32 * (_WHOLE[1] + 300)  # and rounding of terms and sums


def _single_holds(points: Cloud, samples: Cloud, sigmas: Sequence[float]) -> bool:
    """Return True if all values computed in single precision stay well within its range."""
    longest = float(points.lengths.max() * samples.lengths.max())
    return longest < _LARGEST and all(_LARGEST**-0.5 < s < _LARGEST**0.5 for s in sigmas)


def _kinds(points: Cloud, samples: Cloud, sigmas: Sequence[float]) -> tuple[Arithmetic, ...]:
    """Return the arithmetics to try for sums over all pairs, the fastest first."""
    pays = len(points) * len(samples) > _FEW and _single_holds(points, samples, sigmas)
    return (Arithmetic.SINGLE, Arithmetic.DOUBLE) if pays else (Arithmetic.DOUBLE,)


def _share(
    points: Cloud, samples: Cloud, sigmas: Sequence[float], kind: Arithmetic, log_sums: Tensor
) -> Tensor:
    """Bound of each sum's rounding error, as a share of the sum: (S, n).

    Exponents a_j ≤ 0 also have an error proportional to |a_j|. With w_j the share of term j in the
    sum, Σ w_j |a_j| ≤ log m − log Σ exp a_j.
    """
    additions = 2 * (points.dim + 8) + len(samples)
    exponents = 1 + math.log(len(samples)) - log_sums
    product = torch.stack([_rounding(points, samples, sigma, kind) for sigma in sigmas])
    return torch.expm1(product + additions * _EPS * exponents)


def _candidates(points: Cloud) -> list[int]:
    """Return the numbers of components to try; the last is all pixels, which need no bound."""
    dim, most = points.basis.shape
    return [*(k for k in _COMPONENTS if k <= most and 2 * k < dim), dim]


def _components(
    points: Cloud, samples: Cloud, sigmas: Sequence[float], reach: Tensor
) -> int | None:
    """Return the cheapest number of components; None if summing all pairs is cheaper.

    Costs are nanoseconds per pair, of which only the ratios matter.
    """
    dim = points.dim
    if not _single_holds(points, samples, sigmas):
        return None
    strides = [math.ceil(len(c) / n) for c, n in zip((points, samples), _PROBED, strict=True)]
    probes = [points[:: strides[0]], samples[:: strides[1]]]
    limit = reach[:: strides[0], None]

    def within(k: int) -> float:
        d2 = squared_distances(*(cloud.coordinates(k).double() for cloud in probes))
        return float((d2 <= limit).double().mean())

    each = within(dim) * (200 + 2.5 * len(sigmas) + dim)
    arithmetic = _arithmetic(points, samples, sigmas, _kinds(points, samples, sigmas))
    slower = {Arithmetic.SINGLE: 1, Arithmetic.DOUBLE: 2, Arithmetic.DIFFERENCE: 40}[arithmetic]
    costs: dict[int | None, float] = {None: 2 + slower * (0.023 * dim + 1.3 * len(sigmas))}
    for k in _candidates(points):
        fine = 0.0 if k == dim else within(k) * (100 + 0.5 * dim)
        costs[k] = 0.8 + 0.021 * (k + 2) + fine + each
    return min(costs, key=lambda k: costs[k])


# -- over all samples ---------------------------------------------------------------------------


def _over_all(points: Cloud, samples: Cloud, sigmas: Sequence[float]) -> KernelSums:
    arithmetic = _arithmetic(points, samples, sigmas, _kinds(points, samples, sigmas))
    single = arithmetic is Arithmetic.SINGLE
    dtype = torch.float32 if single else torch.float64
    half = (-0.5 * samples.squares).to(dtype)

    def scores(rows: slice, columns: slice) -> Tensor:
        """Return −‖x − s‖²/2, up to a constant for each point."""
        if arithmetic is Arithmetic.DIFFERENCE:
            d2 = _differences(points.pixels[rows], samples.pixels[columns]).square_()
            return d2.mul_(-0.5)
        if single:
            found = _product(points.single[rows], samples.single[columns])
            return found.add_(half[columns])
        return torch.addmm(half[columns], points.x[rows], samples.x[columns].T)

    parts = []
    for rows in _tiles(len(points), _WHOLE[0]):
        total = points.squares.new_full((len(sigmas), rows.stop - rows.start), -math.inf)
        for columns in _tiles(len(samples), _WHOLE[1]):
            total = torch.logaddexp(total, _tile_sums(scores(rows, columns), sigmas))
        parts.append(total)
    log_sums = torch.cat(parts, 1)
    if arithmetic is not Arithmetic.DIFFERENCE:
        log_sums -= torch.stack([_rate(sigma) * points.squares for sigma in sigmas])
    return KernelSums.off_by(_share(points, samples, sigmas, arithmetic, log_sums), log_sums)


def _differences(x: Tensor, s: Tensor) -> Tensor:
    return torch.cdist(x.double(), s.double(), compute_mode="donot_use_mm_for_euclid_dist")


def _tile_sums(scores: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Return log Σ exp(2 · rate · score), (S, n), float64; overwrites the scores (n, m)."""
    best = scores.amax(1)
    scores -= best[:, None]
    least = _LEAST if scores.dtype == torch.float32 else -math.inf
    terms = torch.empty_like(scores)
    sums = [
        torch.mul(scores, 2 * _rate(sigma), out=terms).clamp_(min=least).exp_().sum(1)
        for sigma in sigmas
    ]
    shifts = [2 * _rate(sigma) * best.double() for sigma in sigmas]
    return torch.stack(sums).double().log_() + torch.stack(shifts)


# -- over samples within reach ------------------------------------------------------------------


def _over_near(
    points: Cloud,
    samples: Cloud,
    sigmas: Sequence[float],
    reach: Tensor,
    k: int,
) -> KernelSums:
    arithmetic = _arithmetic(points, samples, sigmas, (Arithmetic.DOUBLE,))
    search = _Search(points, samples, reach, k, arithmetic)
    parts = [
        _ragged_sums(search.pairs(rows), rows.stop - rows.start, sigmas)
        for rows in _tiles(len(points), search.rows)
    ]
    log_sums = torch.cat([sums for sums, _ in parts], 1)
    dropped = len(samples) - torch.cat([counts for _, counts in parts])
    kept = KernelSums.off_by(_share(points, samples, sigmas, arithmetic, log_sums), log_sums)
    lost = torch.stack([dropped.double().log() - _rate(sigma) * reach for sigma in sigmas])
    return KernelSums(log_sums, torch.logaddexp(kept.log_errors, lost))


class _Search:
    """Search for the pairs of a point and a sample within the point's reach, and few other pairs.

    A pair is within reach if x·s − ‖s‖²/2 ≥ (‖x‖² − reach) / 2.
    """

    def __init__(
        self, points: Cloud, samples: Cloud, reach: Tensor, k: int, arithmetic: Arithmetic
    ) -> None:
        self.points, self.samples, self.arithmetic = points, samples, arithmetic
        self.left, self.right = _scores_of(points, k), _scores_of(samples, k, samples=True)
        self.limits = 0.5 * (points.squares - reach)
        self.on_gpu = _on_gpu(self.left)
        self.rows, self.columns = (_GPU_ROWS, _GPU_COLUMNS) if self.on_gpu else (_ROWS, _COLUMNS)
        self.coarse = (k + 8) * _EPS32 + 2 * points.off(k)  # relative error of the scores
        self.coarse += 2.01 * _EPS_TF32 if self.on_gpu else 0.0
        self.fine = (points.dim + 8) * _EPS32
        self.scores = self.left.new_empty(self.rows * self.columns)
        self.flags = np.empty(0 if self.on_gpu else self.rows * self.columns, bool)

    def pairs(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Return each pair's index within the rows, and its squared distance."""
        tiles = _tiles(len(self.samples), self.columns)
        found = [self._in_tile(rows, columns) for columns in tiles]
        row, column = (torch.cat(parts) for parts in zip(*found, strict=True))
        order = torch.argsort(row, stable=True)
        row, column = row[order], column[order]
        points, samples = self.points, self.samples
        if self.arithmetic is Arithmetic.DIFFERENCE or len(row) < _FEW_NEAR:
            return row, _squared_differences(points.pixels[rows], samples.pixels, row, column)
        d2 = points.squares[rows][row] + samples.squares[column]
        d2 -= 2 * _products(points.x[rows], samples.x, row, column)
        return row, d2.clamp_(min=0)

    def _in_tile(self, rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
        within, width = self._scan(rows, columns), columns.stop - columns.start
        row = torch.div(within, width, rounding_mode="floor")
        column = within - row * width
        of_all_pixels = self.left.shape[1] > self.points.dim
        if of_all_pixels and not self.on_gpu:
            return row, column + columns.start
        points, samples = self.points.single[rows], self.samples.single[columns]
        products = _products(points, samples, row, column)
        scores = products - 0.5 * self.samples.squares[columns][column]
        near = scores >= self._limit(rows, columns, self.fine)[row]
        return row[near], column[near] + columns.start

    def _scan(self, rows: slice, columns: slice) -> Tensor:
        """Return the flat positions within the tile of scores not below their row's limit."""
        left, right = self.left[rows], self.right[columns]
        limit = self._limit(rows, columns, self.coarse)[:, None]
        size = len(left) * len(right)
        scores = self.scores[:size].view(len(left), len(right))
        _tensor_core_product(left, right, scores)
        if self.on_gpu:
            return (scores >= limit).flatten().nonzero()[:, 0]
        flags = self.flags[:size].reshape(scores.shape)
        np.greater_equal(scores.numpy(), limit.numpy(), out=flags)
        return torch.from_numpy(np.flatnonzero(flags))

    def _limit(self, rows: slice, columns: slice, off: float) -> Tensor:
        """Return a limit, relative error `off` included, that no score within reach is below."""
        longest = self.samples.lengths[columns].max()
        limit = self.limits[rows] - 1.01 * off * longest * (self.points.lengths[rows] + longest)
        return (limit - 2 * _EPS32 * limit.abs()).float()


def _on_gpu(x: Tensor) -> bool:
    return x.is_cuda


def _tensor_core_product(x: Tensor, s: Tensor, out: Tensor) -> None:
    """Compute x sᵀ on tensor cores; on a CPU, in plain single precision."""
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "tf32"
    try:
        torch.mm(x, s.T, out=out)
    finally:
        matmul.fp32_precision = before


def _scores_of(cloud: Cloud, k: int, *, samples: bool = False) -> Tensor:
    """Factors (n, k + 2) in single precision whose product is at least x·s − ‖s‖²/2."""
    last = -0.5 * cloud.squares if samples else torch.ones_like(cloud.squares)
    return torch.cat([cloud.coordinates(k), last.float()[:, None]], 1)


def _products(x: Tensor, s: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Compute x_i · s_j for pairs sorted by row: (p,)."""
    starts = torch.zeros(len(x) + 1, dtype=row.dtype, device=row.device)
    starts[1:] = torch.bincount(row, minlength=len(x)).cumsum(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "sparse CSR support is in beta"
        wanted = torch.sparse_csr_tensor(
            starts, column, x.new_zeros(len(row)), (len(x), len(s)), check_invariants=False
        )
    found: Tensor = torch.sparse.sampled_addmm(wanted, x, s.T, beta=0.0)
    return found.values()


def _squared_differences(x: Tensor, s: Tensor, row: Tensor, column: Tensor) -> Tensor:
    pairs = zip(row.split(_COLUMNS), column.split(_COLUMNS), strict=True)
    return torch.cat([_squares(x[i].double() - s[j].double()) for i, j in pairs])


def _ragged_sums(
    pairs: tuple[Tensor, Tensor], n: int, sigmas: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Return log Σ exp(−rate · d²) of each row, (S, n), and each row's number of terms, (n,)."""
    row, d2 = pairs
    counts = torch.bincount(row, minlength=n)
    nearest = torch.segment_reduce(d2, "min", lengths=counts)
    d2 = d2 - nearest.repeat_interleave(counts)
    sums = [
        torch.segment_reduce(torch.exp(-_rate(sigma) * d2), "sum", lengths=counts)
        for sigma in sigmas
    ]
    shifts = [_rate(sigma) * nearest for sigma in sigmas]
    return torch.stack(sums).log_() - torch.stack(shifts), counts
