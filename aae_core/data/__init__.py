"""Data sets: training and validation images for search and confirm; separately, the test split.

`root` is the folder of all data sets (AAE_DATA); each data set has a subfolder with its name.
"""

from collections.abc import Callable
from pathlib import Path

from aae_core.config import DataConfig
from aae_core.data.arrays import Arrays, open_array
from aae_core.data.digits import Digits
from aae_core.data.mnist import FASHION_MNIST, MNIST, IdxSet
from aae_core.data.sets import (
    DataFile,
    DataSet,
    Description,
    FileCheck,
    TestData,
    TrainingData,
    unit_interval,
)
from aae_core.data.svhn import Svhn
from aae_core.data.tfd import Tfd

__all__ = [
    "DataFile",
    "DataSet",
    "Description",
    "FileCheck",
    "TestData",
    "TrainingData",
    "catalogue",
    "load_test_data",
    "load_training_data",
    "open_array",
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
    """Return the data set of a configuration, to describe, fetch, verify or load."""
    if config.path is not None:
        return Arrays(Path(config.path), config.range, config.axes)
    return _PUBLIC[config.name](config, root)


def catalogue(root: Path) -> list[Description]:
    """Describe every data set that needs no path."""
    return [data_set(DataConfig(), root).describe() for data_set in _PUBLIC.values()]


def load_training_data(config: DataConfig, root: Path, *, fetch: bool = True) -> TrainingData:
    """Load training and validation images, without opening any file or member of test images.

    `fetch`: download missing files.

    Raises DataError, which names the file, the problem and the remedy.
    """
    data_set = open_data_set(config, root)
    if fetch:
        data_set.fetch("train")
    return data_set.training()


def load_test_data(config: DataConfig, root: Path, *, fetch: bool = True) -> TestData:
    """Load the test images. Raises DataError, also if there are none."""
    data_set = open_data_set(config, root)
    if fetch:
        data_set.fetch("test")
    return data_set.test()
