import json
from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aae_core.config import (
    AdversarialConfig,
    AutoencoderConfig,
    DataConfig,
    EncoderConfig,
    HeadsConfig,
    LayersConfig,
    MatcherConfig,
    ModelConfig,
    NetworkConfig,
    OptimizerConfig,
    PriorConfig,
    ScheduleConfig,
    TrainConfig,
    TrialConfig,
)
from aae_core.declarations import ARCHITECTURES, PRIORS, EncoderKind
from aae_core.errors import ConfigError

CONFIG = TrialConfig(
    data=DataConfig("arrays", "x.npz"),
    model=ModelConfig(
        "dimensionality_reduction",
        EncoderConfig("universal", 3),
        prior=PriorConfig(std=2),
        heads=HeadsConfig("fixed"),
        hidden=(5,),
        channels=(2, 3),
        decoder=LayersConfig(hidden=(4,)),
        discriminator=NetworkConfig(hidden=(), activation="maxout", pieces=2, dropout=0.1),
    ),
    training=TrainConfig(schedule=ScheduleConfig("step", (3, 5))),
    seed=7,
)


ADAM = AdversarialConfig("adam")


def trial(
    kind: str, *, training: dict | None = None, model: dict | None = None, **data: object
) -> TrialConfig:
    """Return a trial whose parts are each valid on their own."""
    prior = PriorConfig(ARCHITECTURES[kind].priors[0])
    encoder = EncoderConfig(ARCHITECTURES[kind].encoders[0])
    return TrialConfig(
        DataConfig(**data),
        ModelConfig(kind, encoder, code_dim=2, prior=prior, **model or {}),
        TrainConfig(**training or {}),
    )


def test_config_survives_a_json_round_trip() -> None:
    document = json.loads(json.dumps(CONFIG.to_dict()))
    assert TrialConfig.from_dict(document) == CONFIG


def test_config_rejects_an_unknown_key() -> None:
    document = CONFIG.to_dict()
    document["model"]["codedim"] = 3
    with pytest.raises(ConfigError, match="codedim"):
        TrialConfig.from_dict(document)


def test_config_json_round_trip_keeps_the_schedule_of_a_phase() -> None:
    own = AdversarialConfig(schedule=ScheduleConfig("step", (3, 5), 0.5))
    config = TrialConfig(training=TrainConfig(adversarial=own))
    assert TrialConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert config.config_hash != TrialConfig().config_hash
    document = config.to_dict()
    document["training"]["adversarial"]["schedule"]["kinds"] = "step"
    with pytest.raises(ConfigError, match="kinds"):
        TrialConfig.from_dict(document)


@given(st.integers(0, 2**63 - 1))
def test_config_hash_does_not_depend_on_the_seed(seed: int) -> None:
    other = TrialConfig(CONFIG.data, CONFIG.model, CONFIG.training, seed)
    assert other.config_hash == CONFIG.config_hash
    assert TrialConfig(seed=seed).config_hash != CONFIG.config_hash


def test_config_hash_unchanged_by_new_settings_at_their_defaults() -> None:
    """Test the hash that `TrialConfig` had before `training.precision` and `training.phases`."""
    assert TrialConfig().config_hash == "7c22376edf6e"
    low = TrialConfig(training=TrainConfig(precision="bfloat16"))
    joint = TrialConfig(training=TrainConfig(phases="joint"))
    assert len({TrialConfig().config_hash, low.config_hash, joint.config_hash}) == 3


@pytest.mark.parametrize(
    "model",
    [
        {"encoder": EncoderConfig(activation="sigmoid")},
        {"decoder": LayersConfig(init_std=0.1)},
        {"discriminator": NetworkConfig(pieces=4)},
        {"discriminator": NetworkConfig(hidden=())},
    ],
)
def test_config_hash_changes_with_each_setting_of_a_network(model: dict) -> None:
    """Test the hash that `TrialConfig` had before the networks' own settings."""
    assert trial("gmmn_ae").config_hash == "a8af67be41c8"
    assert TrialConfig(model=ModelConfig(**model)).config_hash != TrialConfig().config_hash


def test_config_document_without_network_settings_gives_the_defaults() -> None:
    document = TrialConfig().to_dict()
    for key in ("decoder", "discriminator", "matcher", "autoencoder"):
        del document["model"][key]
    document["model"]["encoder"] = {"kind": "deterministic", "noise_dim": 16}
    assert TrialConfig.from_dict(document) == TrialConfig()


SETTINGS_OF = {
    "encoder": EncoderConfig(activation="sigmoid"),
    "decoder": LayersConfig(hidden=(3,)),
    "discriminator": NetworkConfig(dropout=0.5),
    "matcher": MatcherConfig(noise_dim=2),
    "autoencoder": AutoencoderConfig(share=0.2),
}


@pytest.mark.parametrize("kind", ARCHITECTURES.own)
def test_model_config_rejects_settings_of_a_missing_network(kind: str) -> None:
    architecture = ARCHITECTURES[kind]
    for name, settings in SETTINGS_OF.items():
        if isinstance(settings, EncoderConfig):
            settings = replace(settings, kind=architecture.encoders[0])
        encoder = EncoderConfig(architecture.encoders[0])
        model = {"encoder": encoder, "prior": PriorConfig(architecture.priors[0])}
        try:
            ModelConfig(kind, code_dim=2, **model | {name: settings})
            problems: dict[str, str] = {}
        except ConfigError as error:
            problems = error.problems
        lacks = name not in architecture.networks
        assert problems == ({name: f"{kind} does not read this; drop it"} if lacks else {})
    assert ("discriminator" in architecture.networks) == bool(architecture.adversaries)


def test_matcher_config_noise_needs_the_dimension_of_the_prior() -> None:
    flat = PriorConfig("mixture")
    ModelConfig("gmmn_ae", code_dim=8, prior=flat, matcher=MatcherConfig(noise_dim=2))
    with pytest.raises(ConfigError) as caught:
        ModelConfig("gmmn_ae", code_dim=2, prior=flat, matcher=MatcherConfig(noise_dim=3))
    assert list(caught.value.problems) == ["matcher.noise_dim"]


def pretrained(**model: object) -> ModelConfig:
    return ModelConfig("gmmn_ae", autoencoder=AutoencoderConfig(pretraining=True), **model)


def test_pretraining_accepts_a_decoder_that_mirrors_the_encoder() -> None:
    pretrained(decoder=LayersConfig(hidden=(3, 9)), encoder=EncoderConfig(hidden=(9, 3)))
    pretrained(decoder=LayersConfig(hidden=(3, 9)), hidden=(9, 3))
    pretrained(encoder=EncoderConfig(hidden=(9, 3)), hidden=(9, 3))


def test_joint_phases_share_an_optimizer_only_with_sgd() -> None:
    assert TrainConfig(phases="joint").shares_optimizer
    assert not TrainConfig().shares_optimizer
    assert not TrainConfig(phases="joint", adversarial=ADAM).shares_optimizer
    assert not TrainConfig(phases="joint", reconstruction=ADAM, adversarial=ADAM).shares_optimizer


@pytest.mark.parametrize("kind", ["vae", "gan", "gmmn_ae", "classifier"])
def test_config_rejects_joint_phases_for_models_without_two_phases(kind: str) -> None:
    with pytest.raises(ConfigError, match=f"{kind} has no phases to join"):
        trial(kind, training={"phases": "joint"})


@pytest.mark.parametrize("setting", ["discriminator_steps", "discriminator_noise"])
@pytest.mark.parametrize("kind", ["vae", "gmmn_ae", "classifier"])
def test_config_without_discriminator_rejects_discriminator_settings(
    kind: str, setting: str
) -> None:
    with pytest.raises(ConfigError, match=f"{kind} has no discriminator") as caught:
        trial(kind, training={setting: 2})
    assert list(caught.value.problems) == [f"training.{setting}"]


def test_config_names_departures_from_the_paper() -> None:
    assert TrialConfig().departures == []
    own = AdversarialConfig("adam", schedule=ScheduleConfig("cosine"))
    training = TrainConfig(
        adversarial=own,
        precision="bfloat16",
        phases="joint",
        discriminator_steps=3,
        discriminator_noise=0.1,
    )
    assert TrialConfig(training=training).departures == [
        "joint phases",
        "products in bfloat16",
        "Adam in adversarial",
        "a schedule of its own in adversarial",
        "3 discriminator steps per batch",
        "noise of std 0.1 on the discriminator's input",
    ]


def test_config_defaults_are_the_rates_of_the_paper() -> None:
    training = TrainConfig()
    assert (training.reconstruction.lr, training.reconstruction.momentum) == (0.01, 0.9)
    assert (training.adversarial.lr, training.adversarial.momentum) == (0.1, 0.1)
    assert (training.classification.lr, training.classification.momentum) == (0.1, 0.9)
    assert training.batch_size == 100
    model = ModelConfig()
    assert model.hidden == (1000, 1000)
    assert model.init_std == 0.01


@pytest.mark.parametrize(
    ("build", "field"),
    [
        (lambda: ModelConfig(code_dim=0), "code_dim"),
        (lambda: ModelConfig(hidden=(10, 0)), "hidden"),
        (lambda: ModelConfig(init_std=float("nan")), "init_std"),
        (lambda: PriorConfig(std=0.0), "std"),
        (lambda: EncoderConfig(noise_dim=0), "noise_dim"),
        (lambda: OptimizerConfig(lr=-1.0), "lr"),
        (lambda: AdversarialConfig(momentum=1.0), "momentum"),
        (lambda: ScheduleConfig(factor=0.0), "factor"),
        (lambda: ScheduleConfig(drop_epochs=(0,)), "drop_epochs"),
        (lambda: TrainConfig(epochs=0), "epochs"),
        (lambda: TrainConfig(validate_every=0), "validate_every"),
        (lambda: TrainConfig(discriminator_steps=0), "discriminator_steps"),
        (lambda: TrainConfig(discriminator_noise=-0.1), "discriminator_noise"),
        (lambda: TrialConfig(seed=-1), "seed"),
        (lambda: DataConfig("digits", "x.npz"), "path"),
        (lambda: DataConfig("arrays"), "path"),
        (lambda: DataConfig(labels=-1), "labels"),
        (lambda: DataConfig("tfd", fold=5), "fold"),
        (lambda: DataConfig("mnist", fold=1), "fold"),
        (lambda: DataConfig("mnist", extra=True), "extra"),
        (lambda: DataConfig("mnist", colour=False), "colour"),
        (lambda: PriorConfig("mixture", modes=0), "modes"),
        (lambda: PriorConfig("mixture", radial_std=0), "radial_std"),
        (lambda: PriorConfig("swiss_roll", width=0), "width"),
        (lambda: PriorConfig("swiss_roll", turns=-1), "turns"),
        (lambda: HeadsConfig(distance=0), "distance"),
        (lambda: HeadsConfig(scale=float("inf")), "scale"),
        (lambda: ModelConfig(prior=PriorConfig("mixture")), "code_dim"),
        (lambda: ModelConfig(code_dim=3, prior=PriorConfig("swiss_roll")), "code_dim"),
        (lambda: ModelConfig(channels=(3, 0)), "channels"),
        (lambda: ModelConfig(clusters=1), "clusters"),
        (lambda: ModelConfig(dropout=1.0), "dropout"),
        (lambda: ModelConfig("vae"), "encoder.kind"),
        (lambda: ModelConfig("gan", EncoderConfig("gaussian")), "encoder.kind"),
        (
            lambda: ModelConfig("vae", EncoderConfig("gaussian"), prior=PriorConfig("uniform")),
            "prior.kind",
        ),
        (lambda: ModelConfig("label_regularised"), "prior.kind"),
        (lambda: TrainConfig(input_noise=-0.1), "input_noise"),
        (lambda: TrainConfig(input_dropout=1.0), "input_dropout"),
        (lambda: TrainConfig(batch_size=0), "batch_size"),
        (lambda: trial("aae", standardise=True), "model.output"),
        (lambda: trial("gmmn_ae", training={"epochs": 1}), "training.epochs"),
        (
            lambda: trial(
                "gmmn_ae",
                training={"epochs": 3},
                model={"autoencoder": AutoencoderConfig(share=0.7)},
            ),
            "training.epochs",
        ),
        (
            lambda: trial(
                "gmmn_ae",
                training={"batch_size": 9},
                model={"autoencoder": AutoencoderConfig(batch_size=4), "batch_norm": "encoder"},
            ),
            "model.autoencoder.batch_size",
        ),
        (lambda: LayersConfig(hidden=(0,)), "hidden"),
        (lambda: LayersConfig(pieces=1), "pieces"),
        (lambda: EncoderConfig(init_std=0.0), "init_std"),
        (lambda: NetworkConfig(dropout=1.0), "dropout"),
        (lambda: NetworkConfig(input_dropout=-0.1), "input_dropout"),
        (lambda: MatcherConfig(noise_dim=0), "noise_dim"),
        (lambda: AutoencoderConfig(share=1.0), "share"),
        (lambda: AutoencoderConfig(batch_size=1), "batch_size"),
        (
            lambda: ModelConfig(channels=(4,), decoder=LayersConfig(activation="sigmoid")),
            "decoder.activation",
        ),
        (
            lambda: ModelConfig(
                "gmmn_ae", autoencoder=AutoencoderConfig(cost="cross_entropy"), output="linear"
            ),
            "autoencoder.cost",
        ),
        (lambda: pretrained(channels=(4,)), "autoencoder.pretraining"),
        (lambda: pretrained(encoder=EncoderConfig("gaussian")), "autoencoder.pretraining"),
        (lambda: pretrained(decoder=LayersConfig(hidden=(9,))), "autoencoder.pretraining"),
        (lambda: pretrained(encoder=EncoderConfig(hidden=(9, 3))), "autoencoder.pretraining"),
        (
            lambda: trial("aae", training={"batch_size": 1}, model={"batch_norm": "encoder"}),
            "training.batch_size",
        ),
    ],
)
def test_config_error_names_the_invalid_field(build: Callable[[], object], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build()
    assert list(caught.value.problems) == [field]


def test_config_error_names_several_invalid_fields_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        ModelConfig("vae", code_dim=3, prior=PriorConfig("swiss_roll"), clusters=0)
    assert set(caught.value.problems) == {"code_dim", "clusters", "encoder.kind", "prior.kind"}


@pytest.mark.parametrize("kind", ARCHITECTURES.own)
def test_config_accepts_labels_only_for_models_that_read_them(kind: str) -> None:
    reads = ARCHITECTURES[kind].labels != "none"
    allowed = {None: True, 100: reads, 0: kind == "dimensionality_reduction"}
    for labels, allow in allowed.items():
        if allow:
            assert trial(kind, labels=labels).data.labels == labels
        else:
            with pytest.raises(ConfigError, match="labels") as caught:
                trial(kind, labels=labels)
            assert list(caught.value.problems) == ["data.labels"]


def test_config_accepts_standardised_pixels_with_linear_output() -> None:
    trial("aae", model={"output": "linear"}, standardise=True)


@pytest.mark.parametrize("kind", ARCHITECTURES.own)
def test_architecture_objective_is_one_of_its_metrics(kind: str) -> None:
    architecture = ARCHITECTURES[kind]
    assert architecture.objective in architecture.metrics
    assert len(set(architecture.metrics)) == len(architecture.metrics)


@pytest.mark.parametrize("kind", ARCHITECTURES.own)
def test_model_config_accepts_exactly_the_declared_encoders_and_priors(kind: str) -> None:
    for encoder in get_args(EncoderKind):
        for prior in PRIORS:
            wrong = {
                "encoder.kind": encoder not in ARCHITECTURES[kind].encoders,
                "prior.kind": prior not in ARCHITECTURES[kind].priors,
            }
            try:
                ModelConfig(kind, EncoderConfig(encoder), code_dim=2, prior=PriorConfig(prior))
                problems: set[str] = set()
            except ConfigError as error:
                problems = set(error.problems)
            assert problems == {name for name, is_wrong in wrong.items() if is_wrong}
