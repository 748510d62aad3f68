"""Small trials of every architecture, and the small images that they train on."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from aae_core.config import (
    AdversarialConfig,
    AutoencoderConfig,
    ClassificationConfig,
    DataConfig,
    EncoderConfig,
    LayersConfig,
    MatcherConfig,
    ModelConfig,
    NetworkConfig,
    OptimizerConfig,
    PriorConfig,
    TrainConfig,
    TrialConfig,
)
from aae_core.data import TrainingData
from aae_core.declarations import ARCHITECTURES, EncoderKind
from aae_core.models import Model
from aae_core.phases import Batch, Costs
from aae_core.testing import CLASSES, SIDE, images
from aae_core.training import TrainState
from aae_core.training.batches import BatchSource

BATCH = 20
LABELS = {"none": None, "some": 2 * CLASSES, "only": 14 * CLASSES}

KINDS = list(ARCHITECTURES.own)
RIVALS = ["gan", "gmmn_ae"]  # their authors built other networks
CASES = [
    (kind, encoder, prior)
    for kind, architecture in ARCHITECTURES.own.items()
    for encoder in architecture.encoders
    for prior in architecture.priors
]
COVERING = [  # every encoder and every prior of an architecture, but not every pair
    (kind, encoders[i % len(encoders)], priors[i % len(priors)])
    for kind, architecture in ARCHITECTURES.own.items()
    for encoders, priors in [(architecture.encoders, architecture.priors)]
    for i in range(max(len(encoders), len(priors)))
]


def trial(
    kind: str,
    encoder: EncoderKind | None = None,
    prior: str | None = None,
    *,
    labels: int | None = -1,
    optimizer: str = "sgd",
    epochs: int = 2,
    **model: Any,
) -> TrialConfig:
    """Return a plain, fast trial; encoder and prior default to the architecture's first."""
    architecture = ARCHITECTURES[kind]
    prior = prior or architecture.priors[0]
    rate = {"optimizer": optimizer, "lr": 1e-3 if optimizer == "adam" else 0.02}
    return TrialConfig(
        data=DataConfig(labels=LABELS[architecture.labels] if labels == -1 else labels),
        model=ModelConfig(
            kind,
            EncoderConfig(encoder or architecture.encoders[0], noise_dim=3),
            prior=PriorConfig(prior, modes=CLASSES),
            **{"code_dim": 2, "clusters": 4, "hidden": (12, 8), "init_std": 0.3} | model,
        ),
        training=TrainConfig(
            epochs=epochs,
            batch_size=BATCH,
            reconstruction=OptimizerConfig(**rate),
            adversarial=AdversarialConfig(**rate),
            classification=ClassificationConfig(**rate),
        ),
        seed=5,
    )


def dressed(config: TrialConfig) -> TrialConfig:
    """Add all settings that make resuming hard: batch norm, dropout, and noise of both kinds."""
    return replace(
        config,
        model=replace(config.model, batch_norm="autoencoder", dropout=0.3),
        training=replace(config.training, input_noise=0.1, input_dropout=0.2),
    )


def as_published(config: TrialConfig) -> TrialConfig:
    """Give a rival the blocks of its authors: maxout and dropout, or sigmoids and pretraining."""
    discriminator = NetworkConfig(
        hidden=(30, 24), activation="maxout", pieces=3, dropout=0.5, input_dropout=0.2, init_std=0.2
    )
    networks: dict[str, dict[str, Any]] = {
        "gan": {"discriminator": discriminator},
        "gmmn_ae": {
            "dropout": 0.5,
            "encoder": replace(config.model.encoder, activation="sigmoid"),
            "decoder": LayersConfig(activation="sigmoid"),
            "matcher": MatcherConfig(hidden=(7, 9), dropout=0.1, init_std=0.4, noise_dim=5),
            "autoencoder": AutoencoderConfig(
                code="sigmoid", cost="cross_entropy", pretraining=True, share=0.4, batch_size=7
            ),
        },
    }
    return replace(
        config,
        model=replace(config.model, **networks[config.model.kind]),
        training=replace(config.training, input_dropout=0.2),
    )


def start(config: TrialConfig, data: TrainingData | None = None) -> TrainState:
    return TrainState.create(config, data or images())


def first_batch(state: TrainState, data: TrainingData | None = None) -> Batch:
    return next(BatchSource.of(state, data or images()).batches(state))


def step(state: TrainState, batch: Batch | None = None, only: str | None = None) -> Costs:
    """Take one training step; with `only`, the rate of every other optimiser is 0."""
    if only is not None:
        for name, optimizer in state.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = group["lr"] if name == only else 0.0
    return state.model.train_step(state, batch or first_batch(state))


def weights(model: Model) -> dict[str, Tensor]:
    """Return a copy of the current parameters and buffers."""
    return deepcopy(dict(model.state_dict()))


def changed(before: dict[str, Tensor], model: Model) -> set[str]:
    return {name for name, now in model.state_dict().items() if not torch.equal(now, before[name])}


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pixels(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, SIDE * SIDE, generator=stream(seed))
