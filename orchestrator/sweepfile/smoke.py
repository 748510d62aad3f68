"""Make a sweep so small (`--smoke`) that all its stages, search to report, take about a minute.

Architecture, phases, priors, optimisers, search space and stages stay as in the file. Sizes,
epochs and the data shrink. The figures mean nothing; the run only shows that all parts work.
"""

import math
from collections.abc import Callable
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import numpy as np

from aae_core.config import DataConfig
from aae_core.data import load_test_data, load_training_data
from aae_core.files import replacing
from orchestrator.settings import Settings
from orchestrator.sweepfile.spec import SweepSpec

NOTE = "a smoke run: everything is tiny, its figures mean nothing; the sweep itself is untouched"

_EPOCHS = 2  # gmmn_ae has a phase in each
_TRIALS = 2  # without `balance`
_SEEDS = 2  # the fewest with an error bar
_SAMPLES, _SCREEN_SAMPLES = 4_000, 2_000
_WIDTH, _CHANNELS = 32, 4
_INIT_STD = 0.1  # with the paper's 0.01 such narrow layers would not start to learn

_BATCH = 20
_SHARE = 0.5  # of the epochs; gmmn_ae's matcher gets the second epoch

_SMALL: dict[str, Callable[[Any], Any]] = {
    "training.epochs": lambda epochs: min(epochs, _EPOCHS),
    "training.batch_size": lambda size: min(size, _BATCH),
    "model.hidden": lambda widths: [min(width, _WIDTH) for width in widths],
    "model.channels": lambda counts: [min(c, _CHANNELS << i) for i, c in enumerate(counts)],
    "model.init_std": lambda std: max(std, _INIT_STD),
    "model.autoencoder.batch_size": lambda size: min(size, _BATCH),
    "model.autoencoder.share": lambda share: min(share, _SHARE),
}
_SMALL |= {
    f"model.{network}.{setting}": _SMALL[f"model.{setting}"]
    for network in ("encoder", "decoder", "discriminator", "matcher")
    for setting in ("hidden", "init_std")
}

# Images per class in a stand-in data set: bundled digits in the shape and classes of the original.
_IMAGES = {"train": 40, "valid": 10, "test": 10}
_SIDE = 8  # pixels of a digit
_CLASSES = {"mnist": 10, "fashion_mnist": 10, "svhn": 10, "tfd": 7}
_PARTLY_LABELLED = "tfd"


def smoke(spec: SweepSpec, settings: Settings) -> SweepSpec:
    """Return the sweep with small networks, few epochs, small data and its own name.

    The data are written below AAE_HOME. Digits and the user's own arrays are used as they are.
    """
    document = spec.resolved()
    document["name"] = f"{spec.name[:58]}-smoke"
    document["data"] |= _small_data(spec.data, settings.smoke_folder)
    for path in _SMALL:
        *groups, name = path.split(".")
        group = reduce(getitem, groups, document)
        group[name] = _shrunk(path, group[name])
    if spec.search is not None:
        document["search"] |= _small_search(document["search"])
    overrides = document["confirm"]["set"].items()
    document["confirm"] |= {
        "top": 1,
        "per": None,
        "seeds": min(spec.confirm.seeds, _SEEDS),
        "race": None,
        "set": {path: _shrunk(path, value) for path, value in overrides},
    }
    document["evaluate"]["parzen"] |= _small_parzen(document["evaluate"]["parzen"])
    document["resources"]["cpu"] = min(spec.resources.cpu, 1.0)
    return SweepSpec.of(document)


def _small_search(search: dict[str, Any]) -> dict[str, Any]:
    """Return search settings with a trial for every balanced choice, else 2 trials at most.

    The grace period equals all epochs, so that no trial is pruned.
    """
    balanced = search["space"].get(search["balance"])
    sampler, pruner = dict(search["sampler"]), dict(search["pruner"])
    if "startup_trials" in sampler:
        sampler["startup_trials"] = 1
    if "grace_epochs" in pruner:
        pruner["grace_epochs"] = _EPOCHS
    return {
        "trials": len(balanced["choice"]) if balanced else min(search["trials"], _TRIALS),
        "sampler": sampler,
        "pruner": pruner,
        "space": {path: _small_parameter(path, p) for path, p in search["space"].items()},
        "warm_start": None,  # no other sweep is on the small data
    }


def _small_parameter(path: str, parameter: dict[str, Any]) -> dict[str, Any]:
    """Shrink a parameter's range as its setting is shrunk. Choices that become equal are merged."""
    small = dict(parameter)
    if path in _SMALL:
        (key,) = parameter.keys() & {"choice", "int", "float"}
        values = [_shrunk(path, value) for value in parameter[key]]
        small[key] = _without_repeats(values) if key == "choice" else values
    small["when"] = {
        parent: [_shrunk(parent, value) for value in values]
        for parent, values in parameter["when"].items()
    }
    return small


def _shrunk(path: str, value: Any) -> Any:
    """Return a setting's value in a smoke run. None stays, since it refers to another setting."""
    return _SMALL[path](value) if path in _SMALL and value is not None else value


def _without_repeats(values: list[Any]) -> list[Any]:
    return [value for i, value in enumerate(values) if value not in values[:i]]


def _small_parzen(parzen: dict[str, int]) -> dict[str, int]:
    return {
        "samples": min(parzen["samples"], _SAMPLES),
        "models": 1,
        "screen_samples": min(parzen["screen_samples"], _SCREEN_SAMPLES),
    }


# -- data --------------------------------------------------------------------------------------


def _small_data(data: DataConfig, folder: Path) -> dict[str, Any]:
    """Write the small data; return the changed settings. At most half the images are labelled."""
    if data.name not in _CLASSES:
        return {}
    image_shape = _image_shape(data)
    path = folder / f"{data.name}-{'x'.join(map(str, image_shape))}.npz"
    _write(path, _stand_in(data.name, image_shape))
    most = _CLASSES[data.name] * _IMAGES["train"] // 2
    return {
        "name": "arrays",
        "path": str(path),
        "labels": None if data.labels is None else min(data.labels, most),
        "colour": True,
        "extra": False,
        "fold": 0,
    }


def _image_shape(data: DataConfig) -> tuple[int, ...]:
    match data.name:
        case "svhn":
            return (32, 32, 3) if data.colour else (32, 32)
        case "tfd":
            return (48, 48)
        case _:
            return (28, 28)


def _stand_in(name: str, image_shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Return the arrays of a file for `arrays`. Each split comes from the same split of digits."""
    digits, nowhere = DataConfig(name="digits"), Path()
    training, test = load_training_data(digits, nowhere), load_test_data(digits, nowhere)
    assert training.y_train is not None
    assert training.y_valid is not None
    assert test.y is not None
    splits = {
        "train": (training.x_train, training.y_train),
        "valid": (training.x_valid, training.y_valid),
        "test": (test.x, test.y),
    }
    arrays: dict[str, np.ndarray] = {}
    for split, (x, y) in splits.items():
        of_class = [np.flatnonzero(y == label)[: _IMAGES[split]] for label in range(_CLASSES[name])]
        kept = np.stack(of_class, axis=1).ravel()  # classes alternate
        arrays |= {f"x_{split}": _enlarged(x[kept], image_shape), f"y_{split}": y[kept]}
    if name == _PARTLY_LABELLED:
        arrays["y_train"][len(arrays["y_train"]) // 2 :] = -1
    return arrays


def _enlarged(x: np.ndarray, image_shape: tuple[int, ...]) -> np.ndarray:
    """Enlarge digits (n, 64) in [0, 1] to (n, *image_shape) uint8, with a border of zeros."""
    scale, rest = divmod(image_shape[0], _SIDE)
    squares = x.reshape(-1, _SIDE, _SIDE).repeat(scale, axis=1).repeat(scale, axis=2)
    frame = (rest // 2, rest - rest // 2)
    grey = np.rint(255 * np.pad(squares, ((0, 0), frame, frame))).astype(np.uint8)
    colours = [grey] * math.prod(image_shape[2:])
    return np.stack(colours, axis=-1).reshape(-1, *image_shape)


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write the file atomically, since another smoke run may read it."""
    with replacing(path) as part, part.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
