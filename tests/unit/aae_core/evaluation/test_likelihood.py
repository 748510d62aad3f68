"""Likelihood bounds against probabilistic PCA (Tipping & Bishop 1999).

Likelihood and posterior of that model are Gaussian.
"""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from aae_core.errors import DataError
from aae_core.evaluation.likelihood import SIGMA_GRID, STD_GRID, choose, importance_log_likelihood

SIGMA, DIM, CODE = 0.3, 6, 2
# Orthogonal columns make the coordinates of the exact posterior independent.
W = torch.linalg.qr(
    torch.randn(DIM, CODE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
).Q * torch.tensor([1.5, 0.7])
CENTRE = torch.linspace(-1, 1, DIM, dtype=torch.float64)


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def decode(z: Tensor) -> Tensor:
    return z @ W.T.to(z.dtype) + CENTRE.to(z.dtype)


def log_prior(z: Tensor) -> Tensor:
    return -0.5 * z.square().sum(1) - z.shape[1] * 0.5 * math.log(2 * math.pi)


def images(n: int, seed: int = 1) -> Tensor:
    z, noise = torch.randn(n, CODE + DIM, generator=stream(seed), dtype=torch.float64).split(
        [CODE, DIM], 1
    )
    return decode(z) + SIGMA * noise


def exact(x: Tensor) -> Tensor:
    covariance = W @ W.T + SIGMA**2 * torch.eye(DIM, dtype=torch.float64)
    return MultivariateNormal(CENTRE, covariance).log_prob(x)


def posterior(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the exact posterior's mean and log-variance."""
    m = W.square().sum(0) + SIGMA**2
    return (x - CENTRE) @ W / m, (SIGMA**2 / m).log()


def bound(x: Tensor, mean: Tensor, log_var: Tensor, k: int, **options) -> Tensor:
    options = {"sigma": SIGMA, "generator": stream()} | options
    return importance_log_likelihood(x, mean, log_var, decode, log_prior, k=k, **options)


@pytest.mark.parametrize("k", [1, 3])
def test_likelihood_bound_is_exact_for_the_exact_posterior(k: int) -> None:
    x = images(50)
    mean, log_var = posterior(x)
    torch.testing.assert_close(bound(x, mean, log_var, k), exact(x))
    torch.testing.assert_close(bound(x, mean, log_var - math.log(4), k, std=2), exact(x))


def test_likelihood_bound_in_single_precision_is_close_to_exact() -> None:
    x = images(50)
    mean, log_var = posterior(x)
    got = bound(x.float(), mean.float(), log_var.float(), 1)
    assert got.dtype == torch.float64
    torch.testing.assert_close(got, exact(x), atol=1e-3, rtol=0)


def test_likelihood_bound_of_one_draw_is_the_evidence_lower_bound() -> None:
    """Test E log w = log p(x) − KL(q‖p(z|x)) for a proposal of twice the standard deviation."""
    x = images(20_000)
    mean, log_var = posterior(x)
    got = bound(x, mean, log_var + math.log(4), 1)
    divergence = CODE * (4 - 1 - math.log(4)) / 2
    assert float((exact(x) - got).mean()) == pytest.approx(divergence, abs=0.05)


def test_likelihood_bound_rises_towards_exact_with_more_draws() -> None:
    x = images(2_000)
    mean, log_var = posterior(x)
    wrong = mean + 0.3 * log_var.div(2).exp(), log_var + math.log(2)
    gaps = [float((exact(x) - bound(x, *wrong, k)).mean()) for k in (1, 4, 16, 64)]
    assert gaps == sorted(gaps, reverse=True)
    assert 0 < gaps[-1] < 0.02 < 0.2 < gaps[0]


def test_likelihood_estimates_are_unbiased_before_the_logarithm() -> None:
    x = images(1).expand(20_000, DIM)
    mean, log_var = posterior(x)
    ratios = (bound(x, mean + 0.1, log_var + math.log(2), 5) - exact(x)).exp()
    assert abs(ratios.mean() - 1) < 3 * ratios.std() / math.sqrt(len(ratios))


def test_likelihood_bound_accepts_one_variance_for_all_images() -> None:
    x = images(300)
    mean, _ = posterior(x)
    got = bound(x, mean, torch.tensor(math.log(0.3**2)), 400)
    torch.testing.assert_close(got.mean(), exact(x).mean(), atol=0.02, rtol=0)


def test_likelihood_bound_same_for_any_chunk_size(monkeypatch: pytest.MonkeyPatch) -> None:
    x = images(100)
    mean, log_var = posterior(x)
    whole = bound(x, mean, log_var + 1, 5)
    monkeypatch.setattr("aae_core.evaluation.likelihood._CHUNK", 7)
    torch.testing.assert_close(bound(x, mean, log_var + 1, 5), whole, rtol=1e-12, atol=0)


def test_likelihood_bound_depends_on_its_generator() -> None:
    x = images(20)
    mean, log_var = posterior(x)
    runs = [bound(x, mean, log_var + 1, 3, generator=stream(seed)) for seed in (5, 5, 6)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_choose_finds_the_true_widths() -> None:
    x = images(2_000)
    mean, log_var = posterior(x)
    grids = {"sigmas": [0.1, 0.2, 0.3, 0.45, 0.7], "stds": [0.125, 0.25, 0.5, 1.0]}
    options = {"k": 20, **grids}
    found = choose(
        x, mean, log_var + math.log(16), decode, log_prior, generator=stream(), **options
    )
    assert (found.sigma, found.std, found.at_edge) == (0.3, 0.25, False)
    assert found.log_likelihood == pytest.approx(float(exact(x).mean()), abs=1e-6)
    again = bound(x, mean, log_var + math.log(16), 20, std=found.std, sigma=found.sigma)
    assert found.log_likelihood == pytest.approx(float(again.mean()), abs=1e-9)


def test_choose_flags_a_width_at_the_grid_edge() -> None:
    x = images(50)
    found = choose(x, *posterior(x), decode, log_prior, k=2, generator=stream(), sigmas=[0.2, 0.3])
    assert (found.sigma, found.at_edge) == (0.3, True)


def test_likelihood_width_grids_are_logarithmic() -> None:
    for grid in (SIGMA_GRID, STD_GRID):
        ratios = torch.tensor(grid[1:]) / torch.tensor(grid[:-1])
        torch.testing.assert_close(ratios, ratios[:1].expand_as(ratios))


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan])
def test_likelihood_bound_rejects_widths_that_are_not_positive(sigma: float) -> None:
    x = images(3)
    with pytest.raises(DataError, match="sigma"):
        bound(x, *posterior(x), 1, sigma=sigma)
