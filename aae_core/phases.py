"""The phases of one adversarial-autoencoder step, each one cost and the nets that it moves.

Shapes: B batch, D pixels, L code.  Units: reconstruction ½‖x̂ − x‖² per image, the adversarial
costs nats per code, all means over B.  The generator's cost is the non-saturating one.
"""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.optim import Optimizer


class Autoencoder(Protocol):
    def encode(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor: ...

    def decode(self, z: Tensor) -> Tensor: ...


class State(Protocol):
    """What a phase needs of the training state."""

    @property
    def optimizers(self) -> Mapping[str, Optimizer]: ...

    @property
    def streams(self) -> Mapping[str, torch.Generator]: ...  # "noise" of q(z|x), "prior" of p(z)


def reconstruction_cost(x_hat: Tensor, x: Tensor) -> Tensor:
    """½‖x̂ − x‖², *summed* over pixels (a mean's gradient is D times too small to train)."""
    return 0.5 * (x_hat - x).square().sum() / len(x)


def discriminator_cost(real: Tensor, fake: Tensor) -> Tensor:
    """−log D(z_p) − log(1 − D(z_q)), from logits (B, 1)."""
    return softplus(-real).mean() + softplus(fake).mean()


def generator_cost(fake: Tensor) -> Tensor:
    """−log D(z_q): non-saturating (Goodfellow et al. 2014)."""
    return softplus(-fake).mean()


def reconstruction_phase(s: State, model: Autoencoder, x: Tensor) -> Tensor:
    """Encoder and decoder move."""
    cost = reconstruction_cost(model.decode(model.encode(x, generator=s.streams["noise"])), x)
    return _descend(s.optimizers["reconstruction"], cost)


def discriminator_phase(
    s: State, discriminator: nn.Module, z_p: Tensor, z_q: Tensor, *, block: str
) -> Tensor:
    """The discriminator moves; `z_q` comes detached from the encoder."""
    cost = discriminator_cost(discriminator(z_p), discriminator(z_q.detach()))
    return _descend(s.optimizers[f"disc_{block}"], cost)


def generator_phase(s: State, discriminator: nn.Module, z_q: Tensor, *, block: str) -> Tensor:
    """The encoder, as generator, moves through `z_q`; the discriminator gets no gradient."""
    return _descend(s.optimizers[f"gen_{block}"], generator_cost(discriminator(z_q)))


def _descend(optimizer: Optimizer, cost: Tensor) -> Tensor:
    params = [p for group in optimizer.param_groups for p in group["params"]]
    optimizer.zero_grad()
    cost.backward(inputs=params)
    optimizer.step()
    return cost.detach()
