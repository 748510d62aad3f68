"""The core runs where there is nothing but torch, numpy and safetensors."""

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
from aae_core.evaluation.scores import test_metrics
from aae_core.training import TrainState, fit
from aae_core.training.loop import resident

home = Path(sys.argv[1])
config = TrialConfig(
    DataConfig("arrays", str(home / "data.npz")),
    ModelConfig(code_dim=2, hidden=(8,)),
    TrainConfig(epochs=1, batch_size=10),
)
data = load_training_data(config.data, home)
state = TrainState.create(config, data.image_shape, data.sha256)
(epoch,) = fit(state, data)
state.save(home / "checkpoint")
model = aae_core.load(home / "checkpoint")
x_valid = resident(data.x_valid, state.device)
x_test = resident(load_test_data(config.data, home).x, state.device)
print(epoch.epoch, sorted(test_metrics(model, x_valid, x_test, 0, 1)))
"""


def test_the_core_trains_and_scores_alone(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((40, 9), dtype=np.float32)
    np.savez(tmp_path / "data.npz", x_train=images[:30], x_test=images[30:])
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 ['test/parzen_ll'")
