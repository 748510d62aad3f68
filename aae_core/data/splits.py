"""Fixed splits: the same images with every version of every library."""

import numpy as np

from aae_core.errors import ConfigError, DataError
from aae_core.seeding import stream_seed


def permutation(n: int, seed: int = 0) -> np.ndarray:
    """Return a shuffled 0 … n−1. RandomState's stream is frozen (NEP 19), default_rng's is not."""
    return np.random.RandomState(seed).permutation(n)


def last_tenth(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return indices of train and validation (last tenth of a permutation, at least 2)."""
    return hold_out(n, max(2, n // 10))


def hold_out(n: int, n_valid: int) -> tuple[np.ndarray, np.ndarray]:
    """Return indices of train and validation (the last n_valid of a permutation)."""
    order = permutation(n)
    return order[:-n_valid], order[-n_valid:]


def class_balanced(y: np.ndarray, *sizes: int) -> tuple[np.ndarray, ...]:
    """Return disjoint indices, one part per size, each with equally many images of every class.

    Every size must be a multiple of the number of classes. The remaining images form an additional
    last part. Within a part the images keep their order, which mixes the classes.
    """
    shuffled = _shuffled_classes(y)
    edges = np.cumsum([size // len(shuffled) for size in sizes])
    parts = zip(*(np.split(members, edges) for members in shuffled.values()), strict=True)
    return tuple(np.sort(np.concatenate(part)) for part in parts)


def labelled(y: np.ndarray | None, n: int | None, seed: int) -> np.ndarray:
    """Return sorted indices of the training images whose label a trial may see; n=None: all.

    Otherwise n are drawn at random, evenly over the classes. y is −1 for unlabelled images.
    RandomState keeps 32 bits of the stream's seed: one in 2³² pairs of seeds draws the same labels.

    Raises ConfigError if n cannot be drawn evenly, DataError if there are no labels at all.
    """
    if n == 0:
        return np.empty(0, np.int64)
    if y is None or y.max() < 0:
        raise DataError("the training images have no labels; give y_train, or another data set")
    if n is None:
        return np.flatnonzero(y >= 0)
    shuffled = _shuffled_classes(y, stream_seed(seed, "labels") % 2**32)
    shuffled.pop(-1, None)
    _require_even(n, {label: len(members) for label, members in shuffled.items()})
    share = n // len(shuffled)
    return np.sort(np.concatenate([members[:share] for members in shuffled.values()]))


def _shuffled_classes(y: np.ndarray, seed: int = 0) -> dict[int, np.ndarray]:
    """Return the shuffled indices of every class."""
    order = permutation(len(y), seed)
    return {int(label): order[y[order] == label] for label in np.unique(y)}


def _require_even(n: int, sizes: dict[int, int]) -> None:
    """Raise ConfigError unless n can be drawn evenly; `sizes`: labelled images of every class."""
    scarcest = min(sizes, key=sizes.__getitem__)
    most = sizes[scarcest] * len(sizes)
    if n > most:
        raise ConfigError(
            {
                "data.labels": f"{n} takes {-(-n // len(sizes))} images of each class, and class "
                f"{scarcest} has {sizes[scarcest]}; give at most {most}"
            }
        )
    rest = n % len(sizes)
    if rest:
        near = [k for k in (n - rest, n - rest + len(sizes)) if 0 < k <= most]
        raise ConfigError(
            {
                "data.labels": f"{n} cannot be drawn evenly from {len(sizes)} classes; give "
                f"{' or '.join(map(str, near))}"
            }
        )
