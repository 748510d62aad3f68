"""What one trial is: data, model, training and a seed. Frozen, checked, and plain JSON inside.

The defaults are the settings of Makhzani et al. 2015 (arXiv:1511.05644), appendix A, for MNIST.
A wrong value raises ConfigError with every problem found, each under the name of its field.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints

from aae_core.errors import ConfigError


@dataclass(frozen=True)
class DataConfig:
    name: Literal["digits", "mnist", "fashion_mnist", "arrays"] = "digits"
    path: str | None = None  # the user's .npz, for `arrays` alone

    def __post_init__(self) -> None:
        _check(
            path=(
                (self.path is not None) == (self.name == "arrays"),
                "give the .npz file with `name: arrays`, and only there",
            )
        )


@dataclass(frozen=True)
class EncoderConfig:
    """q(z|x), section 2: a function of x; a Gaussian; or f(x, η) with noise η ~ N(0, I)."""

    kind: Literal["deterministic", "gaussian", "universal"] = "deterministic"
    noise_dim: int = 16  # dimension of η; only `universal` reads it

    def __post_init__(self) -> None:
        _check(noise_dim=(self.noise_dim >= 1, "must be at least 1"))


@dataclass(frozen=True)
class PriorConfig:
    kind: Literal["gaussian"] = "gaussian"
    std: float = 1.0  # of every coordinate of the code

    def __post_init__(self) -> None:
        _check(std=(_positive(self.std), "must be positive"))


@dataclass(frozen=True)
class ModelConfig:
    kind: Literal["aae"] = "aae"
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    code_dim: int = 8
    prior: PriorConfig = field(default_factory=PriorConfig)
    hidden: tuple[int, ...] = (1000, 1000)  # widths; the decoder's are reversed
    output: Literal["sigmoid", "linear"] = "sigmoid"
    init_std: float = 0.01  # weights ~ N(0, init_std²), biases 0

    def __post_init__(self) -> None:
        _check(
            code_dim=(self.code_dim >= 1, "must be at least 1"),
            hidden=(all(width >= 1 for width in self.hidden), "every width must be at least 1"),
            init_std=(_positive(self.init_std), "must be positive"),
        )


@dataclass(frozen=True)
class OptimizerConfig:
    """The autoencoder's optimiser: reconstruction phase."""

    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: float = 0.01
    momentum: float = 0.9  # of SGD; β1 of Adam

    def __post_init__(self) -> None:
        _check(
            lr=(_positive(self.lr), "must be positive"),
            momentum=(0 <= self.momentum < 1, "must lie in [0, 1)"),
        )


@dataclass(frozen=True)
class AdversarialConfig(OptimizerConfig):
    """The discriminator's and the generator's optimisers: regularisation phase."""

    lr: float = 0.1
    momentum: float = 0.1


@dataclass(frozen=True)
class ScheduleConfig:
    """One multiplier for every learning rate, constant within an epoch.

    step: times `factor` after each epoch of `drop_epochs`. cosine, exponential: from 1 in the
    first epoch to `factor` in the last. A linear warm-up over `warmup_epochs` comes on top.
    """

    kind: Literal["constant", "step", "cosine", "exponential"] = "constant"
    drop_epochs: tuple[int, ...] = ()
    factor: float = 0.1
    warmup_epochs: int = 0

    def __post_init__(self) -> None:
        _check(
            drop_epochs=(all(e >= 1 for e in self.drop_epochs), "epochs count from 1"),
            factor=(0 < self.factor <= 1, "must lie in (0, 1]"),
            warmup_epochs=(self.warmup_epochs >= 0, "must not be negative"),
        )


@dataclass(frozen=True)
class TrainConfig:
    epochs: int = 50
    batch_size: int = 100
    reconstruction: OptimizerConfig = field(default_factory=OptimizerConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)

    def __post_init__(self) -> None:
        _check(
            epochs=(self.epochs >= 1, "must be at least 1"),
            batch_size=(self.batch_size >= 1, "must be at least 1"),
        )


@dataclass(frozen=True)
class TrialConfig:
    """Everything a trial's numbers depend on."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainConfig = field(default_factory=TrainConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        _check(seed=(0 <= self.seed < 2**63, "must lie in [0, 2^63)"))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Self:
        """The inverse of `to_dict`, also after a round trip through JSON."""
        built: Self = _build(cls, document)
        return built

    @property
    def config_hash(self) -> str:
        """Names the configuration, whatever its seed: 12 hexadecimal digits."""
        document = self.to_dict()
        del document["seed"]
        return digest(document)


def digest(document: Any) -> str:
    """12 hexadecimal digits that name a JSON document, the order of its keys aside."""
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def _build(hint: Any, value: Any) -> Any:
    if is_dataclass(hint) and isinstance(hint, type):
        hints = get_type_hints(hint)
        unknown = set(value) - {f.name for f in fields(hint)}
        if unknown:
            raise ConfigError(dict.fromkeys(sorted(unknown), "unknown key"))
        return hint(**{name: _build(hints[name], item) for name, item in value.items()})
    if get_origin(hint) is tuple:
        return tuple(_build(get_args(hint)[0], item) for item in value)
    return value


def _check(**rules: tuple[bool, str]) -> None:
    problems = {name: message for name, (holds, message) in rules.items() if not holds}
    if problems:
        raise ConfigError(problems)


def _positive(value: float) -> bool:
    return math.isfinite(value) and value > 0
