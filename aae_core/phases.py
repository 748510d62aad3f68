"""Phases of a training step: each phase minimises one cost by updating some of the nets.

Shapes: B batch, D pixels, L code, K categories.  Units: reconstruction ½‖x̂ − x‖² per image,
adversarial costs and cross-entropy nats per image, all means over B.  In a pack (`training.pack`)
every shape has one more leading dimension, the members; each member has its own costs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import softplus
from torch.optim import Optimizer

from aae_core.config import TrainConfig
from aae_core.streams import standard_normal

Costs = dict[str, Tensor]  # by metric name, scalars without a gradient


@dataclass(frozen=True)
class Batch:
    """Data of one training step.  Images are in [0, 1], or standardised."""

    x: Tensor  # (B, D)
    noisy: Tensor  # (B, D), x with input noise and dropout: the encoder's input
    y: Tensor  # (B,) the class, −1 if hidden from the trial
    labelled: tuple[Tensor, Tensor] | None = None  # separate batch: noisy images, classes


@dataclass(frozen=True)
class Adversary:
    """A discriminator that separates draws of a prior from the generator's output."""

    name: str  # the variable that it separates: z, y or x
    discriminator: Callable[[Tensor], Tensor]  # points (B, ·) to logits (B, 1)
    real: Tensor
    fake: Tensor  # with the generator's gradient


Game = Callable[[], Sequence[Adversary]]  # each call draws new samples of the priors


class State(Protocol):
    """The part of the training state that a phase uses."""

    @property
    def training(self) -> TrainConfig: ...  # in a pack: the members' common settings

    @property
    def optimizers(self) -> Mapping[str, Optimizer]: ...

    @property
    def streams(self) -> Mapping[str, torch.Generator]: ...  # "noise" of q(z|x), "prior" of p(z)

    @property
    def progress(self) -> float:
        """Share of finished epochs, in [0, 1)."""


def reconstruction_cost(x_hat: Tensor, x: Tensor) -> Tensor:
    """Return ½‖x̂ − x‖², *summed* over pixels (a mean's gradient is D times too small to train)."""
    return 0.5 * (x_hat - x).square().sum((-2, -1)) / x.shape[-2]


def discriminator_cost(real: Tensor, fake: Tensor) -> Tensor:
    """Return −log D(z_p) − log(1 − D(z_q)), from logits (B, 1)."""
    return softplus(-real).mean((-2, -1)) + softplus(fake).mean((-2, -1))


def generator_cost(fake: Tensor) -> Tensor:
    """Return the non-saturating −log D(z_q) (Goodfellow et al. 2014), from logits (B, 1)."""
    return softplus(-fake).mean((-2, -1))


def classification_cost(logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy −log q(y|x) of logits (B, K) and classes y (B,)."""
    return -logits.log_softmax(-1).gather(-1, y[..., None]).mean((-2, -1))


def reconstruction_phase(
    s: State, x_hat: Tensor, x: Tensor, penalty: Tensor | None = None
) -> Costs:
    """Update encoder and decoder; `penalty` is added to their cost."""
    cost = reconstruction_cost(x_hat, x)
    descend(s.optimizers["reconstruction"], cost if penalty is None else cost + penalty)
    return {"train/recon": cost.detach()}


def regularisation_phase(s: State, game: Game) -> Costs:
    """Update the discriminators, then the generator against the updated discriminators."""
    adversaries, costs = _train_discriminators(s, game)
    return costs | generator_phase(s, adversaries)


def discriminator_phase(s: State, adversaries: Sequence[Adversary]) -> Costs:
    """Update every discriminator; the generator gets no gradient."""
    costs = {f"train/disc_{a.name}": discriminator_cost(*_logits(s, a)) for a in adversaries}
    return _descend_sum(s.optimizers["discriminator"], costs)


def generator_phase(s: State, adversaries: Sequence[Adversary]) -> Costs:
    """Update the generator through the fakes; the discriminators get no gradient."""
    return _descend_sum(s.optimizers["generator"], _generator_costs(s, adversaries))


def joint_phase(
    s: State,
    x_hat: Tensor,
    x: Tensor,
    game: Game,
    penalty: Tensor | None = None,
) -> Costs:
    """Update the discriminators, then encoder and decoder, all from one pass of the encoder.

    The paper's phases follow one another.  Here reconstruction and generator compute their
    gradients at the same weights, and each updates the encoder at its own optimiser's rate.
    """
    adversaries, costs = _train_discriminators(s, game)
    recon, fooled = reconstruction_cost(x_hat, x), _generator_costs(s, adversaries)
    cost = recon if penalty is None else recon + penalty
    if "generator" in s.optimizers:
        _descend_both(s, cost, _sum(fooled))
    else:
        weight = _reach(s.optimizers["discriminator"]) / _reach(s.optimizers["reconstruction"])
        descend(s.optimizers["reconstruction"], cost + weight * _sum(fooled))
    return {"train/recon": recon.detach()} | costs | _detached(fooled)


def classification_phase(s: State, logits: Tensor, y: Tensor) -> Costs:
    """Update q(y|x)."""
    cost = classification_cost(logits, y)
    return _descend_sum(s.optimizers["classification"], {"train/class": cost})


def descend(optimizer: Optimizer, cost: Tensor) -> None:
    """Take one step on the optimiser's own parameters; no other parameter gets a gradient."""
    _differentiate(optimizer, cost)
    optimizer.step()


def _descend_both(s: State, recon: Tensor, fooled: Tensor) -> None:
    """Take one step of each optimiser, after computing both gradients at the same weights."""
    generator = s.optimizers["generator"]
    params = _differentiate(generator, fooled, retain_graph=True)
    gradients = [p.grad for p in params]
    descend(s.optimizers["reconstruction"], recon)
    for p, gradient in zip(params, gradients, strict=True):
        p.grad = gradient
    generator.step()


def _differentiate(
    optimizer: Optimizer, cost: Tensor, *, retain_graph: bool = False
) -> list[Tensor]:
    """Compute the gradients of the optimiser's parameters; return these parameters."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    optimizer.zero_grad()
    cost.backward(torch.ones_like(cost), retain_graph=retain_graph, inputs=params)
    return params


def _reach(optimizer: Optimizer) -> float | Tensor:
    """Total distance that SGD moves a weight by one gradient, in units of that gradient."""
    group = optimizer.param_groups[0]
    reach: float | Tensor = group["lr"] / (1 - group["momentum"])
    return reach


def _train_discriminators(s: State, game: Game) -> tuple[Sequence[Adversary], Costs]:
    """Take `discriminator_steps` steps on the batch; return first adversaries and last costs.

    Further steps use new draws of the priors.  An autoencoder's fakes stay the same codes: no step
    updates the encoder, so new codes would cost a pass and add little information.
    """
    adversaries = game()
    costs = discriminator_phase(s, adversaries)
    for _ in range(1, s.training.discriminator_steps):
        with torch.no_grad():
            again = game()
        costs = discriminator_phase(s, again)
    return adversaries, costs


def _logits(s: State, a: Adversary) -> tuple[Tensor, Tensor]:
    """Return the logits of real and fake, computed in one product, which is faster than two.

    One product gives the same logits, since discriminators have no batch norm.
    """
    both = torch.cat([a.real, a.fake.detach()], dim=-2)
    real, fake = _judge(s, a, both).split([a.real.shape[-2], a.fake.shape[-2]], dim=-2)
    return real, fake


def _judge(s: State, a: Adversary, x: Tensor) -> Tensor:
    """Return the logits (B, 1) of points (B, ·), after adding instance noise if configured.

    Noise makes the supports of real and fake overlap (Sønderby et al. 2016, arXiv:1610.04490).
    """
    std = s.training.discriminator_noise
    if std > 0:
        x = x + std * standard_normal(x.shape, s.streams["noise"])
    return a.discriminator(x)


def _generator_costs(s: State, adversaries: Sequence[Adversary]) -> Costs:
    return {f"train/gen_{a.name}": generator_cost(_judge(s, a, a.fake)) for a in adversaries}


def _descend_sum(optimizer: Optimizer, costs: Costs) -> Costs:
    descend(optimizer, _sum(costs))
    return _detached(costs)


def _sum(costs: Costs) -> Tensor:
    return torch.stack(list(costs.values())).sum(0)


def _detached(costs: Costs) -> Costs:
    return {name: cost.detach() for name, cost in costs.items()}
