"""Plain references: small trials, their batches, and the comparison with our training.

A reference reads the weights of a second state with equal seeds, and its random streams. The
reference computes layers, batch norm, costs and steps on its own.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal, kl_divergence
from torch.optim import SGD, Adam, Optimizer

from aae_core.config import TrialConfig
from aae_core.phases import Batch
from aae_core.testing import CLASSES, images
from aae_core.training import TrainState, fit
from aae_core.training.batches import visible_labels

BATCH, EPOCHS, STEPS = 20, 17, 50  # three steps an epoch
NEAR = {"rel": 1e-5, "abs": 1e-6}
RATES = {"sgd": 0.02, "adam": 1e-3}

Losses = dict[str, Tensor]


@dataclass
class Seen:
    """Images of one step: clean and noisy ones, and labelled noisy ones with their classes."""

    x: Tensor
    noisy: Tensor
    labelled: Tensor
    y: Tensor
    known: Tensor  # classes of x, −1 if hidden from the trial

    def batch(self) -> Batch:
        return Batch(self.x, self.noisy, self.known, labelled=(self.labelled, self.y))


Build = Callable[[Iterable[Tensor]], Optimizer]  # builds the trial's optimiser of these weights
Step = Callable[[TrainState, Seen], Losses]
Reference = Callable[[TrainState, Build], Step]


def trial(
    kind: str, optimizer: str = "adam", labels: int = 2 * CLASSES, **model: Any
) -> TrialConfig:
    rate = {"optimizer": optimizer, "lr": RATES[optimizer], "momentum": 0.9}
    return TrialConfig.from_dict(
        {
            "data": {"labels": 2 * CLASSES},
            "model": {"kind": kind, "hidden": [12, 8], "code_dim": 3, "init_std": 0.3} | model,
            "training": {
                "epochs": EPOCHS,
                "batch_size": BATCH,
                "reconstruction": rate,
                "classification": rate,
                "adversarial": rate,
                "input_noise": 0.1,
            },
            "seed": 5,
        }
    )


def start(config: TrialConfig) -> TrainState:
    state = TrainState.create(config, images())
    state.model.train()
    return state


def batches(state: TrainState) -> Iterator[Seen]:
    """Yield the batches of one epoch."""
    data, streams = images(), state.streams
    x, y = torch.from_numpy(data.x_train) / 255, torch.from_numpy(data.y_train)
    known = torch.tensor(visible_labels(state.config, data))
    visible = torch.full_like(y, -1)
    visible[known] = y[known]
    steps, few = len(x) // BATCH, min(BATCH, len(known))
    order = shuffled(len(x), steps * BATCH, streams["batches"]).split(BATCH)
    turns = known[shuffled(len(known), steps * few, streams["labelled"])].split(few)

    def noisy(images: Tensor) -> Tensor:
        std = state.config.training.input_noise
        return images + std * torch.randn(images.shape, generator=streams["corruption"])

    for now, some in zip(order, turns, strict=True):
        yield Seen(x[now], noisy(x[now]), noisy(x[some]), y[some], visible[now])


def shuffled(n: int, wanted: int, stream: torch.Generator) -> Tensor:
    """Return `wanted` entries of successive permutations of 0 … n−1."""
    turns = [torch.randperm(n, generator=stream) for _ in range(math.ceil(wanted / n))]
    return torch.cat(turns)[:wanted]


def softplus_layers(net: Any, h: Tensor, shift: Tensor | float = 0.0) -> Tensor:
    """Apply the weights of a net's layers; `shift` is added to the first product."""
    for i, layer in enumerate(net.layers):
        h = h @ layer.weight.T + layer.bias + (shift if i == 0 else 0.0)
        h = torch.log1p(h.exp()) if i < len(net.layers) - 1 else h
    return h


def half_squares(net: torch.nn.Module) -> Tensor:
    weights = [value for name, value in net.named_parameters() if name.endswith("weight")]
    return torch.stack([(w**2).sum() / 2 for w in weights]).sum()


def referred_vae(state: TrainState, optimizer: Build, decay: float) -> Callable[[Tensor], Losses]:
    """Return the step of M1's VAE on images (B, D)."""
    vae, noise = state.model.vae, state.streams["noise"]
    descent = optimizer(vae.parameters())

    def step(x: Tensor) -> Losses:
        x = torch.bernoulli(x, generator=noise)
        mean, log_variance = softplus_layers(vae.encoder, x).chunk(2, dim=1)
        q = Normal(mean, (log_variance / 2).exp())
        z = mean + q.scale * torch.randn(mean.shape, generator=noise)
        log_p = Bernoulli(logits=softplus_layers(vae.decoder, z)).log_prob(x).sum(dim=1)
        bound = (log_p - kl_divergence(q, Normal(0.0, 1.0)).sum(dim=1)).mean()
        descent.zero_grad()
        (decay * half_squares(vae) - bound).backward()
        descent.step()
        return {"train/bound_vae": bound}

    return step


def normalised(x: Tensor, eps: float) -> Tensor:
    """Normalise every column of a batch."""
    return (x - x.mean(dim=0)) / torch.sqrt(((x - x.mean(dim=0)) ** 2).mean(dim=0) + eps)


def require_same_losses(
    config: TrialConfig, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, plain = trained(config, monkeypatch), list(referred(config, reference))
    assert len(ours) == len(plain) >= STEPS
    for step, (got, want) in enumerate(zip(ours, plain, strict=True)):
        assert got.keys() == want.keys()
        for name, loss in got.items():
            wanted = pytest.approx(want[name].item(), **NEAR)
            assert loss.item() == wanted, f"{name} of step {step}"


def referred(config: TrialConfig, reference: Reference) -> Iterator[Losses]:
    state, kind = start(config), config.training.classification.optimizer
    lr, momentum = config.training.classification.lr, config.training.classification.momentum

    def optimizer(parameters: Iterable[Tensor]) -> Optimizer:
        if kind == "sgd":
            return SGD(parameters, lr, momentum, foreach=False)
        return Adam(parameters, lr, (momentum, 0.999), foreach=False)

    step = reference(state, optimizer)
    for epoch in range(EPOCHS):
        state.epoch = epoch
        for seen in batches(state):
            yield step(state, seen)


def trained(config: TrialConfig, monkeypatch: pytest.MonkeyPatch) -> list[Losses]:
    """Return the losses of every step of `fit`, without validation."""
    monkeypatch.setattr("aae_core.training.loop.validation_metrics", lambda *_: {})
    state, losses = start(config), []
    train_step = state.model.train_step

    def counted(*arguments: Any) -> Losses:
        losses.append(train_step(*arguments))
        return losses[-1]

    monkeypatch.setattr(state.model, "train_step", counted)
    for _ in fit(state, images()):
        pass
    return losses
