import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aae_core.config import (
    AdversarialConfig,
    DataConfig,
    EncoderConfig,
    ModelConfig,
    OptimizerConfig,
    PriorConfig,
    ScheduleConfig,
    TrainConfig,
    TrialConfig,
)
from aae_core.errors import ConfigError

CONFIG = TrialConfig(
    data=DataConfig("arrays", "x.npz"),
    model=ModelConfig(encoder=EncoderConfig("universal", 3), hidden=(5,), prior=PriorConfig(std=2)),
    training=TrainConfig(schedule=ScheduleConfig("step", (3, 5))),
    seed=7,
)


def test_a_configuration_survives_json() -> None:
    document = json.loads(json.dumps(CONFIG.to_dict()))
    assert TrialConfig.from_dict(document) == CONFIG


def test_an_unknown_key_is_refused() -> None:
    document = CONFIG.to_dict()
    document["model"]["codedim"] = 3
    with pytest.raises(ConfigError, match="codedim"):
        TrialConfig.from_dict(document)


@given(st.integers(0, 2**63 - 1))
def test_the_hash_names_the_configuration_whatever_its_seed(seed: int) -> None:
    other = TrialConfig(CONFIG.data, CONFIG.model, CONFIG.training, seed)
    assert other.config_hash == CONFIG.config_hash
    assert TrialConfig(seed=seed).config_hash != CONFIG.config_hash


def test_the_paper_s_rates_are_the_defaults() -> None:
    training = TrainConfig()
    assert (training.reconstruction.lr, training.reconstruction.momentum) == (0.01, 0.9)
    assert (training.adversarial.lr, training.adversarial.momentum) == (0.1, 0.1)


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
        (lambda: TrialConfig(seed=-1), "seed"),
        (lambda: DataConfig("digits", "x.npz"), "path"),
        (lambda: DataConfig("arrays"), "path"),
    ],
)
def test_a_wrong_value_is_named(build: object, field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build()  # type: ignore[operator]
    assert list(caught.value.problems) == [field]
