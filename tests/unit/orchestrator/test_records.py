"""Every number that the core reports is declared with its unit and its better direction."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from aae_core.config import DataConfig, EncoderConfig, ModelConfig, PriorConfig, TrainConfig
from aae_core.config import TrialConfig as Trial
from aae_core.data import TrainingData, load_test_data, load_training_data
from aae_core.data.resident import Images
from aae_core.declarations import ARCHITECTURES
from aae_core.evaluation.likelihood import SIGMA_GRID, STD_GRID
from aae_core.evaluation.scores import test_metrics as on_test
from aae_core.metrics import METRICS
from aae_core.training import TrainState, fit
from orchestrator.records import conditions


@pytest.fixture(scope="module")
def digits() -> TrainingData:
    torch.set_num_threads(1)
    return load_training_data(DataConfig(), Path())


@pytest.mark.parametrize("kind", ARCHITECTURES.own)
def test_metrics_of_every_architecture_are_declared(kind: str) -> None:
    for metric in ARCHITECTURES[kind].metrics:
        assert f"val/{metric}" in METRICS
    assert METRICS[f"val/{ARCHITECTURES[kind].objective}"].better in ("min", "max")


@pytest.mark.parametrize("kind", ARCHITECTURES.own)
def test_metrics_reported_by_training_are_declared(kind: str, digits: TrainingData) -> None:
    architecture = ARCHITECTURES[kind]
    encoder, prior = EncoderConfig(architecture.encoders[0]), PriorConfig(architecture.priors[0])
    model = ModelConfig(kind, encoder, code_dim=2, prior=prior, hidden=(4,))
    state = TrainState.create(Trial(model=model, training=TrainConfig(epochs=2)), digits)
    reported = {name for epoch in fit(state, digits) for name in epoch.metrics}
    test = load_test_data(DataConfig(), Path())
    valid = Images.of(digits.x_valid, digits.y_valid, "cpu")
    reported |= set(on_test(state.model, valid, Images.of(test.x, test.y, "cpu"), 0, 2))
    assert any(name.startswith("train/") for name in reported)
    assert reported <= set(METRICS)
    objective = f"val/{architecture.objective}"
    assert objective in reported
    discriminators = {name for name in reported if name.startswith("train/disc_")}
    assert discriminators == {f"train/disc_{block}" for block in architecture.adversaries}
    assert objective.replace("val/", "test/") in reported


def test_metric_is_looked_up_by_split_and_name() -> None:
    assert METRICS["test/recon"] is METRICS["val/recon"]
    assert "val/iw_ll" not in METRICS  # measured on the test images alone
    assert "recon" not in METRICS


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("train/disc_z", 1.38, None),
        ("train/disc_z", 0.01, "train/disc_z is 0.01, healthy above 0.1"),
        ("val/latent_std", 1.9, None),
        ("val/latent_std", 3.5, "val/latent_std is 3.5, healthy from 0.5 to 2"),
        ("val/latent_mmd", 0.12, "val/latent_mmd is 0.12, healthy below 0.1"),
        ("val/latent_mmd", math.nan, "val/latent_mmd is nan, healthy below 0.1"),
        ("val/recon", 1e9, None),
        ("val/recon", math.nan, None),
        ("no such metric", 0.0, None),
    ],
)
def test_conditions_warn_of_metrics_outside_their_range(
    name: str, value: float, expected: str | None
) -> None:
    assert conditions({name: value}) == ([] if expected is None else [expected])


def test_conditions_warn_of_parzen_sigma_at_grid_edges() -> None:
    grid = [float(sigma) for sigma in np.logspace(-1, 0, 10)]
    sound = [sigma for sigma in grid if not conditions({"val/parzen_sigma": sigma})]
    assert sound == grid[1:-1]


def test_conditions_warn_of_importance_weighted_widths_at_grid_edges() -> None:
    for name, grid in {"test/iw_sigma": SIGMA_GRID, "test/iw_std": STD_GRID}.items():
        sound = [width for width in grid if not conditions({name: width})]
        assert sound == list(grid[1:-1])


def test_metrics_maximize_likelihood_and_minimize_errors() -> None:
    assert METRICS["val/parzen_ll"].direction == "maximize"
    assert METRICS["val/mode_accuracy"].direction == "maximize"
    for name in ("val/error", "val/cluster_error", "val/recon", "val/latent_mmd"):
        assert METRICS[name].direction == "minimize"
