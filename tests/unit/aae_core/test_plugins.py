"""Declarations of other installed packages: found by name, loaded late, refused in words."""

import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from plugins import Install
from tiny import images, start, trial

from aae_core import testing
from aae_core.config import DataConfig, ModelConfig, PriorConfig, TrainConfig, TrialConfig
from aae_core.data import load_test_data, load_training_data, open_data_set
from aae_core.data.resident import Images
from aae_core.declarations import ARCHITECTURES, PRIORS, Architecture, PriorDeclaration
from aae_core.errors import ConfigError
from aae_core.evaluation.scores import test_metrics as on_test
from aae_core.metrics import METRICS
from aae_core.training import TrainState, fit
from orchestrator.tracking.provenance import plugins


def swae(**settings: object) -> TrialConfig:
    config = trial("aae", epochs=3).to_dict()
    config["model"] |= {"kind": "sliced_wasserstein", "settings": settings}
    config["model"]["prior"] |= {"kind": "ring", "settings": {"width": 0.2}}
    return TrialConfig.from_dict(config)


def test_registry_lists_own_names_and_finds_no_other() -> None:
    assert set(ARCHITECTURES.own) <= set(ARCHITECTURES)
    assert "nowhere" not in PRIORS
    with pytest.raises(KeyError):
        PRIORS["nowhere"]


@pytest.mark.usefixtures("example")
def test_plugin_trains_with_its_own_settings_and_prior(tmp_path: Path) -> None:
    config = swae(projections=7)
    assert asdict(config.model.settings) == {"projections": 7, "weight": 1.0}
    assert config != swae(projections=8)
    assert config.config_hash != swae(projections=8).config_hash
    state = start(config)
    running = fit(state, images())
    next(running)
    state.save(tmp_path / "one")
    resumed = TrainState.load(tmp_path / "one")
    assert resumed.config == config
    for _ in running:
        pass
    for _ in fit(resumed, images()):
        pass
    assert resumed.history == state.history
    assert state.history[-1]["train/recon"] < state.history[0]["train/recon"]
    assert state.history[-1].keys() > {"train/sliced", "val/parzen_ll", "val/latent_mmd"}


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize(
    ("settings", "field", "message"),
    [
        ({"projection": 7}, "settings.projection", "unknown key"),
        ({"projections": 7.5}, "settings.projections", "must be a whole number"),
        ({"projections": True}, "settings.projections", "must be a whole number"),
        ({"weight": "much"}, "settings.weight", "must be a number"),
    ],
)
def test_wrong_setting_of_a_plugin_is_named(
    settings: dict[str, object], field: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        ModelConfig("sliced_wasserstein", settings=settings)
    assert caught.value.problems == {field: message}


def test_settings_of_a_kind_without_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"settings: this kind has no settings of its own"):
        PriorConfig("gaussian", settings={"width": 1.0})


def test_broken_plugin_is_named_with_its_version_and_stops_no_other(install: Install) -> None:
    install("broken", "[aae_sweep.priors]\nring = no_such_module:RING\nodd = json:dumps\n")
    with pytest.raises(ConfigError, match=r"`ring` of broken 1.2 cannot be loaded: ModuleNotFound"):
        PriorConfig("ring")
    with pytest.raises(
        ConfigError, match=r"`odd` of broken 1.2 is not of type PriorDeclaration: json:dumps"
    ):
        PriorConfig("odd")
    with pytest.raises(ConfigError, match=r"must be one of gaussian, .*, ring"):
        PriorConfig("rng")
    PriorConfig("gaussian")


def test_name_of_two_packages_is_refused_with_both_owners(install: Install) -> None:
    install("one", "[aae_sweep.priors]\nring = aae_example:RING\nuniform = aae_example:RING\n")
    install("two", "[aae_sweep.priors]\nring = aae_example:RING\n")
    with pytest.raises(ConfigError, match=r"`ring` is declared by (one|two) 1.2 and (one|two) 1.2"):
        PriorConfig("ring")
    with pytest.raises(ConfigError, match=r"`uniform` is declared by aae-sweep and one 1.2"):
        PriorConfig("uniform")


@pytest.mark.usefixtures("example")
def test_plugin_is_loaded_only_when_it_is_named() -> None:
    sys.modules.pop("aae_example", None)
    assert "ring" in PRIORS
    assert PRIORS.owner("ring") == "aae-example 1.2"
    assert PRIORS.owner("gaussian") is None
    assert "aae_example" not in sys.modules
    assert isinstance(PRIORS["ring"], PriorDeclaration)
    assert isinstance(ARCHITECTURES["sliced_wasserstein"], Architecture)


@pytest.mark.usefixtures("own_parts")
def test_own_data_set_and_metrics_obey_the_laws(tmp_path: Path) -> None:
    testing.check_data_set(open_data_set(DataConfig("stripes", settings={"side": 5}), tmp_path))
    testing.check_metric("brightness")
    testing.check_metric("contrast", "vae")


@pytest.mark.usefixtures("own_parts")
def test_own_metric_is_measured_on_both_splits_beside_the_others(tmp_path: Path) -> None:
    config = trial("aae", epochs=1).to_dict()
    config["data"] = {"name": "stripes", "settings": {"side": 6}}
    config["training"]["metrics"] = ["brightness"]
    config["seed"] = 3
    data = load_training_data(DataConfig(**config["data"]), tmp_path)
    test = load_test_data(DataConfig(**config["data"]), tmp_path)
    assert (data.image_shape, data.classes) == ((6, 6), 6)
    state = TrainState.create(TrialConfig.from_dict(config), data)
    [epoch] = fit(state, data)
    splits = (Images.of(data.x_valid, data.y_valid, "cpu"), Images.of(test.x, test.y, "cpu"))
    figures = on_test(state.model, *splits, 3, 1, ["brightness"])
    names = {"val/brightness", "test/brightness"}
    assert names <= epoch.metrics.keys() | figures.keys()
    assert all(-1 < {**epoch.metrics, **figures}[name] < 1 for name in names)
    assert METRICS["val/brightness"].unit == "pixel"


@pytest.mark.usefixtures("own_parts")
def test_own_metric_and_data_set_have_a_place_in_hash_and_checks() -> None:
    plain, further = TrialConfig(), TrialConfig(training=TrainConfig(metrics=("brightness",)))
    assert plain.config_hash != further.config_hash
    assert TrialConfig.from_dict(further.to_dict()) == further
    with pytest.raises(ConfigError, match="architecture's own are always measured"):
        TrainConfig(metrics=("recon",))
    with pytest.raises(ConfigError, match=r"metrics: must be one of .*, brightness, contrast"):
        TrainConfig(metrics=("sharpness",))
    with pytest.raises(ConfigError, match=r"settings.side: must be a whole number"):
        DataConfig("stripes", settings={"side": "wide"})
    with pytest.raises(ConfigError, match=r"name: must be one of digits, .*, arrays, stripes"):
        DataConfig("strips")


def test_broken_metric_is_unknown_to_results_and_named_in_trials(install: Install) -> None:
    install("broken", "[aae_sweep.metrics]\nodd = json:dumps\n")
    assert "val/odd" not in METRICS
    with pytest.raises(ConfigError, match=r"metrics: `odd` of broken 1.2 is not of type Metric"):
        TrainConfig(metrics=("odd",))


@pytest.mark.usefixtures("own_parts")
def test_record_names_the_packages_of_all_parts_of_a_trial() -> None:
    config = trial("aae", epochs=1).to_dict()
    config["data"] = {"name": "stripes"}
    config["training"]["metrics"] = ["contrast"]
    owner = "own-parts 1.2"
    expected = {"aae.plugin.stripes": owner, "aae.plugin.contrast": owner}
    assert plugins(TrialConfig.from_dict(config)) == expected
