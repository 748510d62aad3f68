"""Check a sweep against its data before anything starts. The file alone cannot show this."""

import torch

from aae_core.architectures import ARCHITECTURES
from aae_core.data import TestData, TrainingData
from aae_core.errors import ConfigError, DataError
from aae_core.models import build_model
from aae_core.training.batches import visible_labels
from orchestrator.errors import EnvironmentUnusable, Problem, SpecError
from orchestrator.sweepfile.spec import SweepSpec

_OF_LABELS = frozenset(
    f"val/{name}"
    for name in (
        "error",
        "cluster_error",
        "cluster_error_majority",
        "mode_accuracy",
        "mode_mmd",
        "knn_error",
    )
)


def require_compatible(spec: SweepSpec, data: TrainingData) -> None:
    """Raise SpecError if the file's own configuration cannot be trained on these data.

    Problems of searched settings are left to the trials.
    """
    searched = spec.search.space if spec.search else {}
    found = {path: m for path, m in _problems(spec, data).items() if path not in searched}
    if found:
        raise SpecError(
            f"{spec.name} on {data.name}",
            [Problem(path, None, message) for path, message in found.items()],
        )


def require_same_data(data: TrainingData, known: str | None, what: str, remedy: str) -> None:
    """Raise EnvironmentUnusable if the images differ from those of `what`, with SHA-256 `known`."""
    if known is not None and known != data.sha256:
        raise EnvironmentUnusable(
            f"the data are not those of {what}: sha256 {data.sha256[:12]}…, then {known[:12]}…; "
            f"put the old files back, or {remedy}"
        )


def require_known_classes(spec: SweepSpec, data: TrainingData, test: TestData) -> None:
    """Raise DataError if the model reads labels and no training image has a test image's class."""
    reads_labels = ARCHITECTURES[spec.model.kind].labels != "none"
    if reads_labels and test.y is not None and test.y.max() >= data.classes:
        raise DataError(
            f"a test image has the label {test.y.max()}, the training images 0 to "
            f"{data.classes - 1}; give training images of every class"
        )


def _problems(spec: SweepSpec, data: TrainingData) -> dict[str, str]:
    config = spec.trial_config({}, spec.seed)
    found: dict[str, str] = {}
    try:
        build_model(config, data.image_shape, data.classes, generator=torch.Generator())
        visible_labels(config, data)
    except ConfigError as error:
        found |= error.problems
    of_labels = spec.objective.metric in _OF_LABELS or spec.model.kind == "supervised"
    if of_labels and data.y_valid is None:
        found["search.objective.metric"] = (
            f"`{spec.objective.metric}` needs labels of the validation images, and there are none: "
            "give y_valid, or another objective"
        )
    return found
