import math

import pytest
import torch
from torch import Tensor

from aae_core.evaluation.latent import (
    basis_2d,
    circle_basis,
    knn_error,
    mmd2,
    mode_mmd,
    nearest_modes,
    project_2d,
    relative_std,
)


def _normal(n: int, dim: int, seed: int) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


def test_mmd_is_unbiased_for_equal_distributions() -> None:
    draws = torch.tensor([mmd2(_normal(40, 3, i), _normal(60, 3, 1000 + i)) for i in range(200)])
    assert draws.min() < 0  # necessary for a mean of 0
    assert abs(draws.mean()) < 3 * draws.std() / math.sqrt(len(draws))


def test_mmd_of_two_points_matches_hand_calculation() -> None:
    """Test two points each on a line, where every kernel value can be written down."""
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


def test_mmd_is_near_one_for_codes_in_one_far_point() -> None:
    one_point = torch.full((300, 8), 1e6)
    assert 0.7 < mmd2(one_point, _normal(300, 8, 0)) < 1


def test_mmd_unchanged_by_unit_of_length() -> None:
    z, p = 0.5 * _normal(100, 4, 1), _normal(100, 4, 2)
    assert mmd2(7 * z, 7 * p) == pytest.approx(mmd2(z, p), rel=1e-4)


def test_relative_std_divides_by_the_given_std() -> None:
    assert relative_std(torch.tensor([[3.0, -3.0], [3.0, 3.0]]), 6.0) == 0.5
    assert relative_std(5 * _normal(20_000, 4, 0), 5.0) == pytest.approx(1, abs=0.02)


def test_projection_leaves_two_dimensions_unchanged() -> None:
    z = _normal(10, 2, 0)
    assert torch.equal(project_2d(z, basis_2d(z)), z)


def test_projection_puts_one_dimension_on_a_line() -> None:
    z = _normal(10, 1, 0)
    drawn = project_2d(z, basis_2d(z))
    assert torch.equal(drawn[:, :1], z)
    assert not drawn[:, 1].any()


def test_projection_follows_the_two_widest_dimensions() -> None:
    widths = torch.tensor([1.0, 30.0, 0.1, 10.0])
    basis = basis_2d(_normal(2_000, 4, 0) * widths)
    expected = torch.zeros(4, 2)
    expected[1, 0] = expected[3, 1] = 1
    torch.testing.assert_close(basis, expected, atol=0.05, rtol=0)


def test_projection_basis_is_orthonormal_with_fixed_sign() -> None:
    z = _normal(200, 6, 0) * torch.arange(1.0, 7.0)
    basis = basis_2d(z)
    torch.testing.assert_close(basis.T @ basis, torch.eye(2))
    torch.testing.assert_close(basis_2d(-z), basis)


@pytest.mark.parametrize(("n", "m"), [(2, 3), (255, 256), (257, 600)])
def test_mmd_matches_its_definition_for_any_tile_count(n: int, m: int) -> None:
    z, p = 1.2 * _normal(n, 5, 1).double(), _normal(m, 5, 2).double()
    c = 2 * p.var(0).sum()

    def k(x: Tensor, y: Tensor) -> Tensor:
        d2 = (x[:, None] - y).square().sum(2)
        return sum(0.5 * s * c / (s * c + d2) for s in (0.1, 0.2, 0.5, 1, 2, 5, 10)) / 7

    zz, pp = k(z, z).sum() - n / 2, k(p, p).sum() - m / 2
    expected = zz / (n * (n - 1)) + pp / (m * (m - 1)) - 2 * k(z, p).mean()
    assert mmd2(z, p) == pytest.approx(float(expected), abs=1e-7)


@pytest.mark.parametrize("k", [1, 4, 10])
def test_knn_error_is_a_vote_of_the_other_codes(k: int) -> None:
    """Test against a plain loop over the codes."""
    z, y = _normal(300, 2, 0), torch.arange(300) % 3
    z[:, 0] += 2.0 * y
    wrong = 0
    for i in range(300):
        distances = (z - z[i]).norm(dim=1)
        distances[i] = math.inf
        voters = y[distances.argsort()[:k]].tolist()
        most = max(voters.count(c) for c in voters)
        wrong += next(c for c in voters if voters.count(c) == most) != y[i]
    assert knn_error(z, y, k) == pytest.approx(wrong / 3)


def test_knn_error_of_a_tie_follows_the_nearer_class() -> None:
    z = torch.tensor([[0.0], [1.0], [-1.1], [50.0], [51.0], [52.5]])
    nearer, farther = torch.tensor([0, 0, 1, 2, 2, 2]), torch.tensor([1, 0, 1, 2, 2, 2])
    right = [knn_error(z[[0, 1, 2]], y[[0, 1, 2]], k=2) for y in (nearer, farther)]
    assert right == pytest.approx([100 / 3, 200 / 3])


def test_knn_error_excludes_the_code_itself_from_the_vote() -> None:
    assert knn_error(torch.tensor([[0.0], [1.0]]), torch.tensor([0, 1])) == 100
    assert knn_error(torch.tensor([[0.0], [1.0]]), torch.tensor([4, 4])) == 0


def test_knn_error_of_separate_and_of_mixed_classes() -> None:
    y = torch.arange(1_000) % 10
    assert knn_error(_normal(1_000, 10, 0) + 20 * torch.eye(10)[y], y) == 0
    assert knn_error(_normal(1_000, 10, 0), y) == pytest.approx(90, abs=4)


def test_knn_error_separates_codes_far_from_the_origin() -> None:
    y = torch.arange(100) % 2
    z = 1e4 + 0.01 * (_normal(100, 2, 0).double() + 20 * y[:, None])
    assert knn_error(z, y) == 0


def _petals(n: int, seed: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return n points each of four modes on a circle, longer radially than tangentially."""
    modes = torch.arange(4 * n) % 4
    angle = math.pi / 2 * modes
    outwards = torch.stack([angle.cos(), angle.sin()], 1)
    sideways = torch.stack([-angle.sin(), angle.cos()], 1)
    within = scale * _normal(4 * n, 2, seed)
    return (8 + 2 * within[:, :1]) * outwards + 0.5 * within[:, 1:] * sideways, modes


def _fill(z: Tensor, p: Tensor, modes: Tensor) -> float:
    return mode_mmd(z, nearest_modes(z, p, modes), p, modes)


def test_nearest_modes_take_the_mode_of_the_nearest_point() -> None:
    p, modes = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]]), torch.tensor([4, 7, 2])
    z = torch.tensor([[1.0, 0.0], [6.0, 1.0], [1.0, 7.0], [-100.0, -100.0]])
    assert nearest_modes(z, p, modes).tolist() == [4, 7, 2, 4]


@pytest.mark.parametrize(("n", "times"), [(20, 12), (100, 12), (550, 3)])
def test_mode_mmd_of_fresh_samples_is_one(n: int, times: int) -> None:
    values = [_fill(_petals(n, i)[0], *_petals(n, 100 + i)) for i in range(times)]
    assert sum(values) / times == pytest.approx(1, abs=0.15)
    assert max(values) < 1.5


def test_mode_mmd_grows_for_codes_that_shrink_or_spread() -> None:
    p, modes = _petals(500, 0)
    values = [_fill(_petals(500, 1, s)[0], p, modes) for s in (1, 0.8, 0.6, 0.4, 0.2, 0)]
    assert values == sorted(values)
    assert values[0] < 1.5 < values[1]
    assert values[-1] > 5
    assert _fill(_petals(500, 1, 1.5)[0], p, modes) > 2


def test_mode_mmd_ignores_the_order_of_codes() -> None:
    z, (p, modes) = _petals(2_000, 1)[0], _petals(500, 0)
    assert _fill(z[z.norm(dim=1).argsort()], p, modes) < 1.5


def test_mode_mmd_of_an_empty_mode_is_large_but_finite() -> None:
    p, modes = _petals(500, 0)
    z, y = _petals(500, 1)
    whole, without = _fill(z, p, modes), _fill(z[y != 2], p, modes)
    few = _fill(z[(y != 2) | (torch.arange(len(z)) < 40)], p, modes)
    assert whole + 0.5 < few < without < whole + 15
    far_away = _fill(z + 1e6, p, modes)  # one mode has all codes
    assert without < far_away < math.inf


def test_mode_mmd_unchanged_by_unit_of_length() -> None:
    (z, _), (p, modes) = _petals(100, 1, 0.7), _petals(100, 0)
    assert _fill(9 * z + 3, 9 * p + 3, modes) == pytest.approx(_fill(z, p, modes), rel=1e-5)


@pytest.mark.parametrize("k", [2, 10, 16])
def test_circle_basis_places_heads_evenly(k: int) -> None:
    heads = project_2d(10 * torch.eye(k), circle_basis(k))
    torch.testing.assert_close(heads.norm(dim=1), torch.full((k,), 10.0))
    chords = (heads - heads.roll(1, 0)).norm(dim=1)
    torch.testing.assert_close(chords, torch.full((k,), 20 * math.sin(math.pi / k)))
    torch.testing.assert_close(heads.sum(0), torch.zeros(2), atol=1e-5, rtol=0)
