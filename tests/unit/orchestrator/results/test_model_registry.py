"""A sweep's winner in a real MLflow registry, loaded as users load the model."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from mlflow.tracking import MlflowClient
from straw_sweep import images, run, sweep, without_ray

import aae_core
from orchestrator.errors import EnvironmentUnusable, UsageError
from orchestrator.results.model_registry import CHAMPION, CHECKPOINT_TAG, Registered, register
from orchestrator.results.reader import ResultsReader
from orchestrator.settings import Settings
from orchestrator.study.study import StageStudy, open_storage
from orchestrator.sweepfile.spec import SweepSpec

NOWHERE = "http://127.0.0.1:9"  # the discard port: no server listens


@dataclass(frozen=True)
class Home:
    settings: Settings
    spec: SweepSpec

    @property
    def reader(self) -> ResultsReader:
        return ResultsReader(self.settings)

    @property
    def best(self) -> dict[str, Any]:
        best = self.reader.best(self.spec.sweep_id)
        assert best is not None
        return best

    def register(self, name: str | None = None) -> Registered:
        return register(self.reader, self.spec.sweep_id, name)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, empty_mlflow: Path) -> Home:
    """A complete sweep whose outbox has not been sent to MLflow."""
    folder = tmp_path_factory.mktemp("registering")
    shutil.copy(empty_mlflow, folder)
    settings = Settings.from_environment({"AAE_HOME": str(folder)})
    spec = sweep(images(folder / "images.npz", test=True), trials=1)
    with pytest.MonkeyPatch.context() as patch:
        without_ray(patch)
        run(settings, spec)
    return Home(settings, spec)


@pytest.fixture(scope="module")
def first(home: Home) -> Registered:
    return home.register()


@pytest.fixture
def client(home: Home) -> Iterator[MlflowClient]:
    """An MLflow client in a process that has the tracking URI, as a user's process has."""
    mlflow.set_tracking_uri(home.settings.tracking_uri)
    yield MlflowClient()
    mlflow.set_tracking_uri(None)


def test_register_twice_gives_one_version_with_champion_alias(
    home: Home, first: Registered, client: MlflowClient
) -> None:
    assert (first.name, first.version, first.new) == ("straw", 1, True)
    assert first.uri == "models:/straw/1"
    assert first.run_id == home.best["run_ids"][0]
    again = home.register()
    assert again == replace(first, new=False)
    [version] = client.search_model_versions("name = 'straw'")
    assert client.get_model_version_by_alias("straw", CHAMPION).version == version.version
    assert version.run_id == first.run_id
    assert version.tags["aae.sweep"] == home.spec.sweep_id
    assert len(version.tags[CHECKPOINT_TAG]) == 64
    assert version.description.startswith(f"**{home.spec.sweep_id}**: the winner over 2 seeds")
    assert "\n| recon | " in version.description


def test_register_under_another_name_creates_another_model(home: Home, first: Registered) -> None:
    other = home.register("images.of-noise")
    assert (other.name, other.version, other.new) == ("images.of-noise", 1, True)


def test_registered_model_answers_every_method(
    home: Home, first: Registered, client: MlflowClient
) -> None:
    model = mlflow.pyfunc.load_model(f"models:/straw@{CHAMPION}")
    net = aae_core.load(home.best["checkpoints"][0])
    x = np.random.default_rng(0).random((5, 9), dtype=np.float32)
    with torch.no_grad():
        z = net.encode(torch.from_numpy(x))
        decoded = net.decode(z).numpy()
    assert np.array_equal(model.predict(x), z.numpy())
    assert np.array_equal(model.predict(x, params={"method": "encode"}), z.numpy())
    assert np.array_equal(model.predict(z.numpy(), params={"method": "decode"}), decoded)
    assert np.array_equal(model.predict(x, params={"method": "reconstruct"}), decoded)
    drawn = model.predict(x, params={"method": "sample", "n": 7, "seed": 3})
    assert drawn.shape == (7, 9)
    info = mlflow.models.get_model_info(first.uri)
    assert {spec.name for spec in info.signature.params} == {"method", "n", "seed"}
    example = info.load_input_example() if hasattr(info, "load_input_example") else None
    assert example is None or np.asarray(example).shape == (2, 9)


def test_registered_model_files_hold_no_pickle(
    first: Registered, client: MlflowClient, tmp_path: Path
) -> None:
    folder = Path(mlflow.artifacts.download_artifacts(first.uri, dst_path=str(tmp_path)))
    # Loading the model from a local store writes compiled files there.
    kept = (path for path in folder.rglob("*") if "__pycache__" not in path.parts)
    files = [path for path in kept if path.is_file()]
    assert {path.suffix for path in files} == {".py", ".safetensors", ".json", ".yaml", ".txt"} | {
        path.suffix for path in files if path.name in ("MLmodel", "py.typed")
    }
    wanted = (folder / "requirements.txt").read_text()
    assert all(f"{name}==" in wanted for name in ("mlflow", "torch", "numpy", "safetensors"))
    assert "aae" not in wanted  # anyone could publish a package of this name


STRANGER = """
import json, sys
sys.modules["orchestrator"] = None  # whoever imports it fails
import mlflow, numpy
model = mlflow.pyfunc.load_model(sys.argv[1])
import aae_core
shape = model.predict(numpy.zeros((2, 9), numpy.float32)).shape
print(json.dumps([aae_core.__file__, shape]))
"""


def test_registered_model_loads_without_aae_sweep_installed(
    first: Registered, client: MlflowClient, tmp_path: Path
) -> None:
    folder = mlflow.artifacts.download_artifacts(first.uri, dst_path=str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, folder], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    source, shape = json.loads(done.stdout)
    assert Path(source).is_relative_to(folder)
    assert shape == [2, 2]


# -- what is refused ---------------------------------------------------------------------------


def test_register_refuses_a_name_that_mlflow_cannot_look_up(home: Home) -> None:
    with pytest.raises(UsageError, match="--as it's mine: give letters"):
        home.register("it's mine")


def test_register_refuses_an_unfinished_sweep(home: Home) -> None:
    study = StageStudy.read(open_storage(home.settings), home.spec.sweep_id, "search")
    done = study.state.done
    study.note(done=None)
    try:
        with pytest.raises(UsageError, match=r"no confirmed winner .* aae-sweep run straw.yaml"):
            home.register()
    finally:
        study.note(done=done)


def test_register_without_server_raises_environment_unusable(home: Home) -> None:
    away = Home(replace(home.settings, tracking_uri=NOWHERE), home.spec)
    with pytest.raises(EnvironmentUnusable, match="did not accept everything"):
        away.register()
