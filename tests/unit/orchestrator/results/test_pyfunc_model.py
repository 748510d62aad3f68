"""Methods of a registered model, for every architecture."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModelContext

from aae_core.config import DataConfig, EncoderConfig, ModelConfig, PriorConfig, TrialConfig
from aae_core.data import TrainingData, load_training_data
from aae_core.declarations import ARCHITECTURES
from aae_core.training import TrainState
from orchestrator.results.pyfunc_model import PyfuncModel, methods

DIM, CODE, CLASSES = 64, 2, 10
METHODS = {
    "aae": ["encode", "reconstruct", "sample", "decode"],
    "label_regularised": ["encode", "reconstruct", "sample", "decode"],
    "vae": ["encode", "reconstruct", "sample", "decode"],
    "gmmn_ae": ["encode", "reconstruct", "sample", "decode"],
    "supervised": ["encode", "sample", "decode"],
    "semi_supervised": ["encode", "classify", "reconstruct", "sample", "decode"],
    "clustering": ["encode", "classify", "reconstruct", "sample", "decode"],
    "dimensionality_reduction": ["encode", "classify", "reconstruct", "sample", "decode"],
    "gan": ["sample", "decode"],
    "classifier": ["classify"],
}


def test_expected_methods_cover_every_architecture() -> None:
    assert METHODS.keys() == ARCHITECTURES.own.keys()


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return load_training_data(DataConfig(), Path())


@pytest.fixture
def served(request: pytest.FixtureRequest, data: TrainingData, tmp_path: Path) -> PyfuncModel:
    architecture = ARCHITECTURES[request.param]
    model = ModelConfig(
        kind=request.param,
        encoder=EncoderConfig(architecture.encoders[0]),
        prior=PriorConfig(architecture.priors[0]),
        code_dim=CODE,
        hidden=(8,),
        clusters=CLASSES,
    )
    TrainState.create(TrialConfig(model=model), data).save(tmp_path / "checkpoint")
    served = PyfuncModel()
    served.load_context(PythonModelContext({"checkpoint": str(tmp_path / "checkpoint")}, None))
    return served


def ask(served: PyfuncModel, rows: Any, method: str, **params: Any) -> np.ndarray:
    answer: np.ndarray = served.predict(None, rows, {"method": method, **params})
    return answer


def images(n: int = 3) -> np.ndarray:
    return np.random.default_rng(0).random((n, DIM), dtype=np.float32)


@pytest.mark.parametrize("served", METHODS, indirect=True)
def test_served_model_answers_every_method_of_its_architecture(served: PyfuncModel) -> None:
    kind = served.model.kind
    assert list(methods(served.model)) == METHODS[kind]
    categories = CLASSES if "classify" in METHODS[kind] or kind == "supervised" else 0
    inputs = {"decode": np.zeros((3, CODE + categories), np.float32)}
    shapes = {"encode": (3, CODE), "classify": (3, CLASSES), "sample": (5, DIM)}
    for method in METHODS[kind]:
        answer = ask(served, inputs.get(method, images()), method, n=5)
        assert answer.shape == shapes.get(method, (3, DIM))
        assert answer.dtype == np.float32
    first = served.predict(None, images(), None)
    default = METHODS[kind][0]
    assert np.array_equal(first, ask(served, images(), default))


@pytest.mark.parametrize("served", ["semi_supervised", "clustering"], indirect=True)
def test_served_code_and_category_decode_to_the_reconstruction(served: PyfuncModel) -> None:
    code, category = (ask(served, images(), method) for method in ("encode", "classify"))
    decoded = ask(served, np.concatenate([code, category], axis=1), "decode")
    assert np.allclose(decoded, ask(served, images(), "reconstruct"), atol=1e-6)


@pytest.mark.parametrize("served", ["supervised"], indirect=True)
def test_served_supervised_decoder_accepts_a_one_hot_class(served: PyfuncModel) -> None:
    rows = np.zeros((1, CODE + CLASSES), np.float32)
    rows[0, CODE + 7] = 1
    expected = served.model.decode(torch.zeros(1, CODE), torch.tensor([7])).detach().numpy()
    assert np.allclose(ask(served, rows, "decode"), expected, atol=1e-6)


@pytest.mark.parametrize("served", ["aae"], indirect=True)
def test_served_samples_depend_only_on_their_seed(served: PyfuncModel) -> None:
    first, again = (ask(served, images(n), "sample", n=4, seed=1) for n in (1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, ask(served, images(), "sample", n=4, seed=2))


@pytest.mark.parametrize("served", ["aae", "semi_supervised"], indirect=True)
def test_served_model_refuses_unknown_methods_and_wrong_shapes(served: PyfuncModel) -> None:
    with pytest.raises(MlflowException, match=r"cannot `paint`; it can encode, .*decode"):
        ask(served, images(), "paint")
    for method in ("encode", "decode"):
        with pytest.raises(MlflowException, match=rf"{method}: no input .* \(3, 7\)"):
            ask(served, images()[:, :7], method)
