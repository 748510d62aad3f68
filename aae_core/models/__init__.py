"""The paper's architectures, one file each.  Protocols declare what a model can do."""

from pkgutil import resolve_name
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from aae_core.config import TrialConfig
from aae_core.declarations import ARCHITECTURES
from aae_core.errors import ConfigError
from aae_core.models.aae import AAE
from aae_core.models.base import Autoencoder, Model
from aae_core.models.categorical import CategoricalAAE
from aae_core.models.classifier import Classifier
from aae_core.models.clustering import Clustering
from aae_core.models.dimensionality_reduction import DimensionalityReduction
from aae_core.models.gan import GAN
from aae_core.models.gmmn_ae import GMMNAE
from aae_core.models.label_regularised import LabelRegularised
from aae_core.models.semi_supervised import SemiSupervised
from aae_core.models.supervised import Supervised
from aae_core.models.vae import VAE
from aae_core.networks import Blueprint

__all__ = [
    "AAE",
    "GAN",
    "GMMNAE",
    "VAE",
    "Autoencoder",
    "CategoricalAAE",
    "Classifier",
    "Classifies",
    "Clustering",
    "DimensionalityReduction",
    "LabelRegularised",
    "Model",
    "Samples",
    "SemiSupervised",
    "Supervised",
    "build_model",
]


@runtime_checkable
class Samples(Protocol):
    code_dim: int
    dim: int

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor: ...


@runtime_checkable
class Classifies(Protocol):
    def classify(self, x: Tensor) -> Tensor:
        """Return a score for each class, (n, K), of images (n, D); the largest names the class."""


def build_model(
    config: TrialConfig,
    image_shape: tuple[int, ...],
    classes: int,
    *,
    generator: torch.Generator,
) -> Model:
    """Return a freshly initialised model; `classes` is the number of the data's classes.

    Raises ConfigError if the data do not fit the architecture.
    """
    architecture = ARCHITECTURES[config.model.kind]
    reads_labels = architecture.labels != "none" and config.data.labels != 0
    if reads_labels and classes < 2:
        raise ConfigError(
            {"model.kind": f"{config.model.kind} needs labels of 2 classes; there are {classes}"}
        )
    plan = Blueprint(
        config.model,
        image_shape,
        classes if reads_labels else 0,
        config.data.standardise,
        generator,
        config.training.precision == "bfloat16",
        config.training.shares_optimizer,
    )
    model: Model = resolve_name(architecture.model)(plan)
    model.kind = config.model.kind  # a module with a `fit` of its own need not set it
    return model
