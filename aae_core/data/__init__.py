"""Data sets: training and validation images for search and confirm; separately, the test split.

`declarations.DATA_SETS` names them.  `root` is the folder of all data sets (AAE_DATA), with a
subfolder for each.
"""

from pathlib import Path
from pkgutil import resolve_name

from aae_core.config import DataConfig
from aae_core.data.arrays import open_array
from aae_core.data.sets import (
    DataFile,
    DataSet,
    Description,
    FileCheck,
    TestData,
    TrainingData,
    unit_interval,
)
from aae_core.declarations import ARRAYS, DATA_SETS

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


def open_data_set(config: DataConfig, root: Path) -> DataSet:
    """Return the data set of a configuration, to describe, fetch, verify or load."""
    data_set: DataSet = resolve_name(DATA_SETS[config.name].open)(config, root)
    return data_set


def catalogue(root: Path) -> list[Description]:
    """Describe every data set that needs no path."""
    return [
        open_data_set(DataConfig(name), root).describe() for name in DATA_SETS if name != ARRAYS
    ]


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
