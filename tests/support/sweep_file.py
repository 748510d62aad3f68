"""A small sweep, as a document, a file's text or a specification, with any section changed."""

import json
from copy import deepcopy
from typing import Any

from orchestrator.sweepfile.spec import SweepSpec

_SECTIONS: dict[str, dict[str, Any]] = {
    "data": {"name": "digits"},
    "model": {"hidden": [16], "code_dim": 2, "init_std": 0.2},
    "training": {
        "epochs": 2,
        "reconstruction": {"optimizer": "adam", "lr": 5e-3},
        "adversarial": {"optimizer": "adam", "lr": 1e-3},
    },
    "search": {
        "trials": 3,
        "sampler": {"kind": "random"},
        "space": {"model.prior.std": {"float": [0.5, 4]}},
    },
    "confirm": {"seeds": 2},
}


def make_document(name: str = "tiny", **changes: Any) -> dict[str, Any]:
    """Return the sweep. A change replaces keys of its section; None drops the section."""
    found = {"name": name, **merged(deepcopy(_SECTIONS), changes)}
    return {key: value for key, value in found.items() if value is not None}


def merged(sections: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return sections whose keys the changes replace."""
    found = dict(sections)
    for key, value in changes.items():
        found[key] = found.get(key, {}) | value if isinstance(value, dict) else value
    return found


def make_spec(name: str = "tiny", **changes: Any) -> SweepSpec:
    return SweepSpec.of(make_document(name, **changes))


def make_text(name: str = "tiny", **changes: Any) -> str:
    """Return the sweep as YAML, one section a line."""
    sections = make_document(name, **changes).items()
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in sections)


def make_long_text(name: str, epochs: int, **changes: Any) -> str:
    """Return a sweep whose epochs are long enough for a fault in the middle of a trial."""
    training = {
        "epochs": epochs,
        "batch_size": 25,
        "reconstruction": {"optimizer": "adam", "lr": 1e-3},
        "adversarial": {"optimizer": "sgd", "lr": 1e-2},
    }
    sections = {
        "model": {"hidden": [500, 500], "code_dim": 4, "init_std": 0.05},  # 10 MB a checkpoint
        "training": training,
        "search": {"objective": {"metric": "val/recon"}},
        "confirm": {"seeds": 1, "baseline": False},
        "evaluate": {"parzen": {"samples": 10_000, "screen_samples": 10_000}},
    }
    return make_text(name, **merged(sections, changes))
