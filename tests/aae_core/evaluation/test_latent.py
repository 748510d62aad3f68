import math

import pytest
import torch
from torch import Tensor

from aae_core.evaluation.latent import basis_2d, mmd2, project_2d, relative_std


def _normal(n: int, dim: int, seed: int) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


def test_mmd_is_unbiased() -> None:
    draws = torch.tensor([mmd2(_normal(40, 3, i), _normal(60, 3, 1000 + i)) for i in range(200)])
    assert draws.min() < 0  # else it could not be 0 on average
    assert abs(draws.mean()) < 3 * draws.std() / math.sqrt(len(draws))


def test_mmd_by_hand() -> None:
    """Two points each, on a line: every kernel value can be written down."""
    z, p = torch.tensor([[0.0], [2.0]]), torch.tensor([[0.0], [1.0]])
    scales, c = (0.1, 0.2, 0.5, 1, 2, 5, 10), 1.0  # twice the variance 1/2 of p

    def k(d2: float) -> float:
        return sum(0.5 * s * c / (s * c + d2) for s in scales) / len(scales)

    expected = k(4) + k(1) - 2 * (k(0) + k(1) + k(4) + k(1)) / 4
    assert mmd2(z, p) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("dim", [1, 2, 8, 100])
def test_mmd_grows_with_the_distance_up_to_one(dim: int) -> None:
    z, p = _normal(300, dim, 1).double(), _normal(300, dim, 2)
    distances = [0.0, 0.3, 1.0, 3.0, 10.0, 1e2, 1e3]
    values = [mmd2(z + shift, p) for shift in distances]
    assert abs(values[0]) < 0.01
    assert values == sorted(values)
    assert 0.5 < values[-1] < 1


def test_codes_in_one_point_far_away_are_the_worst_case() -> None:
    one_point = torch.full((300, 8), 1e6)
    assert 0.7 < mmd2(one_point, _normal(300, 8, 0)) < 1


def test_mmd_has_no_unit_of_length() -> None:
    z, p = 0.5 * _normal(100, 4, 1), _normal(100, 4, 2)
    assert mmd2(7 * z, 7 * p) == pytest.approx(mmd2(z, p), rel=1e-4)


def test_relative_std() -> None:
    assert relative_std(torch.tensor([[3.0, -3.0], [3.0, 3.0]]), 6.0) == 0.5
    assert relative_std(5 * _normal(20_000, 4, 0), 5.0) == pytest.approx(1, abs=0.02)


def test_two_dimensions_are_drawn_as_they_are() -> None:
    z = _normal(10, 2, 0)
    assert torch.equal(project_2d(z, basis_2d(z)), z)


def test_one_dimension_is_drawn_on_a_line() -> None:
    z = _normal(10, 1, 0)
    drawn = project_2d(z, basis_2d(z))
    assert torch.equal(drawn[:, :1], z)
    assert not drawn[:, 1].any()


def test_more_dimensions_are_drawn_along_the_widest_two() -> None:
    widths = torch.tensor([1.0, 30.0, 0.1, 10.0])
    basis = basis_2d(_normal(2_000, 4, 0) * widths)
    expected = torch.zeros(4, 2)
    expected[1, 0] = expected[3, 1] = 1
    torch.testing.assert_close(basis, expected, atol=0.05, rtol=0)


def test_the_basis_is_orthonormal_and_keeps_its_sign() -> None:
    z = _normal(200, 6, 0) * torch.arange(1.0, 7.0)
    basis = basis_2d(z)
    torch.testing.assert_close(basis.T @ basis, torch.eye(2))
    torch.testing.assert_close(basis_2d(-z), basis)
