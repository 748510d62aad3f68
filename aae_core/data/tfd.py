"""Toronto Face Database (Susskind, Anderson, Hinton 2010), 48×48 grey: one MATLAB file of level 5.

images (n, 48, 48) uint8; labs_ex (n, 1): expressions 1 … 7, −1 or 0 for unlabelled images; folds
(n, 5): 0 unlabelled, 1 train, 2 validation, 3 test, in each of the five published folds.

TFD is not public and has no published checksum, so the reader checks only the file's form.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from aae_core.config import DataConfig
from aae_core.data.fetch import missing_files
from aae_core.data.matlab import MatFile, N
from aae_core.data.sets import DataFile, Description, FileCheck, Split, TestData, TrainingData
from aae_core.errors import DataError

_OBTAIN = (
    "TFD is not public: ask its authors (Josh Susskind, or the machine learning group of the "
    "University of Toronto) for TFD_48x48.mat"
)

_LAYOUT = {"images": (N, 48, 48), "labs_ex": (N, 1), "folds": (N, 5)}
_PARTS = {"train": (0, 1), "valid": (2,), "test": (3,)}  # 0: unlabelled
_FEWEST = {"train": 2, "valid": 2, "test": 1}  # images of a split; a standard deviation needs two


@dataclass(frozen=True)
class Tfd:
    """TFD in `root`/tfd; the training set is the fold's unlabelled and training images."""

    root: Path
    fold: int = 0

    @classmethod
    def of(cls, config: DataConfig, root: Path) -> Self:
        return cls(root, config.fold)

    @property
    def path(self) -> Path:
        return self.root / "tfd" / "TFD_48x48.mat"

    def training(self) -> TrainingData:
        """Read training and validation images; the file also holds test images, not returned."""
        return TrainingData.of("tfd", (48, 48), *self._read("train", "valid"))

    def test(self) -> TestData:
        ((x, y),) = self._read("test")
        return TestData.of(x, y)

    def describe(self) -> Description:
        return Description(
            name="tfd",
            files=(DataFile(self.path, self.path.is_file()),),
            sizes=self._sizes(),
            source="Susskind, Anderson, Hinton 2010, University of Toronto",
            licence="on request",
            obtain=f"{_OBTAIN} and put it into {self.path.parent}",
        )

    def fetch(self, *splits: Split) -> None:
        """Raise DataError, which names the authors to contact, if the file is missing."""
        if not self.path.exists():
            raise missing_files([self.path.name], self.path.parent, [_OBTAIN])

    def verify(self) -> list[FileCheck]:
        try:
            self._read(*_FEWEST)
        except DataError as error:
            return [FileCheck(self.path, str(error))]
        return [FileCheck(self.path, None)]

    def _open(self) -> MatFile:
        mat = MatFile.open(self.path)
        mat.count(_LAYOUT, pixels="images", fewest=sum(_FEWEST.values()))
        return mat

    def _sizes(self) -> dict[str, int]:
        """Return the number of images of each split; empty if the file is unreadable."""
        try:
            mat = self._open()
            return {split: len(self._members(mat, split)) for split in _FEWEST}
        except DataError:
            return {}

    def _read(self, *splits: str) -> list[tuple[np.ndarray, np.ndarray]]:
        """Read images (n, D) uint8 and labels (n,) int64 of each split, in the file's order."""
        self.fetch()
        mat = self._open()
        images = mat.array("images")
        y = np.maximum(mat.integers("labs_ex", -1, 7).ravel(), 0) - 1
        parts = []
        for split in splits:
            members = self._members(mat, split)
            if split != "train" and y[members].min() < 0:
                raise DataError(
                    f"{self.path}: labs_ex has no label for some {split} images of fold {self.fold}"
                )
            x = images[members].reshape(len(members), -1)
            parts.append((np.ascontiguousarray(x), y[members]))
        return parts

    def _members(self, mat: MatFile, split: str) -> np.ndarray:
        """Return the indices of a split's images."""
        part = mat.integers("folds", 0, 3)[:, self.fold]
        members = np.flatnonzero(np.isin(part, _PARTS[split]))
        if len(members) < _FEWEST[split]:
            raise DataError(
                f"{self.path}: folds has {len(members)} {split} images in fold {self.fold}, "
                f"expected at least {_FEWEST[split]}"
            )
        return members
