"""Fidelity and diversity of samples: precision, recall, density and coverage.

The manifold of a set is the union of balls around its points.  A ball's radius is the distance to
the k-th nearest other point.

- precision: samples inside the data's manifold; recall: data inside the samples' (Kynkäänniemi
  et al. 2019, arXiv:1904.06991, eq. 1 and 2, k = 3)
- density: number of the data's balls that contain a sample, over k; robust to outliers in the
  data.  coverage: data whose ball contains a sample (Naeem et al. 2020, arXiv:2002.09797,
  section 3, k = 5)

As in the authors' code, balls for precision and recall include their boundary, balls for density
and coverage do not.  A set compared with itself therefore has 1 for all four.

Shapes: n images, m samples, D pixels or other features.  Units: shares in [0, 1], but a density
may exceed 1.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from aae_core.errors import DataError
from aae_core.evaluation.kernel_sums import check_pixels, squared_distances

MANIFOLD_K, DENSITY_K = 3, 5  # as published
_TILE = 256
_TIE = 1e-9  # share of the mean squared norm: bounds the rounding of equal distances


@dataclass(frozen=True)
class Fidelity:
    precision: float
    recall: float
    density: float
    coverage: float


@torch.no_grad()
def fidelity(
    real: Tensor, fake: Tensor, *, manifold_k: int = MANIFOLD_K, density_k: int = DENSITY_K
) -> Fidelity:
    """Compare images (n, D) with samples (m, D). Use n = m, since all four depend on n and m.

    Raises DataError for images that are not finite, of unequal size, or too few for k neighbours.
    """
    _check(real, "real images", manifold_k, density_k)
    _check(fake, "samples", manifold_k, dim=real.shape[1])
    centre = real.double().mean(0)
    real, fake = real - centre, fake - centre
    tie = _TIE * real.square().sum(1).mean()
    manifold, ball = _radii(real, manifold_k, density_k)
    (manifold_fake,) = _radii(fake, manifold_k)

    precise = torch.zeros(len(fake), dtype=torch.bool, device=fake.device)
    recalled, hits, covered = 0, 0, 0
    for rows in torch.arange(len(real), device=real.device).split(_TILE):
        d2 = squared_distances(real[rows], fake)
        precise |= (d2 <= manifold[rows, None] + tie).any(0)
        recalled += int((d2 <= manifold_fake + tie).any(1).sum())
        within = d2 < ball[rows, None] - tie
        hits += int(within.sum())
        covered += int(within.any(1).sum())
    return Fidelity(
        precision=float(precise.double().mean()),
        recall=recalled / len(real),
        density=hits / (density_k * len(fake)),
        coverage=covered / len(real),
    )


def _check(x: Tensor, name: str, *ks: int, dim: int | None = None) -> None:
    check_pixels(x, name, dim)
    if len(x) <= max(ks):
        raise DataError(f"{name}: {len(x)}; {max(ks)} neighbours need at least {max(ks) + 1}")


def _radii(x: Tensor, *ks: int) -> Tensor:
    """Squared distances (len(ks), n) to the k-th nearest other point."""
    tiles = (squared_distances(tile, x) for tile in x.split(_TILE))
    nearest = [d2.topk(max(ks) + 1, largest=False).values for d2 in tiles]
    return torch.cat(nearest)[:, ks].T  # index 0 is the point itself
