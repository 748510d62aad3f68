"""Provenance of a trial's numbers, besides its configuration and seed, as tags of its run."""

import hashlib
import json
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import aae_core
from aae_core.config import TrialConfig
from aae_core.data import TrainingData
from aae_core.declarations import ARCHITECTURES, DATA_SETS, PRIORS
from aae_core.metrics import DECLARED_METRICS
from aae_core.plugins import Registry

PACKAGES = ("aae-sweep", "torch", "numpy")
DATA, THREADS, DEVICE = "aae.data_sha256", "aae.threads", "aae.device"
PACK = "aae.pack"
_DIGEST = 36  # characters that MLflow keeps of a data set's digest
_THEN = ", then "  # between the values of a trial's attempts, if they differ


def provenance(threads: int, *, gpu: bool, pack: int = 1) -> dict[str, str]:
    """Return the tags of training in this process, with `pack` trials as one model."""
    return {**_machine(), THREADS: str(threads), DEVICE: _device(gpu), PACK: str(pack)}


def plugins(config: TrialConfig) -> dict[str, str]:
    """Return the tags of other packages' declarations in a trial: name, package and version."""
    named: tuple[tuple[Registry[Any], str], ...] = (
        (ARCHITECTURES, config.model.kind),
        (PRIORS, config.model.prior.kind),
        (DATA_SETS, config.data.name),
        *((DECLARED_METRICS, name) for name in ARCHITECTURES[config.model.kind].metrics),
        *((DECLARED_METRICS, name) for name in config.training.metrics),
    )
    return {
        f"aae.plugin.{name}": owner for registry, name in named if (owner := registry.owner(name))
    }


def succession(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """Return a resumed trial's tags, with both values where its attempts differ."""
    return {name: _after(before.get(name), value) for name, value in now.items()}


def latest(tag: str) -> str:
    """Return the last attempt's value of a tag."""
    return tag.rpartition(_THEN)[2]


def dataset(source: Mapping[str, Any], data: TrainingData) -> dict[str, str]:
    """Return the fields of MLflow's Dataset, without a pixel; `source` is the sweep file's."""
    named = {key: value for key, value in source.items() if value is not None}
    path = named.get("path")
    images = {"train": len(data.x_train), "valid": len(data.x_valid)}
    schema = {"features": _tensors(data.x_train), "targets": _tensors(data.y_train)}
    profile = {
        "images": images,
        "image_shape": list(data.image_shape),
        "classes": data.classes,
        "sha256": data.sha256,
        **data.record,
    }
    return {
        "name": data.name,
        "digest": data.sha256[:_DIGEST],
        "source_type": "local" if path else "code",
        "source": json.dumps({"uri": path} if path else {"tags": named}),
        "schema": json.dumps({"mlflow_tensorspec": schema}),
        "profile": json.dumps(profile),
    }


def _tensors(array: np.ndarray | None) -> str | None:
    """Return MLflow's schema of a batch, JSON within JSON."""
    if array is None:
        return None
    spec = {"dtype": str(array.dtype), "shape": [-1, *array.shape[1:]]}
    return json.dumps([{"type": "tensor", "tensor-spec": spec}])


def params_of(config: TrialConfig) -> dict[str, Any]:
    """Return the MLflow params of a trial: the settings that change its numbers."""
    unread = tuple(f"{name}." for name in config.unread)
    return {
        path: value
        for path, value in flat(config.to_dict()).items()
        if value is not None and not f"{path}.".startswith(unread)
    }


def flat(document: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return MLflow params of a document: {"model": {"code_dim": 8}} -> {"model.code_dim": 8}."""
    found: dict[str, Any] = {}
    for key, value in document.items():
        path = f"{prefix}{key}"
        found |= flat(value, f"{path}.") if isinstance(value, dict) else {path: value}
    return found


def _after(before: str | None, now: str) -> str:
    return now if before is None else before if latest(before) == now else f"{before}{_THEN}{now}"


@cache
def _machine() -> dict[str, str]:
    """Return the tags of the code and the processor.

    Equal versions may hold different code, and equal processors may use different instructions.
    """
    return {
        "aae.code": _code(Path(aae_core.__file__).parent),
        **{f"aae.version.{name}": version(name) for name in PACKAGES},
        "aae.cpu": f"{_processor()}, {torch.backends.cpu.get_cpu_capability()}",
    }


def _code(package: Path) -> str:
    """Return 12 hexadecimal digits that identify the sources which make the numbers."""
    checksum = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        checksum.update(f"{file.relative_to(package)};".encode() + file.read_bytes())
    return checksum.hexdigest()[:12]


def _processor() -> str:
    models = _facts(Path("/proc/cpuinfo"), "model name")
    return models[0] if models else platform.processor() or platform.machine()


def _device(gpu: bool) -> str:
    """Return the device without CUDA, which would take GPU memory in the driver process."""
    boards = Path("/proc/driver/nvidia/gpus").glob("*/information") if gpu else ()
    models = {model for board in boards for model in _facts(board, "Model")}
    return ", ".join(["cuda" if gpu else "cpu", *sorted(models)])


def _facts(file: Path, name: str) -> list[str]:
    """Return the values of the lines `name: value`."""
    lines = file.read_text().splitlines() if file.exists() else []
    pairs = [line.partition(":") for line in lines]
    return [value.strip() for key, _, value in pairs if key.strip() == name]
