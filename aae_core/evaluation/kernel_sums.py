"""Sums of Gaussian kernels, exact to rounding: the arithmetic under the Parzen estimator.

Shapes: n points x, m samples s, D pixels, S widths σ.  Units: nats.
"""

import math
from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor

from aae_core.errors import DataError

_TILE = 500  # a tile of squared distances takes 2 MB
_TOLERANCE = 1e-6  # nats that cancellation may cost before differences are taken directly
_LARGEST = 1e30  # of a pixel, of σ and of 1/σ: their squares stay finite
_EPS = torch.finfo(torch.float64).eps


def block_log_sums(points: Tensor, samples: Tensor, sigmas: Sequence[float]) -> Tensor:
    """log Σ_j exp(−‖x − s_j‖² / 2σ²): (n, D), (m, D) -> (S, n), float64.

    Squared distances come from a matrix product. Where cancellation could cost more than 1e-6
    nats, for points far from their mean on the scale of σ, differences are taken directly.

    Raises DataError for empty, unequal, non-finite or huge input, and unless σ > 0.
    """
    check_pixels(points, "points")
    check_pixels(samples, "samples", dim=points.shape[1])
    for sigma in sigmas:
        check_sigma(sigma)
    centre = points.double().mean(0)
    points, samples = points - centre, samples - centre
    far = _cancellation(points, min(sigmas)) > _TOLERANCE
    sums = points.new_empty(len(sigmas), len(points))
    sums[:, ~far] = _tiled(squared_distances, points[~far], samples, sigmas)
    sums[:, far] = _tiled(_by_difference, points[far], samples, sigmas)
    return sums


def log_likelihood(log_sums: Tensor, n_samples: int, dim: int, sigma: float) -> Tensor:
    """ℓ from the log-sums over all samples, of any shape."""
    return log_sums - math.log(n_samples) - _log_volume(dim, sigma)


def error_bound(ll: Tensor, points: Tensor, n_samples: int, sigma: float) -> Tensor:
    """How far rounding may have moved each point's ℓ at most, in nats: (n,), (n, D) -> (n,).

    Every exponent a_j ≤ 0 is off by a constant, the cancellation, and a share of |a_j|. Weighted
    by its part w_j in the sum, Σ w_j |a_j| ≤ log m − log Σ exp a_j.  `points` are all those that
    were summed together, since their mean is the centre.
    """
    dim = points.shape[1]
    cancellation = _cancellation(points - points.mean(0), sigma)
    cancellation = cancellation.where(cancellation <= _TOLERANCE, 0)  # else by differences
    additions = _TILE + 2 * math.ceil(n_samples / _TILE)
    share = (2 * (dim + 8) + additions) * _EPS
    return cancellation + share * (1 - ll - _log_volume(dim, sigma))


def check_pixels(pixels: Tensor, name: str, dim: int | None = None) -> None:
    """Raises DataError unless `pixels` are finite and (n, dim), neither of them zero."""
    if pixels.ndim != 2 or pixels.numel() == 0:
        raise DataError(f"{name}: shape {tuple(pixels.shape)}; give (n, D), neither of them zero")
    if dim is not None and pixels.shape[1] != dim:
        raise DataError(f"{name}: {pixels.shape[1]} pixels an image where others have {dim}")
    if not (pixels.abs() <= _LARGEST).all():
        raise DataError(f"{name}: some pixels are not finite, or larger than {_LARGEST:g}")


def check_sigma(sigma: float) -> None:
    """Raises DataError."""
    if not 1 / _LARGEST <= sigma <= _LARGEST:
        raise DataError(f"sigma: {sigma}; give a positive, finite number")


def _log_volume(dim: int, sigma: float) -> float:
    return dim * math.log(sigma * math.sqrt(2 * math.pi))


def _rate(sigma: float) -> float:
    return 0.5 / sigma**2


def _cancellation(centred: Tensor, sigma: float) -> Tensor:
    """What the product form may cost a point beside a share of |a_j|, in nats: (n, D) -> (n,).

    ‖x‖² + ‖s‖² − 2 x·s is off by (D + 8) ε (‖x‖² + ‖s‖²), and ‖s‖² ≤ 2‖x‖² + 2‖x − s‖².
    """
    squares = centred.square().sum(1)
    return 3 * (centred.shape[1] + 8) * _EPS * _rate(sigma) * squares


def _tiled(
    squares: Callable[[Tensor, Tensor], Tensor],
    points: Tensor,
    samples: Tensor,
    sigmas: Sequence[float],
) -> Tensor:
    def log_sums(x: Tensor) -> Tensor:
        tiles = (_log_sums(squares(x, s), sigmas) for s in torch.split(samples, _TILE))
        return reduce(torch.logaddexp, tiles)

    return torch.cat([log_sums(x) for x in torch.split(points, _TILE)], dim=1)


def _log_sums(d2: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Squared distances (n, m), overwritten -> (S, n)."""
    nearest = d2.amin(1)
    d2 -= nearest[:, None]
    terms = torch.empty_like(d2)
    sums = [torch.mul(d2, -_rate(sigma), out=terms).exp_().sum(1) for sigma in sigmas]
    shifts = [_rate(sigma) * nearest for sigma in sigmas]
    return torch.stack(sums).log_() - torch.stack(shifts)


def squared_distances(x: Tensor, s: Tensor) -> Tensor:
    """‖x‖² + ‖s‖² − 2 x·s, float64 and about a common centre, or it cancels: (n, m)."""
    norms = x.square().sum(1)[:, None] + s.square().sum(1)
    return norms.addmm_(x, s.T, alpha=-2).clamp_(min=0)


def _by_difference(x: Tensor, s: Tensor) -> Tensor:
    return torch.cdist(x, s, compute_mode="donot_use_mm_for_euclid_dist").square_()
