"""Laws that every encoder obeys."""

import pytest
import torch

from aae_core.config import EncoderConfig
from aae_core.posteriors import Posterior, build_posterior

STOCHASTIC = ("gaussian", "universal")


def build(kind: str) -> Posterior:
    return build_posterior(
        EncoderConfig(kind, noise_dim=4),  # type: ignore[arg-type]
        6,
        (16, 16),
        3,
        init_std=0.5,
        generator=torch.Generator().manual_seed(0),
    )


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=["deterministic", *STOCHASTIC])
def encoder(request: pytest.FixtureRequest) -> Posterior:
    return build(request.param)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(7, 6, generator=stream(3))


def test_codes_have_the_code_s_shape(encoder: Posterior, x: torch.Tensor) -> None:
    assert encoder(x, stream(0)).shape == (7, 3)
    assert encoder(x).shape == (7, 3)


def test_a_draw_depends_on_its_stream_alone(encoder: Posterior, x: torch.Tensor) -> None:
    assert torch.equal(encoder(x, stream(0)), encoder(x, stream(0)))


def test_every_parameter_gets_a_gradient(encoder: Posterior, x: torch.Tensor) -> None:
    encoder(x, stream(0)).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("kind", STOCHASTIC)
def test_a_stochastic_encoder_draws_different_codes(kind: str, x: torch.Tensor) -> None:
    encoder = build(kind)
    assert not torch.equal(encoder(x, stream(0)), encoder(x, stream(1)))


def test_the_gaussian_s_codes_have_its_mean_and_variance(x: torch.Tensor) -> None:
    encoder = build("gaussian")
    with torch.no_grad():
        mean, log_variance = encoder.body(x[:1]).chunk(2, dim=-1)
        z = encoder(x[:1].expand(40_000, -1), stream(0))
    torch.testing.assert_close(z.mean(0), mean[0], atol=0.05, rtol=0.02)
    torch.testing.assert_close(z.var(0), log_variance[0].exp(), atol=0, rtol=0.05)
    torch.testing.assert_close(encoder(x[:1]), mean)
