"""State of a training: nets, optimisers, random streams, the epoch and its history.

A checkpoint restores the state bit for bit, so a resumed trial equals an uninterrupted one on a
CPU.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, Optimizer

from aae_core import checkpoint
from aae_core.config import OptimizerConfig, TrainConfig, TrialConfig
from aae_core.data import TrainingData
from aae_core.declarations import ARCHITECTURES
from aae_core.errors import CheckpointError
from aae_core.models import Model, build_model
from aae_core.streams import generator
from aae_core.training.schedules import multiplier

_STREAMS = ("batches", "labelled", "corruption", "noise", "prior")


@dataclass
class TrainState:
    config: TrialConfig
    image_shape: tuple[int, ...]
    classes: int  # number of the data's classes, 0 for unlabelled data
    data_sha256: str
    device: torch.device
    model: Model
    optimizers: dict[str, Optimizer]
    streams: dict[str, torch.Generator]
    data_record: dict[str, Any] = field(default_factory=dict)  # of a class's label, and notes
    epoch: int = 0  # number of finished epochs
    history: list[dict[str, Any]] = field(default_factory=list)  # one entry per finished epoch

    @classmethod
    def create(
        cls, config: TrialConfig, data: TrainingData, device: torch.device | str = "cpu"
    ) -> "TrainState":
        """Build the initial state.  Raises ConfigError if the data do not fit the model."""
        state = cls._fresh(config, data.image_shape, data.classes, data.sha256, device)
        if isinstance(state.model, Model):
            state.model.pixels.measure(data.x_train)
        state.data_record = data.record
        return state

    @classmethod
    def _fresh(
        cls,
        config: TrialConfig,
        image_shape: tuple[int, ...],
        classes: int,
        data_sha256: str,
        device: torch.device | str,
    ) -> "TrainState":
        device = torch.device(device)
        init = generator(config.seed, "init")  # on the CPU: same weights for every device
        model = build_model(config, image_shape, classes, generator=init).to(device)
        streams = {name: generator(config.seed, name, device=device) for name in _STREAMS}
        return cls(
            config,
            image_shape,
            classes,
            data_sha256,
            device,
            model,
            _optimizers(model, config),
            streams,
        )

    @property
    def training(self) -> TrainConfig:
        return self.config.training

    @property
    def progress(self) -> float:
        """Share of finished epochs in the training that the next epoch belongs to."""
        training = self.config.training
        return self.epoch / training.end_of(min(self.epoch + 1, training.epochs))

    def set_rates(self) -> dict[str, float]:
        """Set every optimiser's rate for the next epoch; return the rates by group of settings."""
        training, epoch, rates = self.config.training, self.epoch + 1, dict[str, float]()
        for name, (group, _) in self.model.objectives().items():
            settings: OptimizerConfig = getattr(training, group)
            schedule = settings.schedule or training.schedule
            rates[group] = settings.lr * multiplier(schedule, epoch, training.end_of(epoch))
            for param_group in self.optimizers[name].param_groups:
                param_group["lr"] = rates[group]
        return rates

    def save(self, folder: Path) -> None:
        """Write a checkpoint to the new folder `folder`."""
        document = {
            "config": self.config.to_dict(),
            "image_shape": self.image_shape,
            "classes": self.classes,
            "data_sha256": self.data_sha256,
            "data": self.data_record,
            "device": self.device.type,
            "epoch": self.epoch,
            "history": self.history,
        }
        checkpoint.save(folder, self._tensors(), document)

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> "TrainState":
        """Read a checkpoint; on another kind of device, seed new random streams.

        Raises CheckpointError if the checkpoint is missing, damaged or of another version.
        """
        with _as_written(folder) as (tensors, document):
            state = cls._empty(document, device)
            state.data_record = document.get("data", {})
            state.epoch = document["epoch"]
            state.history = document["history"]
            state._restore(tensors, same_device=document.get("device", "cpu") == state.device.type)
        return state

    @classmethod
    def _empty(cls, document: dict[str, Any], device: torch.device | str) -> "TrainState":
        """Build a checkpoint's state as it was before its first step."""
        return cls._fresh(
            TrialConfig.from_dict(document["config"]),
            tuple(document["image_shape"]),
            document["classes"],
            document["data_sha256"],
            device,
        )

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for name, optimizer in self.optimizers.items():
            for index, slots in optimizer.state_dict()["state"].items():
                for slot, value in slots.items():
                    if value is not None:
                        tensors[f"optimizer.{name}.{index}.{slot}"] = value
        for name, stream in self.streams.items():
            tensors[f"stream.{name}"] = stream.get_state()
        return tensors

    def _restore(self, tensors: dict[str, Tensor], *, same_device: bool) -> None:
        self.model.load_state_dict(_below("model", tensors))
        for name, optimizer in self.optimizers.items():
            slots: dict[int, dict[str, Tensor]] = {}
            for key, value in _below(f"optimizer.{name}", tensors).items():
                index, slot = key.split(".", 1)
                slots.setdefault(int(index), {})[slot] = value
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": slots, "param_groups": groups})
        for name, stream in self.streams.items():
            if same_device:
                stream.set_state(tensors[f"stream.{name}"])
            else:  # generators of different devices have incompatible states
                self.streams[name] = generator(
                    self.config.seed, name, self.epoch, device=self.device
                )


def load_model(folder: Path, device: torch.device | str = "cpu") -> Model:
    """Load a checkpoint's model in evaluation mode, without gradients of its weights.

    Raises CheckpointError if the checkpoint is missing, damaged or of another version.
    """
    with _as_written(folder) as (tensors, document):
        model = TrainState._empty(document, device).model
        model.load_state_dict(_below("model", tensors))
    return model.eval().requires_grad_(False)


@contextmanager
def _as_written(folder: Path) -> Iterator[tuple[dict[str, Tensor], dict[str, Any]]]:
    """Yield a checkpoint's contents; raise CheckpointError if they do not fit the current code."""
    contents = checkpoint.load(folder)
    try:
        yield contents
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{folder}: written by another version ({error})") from error


def _optimizers(model: Model, config: TrialConfig) -> dict[str, Optimizer]:
    """Return the optimisers of a model's objectives; a module with its own `fit` makes its own."""
    if ARCHITECTURES[config.model.kind].fit is not None:
        made: dict[str, Optimizer] = model.optimizers()  # type: ignore[operator]
        return made
    return {
        name: _build_optimizer(
            getattr(config.training, group), [p for net in nets for p in net.parameters()]
        )
        for name, (group, nets) in model.objectives().items()
    }


def _build_optimizer(config: OptimizerConfig, params: list[torch.nn.Parameter]) -> Optimizer:
    if config.optimizer == "adam":
        return Adam(params, lr=config.lr, betas=(config.momentum, 0.999), fused=True)
    return SGD(params, lr=config.lr, momentum=config.momentum, fused=True)


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {
        key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)
    }
