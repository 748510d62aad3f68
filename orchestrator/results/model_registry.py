"""Register a sweep's winner in MLflow's model registry, for `mlflow.pyfunc.load_model`.

MLflow's flavour for PyTorch would pickle the module.  This module instead stores the checkpoint
(tensors and JSON) with the code that reads the checkpoint (MLflow's "models from code").
"""

import hashlib
import re
import shutil
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

import aae_core
from aae_core.models import Model
from orchestrator.documents import Best
from orchestrator.errors import EnvironmentUnusable, UsageError
from orchestrator.results.reader import ResultsReader, summary
from orchestrator.settings import Settings
from orchestrator.tracking.mlflow_writer import MlflowWriter, described
from orchestrator.tracking.outbox import Outbox

if TYPE_CHECKING:  # importing MLflow takes seconds
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

CHAMPION = "champion"  # alias of the version registered last
CHECKPOINT_TAG = "aae.checkpoint_sha256"

_NAME = re.compile(r"[\w.-]+", re.ASCII)
_SCRIPT = Path(__file__).with_name("pyfunc_model.py")
_PACKAGES = ("numpy", "safetensors", "torch")  # imports of the script and aae_core


@dataclass(frozen=True)
class Registered:
    name: str
    version: int
    new: bool  # False: the same checkpoint was registered before
    uri: str
    run_id: str


def register(reader: ResultsReader, sweep: str, name: str | None = None) -> Registered:
    """Register the winner's first model, under the sweep's name if no other is given.

    A checkpoint is registered only once; its version gets the alias CHAMPION in any case.

    Raises UsageError if no winner is confirmed, EnvironmentUnusable if MLflow is unreachable.
    """
    best, status = reader.best(sweep), reader.status(sweep)
    if best is None or not best["confirmed"] or status["stage"] != "done":
        raise UsageError(
            f"{sweep} has no confirmed winner to register yet (stage {status['stage']}); "
            f"first run: {status['resume']}"
        )
    name = name or status["sweep"]
    if not _NAME.fullmatch(name):
        raise UsageError(f"--as {name}: give letters, digits, dots, dashes and underscores")
    _send_what_waits(reader.settings, sweep)
    best = reader.best(sweep)
    assert best is not None
    model = aae_core.load(_first(best["checkpoints"]))
    try:
        return _register(reader.settings.tracking_uri, name, status["sweep"], best, model)
    except Exception as error:
        raise EnvironmentUnusable(
            f"MLflow did not accept the model ({described(error)}); run the same command again"
        ) from error


def _first(values: list[str | None]) -> str:
    """Return the entry of the winner's first seed; confirmed models have all entries."""
    assert values[0] is not None
    return values[0]


def _send_what_waits(settings: Settings, sweep: str) -> None:
    """Send the outbox to MLflow, which needs the winner's run before the model."""
    with Outbox(settings.outbox) as outbox:
        writer = MlflowWriter(outbox, settings.tracking_uri, settings.mlflow_artifacts, sweep)
        writer.sync_once()


def _register(
    tracking_uri: str, name: str, sweep_name: str, best: Best, model: Model
) -> Registered:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri)
    checkpoint = Path(_first(best["checkpoints"]))
    checksum = hashlib.sha256((checkpoint / "manifest.json").read_bytes()).hexdigest()
    known = client.search_model_versions(
        f"name = '{name}' AND tags.`{CHECKPOINT_TAG}` = '{checksum}'"
    )
    if known:
        found = known[0]
    else:
        tags = {
            CHECKPOINT_TAG: checksum,
            "aae.sweep": best["sweep"],
            "aae.config_hash": best["config_hash"],
            "aae.seed": str(best["seeds"][0]),
        }
        found = _new_version(client, name, sweep_name, best, model, tags)
    client.set_registered_model_alias(name, CHAMPION, str(found.version))
    uri = f"models:/{name}/{found.version}"
    return Registered(name, int(found.version), not known, uri, _first(best["run_ids"]))


def _new_version(
    client: "MlflowClient",
    name: str,
    sweep_name: str,
    best: Best,
    model: Model,
    tags: dict[str, str],
) -> "ModelVersion":
    from mlflow.entities import LoggedModelOutput
    from mlflow.exceptions import MlflowException

    run = client.get_run(_first(best["run_ids"]))
    logged = client.create_logged_model(
        run.info.experiment_id, sweep_name, run.info.run_id, tags, run.data.params, model.kind
    )
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # MLflow warns about its own type hints
        _save(Path(folder), Path(_first(best["checkpoints"])), model, logged)
        client.log_model_artifacts(logged.model_id, folder)
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run.info.run_id, [LoggedModelOutput(logged.model_id, step=0)])
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return client.create_model_version(
        name,
        logged.artifact_location,
        run.info.run_id,
        tags=tags,
        description=summary(best),
        model_id=logged.model_id,
    )


def _save(folder: Path, checkpoint: Path, model: Model, logged: "LoggedModel") -> None:
    import mlflow.pyfunc
    from mlflow.models import Model as Description
    from mlflow.models import ModelSignature
    from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec

    from orchestrator.results.pyfunc_model import DRAWN, methods

    first = next(iter(methods(model)))
    rows = TensorSpec(np.dtype(np.float32), (-1, -1))
    signature = ModelSignature(
        inputs=Schema([rows]),
        outputs=Schema([rows]),
        params=ParamSchema(
            [
                ParamSpec("method", DataType.string, first),
                ParamSpec("n", DataType.long, DRAWN),
                ParamSpec("seed", DataType.long, 0),
            ]
        ),
    )
    mlflow.pyfunc.save_model(
        folder,
        mlflow_model=Description(
            artifact_path=logged.artifact_location,
            run_id=logged.source_run_id,
            model_uuid=logged.model_id,
            model_id=logged.model_id,
        ),
        python_model=str(_SCRIPT),
        code_paths=[str(Path(aae_core.__file__).parent)],
        artifacts={"checkpoint": str(checkpoint)},
        signature=signature,
        input_example=(np.full((2, model.dim), 0.5, np.float32), {"method": first}),
        pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in _PACKAGES],
    )
    for compiled in list(folder.rglob("__pycache__")):  # .pyc files of this process or of MLflow
        shutil.rmtree(compiled)
