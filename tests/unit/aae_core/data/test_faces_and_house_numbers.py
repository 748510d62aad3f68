"""Test SVHN and TFD from the .mat file through training, resume and score to a picture."""

from pathlib import Path

import pytest
import torch

from aae_core.config import DataConfig, ModelConfig, OptimizerConfig, TrainConfig, TrialConfig
from aae_core.data import load_test_data, load_training_data
from aae_core.data.resident import Images
from aae_core.data.svhn import Svhn
from aae_core.data.tfd import Tfd
from aae_core.evaluation import figures
from aae_core.evaluation.scores import test_metrics as on_test  # pytest would collect test_…
from aae_core.training import TrainState, fit

DATA = {
    "svhn": DataConfig("svhn", labels=10, standardise=True, extra=True),
    "svhn_grey": DataConfig("svhn", labels=10, standardise=True, colour=False),
    "tfd": DataConfig("tfd", labels=7, standardise=True, fold=2),
}


@pytest.mark.parametrize("name", DATA)
def test_svhn_and_tfd_train_resume_score_and_draw(
    name: str, tmp_path: Path, svhn_set: Svhn, tfd_set: Tfd
) -> None:
    model = ModelConfig(
        "semi_supervised",
        code_dim=3,
        hidden=(16,),
        channels=(4, 8),
        output="linear",
        batch_norm="autoencoder",
    )
    training = TrainConfig(
        epochs=3, batch_size=10, reconstruction=OptimizerConfig(lr=1e-4), input_dropout=0.2
    )
    config = TrialConfig(DATA[name], model, training)
    data = load_training_data(config.data, tmp_path, fetch=False)
    test = load_test_data(config.data, tmp_path, fetch=False)

    whole = TrainState.create(config, data)
    epochs = fit(whole, data)
    first = next(epochs)
    whole.save(tmp_path / "epoch-1")
    rest = [epoch.metrics for epoch in epochs]
    resumed = TrainState.load(tmp_path / "epoch-1")
    assert resumed.history == [{"epoch": 1, **first.metrics}]
    assert [epoch.metrics for epoch in fit(resumed, data)] == rest

    valid = Images.of(data.x_valid, data.y_valid, "cpu")
    held_out = Images.of(test.x, test.y, "cpu")
    scores = on_test(resumed.model.eval(), valid, held_out, config.seed, 3)
    assert scores.keys() == {"test/recon", "test/error"}

    grid = figures.styles(resumed.model, data, torch.Generator().manual_seed(0))
    height, width = data.image_shape[:2]
    assert grid.shape[:2] == (10 * (height + 1) - 1, data.classes * (width + 1) - 1)
    assert grid.ndim == len(data.image_shape)
