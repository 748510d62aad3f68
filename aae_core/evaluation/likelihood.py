"""Importance-weighted log-likelihood (Burda et al. 2016, arXiv:1509.00519, eq. 8).

    log p(x) ≥ E log 1/k Σ_j w_j,   w_j = p(x|z_j) p(z_j) / q(z_j|x),   z_j ~ q(z|x)

The bound grows with k towards log p(x) for every proposal q(z|x) = N(mean, diag exp log_var).
The decoder is interpreted as p(x|z) = N(x̂(z), σ²I), and the prior must have a density.

Shapes: n images x, D pixels, L dimensions of the code, M multipliers of the proposal's std, S
widths σ.  Units: pixels and σ in the decoder's units, likelihoods in nats per image.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from aae_core.evaluation.kernel_sums import check_sigma

SIGMA_GRID: tuple[float, ...] = tuple(np.logspace(-1.5, 0, 13).tolist())
STD_GRID: tuple[float, ...] = tuple(2.0**i for i in range(-5, 2))
_CHUNK = 2_000  # images a forward pass

Decode: TypeAlias = Callable[[Tensor], Tensor]  # (n, L) -> (n, D)
LogPrior: TypeAlias = Callable[[Tensor], Tensor]  # (n, L) -> (n,), log p(z)


@torch.no_grad()
def importance_log_likelihood(
    x: Tensor,
    mean: Tensor,
    log_var: Tensor,
    decode: Decode,
    log_prior: LogPrior,
    *,
    sigma: float,
    k: int,
    generator: torch.Generator,
    std: float = 1.0,
) -> Tensor:
    """Compute the bound of every image with k draws: (n, D), (n, L) -> (n,), float64.

    For an encoder without a density, pass the code as `mean` and any `log_var` that broadcasts to
    (n, L).  The proposal's standard deviation is multiplied by `std`.

    Raises DataError unless σ > 0.
    """
    return _bounds(x, mean, log_var, decode, log_prior, [std], [sigma], k, generator)[0, 0]


@dataclass(frozen=True)
class ChosenWidths:
    """The best-scoring σ and proposal width on validation images."""

    sigma: float
    std: float  # multiplier of the proposal's standard deviation
    log_likelihood: float  # mean over the images
    at_edge: bool  # at the edge of a grid: a better value may lie outside


@torch.no_grad()
def choose(
    x: Tensor,
    mean: Tensor,
    log_var: Tensor,
    decode: Decode,
    log_prior: LogPrior,
    *,
    k: int,
    generator: torch.Generator,
    sigmas: Sequence[float] = SIGMA_GRID,
    stds: Sequence[float] = STD_GRID,
) -> ChosenWidths:
    """Choose the pair with the largest mean bound; all pairs use the same k draws of noise.

    Use the same k as for scoring, since fewer draws favour a wider σ.
    Raises DataError unless every σ > 0.
    """
    means = _bounds(x, mean, log_var, decode, log_prior, stds, sigmas, k, generator).mean(2)
    i, j = divmod(int(means.argmax()), len(sigmas))
    at_edge = i in (0, len(stds) - 1) or j in (0, len(sigmas) - 1)
    return ChosenWidths(sigmas[j], stds[i], float(means[i, j]), at_edge)


def _bounds(
    x: Tensor,
    mean: Tensor,
    log_var: Tensor,
    decode: Decode,
    log_prior: LogPrior,
    stds: Sequence[float],
    sigmas: Sequence[float],
    k: int,
    generator: torch.Generator,
) -> Tensor:
    """Compute the bounds (M, S, n), float64."""
    for sigma in sigmas:
        check_sigma(sigma)
    scale = (0.5 * log_var).exp().expand_as(mean)
    sums = x.new_full((len(stds), len(sigmas), len(x)), -math.inf, dtype=torch.float64)
    for _ in range(k):
        noise = torch.randn(
            mean.shape, generator=generator, dtype=mean.dtype, device=generator.device
        )
        for sum_, std in zip(sums, stds, strict=True):
            z = mean + std * scale * noise
            log_q = _log_normal(noise.double().square().sum(1), mean.shape[1], 1)
            log_q -= (std * scale).double().log().sum(1)
            errors = _squared_errors(x, z, decode)
            log_x = torch.stack([_log_normal(errors, x.shape[1], sigma) for sigma in sigmas])
            torch.logaddexp(sum_, log_x + log_prior(z).double() - log_q, out=sum_)
    return sums - math.log(k)


def _log_normal(squares: Tensor, dim: int, sigma: float) -> Tensor:
    """Return log N(·; 0, σ²I) from squared norms."""
    return squares * (-0.5 / sigma**2) - dim * math.log(sigma * math.sqrt(2 * math.pi))


def _squared_errors(x: Tensor, z: Tensor, decode: Decode) -> Tensor:
    """Return ‖x̂(z) − x‖², (n,), float64."""
    chunks = zip(x.split(_CHUNK), z.split(_CHUNK), strict=True)
    return torch.cat([(decode(b) - a).double().square().sum(1) for a, b in chunks])
