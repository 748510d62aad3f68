"""Code of a registered model, which MLflow stores and `mlflow.pyfunc.load_model` runs.

MLflow also stores aae_core and a checkpoint (safetensors and JSON); nothing is unpickled.  This
file imports no other part of the project, so a model can be served without aae-sweep.

Shapes: n rows, D pixels in [0, 1], L code, K categories; all float32.
"""

from collections.abc import Callable, Mapping
from typing import Any

import mlflow
import numpy as np
import torch
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from torch import Tensor

import aae_core
from aae_core.models import GAN, Autoencoder, CategoricalAAE, Classifies, Model, Samples, Supervised
from aae_core.streams import generator

DRAWN = 16  # images, if no number is given

Method = Callable[[Tensor, Mapping[str, Any]], Tensor]


class PyfuncModel(PythonModel):
    """Model for `predict(rows, params={"method": …})`; the default is the model's first method."""

    def load_context(self, context: PythonModelContext) -> None:
        self.model = aae_core.load(context.artifacts["checkpoint"])
        self.methods = methods(self.model)

    @torch.no_grad()
    def predict(
        self,
        context: PythonModelContext,
        model_input: np.ndarray,
        params: dict[str, Any] | None = None,
    ) -> np.ndarray:
        params = params or {}
        name = params.get("method") or next(iter(self.methods))
        if name not in self.methods:
            raise MlflowException.invalid_parameter_value(
                f"method: a {self.model.kind} cannot `{name}`; it can {', '.join(self.methods)}"
            )
        rows = torch.from_numpy(np.array(model_input, dtype=np.float32))
        try:
            found: np.ndarray = self.methods[name](rows, params).numpy()
        except (RuntimeError, ValueError) as error:
            raise MlflowException.invalid_parameter_value(
                f"{name}: no input of this model has the shape {tuple(rows.shape)} ({error})"
            ) from error
        return found


def methods(model: Model) -> dict[str, Method]:
    """Return the methods that a model supports, by name.

    encode       (n, D) -> (n, L), one fixed code per image
    classify     (n, D) -> (n, K), probabilities
    reconstruct  (n, D) -> (n, D)
    sample       any rows -> (params["n"], D), drawn with params["seed"]
    decode       (n, L) -> (n, D); (n, L + K) if the decoder takes a category
    """
    found: dict[str, Method] = {}
    if isinstance(model, Autoencoder):
        found["encode"] = lambda rows, _: model.encode(rows)
    if isinstance(model, Classifies):
        found["classify"] = lambda rows, _: model.classify(rows)
    if isinstance(model, Autoencoder) and not isinstance(model, Supervised):
        found["reconstruct"] = lambda rows, _: model.reconstruct(rows)
    if isinstance(model, Samples):
        found["sample"] = lambda _, params: _sample(model, params)
    if isinstance(model, Autoencoder | GAN):
        found["decode"] = lambda rows, _: _decode(model, rows)
    return found


def _decode(model: Autoencoder | GAN, rows: Tensor) -> Tensor:
    if not isinstance(model, Supervised | CategoricalAAE):
        return model.decode(rows)
    categories = model.categorical.dim
    z, y = rows.split([model.code_dim, categories], dim=1)
    return model.decode(z, y.argmax(1) if isinstance(model, Supervised) else y)


def _sample(model: Samples, params: Mapping[str, Any]) -> Tensor:
    stream = generator(int(params.get("seed", 0)), "sample")
    return model.sample(int(params.get("n", DRAWN)), generator=stream)


mlflow.models.set_model(PyfuncModel())
