"""Settings of one trial: data, model, training and a seed. Frozen, checked, convertible to JSON.

The defaults are the settings of Makhzani et al. 2015 (arXiv:1511.05644), appendix A, for MNIST.
A wrong value raises ConfigError, which lists every problem under the name of its field.
"""

import math
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Annotated, Any, Literal, Self

from aae_core.declarations import ARCHITECTURES, ARRAYS, DATA_SETS, PRIORS, EncoderKind
from aae_core.metrics import DECLARED_METRICS
from aae_core.reading import (
    Count,
    Limits,
    NotNegative,
    Positive,
    Share,
    build,
    check,
    declared_by,
    digest,
    limits,
    own_settings,
    ranges,
    without,
)

Activation = Literal["relu", "sigmoid", "maxout"]
_GROUPS = ("data", "model", "training")
_NETWORKS = ("encoder", "decoder", "discriminator", "matcher", "autoencoder")
_PHASES = ("reconstruction", "adversarial", "classification")
_SCHEDULED = {"drop_epochs": ("step",), "factor": ("step", "cosine", "exponential")}  # by setting
_AtLeast0 = Annotated[int, Limits("must not be negative", minimum=0)]
_Fold = Annotated[int, Limits("must be one of 0, 1, 2, 3, 4", minimum=0, maximum=4)]
_AtLeast2 = Annotated[int, Limits("must be at least 2", minimum=2)]
_Width = Annotated[int, Limits("every width must be at least 1", minimum=1)]
_Channels = Annotated[int, Limits("every number must be at least 1", minimum=1)]
_Epoch = Annotated[int, Limits("epochs count from 1", minimum=1)]
_Part = Annotated[float, Limits("must lie in (0, 1)", above=0, below=1)]
_Factor = Annotated[float, Limits("must lie in (0, 1]", above=0, maximum=1)]

# data set that alone has a setting
OWNERS = {"colour": "svhn", "extra": "svhn", "fold": "tfd", "range": ARRAYS, "axes": ARRAYS}


@dataclass(frozen=True)
class DataConfig:
    name: str = "digits"
    path: str | None = None  # the user's .npz file, only for `arrays`
    labels: _AtLeast0 | None = None  # number of visible labels, drawn by the seed; None: all
    standardise: bool = False  # standardise pixels over the training images, only in the networks
    colour: bool = True  # svhn: True 32·32·3, False 32·32 grey
    extra: bool = False  # svhn: also train on the 531,131 extra images
    fold: _Fold = 0  # tfd: index of one of the five published folds
    range: tuple[float, float] | None = None  # arrays: black and white; None: 0, and 255 or 1
    axes: str | None = None  # arrays: one letter of n, h, w, c, d per axis; None: nd, nhw or nhwc
    settings: Any = None  # settings of another package's data set

    def __post_init__(self) -> None:
        declared = declared_by(DATA_SETS, self.name, "name")
        object.__setattr__(self, "settings", own_settings(declared.settings, self.settings))
        low, high = self.range or (0.0, 1.0)
        check(
            **limits(self),
            path=(
                (self.path is not None) == (self.name == ARRAYS),
                "give the .npz file with `name: arrays`, and only there",
            ),
            range=(
                math.isfinite(high - low) and low < high,
                "give the values of black and white, as [0, 255]; black is the smaller one",
            ),
            axes=(
                self.axes is None or "".join(sorted(self.axes)) in ("dn", "hnw", "chnw"),
                "give one letter for each axis of x: nd, nhw or nhwc, in the order of the file",
            ),
        )
        check(
            **{
                key: (
                    self.name == owner or getattr(self, key) == getattr(DataConfig, key),
                    f"only `{owner}` has it; drop it",
                )
                for key, owner in OWNERS.items()
            }
        )


@dataclass(frozen=True, kw_only=True)
class LayersConfig:
    """Hidden layers of one network.  None stands for the model's setting of the same name.

    The decoder reverses the model's `hidden`, but does not reverse its own `hidden`.
    """

    hidden: tuple[_Width, ...] | None = None  # widths from input to output
    activation: Activation = "relu"
    pieces: _AtLeast2 = 5  # linear outputs per maxout unit, which returns their maximum
    init_std: Positive | None = None

    def __post_init__(self) -> None:
        check(**limits(self))


@dataclass(frozen=True)
class EncoderConfig(LayersConfig):
    """Encoder q(z|x), section 2: a function of x, a Gaussian, or f(x, η) with noise η ~ N(0, I)."""

    kind: EncoderKind = "deterministic"
    noise_dim: Count = 16  # dimension of η; only `universal` reads it


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(LayersConfig):
    """A network with its own dropout, active only in training."""

    dropout: Share = 0.0  # share of the hidden units
    input_dropout: Share = 0.0


@dataclass(frozen=True, kw_only=True)
class MatcherConfig(NetworkConfig):
    """The network of gmmn_ae that maps noise to codes."""

    noise_dim: Count | None = None  # dimension of the prior; None: code_dim


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """Training settings of gmmn_ae's autoencoder (Li, Swersky, Zemel 2015)."""

    code: Literal["linear", "sigmoid"] = "linear"  # range of the code and of the matcher's output
    cost: Literal["squared_error", "cross_entropy"] = "squared_error"
    pretraining: bool = False  # train layer by layer first, then jointly; equally long stages
    share: _Part = 0.5  # the autoencoder's share of the epochs; the matcher trains in the others
    batch_size: _AtLeast2 | None = None  # images per step; None: training.batch_size

    def __post_init__(self) -> None:
        check(**limits(self))


@dataclass(frozen=True)
class PriorConfig:
    """Prior p(z).  mixture: 2-D petals around the origin; swiss_roll: a 2-D spiral."""

    kind: str = "gaussian"
    std: Positive = 1.0  # gaussian, uniform: std of every coordinate
    modes: Count = 10  # mixture: petals; swiss_roll: parts of equal length along the roll
    radius: Positive = 4.0  # mixture: radius of the petals' centres; swiss_roll: of the outer end
    radial_std: Positive = 1.0  # mixture: std of a petal outwards
    tangential_std: Positive = 0.25  # mixture: std of a petal across
    turns: Positive = 2.0  # swiss_roll: number of turns
    width: Positive = 0.25  # swiss_roll: std across the roll
    settings: Any = None  # settings of another package's prior

    def __post_init__(self) -> None:
        declared = declared_by(PRIORS, self.kind)
        object.__setattr__(self, "settings", own_settings(declared.settings, self.settings))
        check(**limits(self))


@dataclass(frozen=True)
class HeadsConfig:
    """W_C of section 7: the position of each category in dimensionality reduction's code space."""

    kind: Literal["learned", "fixed"] = "learned"
    distance: Positive = 4.0  # η: two learned heads at distance d < η cost η − d
    scale: Positive = 10.0  # the fixed heads are scale·I

    def __post_init__(self) -> None:
        check(**limits(self))


@dataclass(frozen=True)
class ModelConfig:
    kind: str = "aae"
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    code_dim: Count = 8
    prior: PriorConfig = field(default_factory=PriorConfig)
    clusters: _AtLeast2 = 16  # entries of y for a model without labels
    heads: HeadsConfig = field(default_factory=HeadsConfig)
    hidden: tuple[_Width, ...] = (1000, 1000)  # widths; the decoder reverses them
    channels: tuple[_Channels, ...] = ()  # per convolution before `hidden`; each halves the image
    output: Literal["sigmoid", "linear"] = "sigmoid"
    decoder_std: Positive = 1.0  # σ of p(x|z) = N(x̂(z), σ²I): only `vae` uses σ in its cost
    batch_norm: Literal["none", "encoder", "autoencoder"] = "none"  # also on heads and output
    dropout: Share = 0.0  # share of the encoder's hidden units
    init_std: Positive = 0.01  # weights ~ N(0, init_std²), biases 0
    decoder: LayersConfig = field(default_factory=LayersConfig)
    discriminator: NetworkConfig = field(default_factory=NetworkConfig)
    matcher: MatcherConfig = field(default_factory=MatcherConfig)
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    settings: Any = None  # settings of another package's architecture

    def __post_init__(self) -> None:
        architecture, prior = declared_by(ARCHITECTURES, self.kind), PRIORS[self.prior.kind]
        object.__setattr__(self, "settings", own_settings(architecture.settings, self.settings))
        flat, encoders = prior.flat, architecture.encoders
        prior_dim = "code_dim" if self.matcher.noise_dim is None else "matcher.noise_dim"
        two = f"must be 2, the dimension of the {self.prior.kind}"
        check(
            **{
                **limits(self),
                **({prior_dim: (self.prior_dim == 2, two)} if flat else {}),
                "encoder.kind": (
                    self.encoder.kind in encoders,
                    _others(self.encoder.kind, encoders, self.kind),
                ),
                "prior.kind": (
                    architecture.accepts(self.prior.kind, prior),
                    _others(self.prior.kind, architecture.priors, self.kind),
                ),
            },
            **self._networks(),
            **self._autoencoder(),
        )

    @property
    def prior_dim(self) -> int:
        """Dimension of the prior: `matcher.noise_dim` if set, else `code_dim`."""
        return self.code_dim if self.matcher.noise_dim is None else self.matcher.noise_dim

    def widths(self, net: LayersConfig) -> tuple[int, ...]:
        """Return the hidden layers' widths of any network except the decoder."""
        return self.hidden if net.hidden is None else net.hidden

    @property
    def decoder_widths(self) -> tuple[int, ...]:
        return self.hidden[::-1] if self.decoder.hidden is None else self.decoder.hidden

    def _networks(self) -> dict[str, tuple[bool, str]]:
        """Return the rules of the networks.

        Only networks of the architecture have settings, and networks with convolutions use ReLU.
        """
        settings = {
            "encoder": replace(self.encoder, kind="deterministic", noise_dim=16),
            "decoder": self.decoder,
            "discriminator": self.discriminator,
            "matcher": self.matcher,
            "autoencoder": self.autoencoder,
        }
        return {
            name: (
                name in ARCHITECTURES[self.kind].networks or net == type(net)(),
                f"{self.kind} does not read this; drop it",
            )
            for name, net in settings.items()
        } | {
            f"{name}.activation": (
                not self.channels or net.activation == "relu",
                "must be relu, as the convolutions are",
            )
            for name, net in (("encoder", self.encoder), ("decoder", self.decoder))
        }

    def _autoencoder(self) -> dict[str, tuple[bool, str]]:
        """Return the rules of gmmn_ae's autoencoder."""
        mirrored = self.decoder_widths == self.widths(self.encoder)[::-1]
        plain = mirrored and not self.channels and self.encoder.kind == "deterministic"
        return {
            "autoencoder.cost": (
                self.autoencoder.cost == "squared_error" or self.output == "sigmoid",
                "cross_entropy needs an output in [0, 1]; set `model.output: sigmoid`",
            ),
            "autoencoder.pretraining": (
                not self.autoencoder.pretraining or plain,
                "layer by layer, the decoder must mirror a deterministic encoder without channels",
            ),
        }


@dataclass(frozen=True)
class ScheduleConfig:
    """One multiplier for learning rates, constant within an epoch.

    step: multiplied by `factor` after each epoch of `drop_epochs`. cosine, exponential: from 1 in
    the first epoch to `factor` in the last. A linear warm-up over `warmup_epochs` multiplies each.
    """

    kind: Literal["constant", "step", "cosine", "exponential"] = "constant"
    drop_epochs: tuple[_Epoch, ...] = ()
    factor: _Factor = 0.1
    warmup_epochs: _AtLeast0 = 0

    def __post_init__(self) -> None:
        check(**limits(self))


@dataclass(frozen=True)
class OptimizerConfig:
    """Optimiser of the autoencoder, for the reconstruction phase."""

    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: Positive = 0.01
    momentum: Share = 0.9  # SGD's momentum or Adam's β1
    schedule: ScheduleConfig | None = None  # None: training.schedule

    def __post_init__(self) -> None:
        check(**limits(self))


@dataclass(frozen=True)
class AdversarialConfig(OptimizerConfig):
    """Optimisers of discriminator and generator, for the regularisation phase."""

    lr: Positive = 0.1
    momentum: Share = 0.1


@dataclass(frozen=True)
class ClassificationConfig(OptimizerConfig):
    """Optimiser of q(y|x) on labelled images, for the classification phase."""

    lr: Positive = 0.1
    momentum: Share = 0.9


@dataclass(frozen=True)
class TrainConfig:
    epochs: Count = 50
    batch_size: Count = 100
    validate_every: Count = 1  # number of epochs; the last one is always validated
    reconstruction: OptimizerConfig = field(default_factory=OptimizerConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    classification: ClassificationConfig = field(default_factory=ClassificationConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)  # unless a phase has its own
    input_noise: NotNegative = 0.0  # std of Gaussian noise on the encoder's input, only in training
    input_dropout: Share = 0.0  # share of input pixels set to 0, only in training
    precision: Literal["float32", "bfloat16"] = "float32"  # of matrix products, only in training
    phases: Literal["successive", "joint"] = "successive"  # the paper's, or one joint pass
    discriminator_steps: Count = 1  # steps per batch; the generator makes one
    discriminator_noise: NotNegative = 0.0  # std of Gaussian noise on the discriminator's input
    metrics: tuple[str, ...] = ()  # metrics of other packages, besides the architecture's own
    extended_from: tuple[int, ...] = ()  # last epochs of the shorter trainings that this extends

    def __post_init__(self) -> None:
        declared = [declared_by(DECLARED_METRICS, name, "metrics") for name in self.metrics]
        check(
            **limits(self),
            extended_from=(
                not self.extended_from or [0, *self.ends] == sorted({0, *self.ends}),
                f"must rise from 1 and stay below training.epochs, {self.epochs}",
            ),
            metrics=(
                all(metric.measure for metric in declared),
                "are those of other packages; an architecture's own are always measured",
            ),
        )

    @property
    def schedules(self) -> dict[str, ScheduleConfig]:
        """Schedules by path: the training's, and those of phases with a schedule of their own."""
        own = {f"training.{phase}.schedule": getattr(self, phase).schedule for phase in _PHASES}
        return {"training.schedule": self.schedule} | {
            path: schedule for path, schedule in own.items() if schedule is not None
        }

    @property
    def ends(self) -> tuple[int, ...]:
        """Last epoch of every training that this one extends, then of this one."""
        return *self.extended_from, self.epochs

    def end_of(self, epoch: int) -> int:
        """Return the last epoch of the training in which `epoch` was trained; 1 is the first."""
        return next(end for end in self.ends if epoch <= end)

    @property
    def shares_optimizer(self) -> bool:
        """Return True if one optimiser minimises the weighted sum of reconstruction and generator.

        A cost's weight scales an SGD step like a learning rate.  Adam ignores a cost's scale, so
        with Adam each cost keeps its own optimiser.
        """
        kinds = {self.reconstruction.optimizer, self.adversarial.optimizer}
        return self.phases == "joint" and kinds == {"sgd"}


@dataclass(frozen=True)
class TrialConfig:
    """All settings that a trial's numbers depend on."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainConfig = field(default_factory=TrainConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        check(**ranges({name: asdict(getattr(self, name)) for name in _GROUPS}))
        labels, kind = self.data.labels, self.model.kind
        reads_labels = ARCHITECTURES[kind].labels != "none"
        has_discriminator = bool(ARCHITECTURES[kind].adversaries)
        share, part = self.model.autoencoder.share, self.model.autoencoder.batch_size
        check(seed=(0 <= self.seed < 2**63, "must lie in [0, 2^63)"))
        check(
            **{
                "data.labels": (
                    labels is None
                    or (reads_labels and (labels > 0 or kind == "dimensionality_reduction")),
                    f"{kind} cannot learn without labels; give a number above 0"
                    if reads_labels
                    else f"{kind} reads no labels; drop this",
                ),
                "model.output": (
                    not self.data.standardise or self.model.output == "linear",
                    "standardised pixels leave [0, 1]; set `linear`",
                ),
                "training.epochs": (
                    kind != "gmmn_ae" or self.training.epochs - 1 >= share * self.training.epochs,
                    "gmmn_ae needs at least 2: one for the autoencoder, one for the moment matching"
                    if self.training.epochs < 2
                    else f"model.autoencoder.share {share:g} leaves none for the moment matching",
                ),
                "model.autoencoder.batch_size": (
                    part is None
                    or self.model.batch_norm == "none"
                    or self.training.batch_size % part != 1,
                    f"leaves 1 image of a batch of {self.training.batch_size}; batch norm needs 2",
                ),
                "training.phases": (
                    self.training.phases == "successive" or "z" in ARCHITECTURES[kind].adversaries,
                    f"{kind} has no phases to join; drop this",
                ),
                "training.discriminator_steps": (
                    self.training.discriminator_steps == 1 or has_discriminator,
                    f"{kind} has no discriminator; drop this",
                ),
                "training.discriminator_noise": (
                    self.training.discriminator_noise == 0 or has_discriminator,
                    f"{kind} has no discriminator; drop this",
                ),
                "training.batch_size": (
                    self.training.batch_size >= 2
                    or (self.model.batch_norm == "none" and kind != "gmmn_ae"),
                    "batch norm and gmmn_ae need at least 2 images per batch",
                ),
            }
        )

    def to_dict(self) -> dict[str, Any]:
        document = asdict(self)
        for group in (document["data"], document["model"], document["model"]["prior"]):
            if group["settings"] is None:
                del group["settings"]
        for key in ("metrics", "extended_from"):
            if not document["training"][key]:
                del document["training"][key]
        return document

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Self:
        """Rebuild a configuration from `to_dict`'s result, also after a round trip through JSON.

        Raises ConfigError for unknown keys and wrong values.
        """
        built: Self = build(cls, document)
        return built

    def extended(self, *ends: int) -> Self:
        """Return this configuration, extended to each of `ends` in turn; unchanged without `ends`.

        Raises ConfigError if an end is not above the one before.
        """
        *earlier, epochs = *self.training.ends, *ends
        training = replace(self.training, epochs=epochs, extended_from=tuple(earlier))
        return replace(self, training=training)

    @property
    def lineage(self) -> list[Self]:
        """This configuration, then those of the shorter trainings that it extends."""
        *earlier, end = self.training.ends[:-1] or (0,)
        if not end:
            return [self]
        training = replace(self.training, epochs=end, extended_from=tuple(earlier))
        return [self, *replace(self, training=training).lineage]

    @property
    def departures(self) -> list[str]:
        """List the training settings that differ from the paper's method."""
        training = self.training
        phases = {name: getattr(training, name) for name in _PHASES}
        adam = [name for name, phase in phases.items() if phase.optimizer == "adam"]
        scheduled = [name for name, phase in phases.items() if phase.schedule is not None]
        return [
            *(["joint phases"] if training.phases == "joint" else []),
            *(["products in bfloat16"] if training.precision == "bfloat16" else []),
            *([f"Adam in {', '.join(adam)}"] if adam else []),
            *([f"a schedule of its own in {', '.join(scheduled)}"] if scheduled else []),
            *(
                [f"{training.discriminator_steps} discriminator steps per batch"]
                if training.discriminator_steps > 1
                else []
            ),
            *(
                [f"noise of std {training.discriminator_noise:g} on the discriminator's input"]
                if training.discriminator_noise > 0
                else []
            ),
        ]

    @property
    def unread(self) -> list[str]:
        """List the settings, and groups of settings, that change no number of this trial."""
        model, training = self.model, self.training
        architecture, prior = ARCHITECTURES[model.kind], PRIORS[model.prior.kind]
        networks = [net for net in _NETWORKS if net in architecture.networks]
        return [
            *architecture.unread,
            *(f"data.{key}" for key, owner in OWNERS.items() if owner != self.data.name),
            *(f"model.{net}" for net in _NETWORKS if net not in networks),
            *(
                f"model.{net}.pieces"
                for net in networks
                if getattr(getattr(model, net), "activation", None) != "maxout"
            ),
            *(["model.encoder.noise_dim"] if model.encoder.kind != "universal" else []),
            *(
                f"model.prior.{item.name}"
                for item in fields(PriorConfig)
                if prior.reads is not None and item.name not in ("kind", "settings", *prior.reads)
            ),
            *(
                f"{path}.{key}"
                for path, schedule in training.schedules.items()
                for key, kinds in _SCHEDULED.items()
                if schedule.kind not in kinds
            ),
        ]

    @property
    def config_hash(self) -> str:
        """Name of the configuration without its seed: 12 hexadecimal digits."""
        document = self.to_dict()
        del document["seed"]
        return digest(without_younger(document))


def without_younger(document: dict[str, Any]) -> dict[str, Any]:
    """Return a trial's or sweep's document without later-added settings that have their default.

    A document written before these settings existed therefore keeps its digest.
    """
    training = {
        "precision": "float32",
        "phases": "successive",
        "validate_every": 1,
        "discriminator_steps": 1,
        "discriminator_noise": 0.0,
        "metrics": [],
        "extended_from": [],
        **{phase: {"schedule": None} for phase in _PHASES},
    }
    networks = {
        "encoder": asdict(LayersConfig()),
        "decoder": asdict(LayersConfig()),
        "discriminator": asdict(NetworkConfig()),
        "matcher": asdict(MatcherConfig()),
        "autoencoder": asdict(AutoencoderConfig()),
        "prior": {"settings": None},
        "settings": None,
    }
    data = {"range": None, "axes": None, "settings": None}
    return without(document, {"data": data, "training": training, "model": networks})


def _others(value: str, choices: tuple[str, ...], kind: str) -> str:
    return f"{kind} accepts {', '.join(choices)}, not {value}"
