"""Log-sums of kernels against a brute-force evaluation: direct differences in numpy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from torch import Tensor
from torch.distributions import Normal

from aae_core.errors import DataError
from aae_core.evaluation.kernel_sums import block_log_sums, error_bound, log_likelihood


def brute_force(points: Tensor, samples: Tensor, sigmas: list[float]) -> Tensor:
    x, s = points.numpy(), samples.numpy()
    d2 = np.stack([((row - s) ** 2).sum(1) for row in x])
    return torch.from_numpy(np.stack([logsumexp(-d2 / (2 * g**2), axis=1) for g in sigmas]))


def draw(n: int, dim: int, seed: int = 0) -> Tensor:
    stream = torch.Generator().manual_seed(seed)
    return torch.rand(n, dim, generator=stream, dtype=torch.float64)


def assert_within(got: Tensor, want: Tensor, nats: float = 1e-6) -> None:
    torch.testing.assert_close(got, want, rtol=0, atol=nats)


@pytest.mark.parametrize(
    ("n", "m", "dim"), [(1, 1, 1), (1, 7, 3), (5, 1, 2), (501, 1003, 4), (20, 3000, 784)]
)
def test_agrees_with_brute_force(n: int, m: int, dim: int) -> None:
    sigmas = [0.01, 0.1, 0.3, 1.0, 10.0]
    points, samples = draw(n, dim, seed=1), draw(m, dim, seed=2)
    got = block_log_sums(points, samples, sigmas)
    assert got.dtype == torch.float64
    assert_within(got, brute_force(points, samples, sigmas))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(1, 9),
    st.integers(1, 5),
    st.floats(-3, 2),
    st.floats(-2, 2),
    st.integers(0, 2**32),
)
def test_agrees_within_the_stated_bound(
    n: int, m: int, dim: int, log_sigma: float, log_scale: float, seed: int
) -> None:
    sigma, scale = 10.0**log_sigma, 10.0**log_scale
    points, samples = scale * draw(n, dim, seed), scale * draw(m, dim, seed + 1) + scale
    got = log_likelihood(block_log_sums(points, samples, [sigma])[0], m, dim, sigma)
    want = log_likelihood(brute_force(points, samples, [sigma])[0], m, dim, sigma)
    allowed = 2 * error_bound(got, points, m, sigma)  # brute force rounds, too
    assert ((got - want).abs() <= allowed).all()


def test_one_kernel_is_the_gaussian_density() -> None:
    x = torch.tensor([[0.3, -1.2], [4.0, 0.0]], dtype=torch.float64)
    sums = block_log_sums(x, torch.zeros(1, 2), [0.7])
    want = Normal(0.0, 0.7).log_prob(x).sum(-1)
    torch.testing.assert_close(log_likelihood(sums[0], 1, 2, 0.7), want)


@pytest.mark.parametrize("sigma", [0.05, 0.5, 5.0])
def test_density_integrates_to_one(sigma: float) -> None:
    samples = draw(50, 1)
    x = torch.linspace(-8 * sigma, 1 + 8 * sigma, 5001, dtype=torch.float64)[:, None]
    ll = log_likelihood(block_log_sums(x, samples, [sigma])[0], 50, 1, sigma)
    assert torch.trapezoid(ll.exp(), x[:, 0]).item() == pytest.approx(1, abs=1e-9)


def test_translation_does_not_matter() -> None:
    points, samples, sigmas = draw(40, 6, seed=1), draw(70, 6, seed=2), [0.05, 1.0]
    here = block_log_sums(points, samples, sigmas)
    there = block_log_sums(points + 64, samples + 64, sigmas)
    assert_within(there, here, 1e-9)


def test_order_does_not_matter() -> None:
    points, samples, sigmas = draw(40, 6, seed=1), draw(1200, 6, seed=2), [0.05, 1.0]
    want = block_log_sums(points, samples, sigmas)
    assert_within(block_log_sums(points, samples.flip(0), sigmas), want, 1e-9)
    assert_within(block_log_sums(points.flip(0), samples, sigmas).flip(1), want, 1e-9)


def test_blocks_add_up() -> None:
    points, samples, sigmas = draw(40, 6, seed=1), draw(1700, 6, seed=2), [0.05, 1.0]
    first, second = (block_log_sums(points, part, sigmas) for part in samples.split([900, 800]))
    whole = block_log_sums(points, samples, sigmas)
    assert_within(torch.logaddexp(first, second), whole, 1e-9)


def test_duplicates_count_each() -> None:
    points = draw(30, 784)
    sums = block_log_sums(points, points.repeat(3, 1), [0.01, 1e-6])
    assert_within(sums, torch.full_like(sums, math.log(3)))


def test_constant_pixels_change_nothing() -> None:
    points, samples = draw(20, 3, seed=1), draw(30, 3, seed=2)
    constant = torch.full((20, 5), 0.1), torch.full((30, 5), 0.1)
    wide = block_log_sums(
        torch.cat([points, constant[0]], 1), torch.cat([samples, constant[1]], 1), [0.02]
    )
    assert_within(wide, block_log_sums(points, samples, [0.02]), 1e-9)


def test_clusters_far_apart_use_direct_differences() -> None:
    """|x|² of 1e10 against σ of 0.01: the product form alone would be off by 1e-2 nats."""
    near = draw(10, 3)
    points, samples = torch.cat([near, near + 1e5]), torch.cat([near.flip(0), near + 1e5])
    assert_within(block_log_sums(points, samples, [0.01]), brute_force(points, samples, [0.01]))


def test_far_points_stay_finite() -> None:
    points, samples = torch.tensor([[0.0], [1e20]]), torch.tensor([[0.5], [-1e25]])
    sums = block_log_sums(points.double(), samples.double(), [0.01])
    assert sums.isfinite().all()
    assert sums[0, 1].item() == pytest.approx(-0.5 * (1e20 / 0.01) ** 2, rel=1e-6)


def test_a_far_sample_leaves_the_bound_alone() -> None:
    points, samples = draw(10, 4, seed=1), draw(20, 4, seed=2)
    samples[3] = 1e6
    ll = log_likelihood(block_log_sums(points, samples, [0.1])[0], 20, 4, 0.1)
    assert error_bound(ll, points, 20, 0.1).max() < 1e-9


@pytest.mark.parametrize(
    ("points", "samples", "sigma", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 4), 1.0, "samples: 4 pixels an image"),
        (torch.zeros(0, 3), torch.zeros(2, 3), 1.0, r"points: shape \(0, 3\)"),
        (torch.zeros(2, 3), torch.zeros(0, 3), 1.0, r"samples: shape \(0, 3\)"),
        (torch.zeros(3), torch.zeros(2, 3), 1.0, r"points: shape \(3,\)"),
        (torch.zeros(2, 1), torch.tensor([[math.nan]]), 1.0, "samples: some pixels are not"),
        (torch.tensor([[math.inf]]), torch.zeros(2, 1), 1.0, "points: some pixels are not"),
        (torch.zeros(2, 1), torch.zeros(2, 1), 0.0, "sigma: 0.0"),
        (torch.zeros(2, 1), torch.zeros(2, 1), -1.0, "sigma: -1.0"),
        (torch.zeros(2, 1), torch.zeros(2, 1), math.nan, "sigma: nan"),
    ],
)
def test_refuses_what_cannot_be_scored(
    points: Tensor, samples: Tensor, sigma: float, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        block_log_sums(points, samples, [sigma])
