"""Laws that every prior obeys."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aae_core.config import PriorConfig
from aae_core.priors import Prior, build_prior

PRIORS = [(PriorConfig(std=1.0), 1), (PriorConfig(std=5.0), 8), (PriorConfig(std=0.1), 1000)]


@pytest.fixture(params=PRIORS, ids=lambda p: f"{p[0].kind}-{p[0].std}-{p[1]}")
def prior(request: pytest.FixtureRequest) -> Prior:
    return build_prior(*request.param)


def draw(prior: Prior, n: int, seed: int = 0) -> torch.Tensor:
    return prior.sample(n, generator=torch.Generator().manual_seed(seed))


def test_samples_are_float32_codes(prior: Prior) -> None:
    z = draw(prior, 5)
    assert z.shape == (5, prior.dim)
    assert z.dtype == torch.float32


def test_a_sample_depends_on_its_stream_alone(prior: Prior) -> None:
    assert torch.equal(draw(prior, 9), draw(prior, 9))
    assert not torch.equal(draw(prior, 9), draw(prior, 9, seed=1))


def test_std_is_the_root_mean_square_of_a_coordinate(prior: Prior) -> None:
    z = draw(prior, 200_000 // prior.dim)
    assert z.square().mean().sqrt().item() == pytest.approx(prior.std, rel=0.02)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 50))
def test_any_number_of_samples_can_be_drawn(n: int) -> None:
    assert draw(build_prior(PriorConfig(), 2), n).shape == (n, 2)


def test_the_gaussian_is_isotropic() -> None:
    z = draw(build_prior(PriorConfig(std=3.0), 4), 100_000)
    torch.testing.assert_close(z.T.cov(), 9 * torch.eye(4), atol=0.15, rtol=0)
    torch.testing.assert_close(z.mean(0), torch.zeros(4), atol=0.05, rtol=0)
