from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from aae_core import checkpoint
from aae_core.config import DataConfig, ModelConfig, TrainConfig, TrialConfig
from aae_core.data import TrainingData, load_training_data
from aae_core.training import TrainState, fit
from orchestrator.results.figures import dated, draw_epoch, draw_figures, is_drawn


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return load_training_data(DataConfig(), Path())


def _draw(kind: Any, data: TrainingData, folder: Path, seed: int = 0) -> dict[str, bytes]:
    config = TrialConfig(model=ModelConfig(kind=kind, code_dim=2, hidden=(8,)))
    paths = draw_figures(TrainState.create(config, data).model.eval(), data, seed, folder)
    if paths:
        assert sorted(paths) == sorted(folder.iterdir())
    return {path.name: path.read_bytes() for path in paths}


CODES = {"latent.png", "codes.html"}
WALK = {"walk.png", "walk.gif"}


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("aae", {"samples.png", "manifold.png"} | CODES | WALK),
        ("semi_supervised", {"samples.png", "styles.png"} | CODES | WALK),
        ("clustering", {"samples.png", "clusters.png"} | CODES | WALK),
        ("gan", {"samples.png", "manifold.png"} | WALK),
    ],
)
def test_draw_figures_writes_every_figure_of_a_model(
    kind: str, names: set[str], data: TrainingData, tmp_path: Path
) -> None:
    assert _draw(kind, data, tmp_path / "new" / "folder").keys() == names
    for path in (tmp_path / "new" / "folder").glob("*.png"):
        with Image.open(path) as picture:
            assert np.array(picture).std() > 0


def test_draw_figures_of_a_classifier_writes_nothing(data: TrainingData, tmp_path: Path) -> None:
    assert _draw("classifier", data, tmp_path / "new") == {}
    assert not (tmp_path / "new").exists()


def test_draw_figures_same_model_and_seed_give_same_bytes(
    data: TrainingData, tmp_path: Path
) -> None:
    first, again, other = (
        _draw("aae", data, tmp_path / name, seed)
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )
    assert first == again
    assert {name for name in first if first[name] == other[name]} == {"manifold.png"}


# -- during training -------------------------------------------------------------------------


def test_drawn_epochs_are_zero_powers_of_two_and_last() -> None:
    assert [epoch for epoch in range(21) if is_drawn(epoch, 20)] == [0, 1, 2, 4, 8, 16, 20]


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("aae", {"samples", "latent", "manifold", "walk"}),
        ("clustering", {"samples", "latent", "clusters", "walk"}),
        ("classifier", set()),
    ],
)
def test_draw_epoch_writes_thumbnails_and_mlflow_names(
    kind: Any, keys: set[str], data: TrainingData, tmp_path: Path
) -> None:
    state = TrainState.create(_config(kind), data)
    state.epoch = 8
    paths = draw_epoch(state, data, tmp_path / "attempt")
    expected = {
        f"{key}+step+8+timestamp+17+{key}{end}"
        for key in keys
        for end in (".png", "+compressed.webp")
    }
    assert {dated(path.name, 17) for path in paths} == expected
    for path in paths:
        with Image.open(path) as picture:
            assert path.suffix == ".png" or max(picture.size) == 256


def test_draw_epoch_leaves_the_training_state_unchanged(data: TrainingData, tmp_path: Path) -> None:
    plain, drawn = (TrainState.create(_config("aae"), data) for _ in range(2))
    for state in (plain, drawn):
        for epoch in fit(state, data):
            if state is drawn:
                draw_epoch(state, data, tmp_path / str(epoch.epoch))
        state.save(tmp_path / f"drawn-{state is drawn}")
    ours, theirs = (checkpoint.load(tmp_path / f"drawn-{drawn}") for drawn in (True, False))
    assert all(ours[0][name].equal(theirs[0][name]) for name in theirs[0])
    assert ours[1] == theirs[1]


def _config(kind: Any) -> TrialConfig:
    model = ModelConfig(kind=kind, code_dim=2, hidden=(8,), batch_norm="autoencoder")
    return TrialConfig(model=model, training=TrainConfig(epochs=2))
