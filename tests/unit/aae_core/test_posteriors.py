"""Laws of every encoder, with and without q(y|x)."""

import pytest
import torch

from aae_core.config import EncoderConfig, ModelConfig
from aae_core.networks import Blueprint
from aae_core.posteriors import Deterministic, Gaussian, Universal, build_posterior, reparametrise

STOCHASTIC = ("gaussian", "universal")
Encoder = Deterministic | Gaussian | Universal


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(kind: str, categories: int = 0, **model: object) -> Encoder:
    config = EncoderConfig(kind, noise_dim=4)  # type: ignore[arg-type]
    settings = ModelConfig(encoder=config, hidden=(16, 16), init_std=0.5, **model)  # type: ignore[arg-type]
    return build_posterior(config, Blueprint(settings, (2, 3), 0, False, stream(0)), 3, categories)


@pytest.fixture(params=["deterministic", *STOCHASTIC])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(7, 6, generator=stream(3))


@pytest.mark.parametrize("categories", [0, 5])
def test_encoder_logits_and_codes_have_their_shapes(
    kind: str, categories: int, x: torch.Tensor
) -> None:
    encoder = build(kind, categories)
    for noise in (stream(0), None):
        logits, z = encoder(x, noise)
        assert logits.shape == (7, categories)
        assert z.shape == (7, 3)


def test_encoder_draw_depends_only_on_its_stream(kind: str, x: torch.Tensor) -> None:
    encoder = build(kind)
    assert torch.equal(encoder(x, stream(0))[1], encoder(x, stream(0))[1])


def test_encoder_code_is_fixed_without_a_stream(kind: str, x: torch.Tensor) -> None:
    encoder = build(kind, dropout=0.5)
    assert torch.equal(encoder(x)[1], encoder(x)[1])


def test_encoder_parameters_all_get_a_gradient(kind: str, x: torch.Tensor) -> None:
    encoder = build(kind, 5)
    logits, z = encoder(x, stream(0))
    (logits.square().sum() + z.square().sum()).backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_encoder_outputs_share_all_but_rows_of_the_last_layer(kind: str, x: torch.Tensor) -> None:
    encoder = build(kind, 5)
    encoder(x, stream(0))[0].square().sum().backward()
    *shared, last = encoder.body.mlp.layers
    assert all(layer.weight.grad.abs().sum() > 0 for layer in shared)
    assert last.weight.grad[:5].abs().sum() > 0
    assert not last.weight.grad[5:].any()
    assert not last.bias.grad[5:].any()


@pytest.mark.parametrize("kind", STOCHASTIC)
def test_stochastic_encoder_draws_different_codes_per_stream(kind: str, x: torch.Tensor) -> None:
    encoder = build(kind)
    assert not torch.equal(encoder(x, stream(0))[1], encoder(x, stream(1))[1])


def test_gaussian_encoder_category_is_not_drawn(x: torch.Tensor) -> None:
    encoder = build("gaussian", 5)
    assert torch.equal(encoder(x, stream(0))[0], encoder(x, stream(1))[0])


def test_gaussian_encoder_codes_have_its_mean_and_variance(x: torch.Tensor) -> None:
    encoder = build("gaussian", 2)
    with torch.no_grad():
        logits, mean, log_variance = encoder.moments(x[:1])
        _, z = encoder(x[:1].expand(40_000, -1), stream(0))
    assert torch.equal(torch.cat([logits, mean, log_variance], -1), encoder.body(x[:1]))
    torch.testing.assert_close(z.mean(0), mean[0], atol=0.05, rtol=0.02)
    torch.testing.assert_close(z.var(0), log_variance[0].exp(), atol=0, rtol=0.05)
    torch.testing.assert_close(encoder(x[:1])[1], mean)


def test_reparametrised_draw_has_gradients_of_mean_and_variance() -> None:
    mean = torch.tensor([[1.0]], requires_grad=True)
    log_variance = torch.tensor([[2.0]], requires_grad=True)
    z = reparametrise(mean, log_variance, stream(0))
    z.sum().backward()
    assert mean.grad.item() == 1
    assert log_variance.grad.item() == pytest.approx(0.5 * (z.item() - 1))


def test_universal_encoder_fixed_code_is_at_zero_noise(x: torch.Tensor) -> None:
    encoder = build("universal")
    want = encoder.body(torch.cat([x, torch.zeros(7, 4)], -1))
    assert torch.equal(encoder(x)[1], want)
