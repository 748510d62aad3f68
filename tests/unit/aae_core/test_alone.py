"""Test that the core needs only torch, numpy and safetensors."""

import subprocess
import sys
from pathlib import Path

import numpy as np

TRAIN = """
import sys

ABSENT = ("ray", "mlflow", "optuna", "pydantic", "ruamel", "pandas", "plotly", "typer", "rich",
          "filelock", "pooch", "sklearn", "scipy", "PIL", "orchestrator", "dashboards")

class Bare:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in ABSENT:
            return self.finder.find_spec(name, path, target)

sys.meta_path = [Bare(finder) for finder in sys.meta_path]

from pathlib import Path

import aae_core
from aae_core.config import DataConfig, ModelConfig, TrainConfig, TrialConfig
from aae_core.data import load_test_data, load_training_data
from aae_core.data.resident import Images
from aae_core.evaluation.scores import test_metrics
from aae_core.training import TrainState, fit

home = Path(sys.argv[1])
for kind, labels in [("aae", None), ("semi_supervised", 4)]:
    config = TrialConfig(
        DataConfig("arrays", str(home / "data.npz"), labels),
        ModelConfig(kind, code_dim=2, hidden=(8,)),
        TrainConfig(epochs=1, batch_size=10),
    )
    data = load_training_data(config.data, home)
    state = TrainState.create(config, data)
    (epoch,) = fit(state, data)
    state.save(home / kind)
    model = aae_core.load(home / kind)
    test = load_test_data(config.data, home)
    valid, test = Images.of(data.x_valid, data.y_valid, "cpu"), Images.of(test.x, test.y, "cpu")
    print(epoch.epoch, *test_metrics(model, valid, test, 0, 1))
"""


def test_core_trains_and_scores_without_other_packages(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((40, 9), dtype=np.float32)
    y = np.arange(40) % 2
    train, test = slice(0, 30), slice(30, 40)
    np.savez(
        tmp_path / "data.npz",
        x_train=images[train],
        y_train=y[train],
        x_test=images[test],
        y_test=y[test],
    )
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    aae, semi_supervised = (line.split() for line in done.stdout.splitlines())
    assert aae[0] == semi_supervised[0] == "1"
    assert {"test/recon", "test/parzen_ll"} < set(aae)
    assert {"test/recon", "test/error"} <= set(semi_supervised)
