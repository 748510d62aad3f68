"""Metrics of codes: distance from the prior, separation of classes; also their projection to 2-D.

Shapes: n codes z, m prior samples p, L dimensions of the code.
"""

import math
from statistics import fmean

import torch
from torch import Tensor

from aae_core.evaluation.classification import error
from aae_core.evaluation.kernel_sums import squared_distances

_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_AT_ZERO = 0.5  # k(x, x)
_TILE = 256  # rows of a pair matrix at a time, which fit the processor's cache
_MODE_POINTS = 500


def mmd2(z: Tensor, p: Tensor) -> float:
    """Squared maximum mean discrepancy between codes (n, L) and prior samples (m, L); n, m ≥ 2.

    The estimate is unbiased (Gretton et al. 2012, eq. 3): 0 on average for q(z) = p(z), so single
    values may be slightly negative. The kernel is the mean over scales s of the inverse
    multiquadrics ½ sC / (sC + ‖x − y‖²) (Tolstikhin et al. 2018), with C the mean squared distance
    between two prior samples. Since k(x, x) = ½, MMD² is at most 1. The unit of length cancels.
    """
    z, p = _in_units_of(z, p), _in_units_of(p, p)
    return _between_two(z) + _between_two(p) - 2 * _mean_kernel(z, p)


def relative_std(z: Tensor, std: float) -> float:
    """Return the root mean square of the codes' coordinates over the prior's: 1 if both agree."""
    return float(z.double().square().mean().sqrt()) / std


def knn_error(z: Tensor, y: Tensor, k: int = 10) -> float:
    """Per cent of codes (n, L), n ≥ 2, misclassified by their k nearest other codes; y (n,).

    Leave-one-out. Among equally frequent classes, the class of the nearest code wins.
    """
    y = y.unique(return_inverse=True)[1]  # only classes that occur here get votes
    neighbours = _neighbours(z, min(k, len(z) - 1))
    ranks = torch.arange(neighbours.shape[1], device=z.device)
    weights = 1 + 0.5 ** (1 + ranks.double())  # the parts above 1 add up to less than one vote
    votes = weights.new_zeros(len(z), int(y.max()) + 1)
    return error(votes.scatter_add_(1, y[neighbours], weights.expand(neighbours.shape)), y)


def nearest_modes(z: Tensor, p: Tensor, modes: Tensor) -> Tensor:
    """Return the mode (n,) of the prior sample nearest to each code: (n, L), (m, L), (m,)."""
    centre = p.double().mean(0)
    p = p - centre
    tiles = (z - centre).split(_TILE)
    return torch.cat([modes[squared_distances(tile, p).argmin(1)] for tile in tiles])


def mode_mmd(z: Tensor, nearest: Tensor, p: Tensor, modes: Tensor) -> float:
    """Mean relative MMD of the modes: about 1 if the codes fill the modes, more otherwise.

    A mode's codes have this mode in `nearest` (n,); its prior samples, at least two, have this mode
    in `modes` (m,). A mode's relative MMD is the MMD between both, divided by the root mean square
    of this MMD for n codes drawn from the prior.

    MMD is the biased estimate (Gretton et al. 2012, eq. 5) with the kernel of `mmd2` and the mode's
    own C. Between a codes and b samples of one distribution, MMD² is on average
    (½ − E k)(1/a + 1/b), which needs no second sample. Per mode 500 codes are compared, evenly from
    all images, since a data set's halves may differ.
    A mode without codes gets the worst value, as if all its codes lay at one point infinitely far
    away: about 30 if 500 codes were expected.
    """
    expected = len(z) / len(p)  # codes a prior sample
    return fmean(
        _relative_mmd(z[nearest == mode], p[modes == mode], expected) for mode in modes.unique()
    )


def basis_2d(z: Tensor) -> Tensor:
    """Basis (L, 2) of the plane for drawing codes (n, L): the first two principal axes if L > 2."""
    dim = z.shape[1]
    if dim <= 2:
        return torch.eye(dim, 2, dtype=z.dtype, device=z.device)
    axes: Tensor = torch.linalg.eigh(z.double().T.cov()).eigenvectors  # ascending
    plane = axes[:, -2:].flip(1)
    largest = plane.gather(0, plane.abs().argmax(0, keepdim=True))
    return (plane * largest.sign()).to(z.dtype)  # the same sign on every machine


def circle_basis(k: int) -> Tensor:
    """Basis (k, 2) of the plane in which k cluster heads 10·I lie evenly on a circle of radius 10.

    Source: Makhzani et al. 2015, section 7 (Figure 11d).
    """
    angles = 2 * math.pi / k * torch.arange(k)
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def project_2d(z: Tensor, basis: Tensor) -> Tensor:
    """Project (n, L) by (L, 2) to (n, 2). Codes and prior keep their common origin."""
    return z @ basis


def _neighbours(z: Tensor, k: int) -> Tensor:
    """Return the indices (n, k) of each code's k nearest other codes, the nearest first."""
    z = z.double() - z.double().mean(0)

    def nearest(start: int) -> Tensor:
        d2 = squared_distances(z[start : start + _TILE], z)
        d2[:, start : start + _TILE].fill_diagonal_(math.inf)
        return d2.topk(k, largest=False).indices

    return torch.cat([nearest(start) for start in range(0, len(z), _TILE)])


def _relative_mmd(z: Tensor, p: Tensor, expected: float) -> float:
    """Relative MMD of one mode, which should have `expected` codes for every prior sample."""
    n = min(expected * len(p), _MODE_POINTS)
    p = p[:_MODE_POINTS]
    z, p = _in_units_of(_spread(z), p), _in_units_of(p, p)
    e_k = _between_two(p)
    pp = e_k + (_AT_ZERO - e_k) / len(p)
    zz, zp = (_mean_kernel(z, z), _mean_kernel(z, p)) if len(z) else (_AT_ZERO, 0.0)
    drawn = (_AT_ZERO - e_k) * (1 / n + 1 / len(p))
    return math.sqrt(max(zz + pp - 2 * zp, 0) / drawn)


def _spread(z: Tensor) -> Tensor:
    """Return at most 500 codes, evenly spaced among all codes."""
    if len(z) <= _MODE_POINTS:
        return z
    return z[torch.linspace(0, len(z) - 1, _MODE_POINTS, device=z.device).long()]


def _in_units_of(z: Tensor, p: Tensor) -> Tensor:
    """Return z in float64, relative to the mean of prior samples p and scaled to C = 1."""
    p = p.double()
    return (z - p.mean(0)) / (2 * p.var(0).sum()).sqrt()


def _mean_kernel(x: Tensor, y: Tensor) -> float:
    sums = [_kernel(tile, y).sum(dtype=torch.float64) for tile in x.split(_TILE)]
    return float(sum(sums)) / (len(x) * len(y))


def _between_two(x: Tensor) -> float:
    """Mean kernel between two different points of x; each pair is computed once."""
    n, total = len(x), 0.0
    for start in range(0, n, _TILE):
        k = _kernel(x[start : start + _TILE], x[start:])
        total += 2 * float(k.sum(dtype=torch.float64))
        total -= float(k[:, :_TILE].sum(dtype=torch.float64))  # contains both (i, j) and (j, i)
    return (total - n * _AT_ZERO) / (n * (n - 1))


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    d2 = squared_distances(x, y).float()  # single precision suffices here and is faster
    total, term = torch.zeros_like(d2), torch.empty_like(d2)
    for s in _SCALES:
        torch.add(d2, s, out=term).reciprocal_()
        total.add_(term, alpha=_AT_ZERO * s / len(_SCALES))
    return total
