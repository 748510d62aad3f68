"""Contents of small SVHN and TFD files."""

import numpy as np

N_SVHN = {"train": 40, "extra": 12, "test": 9}


def svhn_arrays(split: str) -> dict[str, np.ndarray]:
    n = N_SVHN[split]
    images = np.random.default_rng(n).integers(0, 256, (32, 32, 3, n), np.uint8)
    return {"X": images, "y": (np.arange(n, dtype=np.uint8) % 10 + 1).reshape(n, 1)}


def tfd_arrays() -> dict[str, np.ndarray]:
    """Return 60 images: 30 unlabelled; by fold, of 6 labelled 3 train, 1 validates, 2 test."""
    random = np.random.default_rng(0)
    expressions = np.where(np.arange(60) < 30, np.where(np.arange(60) < 15, -1, 0), 1)
    expressions[30:] += np.arange(30) % 7
    roles = np.array([1, 1, 1, 2, 3, 3], np.uint8)
    folds = np.zeros((60, 5), np.uint8)
    for fold in range(5):
        folds[30:, fold] = np.resize(np.roll(roles, fold), 30)
    return {
        "images": random.integers(0, 256, (60, 48, 48), np.uint8),
        "labs_ex": expressions.astype(np.int8).reshape(60, 1),
        "labs_id": np.arange(60).reshape(60, 1),
        "folds": folds,
    }
