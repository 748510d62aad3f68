"""Blocks that several rivals share.

Shapes: B batch, D pixels, K classes.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from aae_core.errors import ConfigError
from aae_core.models.base import Model, Objectives
from aae_core.networks import Blueprint
from aae_core.phases import Batch


class Classifying(Model):
    """A model that one optimiser trains on labelled and unlabelled images together."""

    def objectives(self) -> Objectives:
        # `Batch.labelled` is only there for models with an optimiser of this name.
        return {"classification": ("classification", (self,))}

    @abstractmethod
    def logits(self, x: Tensor) -> Tensor:
        """Return the logits of p(y|x), (B, K), of images (B, D) in the networks' scale."""

    def classify(self, x: Tensor) -> Tensor:
        """Return p(y|x), (B, K), of images (B, D)."""
        return self.logits(self.pixels(x)).softmax(-1)


def labelled(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the labelled images of a step, (B, D) with input noise, and their classes (B,)."""
    assert batch.labelled is not None
    return batch.labelled


@contextmanager
def batch_statistics(net: nn.Module) -> Iterator[None]:
    """Keep the running statistics of batch norm; in training, only the batch itself counts.

    Only the pass of clean unlabelled images may move these statistics, since a model is evaluated
    on clean images, too.
    """
    norms = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def linear(
    plan: Blueprint, fan_in: int, fan_out: int, *, bias: bool = True, std: float | None = None
) -> nn.Linear:
    """Build a layer with weights N(0, std²), by default N(0, 1/inputs), and biases 0."""
    layer = nn.Linear(fan_in, fan_out, bias=bias)
    std = fan_in**-0.5 if std is None else std
    nn.init.normal_(layer.weight, std=std, generator=plan.generator)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


class SoftplusNet(nn.Module):
    """Layers with softplus between them, (…, widths[0]) -> (…, widths[-1])."""

    def __init__(self, plan: Blueprint, widths: Sequence[int], std: float | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(linear(plan, m, n, std=std) for m, n in pairwise(widths))

    def forward(self, x: Tensor, shift: Tensor | float = 0.0) -> Tensor:
        """Apply the layers; `shift` is added to the first product."""
        first, *above = self.layers
        h: Tensor = first(x) + shift
        for layer in above:
            h = layer(softplus(h))
        return h


def half_squares(net: nn.Module) -> Tensor:
    """Return ½‖W‖² of all weights of a net, without its biases."""
    weights = [p for p in net.parameters() if p.ndim > 1]
    return 0.5 * torch.stack([w.square().sum() for w in weights]).sum()


def binary(x: Tensor, noise: torch.Generator) -> Tensor:
    """Draw binary images; the pixels of x (B, D) are probabilities, cut off at 0 and 1."""
    return torch.bernoulli(x.clamp(0, 1), generator=noise)


def bernoulli_log_likelihood(logits: Tensor, x: Tensor) -> Tensor:
    """Return log p(x) of binary images: logits and x (…, D) -> (…)."""
    return (x * logits - softplus(logits)).sum(-1)


def need_probabilities(plan: Blueprint) -> None:
    """Raise ConfigError unless the images are probabilities of binary pixels."""
    if plan.config.output != "sigmoid" or plan.standardise:
        raise ConfigError(
            {"model.output": f"the pixels of {plan.config.kind} are binary; set sigmoid"}
        )


def refuse(plan: Blueprint, **reads: bool) -> None:
    """Raise ConfigError for common settings that the model would leave without effect.

    reads: the settings that the model does read, as `channels=True`.
    """
    config, kind = plan.config, plan.config.kind
    given = {
        "channels": ("model.channels", bool(config.channels)),
        "batch_norm": ("model.batch_norm", config.batch_norm != "none"),
        "dropout": ("model.dropout", config.dropout > 0),
        "precision": ("training.precision", plan.low_precision),
    }
    problems = {
        path: f"{kind} does not read this; drop it"
        for name, (path, changed) in given.items()
        if changed and not reads.get(name, False)
    }
    if problems:
        raise ConfigError(problems)
