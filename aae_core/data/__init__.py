"""Data sets: what is handed to search and confirm, and, apart from it, the test split.

`root` is the folder of all data sets (AAE_DATA), each in a folder of its own name.
"""

from collections.abc import Callable
from pathlib import Path

from aae_core.config import DataConfig
from aae_core.data.arrays import Arrays
from aae_core.data.digits import Digits
from aae_core.data.mnist import FASHION_MNIST, MNIST, IdxSet
from aae_core.data.sets import (
    DataFile,
    DataSet,
    Description,
    TestData,
    TrainingData,
    Verdict,
    unit_interval,
)
from aae_core.data.svhn import Svhn
from aae_core.data.tfd import Tfd

__all__ = [
    "DataFile",
    "DataSet",
    "Description",
    "TestData",
    "TrainingData",
    "Verdict",
    "catalogue",
    "load_test_data",
    "load_training_data",
    "open_data_set",
    "unit_interval",
]

_PUBLIC: dict[str, Callable[[DataConfig, Path], DataSet]] = {
    "digits": lambda _, __: Digits(),
    "mnist": lambda _, root: IdxSet(MNIST, root),
    "fashion_mnist": lambda _, root: IdxSet(FASHION_MNIST, root),
    "svhn": lambda config, root: Svhn(root, config.colour, config.extra),
    "tfd": lambda config, root: Tfd(root, config.fold),
}


def open_data_set(config: DataConfig, root: Path) -> DataSet:
    """For all that one may ask of a data set: its description, its files, their checksums."""
    if config.path is not None:
        return Arrays(Path(config.path))
    return _PUBLIC[config.name](config, root)


def catalogue(root: Path) -> list[Description]:
    """Every data set that needs no path."""
    return [data_set(DataConfig(), root).describe() for data_set in _PUBLIC.values()]


def load_training_data(config: DataConfig, root: Path, *, fetch: bool = True) -> TrainingData:
    """Training and validation images; no file or member of test images is opened.

    Files that are not there are downloaded if `fetch` says so.

    Raises DataError, which says what is wrong with which file, and what to do.
    """
    data_set = open_data_set(config, root)
    if fetch:
        data_set.fetch("train")
    return data_set.training()


def load_test_data(config: DataConfig, root: Path, *, fetch: bool = True) -> TestData:
    """The test images. Raises DataError, also where there are none."""
    data_set = open_data_set(config, root)
    if fetch:
        data_set.fetch("test")
    return data_set.test()
