import math
from dataclasses import astuple

import numpy as np
import pytest
import torch
from torch import Tensor

from aae_core.errors import DataError
from aae_core.evaluation.fidelity import Fidelity, fidelity


def _normal(n: int, dim: int, seed: int) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


def _by_definition(real: Tensor, fake: Tensor, manifold_k: int, density_k: int) -> Fidelity:
    """Compute fidelity by its definition, over every ball and every point."""
    x, y = real.double().numpy(), fake.double().numpy()

    def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.sqrt(((a[:, None] - b) ** 2).sum(2))

    def radii(a: np.ndarray, k: int) -> np.ndarray:
        others = distances(a, a) + np.diag(np.full(len(a), np.inf))
        return np.sort(others, axis=1)[:, k - 1]

    between = distances(x, y)
    hits = between < radii(x, density_k)[:, None]
    return Fidelity(
        precision=(between <= radii(x, manifold_k)[:, None]).any(0).mean(),
        recall=(between <= radii(y, manifold_k)).any(1).mean(),
        density=hits.sum() / (density_k * len(y)),
        coverage=hits.any(1).mean(),
    )


@pytest.mark.parametrize(("n", "m", "dim"), [(6, 4, 1), (255, 256, 2), (300, 600, 20)])
@pytest.mark.parametrize(("manifold_k", "density_k"), [(3, 5), (1, 2)])
def test_fidelity_matches_its_definition_for_any_k(
    n: int, m: int, dim: int, manifold_k: int, density_k: int
) -> None:
    real, fake = _normal(n, dim, 1), 0.8 * _normal(m, dim, 2) + 0.2
    got = fidelity(real, fake, manifold_k=manifold_k, density_k=density_k)
    assert astuple(got) == pytest.approx(astuple(_by_definition(real, fake, manifold_k, density_k)))


def test_fidelity_defaults_to_the_published_three_and_five_neighbours() -> None:
    real, fake = _normal(200, 4, 1), _normal(200, 4, 2)
    assert fidelity(real, fake) == fidelity(real, fake, manifold_k=3, density_k=5)


@pytest.mark.parametrize("dim", [1, 2, 784])
def test_fidelity_of_a_set_with_itself_is_one(dim: int) -> None:
    real = _normal(600, dim, 0) + 3
    shuffled = real[torch.randperm(600, generator=torch.Generator().manual_seed(0))]
    assert fidelity(real, shuffled) == Fidelity(1, 1, 1, 1)


def test_fidelity_of_distant_sets_is_zero() -> None:
    assert fidelity(_normal(50, 3, 0), _normal(60, 3, 1) + 100) == Fidelity(0, 0, 0, 0)


def test_fidelity_recall_and_coverage_halve_without_half_the_data() -> None:
    real = torch.cat([_normal(200, 2, 0), _normal(200, 2, 1) + 100])
    dropped = fidelity(real, real[:200].repeat(2, 1) + 1e-3)
    assert dropped.precision > 0.95
    assert 0.4 < dropped.recall <= 0.5
    assert 0.4 < dropped.coverage <= 0.5


def test_fidelity_precision_and_density_halve_with_half_outliers() -> None:
    real = _normal(200, 2, 0)
    strange = fidelity(real, torch.cat([real, _normal(200, 2, 1) + 100]))
    assert (strange.precision, strange.density, strange.coverage) == (0.5, 0.5, 1)


def test_fidelity_one_outlier_inflates_precision_but_not_density() -> None:
    """Test samples around one outlier of the data, the example of Naeem et al."""
    real = torch.cat([_normal(200, 2, 0), torch.tensor([[40.0, 0.0]])])
    around = fidelity(real, _normal(200, 2, 1) + torch.tensor([20.0, 0.0]))
    assert around.precision > 0.5
    assert around.density < 0.25


def test_fidelity_matches_expectations_for_equal_distributions() -> None:
    """Test section 3 of Naeem et al.: the expectations hold for any distribution.

    Only the order of distances counts.
    """
    n, m, k = 150, 100, 5
    runs = torch.tensor(
        [astuple(fidelity(_normal(n, 3, i), _normal(m, 3, 1000 + i))) for i in range(100)]
    )
    missed = math.prod((n - i) / (n + m - i) for i in range(1, k + 1))
    for column, expected in [(2, 1.0), (3, 1 - missed)]:
        values = runs[:, column]
        assert abs(values.mean() - expected) < 3 * values.std() / math.sqrt(len(values))


def test_fidelity_ignores_shift_and_scale() -> None:
    real, fake = _normal(150, 4, 1), _normal(150, 4, 2)
    assert fidelity(50 * real + 7, 50 * fake + 7) == fidelity(real, fake)


@pytest.mark.parametrize(
    ("real", "fake", "message"),
    [
        (torch.zeros(5, 2), torch.zeros(9, 2), "real images: 5; 5 neighbours need at least 6"),
        (torch.zeros(9, 2), torch.zeros(3, 2), "samples: 3; 3 neighbours need at least 4"),
        (torch.zeros(9, 2), torch.zeros(9, 3), "samples: 3 pixels per image"),
        (torch.zeros(9, 2), torch.full((9, 2), math.nan), "samples: some pixels are not finite"),
    ],
)
def test_fidelity_rejects_sets_that_cannot_be_compared(
    real: Tensor, fake: Tensor, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        fidelity(real, fake)
