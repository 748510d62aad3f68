"""Batches of training images, permuted in every epoch by the state's random streams."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from aae_core.config import TrainConfig, TrialConfig
from aae_core.data import TrainingData, unit_interval
from aae_core.data.normalise import Pixels
from aae_core.data.resident import resident
from aae_core.data.splits import labelled
from aae_core.declarations import ARCHITECTURES
from aae_core.networks import drop
from aae_core.phases import Batch
from aae_core.streams import permutations
from aae_core.training.state import TrainState


@dataclass(frozen=True)
class BatchSource:
    """Training images on the device; `y` is −1 if the label is hidden from the trial."""

    x: Tensor  # (n, D)
    y: Tensor  # (n,)
    labelled: Tensor  # indices of labelled images for separate batches; may be empty

    @classmethod
    def of(cls, state: TrainState, data: TrainingData) -> "BatchSource":
        visible = torch.tensor(visible_labels(state.config, data), dtype=torch.int64)
        x, y = data.x_train, torch.full((len(data.x_train),), -1)
        if data.y_train is not None:
            y[visible] = resident(data.y_train, "cpu")[visible]
        labels = ARCHITECTURES[state.config.model.kind].labels
        if labels == "only":
            x, y = x[visible.numpy()], y[visible]
        if labels == "only" or "classification" not in state.optimizers:
            visible = visible[:0]
        return cls(resident(x, state.device), y.to(state.device), visible.to(state.device))

    def batches(self, state: TrainState) -> Iterator[Batch]:
        """Yield the batches of one epoch, without an incomplete last batch."""
        config, streams, pixels = state.config.training, state.streams, state.model.pixels
        size = min(config.batch_size, len(self.x))
        steps = len(self.x) // size
        order = permutations(len(self.x), steps * size, streams["batches"]).split(size)
        extra = self._labelled_order(config, steps, streams["labelled"])
        for step, indices in enumerate(order):
            x = pixels(unit_interval(self.x[indices]))
            noisy = corrupt(x, config, streams["corruption"])
            pair = None if extra is None else self._pair(extra[step], config, streams, pixels)
            yield Batch(x, noisy, self.y[indices], pair)

    def _labelled_order(
        self, config: TrainConfig, steps: int, stream: torch.Generator
    ) -> tuple[Tensor, ...] | None:
        n = len(self.labelled)
        if n == 0:
            return None
        size = min(config.batch_size, n)
        order = permutations(n, steps * size, stream)
        return torch.split(self.labelled[order], size)

    def _pair(
        self,
        indices: Tensor,
        config: TrainConfig,
        streams: dict[str, torch.Generator],
        pixels: Pixels,
    ) -> tuple[Tensor, Tensor]:
        x = pixels(unit_interval(self.x[indices]))
        return corrupt(x, config, streams["corruption"]), self.y[indices]


def visible_labels(config: TrialConfig, data: TrainingData) -> list[int]:
    """Return the indices of the training images whose label this trial sees.

    Raises ConfigError if the data have too few labels.
    """
    if ARCHITECTURES[config.model.kind].labels == "none":
        return []
    indices: list[int] = labelled(data.y_train, config.data.labels, config.seed).tolist()
    return indices


def corrupt(x: Tensor, config: TrainConfig, stream: torch.Generator) -> Tensor:
    """Return the encoder's input in training: x plus Gaussian noise, then pixels set to 0."""
    if config.input_noise > 0:
        size, device = x.shape, x.device
        x = x + config.input_noise * torch.randn(size, generator=stream, device=device)
    return drop(x, config.input_dropout, stream) if config.input_dropout > 0 else x
