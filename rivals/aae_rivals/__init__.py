"""Rivals of the adversarial autoencoder (Makhzani et al. 2015, table 2), declared without torch."""

from dataclasses import dataclass
from functools import partial

from aae_core.declarations import Architecture
from aae_core.reading import check


@dataclass(frozen=True)
class VatSettings:
    epsilon: float = 0.3  # ε: length of the adversarial perturbation, in the networks' scale
    weight: float = 1.0  # λ: of the divergence, beside the likelihood
    power_iterations: int = 1  # I_p
    xi: float = 1e-3  # ξ: length of the step that measures Hd

    def __post_init__(self) -> None:
        check(
            epsilon=(self.epsilon > 0, "must be positive"),
            weight=(self.weight >= 0, "must not be negative"),
            power_iterations=(self.power_iterations >= 1, "must be at least 1"),
            xi=(self.xi > 0, "must be positive"),
        )


@dataclass(frozen=True)
class LadderSettings:
    noise: float = 0.3  # σ: std of the noise in every layer above the pixels
    denoising: tuple[float, ...] = (1000.0, 10.0, 0.1)  # λ_0, λ_1, …; the last for all layers above

    def __post_init__(self) -> None:
        check(
            noise=(self.noise >= 0, "must not be negative"),
            denoising=(
                bool(self.denoising) and min(self.denoising) >= 0,
                "give a weight for the pixels and for each layer above, none of them negative",
            ),
        )


@dataclass(frozen=True)
class CatGanSettings:
    generator: tuple[int, ...] = (500, 500, 1000)  # widths of its hidden layers
    noise: float = 0.3  # std on the discriminator's pixels and hidden layers
    weight: float = 1.0  # λ: of the labelled images' cross-entropy

    def __post_init__(self) -> None:
        check(
            generator=(all(m >= 1 for m in self.generator), "every width must be at least 1"),
            noise=(self.noise >= 0, "must not be negative"),
            weight=(self.weight > 0, "must be positive"),
        )


_classifier = partial(
    Architecture,
    objective="error",
    metrics=("error",),
    labels="some",
    adversaries=(),
    networks=(),
    encoders=("deterministic",),
)
VAT = _classifier(
    "virtual adversarial training",
    model="aae_rivals.vat:VAT",
    networks=("encoder",),
    prior="unused",
    settings=VatSettings,
)
LADDER = _classifier(
    "Ladder network", model="aae_rivals.ladder:Ladder", prior="unused", settings=LadderSettings
)
CATGAN = _classifier(
    "categorical generative adversarial network",
    model="aae_rivals.catgan:CatGAN",
    settings=CatGanSettings,
)
