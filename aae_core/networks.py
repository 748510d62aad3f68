"""Bodies of encoder, decoder, discriminator and matcher: hidden layers, linear output.

Shapes: B batch, D = H·W·C pixels, E further inputs of an encoder (noise η), O output.
Weights are N(0, init_std²), biases 0.  `noise` is the stream of dropout masks, used in training.
The paper's hidden layers use ReLU (appendix A).  Other papers' networks use sigmoid or maxout
(Goodfellow et al. 2013, arXiv:1302.4389).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from aae_core.config import Activation, LayersConfig, ModelConfig, NetworkConfig
from aae_core.errors import ConfigError

Draw: TypeAlias = Callable[[Tensor], object]  # fills a weight tensor in place

_KERNEL, _STRIDE, _PADDING = 4, 2, 1  # halves height and width, or doubles them
_CPU_MULTIPLIES_BFLOAT16 = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@dataclass(frozen=True)
class Blueprint:
    """Inputs of a model's construction: settings, image shape, and the stream of its weights."""

    config: ModelConfig
    image_shape: tuple[int, ...]
    classes: int  # number of classes, 0 if the trial sees no labels
    standardise: bool
    generator: torch.Generator
    low_precision: bool = False
    shares_optimizer: bool = False  # see TrainConfig.shares_optimizer

    @property
    def dim(self) -> int:
        return math.prod(self.image_shape)

    def encoder(self, out_dim: int, extra: int = 0) -> "Encoder":
        """Build an encoder (B, D + E) -> (B, O)."""
        config, normed = self.config, self.config.batch_norm != "none"
        trunk = None
        if config.channels:
            draw = self._draw(config.encoder)
            trunk = Convolutions(self.image_shape, config.channels, normed, draw)
        width = self.dim if trunk is None else trunk.out_dim
        widths = [width + extra, *config.widths(config.encoder), out_dim]
        mlp = self._mlp(config.encoder, widths, batch_norm=normed, dropout=config.dropout)
        return Encoder(self.dim, trunk, mlp)

    def decoder(self, in_dim: int) -> nn.Module:
        """Build a decoder (B, in_dim) -> (B, D), by default the encoder's mirror image."""
        config, normed = self.config, self.config.batch_norm == "autoencoder"
        widths = [in_dim, *config.decoder_widths]
        if not config.channels:
            return self._mlp(config.decoder, [*widths, self.dim], batch_norm=normed)
        draw = self._draw(config.decoder)
        up = Deconvolutions(self.image_shape, config.channels, normed, draw)
        mlp = self._mlp(config.decoder, [*widths, up.in_dim], batch_norm=normed)
        return nn.Sequential(mlp, nn.ReLU(), up)

    def mlp(self, in_dim: int, out_dim: int, net: NetworkConfig | None = None) -> "MLP":
        """Build (B, in_dim) -> (B, out_dim) without batch norm: a discriminator, or `net`."""
        net = self.config.discriminator if net is None else net
        widths = [in_dim, *self.config.widths(net), out_dim]
        return self._mlp(net, widths, dropout=net.dropout, input_dropout=net.input_dropout)

    def _mlp(
        self,
        net: LayersConfig,
        widths: Sequence[int],
        *,
        batch_norm: bool = False,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
    ) -> "MLP":
        return MLP(
            widths,
            self._draw(net),
            activation=net.activation,
            pieces=net.pieces,
            batch_norm=batch_norm,
            dropout=dropout,
            input_dropout=input_dropout,
            low_precision=self.low_precision,
        )

    def _draw(self, net: LayersConfig) -> Draw:
        std = self.config.init_std if net.init_std is None else net.init_std
        return partial(nn.init.normal_, std=std, generator=self.generator)


class MLP(nn.Module):
    """Multilayer perceptron (B, widths[0]) -> (B, widths[-1]).

    pieces: linear outputs per maxout unit, which returns their maximum.
    low_precision: matrix products use bfloat16 in training; all other values stay float32.
    """

    def __init__(
        self,
        widths: Sequence[int],
        draw: Draw,
        *,
        activation: Activation = "relu",
        pieces: int = 1,
        batch_norm: bool = False,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        low_precision: bool = False,
    ) -> None:
        super().__init__()
        self.activation: Activation = activation
        self.pieces = pieces if activation == "maxout" else 1
        self.dropout = dropout
        self.input_dropout = input_dropout
        self.low_precision = low_precision
        *hidden, last = widths[1:]
        outputs = [width * self.pieces for width in hidden] + [last]
        self.layers = nn.ModuleList(
            _drawn(nn.Linear(fan_in, fan_out), draw)
            for fan_in, fan_out in zip(widths, outputs, strict=False)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(n) for n in outputs if batch_norm)

    def forward(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        for i in range(len(self.layers)):
            x = self.layer(i, x, noise)
        return x

    def layer(self, i: int, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        """Apply only layer i: dropout of its inputs, product, batch norm, activation."""
        layer, share = self.layers[i], self.dropout if i > 0 else self.input_dropout
        if self.training and share > 0 and noise is not None:
            x = drop(x, share, noise)
        x = _in_bfloat16(layer, x) if self.low_precision and self.training else layer(x)
        if self.norms:
            x = self.norms[i](x)
        return x if i == len(self.layers) - 1 else self._activate(x)

    def _activate(self, x: Tensor) -> Tensor:
        match self.activation:
            case "relu":
                return torch.relu(x)
            case "sigmoid":
                return torch.sigmoid(x)
            case "maxout":
                pieces: Tensor = x.unflatten(-1, (-1, self.pieces))
                return pieces.amax(-1)


class Encoder(nn.Module):
    """An MLP on pixels or on convolutional features: (B, D + E) -> (B, O)."""

    def __init__(self, dim: int, trunk: "Convolutions | None", mlp: MLP) -> None:
        super().__init__()
        self.dim = dim
        self.trunk = trunk
        self.mlp = mlp

    def forward(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        if self.trunk is not None:
            pixels, extra = x[:, : self.dim], x[:, self.dim :]
            x = torch.cat([self.trunk(pixels), extra], dim=-1)
        y: Tensor = self.mlp(x, noise)
        return y


class Convolutions(nn.Module):
    """Convolutions (B, H·W·C) -> (B, features); each layer halves height and width."""

    def __init__(
        self, image_shape: Sequence[int], channels: Sequence[int], batch_norm: bool, draw: Draw
    ) -> None:
        super().__init__()
        self.height, self.width, self.depth = _height_width_depth(image_shape)
        self.layers = nn.Sequential(
            *_stack(nn.Conv2d, (self.depth, *channels), batch_norm, draw), nn.ReLU()
        )
        self.out_dim = channels[-1] * math.prod(_smallest(image_shape, channels))

    def forward(self, x: Tensor) -> Tensor:
        images = x.view(-1, self.height, self.width, self.depth).permute(0, 3, 1, 2)
        features: Tensor = self.layers(images).flatten(1)
        return features


class Deconvolutions(nn.Module):
    """Mirror image of Convolutions: (B, features) -> (B, H·W·C)."""

    def __init__(
        self, image_shape: Sequence[int], channels: Sequence[int], batch_norm: bool, draw: Draw
    ) -> None:
        super().__init__()
        depth = _height_width_depth(image_shape)[2]
        self.smallest = (channels[-1], *_smallest(image_shape, channels))
        self.in_dim = math.prod(self.smallest)
        widths = (*channels[::-1], depth)
        self.layers = nn.Sequential(*_stack(nn.ConvTranspose2d, widths, batch_norm, draw))

    def forward(self, x: Tensor) -> Tensor:
        images = self.layers(x.view(-1, *self.smallest))
        pixels: Tensor = images.permute(0, 2, 3, 1).flatten(1)
        return pixels


def _in_bfloat16(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a layer to factors rounded to bfloat16; output and gradients are rounded as well.

    A processor without bfloat16 products multiplies the rounded factors in float32: PyTorch's own
    bfloat16 product takes some 40 times longer there.
    """
    assert isinstance(layer, nn.Linear)
    factors = x.bfloat16(), layer.weight.bfloat16(), layer.bias.bfloat16()
    if x.device.type == "cpu" and not _CPU_MULTIPLIES_BFLOAT16:
        return linear(*(factor.float() for factor in factors)).bfloat16().float()
    return linear(*factors).float()


def drop(x: Tensor, share: float, noise: torch.Generator) -> Tensor:
    """Set a random share of x to 0, scale up the other entries (Srivastava et al. 2014)."""
    kept = torch.empty_like(x).bernoulli_(1 - share, generator=noise)
    return x * kept.div_(1 - share)


def _stack(
    kind: type[nn.Conv2d] | type[nn.ConvTranspose2d],
    channels: Sequence[int],
    batch_norm: bool,
    draw: Draw,
) -> list[nn.Module]:
    """Build layers from each number of channels to the next, with ReLU between them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers += [nn.ReLU()] if layers else []
        layers.append(_drawn(kind(before, after, _KERNEL, _STRIDE, _PADDING), draw))
        layers += [nn.BatchNorm2d(after)] if batch_norm else []
    return layers


def _drawn(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d, draw: Draw) -> nn.Module:
    assert layer.bias is not None
    draw(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _height_width_depth(image_shape: Sequence[int]) -> tuple[int, int, int]:
    match tuple(image_shape):
        case (height, width):
            return height, width, 1
        case (height, width, depth):
            return height, width, depth
    raise ConfigError({"model.channels": "convolutions need images of (H, W) or (H, W, C)"})


def _smallest(image_shape: Sequence[int], channels: Sequence[int]) -> tuple[int, int]:
    height, width, _ = _height_width_depth(image_shape)
    factor = _STRIDE ** len(channels)
    if height % factor or width % factor:
        raise ConfigError(
            {
                "model.channels": f"{len(channels)} layers need a height and width that "
                f"{factor} divides; these images are {height} x {width}"
            }
        )
    return height // factor, width // factor
