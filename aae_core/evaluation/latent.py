"""How far the codes are from the prior, which classes they keep apart, and where they are drawn.

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
_TILE = 256  # rows of a matrix of pairs at a time: the processor's cache holds them
_MODE_POINTS = 500


def mmd2(z: Tensor, p: Tensor) -> float:
    """Squared maximum mean discrepancy between codes (n, L) and prior samples (m, L); n, m ≥ 2.

    The unbiased estimate (Gretton et al. 2012, eq. 3): 0 on average where q(z) = p(z), perhaps a
    little below. The kernel is the mean over scales s of the inverse multiquadrics
    ½ sC / (sC + ‖x − y‖²) (Tolstikhin et al. 2018), with C the mean squared distance between two
    prior samples. Since k(x, x) = ½ it is 1 at worst, and no unit of length matters.
    """
    z, p = _in_units_of(z, p), _in_units_of(p, p)
    return _between_two(z) + _between_two(p) - 2 * _mean_kernel(z, p)


def relative_std(z: Tensor, std: float) -> float:
    """Root mean square of the codes' coordinates over the prior's: 1 where they agree."""
    return float(z.double().square().mean().sqrt()) / std


def knn_error(z: Tensor, y: Tensor, k: int = 10) -> float:
    """Per cent of codes (n, L), n ≥ 2, whose k nearest others mostly have another class (n,).

    Leave-one-out. Of equally frequent classes the one that has the nearest code wins.
    """
    neighbours = _neighbours(z, min(k, len(z) - 1))
    ranks = torch.arange(neighbours.shape[1], device=z.device)
    weights = 1 + 0.5 ** (1 + ranks.double())  # what exceeds 1 adds up to less than a vote
    votes = weights.new_zeros(len(z), int(y.max()) + 1)
    return error(votes.scatter_add_(1, y[neighbours], weights.expand(neighbours.shape)), y)


def nearest_modes(z: Tensor, p: Tensor, modes: Tensor) -> Tensor:
    """The mode (n,) of the prior sample that is nearest to each code: (n, L), (m, L), (m,)."""
    centre = p.double().mean(0)
    p = p - centre
    tiles = (z - centre).split(_TILE)
    return torch.cat([modes[squared_distances(tile, p).argmin(1)] for tile in tiles])


def mode_mmd(z: Tensor, nearest: Tensor, p: Tensor, modes: Tensor) -> float:
    """Whether the codes fill the modes, rather than sit at their centres: about 1 if they do.

    For every mode, the MMD between its codes, those with this mode in `nearest` (n,), and its
    prior samples, those with it in `modes` (m,), two at least; over the root mean square of what
    that MMD would be, had the n codes been drawn from the prior. The mean over the modes.

    MMD is the biased estimate (Gretton et al. 2012, eq. 5) with the kernel of `mmd2`, C that of
    the mode. Between a codes and b samples of one distribution its square is on average
    (½ − E k)(1/a + 1/b), which needs no second sample. Of each mode 500 are compared, from
    all over the images, since a data set's halves may differ.
    A mode without codes counts as if they all lay in one point infinitely far away, the worst
    there is: about 30 where 500 were expected.
    """
    expected = len(z) / len(p)  # codes a prior sample
    return fmean(
        _relative_mmd(z[nearest == mode], p[modes == mode], expected) for mode in modes.unique()
    )


def basis_2d(z: Tensor) -> Tensor:
    """(L, 2): the plane to draw codes (n, L) in. Their first two principal axes where L > 2."""
    dim = z.shape[1]
    if dim <= 2:
        return torch.eye(dim, 2, dtype=z.dtype, device=z.device)
    axes: Tensor = torch.linalg.eigh(z.double().T.cov()).eigenvectors  # ascending
    plane = axes[:, -2:].flip(1)
    largest = plane.gather(0, plane.abs().argmax(0, keepdim=True))
    return (plane * largest.sign()).to(z.dtype)  # the same sign on every machine


def circle_basis(k: int) -> Tensor:
    """(k, 2): the plane in which k cluster heads 10·I lie evenly on a circle, of radius 10.

    Makhzani et al. 2015, section 7 (Figure 11d).
    """
    angles = 2 * math.pi / k * torch.arange(k)
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def project_2d(z: Tensor, basis: Tensor) -> Tensor:
    """(n, L), (L, 2) -> (n, 2). Codes and prior keep their common origin."""
    return z @ basis


def _neighbours(z: Tensor, k: int) -> Tensor:
    """Indices (n, k) of the other codes that are nearest, the nearest first."""
    z = z.double() - z.double().mean(0)

    def nearest(start: int) -> Tensor:
        d2 = squared_distances(z[start : start + _TILE], z)
        d2[:, start : start + _TILE].fill_diagonal_(math.inf)
        return d2.topk(k, largest=False).indices

    return torch.cat([nearest(start) for start in range(0, len(z), _TILE)])


def _relative_mmd(z: Tensor, p: Tensor, expected: float) -> float:
    """Of one mode, which should have `expected` codes for every prior sample."""
    n = min(expected * len(p), _MODE_POINTS)
    p = p[:_MODE_POINTS]
    z, p = _in_units_of(_spread(z), p), _in_units_of(p, p)
    e_k = _between_two(p)
    pp = e_k + (_AT_ZERO - e_k) / len(p)
    zz, zp = (_mean_kernel(z, z), _mean_kernel(z, p)) if len(z) else (_AT_ZERO, 0.0)
    drawn = (_AT_ZERO - e_k) * (1 / n + 1 / len(p))
    return math.sqrt(max(zz + pp - 2 * zp, 0) / drawn)


def _spread(z: Tensor) -> Tensor:
    """At most 500 codes, evenly over all of them."""
    if len(z) <= _MODE_POINTS:
        return z
    return z[torch.linspace(0, len(z) - 1, _MODE_POINTS, device=z.device).long()]


def _in_units_of(z: Tensor, p: Tensor) -> Tensor:
    """Float64, about the mean of prior samples p, and with C = 1."""
    p = p.double()
    return (z - p.mean(0)) / (2 * p.var(0).sum()).sqrt()


def _mean_kernel(x: Tensor, y: Tensor) -> float:
    sums = [_kernel(tile, y).sum(dtype=torch.float64) for tile in x.split(_TILE)]
    return float(sum(sums)) / (len(x) * len(y))


def _between_two(x: Tensor) -> float:
    """Mean kernel between two different points, each pair of them computed once."""
    n, total = len(x), 0.0
    for start in range(0, n, _TILE):
        k = _kernel(x[start : start + _TILE], x[start:])
        total += 2 * float(k.sum(dtype=torch.float64))
        total -= float(k[:, :_TILE].sum(dtype=torch.float64))  # has both (i, j) and (j, i)
    return (total - n * _AT_ZERO) / (n * (n - 1))


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    d2 = squared_distances(x, y).float()  # single precision is enough from here, and faster
    total, term = torch.zeros_like(d2), torch.empty_like(d2)
    for s in _SCALES:
        torch.add(d2, s, out=term).reciprocal_()
        total.add_(term, alpha=_AT_ZERO * s / len(_SCALES))
    return total
