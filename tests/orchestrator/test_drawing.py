from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from aae_core.config import DataConfig, ModelConfig, TrialConfig
from aae_core.data import TrainingData, load_training_data
from aae_core.training import TrainState
from orchestrator.drawing import draw_figures


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
def test_every_figure_of_a_model_is_a_file(
    kind: str, names: set[str], data: TrainingData, tmp_path: Path
) -> None:
    assert _draw(kind, data, tmp_path / "new" / "folder").keys() == names
    for path in (tmp_path / "new" / "folder").glob("*.png"):
        with Image.open(path) as picture:
            assert np.array(picture).std() > 0


def test_a_classifier_leaves_nothing(data: TrainingData, tmp_path: Path) -> None:
    assert _draw("classifier", data, tmp_path / "new") == {}
    assert not (tmp_path / "new").exists()


def test_the_same_model_and_seed_make_the_same_bytes(data: TrainingData, tmp_path: Path) -> None:
    first, again, other = (
        _draw("aae", data, tmp_path / name, seed)
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )
    assert first == again
    assert {name for name in first if first[name] == other[name]} == {"manifold.png"}
