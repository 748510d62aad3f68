"""Splits that never change: the same images under every version of every library."""

import numpy as np


def permutation(n: int, seed: int = 0) -> np.ndarray:
    """A shuffled 0 … n−1. RandomState's stream is frozen (NEP 19), default_rng's is not."""
    return np.random.RandomState(seed).permutation(n)


def last_tenth(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of train and of validation: the last tenth of a permutation, but at least 2."""
    order = permutation(n)
    n_valid = max(2, n // 10)
    return order[:-n_valid], order[-n_valid:]


def class_balanced(y: np.ndarray, *sizes: int) -> tuple[np.ndarray, ...]:
    """Disjoint indices of one part per size, each with as many images of every class.

    Every size must divide by the number of classes. What is left makes the last part. Within a
    part the images keep their order, which mixes the classes.
    """
    classes = np.unique(y)
    order = permutation(len(y))
    shuffled = [order[y[order] == label] for label in classes]
    edges = np.cumsum([size // len(classes) for size in sizes])
    parts = zip(*(np.split(members, edges) for members in shuffled), strict=True)
    return tuple(np.sort(np.concatenate(part)) for part in parts)
