"""Bodies of all nets: shapes, initial weights and the order of pixels."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from aae_core import networks
from aae_core.config import EncoderConfig, LayersConfig, ModelConfig, NetworkConfig
from aae_core.errors import ConfigError
from aae_core.networks import MLP, Blueprint, Convolutions, Deconvolutions, drop


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plan(shape: tuple[int, ...] = (4, 5), seed: int = 0, **config: object) -> Blueprint:
    model = ModelConfig(**{"hidden": (12, 8), "init_std": 0.3} | config)  # type: ignore[arg-type]
    return Blueprint(model, shape, 0, False, stream(seed))


def constant(weight: Tensor) -> None:
    nn.init.normal_(weight, std=0.3, generator=stream())


def test_mlp_weights_have_the_initialisation_of_the_paper() -> None:
    net = plan((28, 28), hidden=(1000, 1000), init_std=0.01).mlp(784, 8)
    weights = torch.cat([layer.weight.flatten() for layer in net.layers])
    assert abs(weights.std().item() - 0.01) < 1e-4
    assert abs(weights.mean().item()) < 1e-4
    assert all(not layer.bias.any() for layer in net.layers)


@pytest.mark.parametrize("channels", [(), (3, 4)])
def test_network_weights_depend_only_on_their_stream(channels: tuple[int, ...]) -> None:
    def nets(seed: int) -> list[Tensor]:
        blueprint = plan((8, 8), seed, channels=channels, batch_norm="autoencoder")
        built = (blueprint.encoder(3), blueprint.decoder(3), blueprint.mlp(3, 1))
        return [value for net in built for value in net.state_dict().values()]

    first, again, other = nets(0), nets(0), nets(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_convolution_weights_have_the_initialisation_of_the_paper() -> None:
    net = plan((8, 8), channels=(32, 64), init_std=0.02).encoder(3)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.2)
            assert not layer.bias.any()


def test_relu_mlp_matches_its_formula() -> None:
    net = MLP([3, 5, 4, 2], constant)
    x = torch.randn(6, 3, generator=stream(1))
    want = x
    for layer in net.layers[:-1]:
        want = torch.relu(want @ layer.weight.T + layer.bias)
    last = net.layers[-1]
    torch.testing.assert_close(net(x), want @ last.weight.T + last.bias)


def test_maxout_unit_is_the_largest_of_its_pieces() -> None:
    net = MLP([1, 2, 1], constant, activation="maxout", pieces=3)
    with torch.no_grad():
        net.layers[0].weight.copy_(torch.tensor([[1.0, -1.0, 0.0, 2.0, 3.0, -1.0]]).T)
        net.layers[0].bias.copy_(torch.tensor([0.0, 0.0, 0.5, 1.0, 0.0, -9.0]))
        net.layers[1].weight.copy_(torch.tensor([[1.0, 10.0]]))
    x = torch.tensor([[-2.0], [0.25], [4.0]])
    # max(x, −x, ½) + 10·max(2x + 1, 3x, −x − 9)
    want = torch.tensor([[2.0 + 10 * -3], [0.5 + 10 * 1.5], [4.0 + 10 * 12]])
    torch.testing.assert_close(net(x), want)


def test_sigmoid_mlp_matches_its_formula() -> None:
    net = MLP([3, 5, 2], constant, activation="sigmoid")
    x = torch.randn(6, 3, generator=stream(1))
    first, last = net.layers
    h = 1 / (1 + torch.exp(-(x @ first.weight.T + first.bias)))
    torch.testing.assert_close(net(x), h @ last.weight.T + last.bias)


def test_blueprint_gives_each_network_its_own_settings() -> None:
    maxout = NetworkConfig(hidden=(6,), activation="maxout", pieces=2, init_std=2.0)
    blueprint = plan(
        encoder=EncoderConfig(activation="sigmoid", hidden=(7,)),
        decoder=LayersConfig(hidden=(5, 9)),
        discriminator=maxout,
    )
    encoder, decoder, judge = blueprint.encoder(3).mlp, blueprint.decoder(3), blueprint.mlp(3, 1)
    shapes = [[tuple(layer.weight.shape) for layer in n.layers] for n in (encoder, decoder, judge)]
    assert shapes == [[(7, 20), (3, 7)], [(5, 3), (9, 5), (20, 9)], [(12, 3), (1, 6)]]
    assert [net.activation for net in (encoder, decoder, judge)] == ["sigmoid", "relu", "maxout"]
    wide = plan(hidden=(200,), discriminator=NetworkConfig(init_std=2.0))
    assert wide.mlp(50, 1).layers[0].weight.std().item() == pytest.approx(2, rel=0.05)
    assert wide.decoder(50).layers[0].weight.std().item() == pytest.approx(0.3, rel=0.05)


def test_input_dropout_needs_training_mode_and_a_stream() -> None:
    net = MLP([6, 4], constant, input_dropout=0.5)
    x = torch.randn(8, 6, generator=stream(1))
    want = net.layers[0](drop(x, 0.5, stream(2)))
    assert torch.equal(net(x, stream(2)), want)
    assert torch.equal(net(x), net.layers[0](x))
    assert torch.equal(net.eval()(x, stream(2)), net.layers[0](x))


def test_mlp_output_layer_is_linear() -> None:
    outputs = plan(hidden=(3,), init_std=1.0).mlp(2, 1)(torch.randn(100, 2, generator=stream(1)))
    assert outputs.min() < 0 < outputs.max()


def test_mlp_without_hidden_layers_is_linear() -> None:
    assert [tuple(p.shape) for p in plan(hidden=()).mlp(5, 2).parameters()] == [(2, 5), (2,)]


def test_batch_norm_follows_every_layer_including_the_last() -> None:
    net = MLP([3, 5, 2], constant, batch_norm=True)
    assert [norm.num_features for norm in net.norms] == [5, 2]
    outputs = net(torch.randn(200, 3, generator=stream(1)))
    torch.testing.assert_close(outputs.mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(outputs.var(0, correction=0), torch.ones(2), atol=1e-2, rtol=0)


@pytest.mark.parametrize(
    ("batch_norm", "encoder", "decoder"),
    [("none", False, False), ("encoder", True, False), ("autoencoder", True, True)],
)
@pytest.mark.parametrize("channels", [(), (3,)])
def test_batch_norm_is_only_in_the_configured_networks(
    batch_norm: str, encoder: bool, decoder: bool, channels: tuple[int, ...]
) -> None:
    def normed(net: nn.Module) -> bool:
        return any(isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) for m in net.modules())

    blueprint = plan(shape=(4, 4), batch_norm=batch_norm, channels=channels)
    nets = (blueprint.encoder(3), blueprint.decoder(3), blueprint.mlp(3, 1))
    assert [normed(net) for net in nets] == [encoder, decoder, False]


def test_hidden_dropout_needs_training_mode_and_a_stream() -> None:
    net = MLP([6, 50, 50, 4], constant, dropout=0.5)
    x = torch.randn(8, 6, generator=stream(1))
    still = net(x)
    assert not torch.equal(net(x, stream(2)), still)
    assert torch.equal(net(x, stream(2)), net(x, stream(2)))
    assert torch.equal(net.eval()(x, stream(2)), still)
    one_layer = MLP([6, 4], constant, dropout=0.9)
    assert torch.equal(one_layer(x, stream(2)), one_layer(x))


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_drop_keeps_the_mean_and_zeroes_the_given_share(share: float) -> None:
    x = torch.full((400, 500), 3.0)
    dropped = drop(x, share, stream())
    assert (dropped == 0).double().mean().item() == pytest.approx(share, abs=0.005)
    assert dropped.mean().item() == pytest.approx(3, rel=0.01)
    kept = dropped[dropped > 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 3 / (1 - share)))


@pytest.mark.parametrize(
    ("shape", "channels"),
    [((32, 32, 3), (4, 8, 16)), ((48, 48), (4, 8)), ((28, 28), (2, 3)), ((8, 16, 1), (5, 2, 3))],
)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_convolutions_halve_and_deconvolutions_double_the_sides(
    shape: tuple[int, ...], channels: tuple[int, ...], batch_norm: bool
) -> None:
    factor = 2 ** len(channels)
    down = Convolutions(shape, channels, batch_norm, constant)
    up = Deconvolutions(shape, channels, batch_norm, constant)
    x = torch.rand(2, int(np.prod(shape)), generator=stream())
    assert down.out_dim == up.in_dim == channels[-1] * shape[0] * shape[1] // factor**2
    features = down(x)
    assert features.shape == (2, down.out_dim)
    assert features.min() >= 0
    images = up(features)
    assert images.shape == x.shape
    assert images.min() < 0


def test_convolutions_read_pixels_by_row_column_and_channel() -> None:
    """Test that a pixel of (H, W, C) activates the features around it by its channel's weights."""
    net = Convolutions((8, 8, 3), (1,), False, lambda weight: nn.init.ones_(weight))
    with torch.no_grad():
        net.layers[0].weight[:, [0, 2]] = 0  # only green has weights
    for channel, seen in enumerate((False, True, False)):
        image = torch.zeros(8, 8, 3)
        image[5, 2, channel] = 1
        lit = net(image.reshape(1, -1)).reshape(4, 4).nonzero().tolist()
        # kernel 4, stride 2, padding 1: output i reads rows 2i−1 … 2i+2
        assert lit == ([[2, 0], [2, 1], [3, 0], [3, 1]] if seen else [])


def test_encoder_extra_inputs_bypass_the_convolutions() -> None:
    net = plan((8, 8), channels=(3,)).encoder(2, extra=5)
    x = torch.rand(4, 64, generator=stream())
    eta = torch.randn(4, 5, generator=stream(1))
    got = net(torch.cat([x, eta], -1))
    assert net.trunk is not None
    want = net.mlp(torch.cat([net.trunk(x), eta], -1))
    assert torch.equal(got, want)


def test_decoder_mirrors_the_encoder() -> None:
    blueprint = plan((4, 5), hidden=(12, 8))
    widths = [tuple(layer.weight.shape) for layer in blueprint.decoder(3).layers]
    assert widths == [(8, 3), (12, 8), (20, 12)]
    assert all(a[0] == b[1] for a, b in pairwise(widths))
    convolutional = plan((8, 8, 3), hidden=(12,), channels=(2, 4)).decoder(3)
    assert convolutional(torch.randn(5, 3, generator=stream())).shape == (5, 192)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((28, 28), "3 layers need a height and width that 8 divides"), ((784,), r"\(H, W\)")],
)
def test_convolutions_reject_images_that_cannot_be_halved(
    shape: tuple[int, ...], message: str
) -> None:
    for build in (lambda p: p.encoder(2), lambda p: p.decoder(2)):
        with pytest.raises(ConfigError, match=message) as caught:
            build(plan(shape, channels=(2, 2, 2)))
        assert list(caught.value.problems) == ["model.channels"]


def test_bfloat16_products_agree_on_processors_with_and_without_bfloat16(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def values_and_gradients(*, multiplies_bfloat16: bool) -> list[Tensor]:
        monkeypatch.setattr(networks, "_CPU_MULTIPLIES_BFLOAT16", multiplies_bfloat16)
        mlp = MLP([40, 30, 20], constant, low_precision=True)
        x = torch.rand(16, 40, generator=stream(1)).requires_grad_()
        y = mlp(x)
        y.square().sum().backward()
        return [y.detach(), *(p.grad for p in (x, *mlp.parameters()) if p.grad is not None)]

    with_, without = (values_and_gradients(multiplies_bfloat16=have) for have in (True, False))
    assert len(with_) == len(without) == 6
    for expected, found in zip(with_, without, strict=True):
        assert found.dtype == torch.float32
        assert torch.equal(found, found.bfloat16().float()), "not rounded to bfloat16"
        assert (found - expected).norm() <= 1e-3 * expected.norm()
