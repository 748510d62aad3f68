"""Rivals of the adversarial autoencoder (Makhzani et al. 2015, table 2), declared without torch.

Each title is the method's name in that table, so that a report puts our figures beside its row.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

from aae_core.declarations import Architecture
from aae_core.reading import Count, Limits, NotNegative, Positive, check


@dataclass(frozen=True)
class VatSettings:
    epsilon: Positive = 1.5  # ε: length of the adversarial perturbation, in the networks' scale
    weight: NotNegative = 1.0  # λ: of the divergence, beside the likelihood
    power_iterations: Count = 1  # I_p
    xi: Positive = 10.0  # ξ: length of the step that measures Hd
    output_norm: bool = False  # batch norm of the logits too, where the hidden layers have it


@dataclass(frozen=True)
class LadderSettings:
    noise: NotNegative = 0.3  # σ: std of the noise in every layer above the pixels
    denoising: tuple[NotNegative, ...] = (1000.0, 10.0, 0.1)  # λ_0, λ_1, …; the last for all above

    def __post_init__(self) -> None:
        check(denoising=(bool(self.denoising), "give a weight for the pixels and each layer above"))


@dataclass(frozen=True)
class CatGanSettings:
    generator: tuple[Count, ...] = (500, 500, 1000)  # widths of its hidden layers
    noise: NotNegative = 0.3  # std on the discriminator's pixels and hidden layers
    weight: Positive = 1.0  # λ: of the labelled images' cross-entropy


@dataclass(frozen=True)
class M1Settings:
    features: tuple[Count, ...] = (500, 500)  # widths of M1's encoder; its decoder reverses them
    share: Annotated[float, Limits("must lie in (0, 1)", above=0, below=1)] = 0.25  # of the epochs
    decay: NotNegative = 2e-5  # of ½‖W‖²; 1/N for a prior N(0, I) of the weights, N images


@dataclass(frozen=True)
class M2Settings:
    alpha: NotNegative = 0.1  # α/N: of the labelled images' cross-entropy
    decay: NotNegative = 2e-5  # of ½‖W‖²; 1/N for a prior N(0, I) of the weights, N images


@dataclass(frozen=True)
class M1M2Settings(M1Settings):
    alpha: NotNegative = 0.1  # α/N: of the labelled images' cross-entropy


_UNREAD = (
    "model.clusters",
    "model.heads",
    "model.decoder_std",
    "training.discriminator_steps",
    "training.discriminator_noise",
)
_ONE_OPTIMISER = (*_UNREAD, "training.reconstruction", "training.adversarial")
_classifier = partial(
    Architecture,
    objective="error",
    metrics=("error",),
    labels="some",
    adversaries=(),
    networks=(),
    encoders=("deterministic",),
    prior="unused",
)
VAT = _classifier(
    "VAT",
    model="aae_rivals.vat:VAT",
    networks=("encoder",),
    unread=(*_ONE_OPTIMISER, "model.code_dim", "model.prior"),
    settings=VatSettings,
)
LADDER = _classifier(
    "Ladder",
    model="aae_rivals.ladder:Ladder",
    unread=(*_ONE_OPTIMISER, "model.code_dim", "model.prior"),
    settings=LadderSettings,
)
CATGAN = _classifier(
    "CatGAN",
    model="aae_rivals.catgan:CatGAN",
    prior="any",
    unread=(*_UNREAD, "training.reconstruction"),
    settings=CatGanSettings,
)
M1 = _classifier(
    "VAE (M1) + NN",
    model="aae_rivals.m1:M1",
    unread=(*_UNREAD, "training.adversarial"),
    settings=M1Settings,
)
M2 = _classifier(
    "VAE (M2)",
    model="aae_rivals.m2:M2",
    unread=_ONE_OPTIMISER,
    settings=M2Settings,
)
M1_M2 = _classifier(
    "VAE (M1+M2)",
    model="aae_rivals.m1_m2:M1M2",
    unread=(*_UNREAD, "training.adversarial"),
    settings=M1M2Settings,
)
