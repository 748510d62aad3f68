import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from sweep_command import aae

from aae_core.evaluation import scores
from orchestrator.execution import cluster
from orchestrator.settings import Settings

SWEEP = """\
name: tiny
data: {name: digits}
model: {code_dim: 4, prior: {std: 2.0}, hidden: [32], init_std: 0.15}
training:
  epochs: 2
  reconstruction: {optimizer: adam, lr: 5e-3}
  adversarial: {optimizer: adam, lr: 1e-3}
search:
  trials: 3
  sampler: {kind: random}
  space:
    model.prior.std: {float: [0.5, 8], log: true}
confirm: {seeds: 2}
resources: {cpu: 1, gpu: 0}
"""


@pytest.fixture(autouse=True, scope="session")
def few_samples() -> Iterator[None]:
    """Let trials be measured with fewer samples, which take longer than their training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scores, "PARZEN_SAMPLES", 2_000)
        patch.setattr(scores, "_IMPORTANCE_DRAWS", 2)
        yield


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that does not exist yet; a command that starts nothing does not create the home."""
    for name in ("AAE_STUDY_URI", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AAE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AAE_DATA", str(tmp_path / "data"))
    return tmp_path / "home"


@pytest.fixture
def settings(home: Path, new_home: Callable[[str], Settings]) -> Settings:
    """The settings of a home with an empty study database."""
    new_home(home.name)
    return Settings.from_environment()


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the sweep file's own configuration."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.yaml").write_text(SWEEP)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AAE_HOME", str(folder / "home"))
        ended = aae("train", folder / "tiny.yaml", "--threads", 1, "--json")
    return Path(ended.lines[-1]["checkpoint"])


@pytest.fixture
def checkpoint(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "checkpoint"))


@pytest.fixture
def sweep_file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(SWEEP)
    return path


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let `train` use one CPU, and restore the thread count of this process, which `train` sets."""
    monkeypatch.setattr(cluster, "usable_cpus", lambda: 1)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
