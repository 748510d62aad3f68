"""Smoke sweeps: small versions of a sweep that never touch the real one."""

from pathlib import Path

import numpy as np
import pytest

from aae_core.data import TrainingData, load_test_data, load_training_data
from aae_core.declarations import ARCHITECTURES
from orchestrator.settings import Settings
from orchestrator.sweepfile.loader import load_sweep, parse_sweep
from orchestrator.sweepfile.parameters import Choice, IntRange
from orchestrator.sweepfile.smoke import smoke
from orchestrator.sweepfile.spec import SweepSpec
from orchestrator.tracking.provenance import flat

SWEEPS = sorted((Path(__file__).parents[4] / "sweeps").glob("*.yaml"))

WIDE = """
name: wide
data: {name: mnist}
search:
  sampler: {kind: tpe, startup_trials: 20}
  pruner: {kind: median, grace_epochs: 10}
  trials: 50
  balance: model.encoder.kind
  space:
    model.encoder.kind: {choice: [deterministic, gaussian, universal]}
    model.hidden: {choice: [[500], [1000], [1000, 1000], [8]]}
    model.code_dim: {int: [4, 16], when: {model.hidden: [[1000, 1000], [1000]]}}
    training.epochs: {int: [50, 200]}
    training.reconstruction.lr: {float: [1e-3, 1e-2], log: true}
confirm: {top: 3, per: model.encoder.kind, seeds: 10}
evaluate: {parzen: {samples: 10_000_000, models: 4, screen_samples: 100_000}}
resources: {cpu: 4}
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.from_environment({"AAE_HOME": str(tmp_path), "AAE_DATA": str(tmp_path / "no")})


def small(text: str, settings: Settings, *overrides: str) -> SweepSpec:
    return smoke(parse_sweep(text, "wide.yaml", overrides), settings)


def data_of(text: str, settings: Settings) -> TrainingData:
    return load_training_data(small(f"name: x\n{text}", settings).data, settings.data)


@pytest.mark.parametrize("path", SWEEPS, ids=lambda p: p.stem)
def test_smoke_keeps_all_but_the_sizes_of_a_sweep(path: Path, settings: Settings) -> None:
    real = load_sweep(path)
    tiny = smoke(real, settings)
    assert tiny.name == f"{real.name}-smoke"
    assert tiny.sweep_id != real.sweep_id
    assert tiny.notes == []
    assert tiny.objective == real.objective
    assert tiny.seed == real.seed
    shrunk = {"hidden", "channels", "init_std", "epochs", "batch_size", "share"}
    assert tiny.resolved()["data"]["standardise"] == real.data.standardise
    for group in ("model", "training"):
        before, after = flat(real.resolved()[group]), flat(tiny.resolved()[group])
        assert before.keys() == after.keys()
        for path, value in after.items():
            if path.rpartition(".")[2] not in shrunk:
                assert value == before[path], path
    assert len(tiny.model.hidden) == len(real.model.hidden)
    assert len(tiny.model.channels) == len(real.model.channels)
    assert (tiny.search is None) == (real.search is None)
    if tiny.search and real.search:
        assert tiny.search.space.keys() == real.search.space.keys()
        assert tiny.search.sampler.kind == real.search.sampler.kind


def test_smoke_shrinks_the_settings_of_each_network(settings: Settings) -> None:
    gan = small(
        "name: x\nmodel: {kind: gan, discriminator: {hidden: [240, 24], init_std: 0.003}}\n",
        settings,
    ).model
    assert gan.discriminator.hidden == (32, 24)
    assert gan.discriminator.init_std == 0.1
    assert gan.decoder.hidden is None
    gmmn = small(
        "name: x\ntraining: {epochs: 50, batch_size: 100}\nmodel:\n  kind: gmmn_ae\n"
        "  autoencoder: {share: 0.9, batch_size: 50}\n  matcher: {hidden: [64]}\n",
        settings,
    ).model
    assert gmmn.matcher.hidden == (32,)
    assert (gmmn.autoencoder.share, gmmn.autoencoder.batch_size) == (0.5, 20)


def test_smoke_shrinks_every_size_of_a_sweep(settings: Settings) -> None:
    spec = small(WIDE, settings, "model.channels=[64,128,256]", "training.epochs=200")
    assert spec.model.hidden == (32, 32)
    assert spec.model.channels == (4, 8, 16)
    assert spec.training.epochs == 2
    assert spec.max_epochs == 2
    assert spec.search.trials == 3  # one for each encoder
    assert spec.confirmations == 2 + 2  # the winner, and the file's own configuration
    assert spec.evaluate.parzen.samples < 10_000
    assert spec.evaluate.parzen.screen_samples < spec.evaluate.parzen.samples
    assert spec.resources.cpu == 1


def test_smoke_keeps_sizes_that_are_already_small(settings: Settings) -> None:
    spec = small(
        "name: x\nmodel: {hidden: [7], init_std: 0.3}\ntraining: {epochs: 1, batch_size: 5}\n"
        "confirm: {seeds: 1}\nevaluate: {parzen: {samples: 50, screen_samples: 40}}\n",
        settings,
    )
    assert (spec.model.hidden, spec.model.init_std) == ((7,), 0.3)
    assert (spec.training.epochs, spec.training.batch_size) == (1, 5)
    assert spec.confirm.seeds == 1
    assert (spec.evaluate.parzen.samples, spec.evaluate.parzen.screen_samples) == (50, 40)


def test_smoke_shrinks_the_space_as_its_settings(settings: Settings) -> None:
    search = small(WIDE, settings).search
    widths, epochs = search.space["model.hidden"], search.space["training.epochs"]
    assert isinstance(widths, Choice)
    assert [list(choice) for choice in widths.choices] == [[32], [32, 32], [8]]
    assert isinstance(epochs, IntRange)
    assert epochs.bounds == (2, 2)
    when = search.space["model.code_dim"].when["model.hidden"]
    assert [list(value) for value in when] == [[32, 32], [32]]


def test_smoke_drops_the_warm_start(settings: Settings) -> None:
    search = small(WIDE, settings, "search.warm_start=another").search
    assert search is not None
    assert search.warm_start is None


def test_smoke_keeps_its_suffix_on_a_long_name(settings: Settings) -> None:
    assert small(f"name: {'n' * 64}\n", settings).name == f"{'n' * 58}-smoke"


@pytest.mark.parametrize(
    ("data", "shape", "classes"),
    [
        ("{name: mnist}", (28, 28), 10),
        ("{name: fashion_mnist}", (28, 28), 10),
        ("{name: svhn, extra: true}", (32, 32, 3), 10),
        ("{name: svhn, colour: false}", (32, 32), 10),
        ("{name: tfd, fold: 3}", (48, 48), 7),
    ],
)
def test_smoke_data_have_shape_and_classes_of_the_data_set(
    data: str, shape: tuple[int, ...], classes: int, settings: Settings
) -> None:
    spec = small(f"name: x\ndata: {data}\n", settings)
    assert Path(spec.data.path).is_relative_to(settings.home / "smoke")
    training = load_training_data(spec.data, settings.data)
    assert (training.image_shape, training.classes) == (shape, classes)
    assert len(training.x_train) == 40 * classes
    assert training.x_train.dtype == np.uint8
    assert training.x_train.max() == 255
    assert training.y_valid is not None
    assert np.bincount(training.y_valid).tolist() == [10] * classes
    test = load_test_data(spec.data, settings.data)
    assert test.y is not None
    assert np.bincount(test.y).tolist() == [10] * classes


def test_smoke_data_have_no_image_in_two_splits(settings: Settings) -> None:
    spec = small("name: x\ndata: {name: mnist}\n", settings)
    training = load_training_data(spec.data, settings.data)
    test = load_test_data(spec.data, settings.data)
    images = np.concatenate([training.x_train, training.x_valid, test.x])
    assert len(np.unique(images, axis=0)) == len(images)


def test_smoke_data_of_tfd_are_partly_unlabelled(settings: Settings) -> None:
    y = data_of("data: {name: tfd}", settings).y_train
    assert y is not None
    assert np.bincount(y + 1).tolist() == [140, *[20] * 7]


def test_smoke_data_are_the_same_every_time(settings: Settings) -> None:
    first = small(WIDE, settings)
    before = Path(first.data.path).read_bytes()
    assert small(WIDE, settings) == first
    assert Path(first.data.path).read_bytes() == before
    assert [path.name for path in (settings.home / "smoke").iterdir()] == ["mnist-28x28.npz"]


@pytest.mark.parametrize(
    ("labels", "seen"), [("null", None), ("0", 0), ("100", 100), ("10000", 200)]
)
def test_smoke_clips_labels_so_that_some_images_have_none(
    labels: str, seen: int | None, settings: Settings
) -> None:
    kind = "{kind: dimensionality_reduction, code_dim: 2}"
    text = f"name: x\ndata: {{name: mnist, labels: {labels}}}\nmodel: {kind}\n"
    assert small(text, settings).data.labels == seen


@pytest.mark.parametrize("data", ["{name: digits}", "{name: arrays, path: own.npz}"])
def test_smoke_keeps_own_arrays_and_digits(data: str, settings: Settings) -> None:
    real = parse_sweep(f"name: x\ndata: {data}\n", "x.yaml")
    assert smoke(real, settings).data == real.data
    assert not (settings.home / "smoke").exists()


def test_shipped_sweeps_cover_every_architecture() -> None:
    assert {load_sweep(path).model.kind for path in SWEEPS} == set(ARCHITECTURES.own)
