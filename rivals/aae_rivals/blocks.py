"""Blocks that several rivals share.

Shapes: B batch, D pixels, K classes.
"""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

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


def linear(plan: Blueprint, fan_in: int, fan_out: int, *, bias: bool = True) -> nn.Linear:
    """Build a layer with weights N(0, 1/inputs) and biases 0."""
    layer = nn.Linear(fan_in, fan_out, bias=bias)
    nn.init.normal_(layer.weight, std=fan_in**-0.5, generator=plan.generator)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


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
