"""How far the codes are from the prior, and where they lie in the plane.

Shapes: n codes z, m prior samples p, L dimensions of the code.
"""

import torch
from torch import Tensor

_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def mmd2(z: Tensor, p: Tensor) -> float:
    """Squared maximum mean discrepancy between codes (n, L) and prior samples (m, L); n, m ≥ 2.

    The unbiased estimate (Gretton et al. 2012, eq. 3): 0 on average where q(z) = p(z), perhaps a
    little below. The kernel is the mean over scales s of the inverse multiquadrics
    ½ sC / (sC + ‖x − y‖²) (Tolstikhin et al. 2018), with C the mean squared distance between two
    prior samples. Since k(x, x) = ½ it is 1 at worst, and no unit of length matters.
    """
    z, p = z.double(), p.double()
    c = 2 * float(p.var(0).sum())
    same = _mean_off_diagonal(_kernel(z, z, c)) + _mean_off_diagonal(_kernel(p, p, c))
    return float(same - 2 * _kernel(z, p, c).mean(dtype=torch.float64))


def relative_std(z: Tensor, std: float) -> float:
    """Root mean square of the codes' coordinates over the prior's: 1 where they agree."""
    return float(z.double().square().mean().sqrt()) / std


def basis_2d(z: Tensor) -> Tensor:
    """(L, 2): the plane to draw codes (n, L) in. Their first two principal axes where L > 2."""
    dim = z.shape[1]
    if dim <= 2:
        return torch.eye(dim, 2, dtype=z.dtype, device=z.device)
    axes: Tensor = torch.linalg.eigh(z.double().T.cov()).eigenvectors  # ascending
    plane = axes[:, -2:].flip(1)
    largest = plane.gather(0, plane.abs().argmax(0, keepdim=True))
    return (plane * largest.sign()).to(z.dtype)  # the same sign on every machine


def project_2d(z: Tensor, basis: Tensor) -> Tensor:
    """(n, L), (L, 2) -> (n, 2). Codes and prior keep their common origin."""
    return z @ basis


def _kernel(x: Tensor, y: Tensor, c: float) -> Tensor:
    d2 = torch.cdist(x, y).square_().float()  # single precision is enough from here, and faster
    total = torch.zeros_like(d2)
    for s in _SCALES:
        total += (d2 + s * c).reciprocal_().mul_(0.5 * s * c / len(_SCALES))
    return total


def _mean_off_diagonal(k: Tensor) -> Tensor:
    n = len(k)
    return (k.sum(dtype=torch.float64) - k.trace()) / (n * (n - 1))
