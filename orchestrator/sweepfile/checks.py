"""Check a sweep against its data before anything starts. The file alone cannot show this."""

import torch

from aae_core.data import TestData, TrainingData
from aae_core.declarations import ARCHITECTURES
from aae_core.errors import ConfigError, DataError
from aae_core.models import build_model
from aae_core.training.batches import visible_labels
from orchestrator.errors import EnvironmentUnusable, Problem, SpecError
from orchestrator.sweepfile.spec import SweepSpec, objectives_of

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
_NEVER = {("test", "knn_error")}  # only of the validation set


def require_compatible(spec: SweepSpec, data: TrainingData) -> None:
    """Raise SpecError if the file's own configuration cannot be trained on these data.

    Problems of searched settings are left to the trials. Raises DataError if the sweep needs
    labels that cannot be used.
    """
    if data.label_problem and (_reads_labels(spec) or _OF_LABELS.intersection(spec.objectives)):
        raise DataError(data.label_problem)
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
            f"the data are not those of {what}: sha256 {data.sha256[:12]}…, recorded "
            f"{known[:12]}…; put the old files back, or {remedy}"
        )


def require_known_classes(spec: SweepSpec, data: TrainingData, test: TestData) -> None:
    """Raise DataError if the model reads labels and no training image has a test image's class."""
    if not _reads_labels(spec):
        return
    if test.label_problem:
        raise DataError(test.label_problem)
    if test.y is not None and (unknown := int(test.y.max())) >= data.classes:
        label = test.labels[unknown] if test.labels else unknown
        known = ", ".join(map(str, data.labels)) or f"0 to {data.classes - 1}"
        raise DataError(
            f"a test image has the label {label}, the training images {known}; give training "
            "images of every class"
        )


def data_notes(spec: SweepSpec, data: TrainingData, *, evaluated: bool = True) -> list[str]:
    """Return notes on odd or missing data, on assumptions, and on metrics that a sweep lacks."""
    notes = list(data.notes)
    if data.label_problem:
        notes.append(f"the labels are not used: {data.label_problem}")
    elif data.y_train is not None and data.y_valid is None:
        notes += _unmeasured(spec, "val", "y_valid")
    if evaluated and "x_test" in data.missing:
        notes.append("there are no test images (x_test); add them before the sweep evaluates")
    elif evaluated and "y_test" in data.missing:
        notes += _unmeasured(spec, "test", "y_test")
    return notes


def _unmeasured(spec: SweepSpec, split: str, member: str) -> list[str]:
    """Return a note on the metrics that a split without labels does not have."""
    measured = objectives_of(spec.model.kind, spec.data.labels)
    lost = [name.removeprefix("val/") for name in measured if name in _OF_LABELS]
    lost += ["recon"] if spec.model.kind == "supervised" else []
    names = ", ".join(f"{split}/{name}" for name in lost if (split, name) not in _NEVER)
    return [f"there are no labels {member}, so {names} cannot be computed"] if names else []


def _reads_labels(spec: SweepSpec) -> bool:
    return ARCHITECTURES[spec.model.kind].labels != "none" and spec.data.labels != 0


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
