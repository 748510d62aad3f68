"""The 1,797 handwritten 8×8 digits shipped with scikit-learn; no download is needed.

E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, UCI, 1998.
"""

import gzip
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Self

import numpy as np

from aae_core.config import DataConfig
from aae_core.data.sets import DataFile, Description, FileCheck, Split, TestData, TrainingData
from aae_core.data.splits import class_balanced
from aae_core.errors import DataError

_N_IMAGES, _N_VALID, _N_TEST = 1_797, 300, 300
_BRIGHTEST = 16


class Digits:
    """1,197 training, 300 validation, 300 test images; the last two have 30 of each class."""

    @classmethod
    def of(cls, config: DataConfig, root: Path) -> Self:
        return cls()

    def training(self) -> TrainingData:
        x, y = _read(_path())
        valid, _, train = class_balanced(y, _N_VALID, _N_TEST)
        return TrainingData.of("digits", (8, 8), (x[train], y[train]), (x[valid], y[valid]))

    def test(self) -> TestData:
        x, y = _read(_path())
        _, test, _ = class_balanced(y, _N_VALID, _N_TEST)
        return TestData.of(x[test], y[test])

    def describe(self) -> Description:
        return Description(
            name="digits",
            files=(DataFile(_path(), _path().is_file()),),
            sizes={
                "train": _N_IMAGES - _N_VALID - _N_TEST,
                "valid": _N_VALID,
                "test": _N_TEST,
            },
            source="Alpaydin and Kaynak, UCI 1998; shipped with scikit-learn",
            licence="CC BY 4.0",
        )

    def fetch(self, *splits: Split) -> None:
        """Do nothing: scikit-learn ships the file."""

    def verify(self) -> list[FileCheck]:
        try:
            _read(_path())
        except DataError as error:
            return [FileCheck(_path(), str(error))]
        return [FileCheck(_path(), None)]


def _path() -> Path:
    """Return the path in the installed scikit-learn; importing scikit-learn would take a second."""
    try:
        files = distribution("scikit-learn")
    except PackageNotFoundError:
        raise DataError(
            "digits: scikit-learn ships this data set and is not installed; install it"
        ) from None
    return Path(str(files.locate_file("sklearn/datasets/data/digits.csv.gz")))


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read (n, 64) float32 in [0, 1] and (n,) int64; a line has 64 pixels 0…16 and the class."""
    try:
        with gzip.open(path, "rt", encoding="ascii") as lines:
            table = np.loadtxt(lines, delimiter=",", dtype=np.uint8)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); install scikit-learn again") from error
    if table.shape != (_N_IMAGES, 65):
        raise DataError(f"{path}: {table.shape} numbers, expected ({_N_IMAGES}, 65)")
    return table[:, :-1].astype(np.float32) / _BRIGHTEST, table[:, -1].astype(np.int64)
