"""Types that a data set returns, and the protocol of every data set.

Shapes: n images, D = H·W·C pixels each.  Units: uint8, or float32 in [0, 1].
Labels y count classes from 0; −1 marks an unlabelled image and occurs only in y_train.
"""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, overload

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Split = Literal["train", "test"]  # the validation images are part of the training files
FloatType = Literal["float32", "float64"]


@dataclass(frozen=True, eq=False)
class TrainingData:
    """All data that search and confirm may use; holds no test images."""

    name: str
    image_shape: tuple[int, ...]  # (H, W), (H, W, C) or (D,)
    x_train: np.ndarray  # (n, D)
    y_train: np.ndarray | None  # (n,) int64
    x_valid: np.ndarray
    y_valid: np.ndarray | None
    sha256: str  # of the four arrays; identifies the data in every result
    labels: tuple[int, ...] = ()  # the file's label of each class; empty: 0 … K−1
    notes: tuple[str, ...] = ()  # what the reader found odd, and what it assumed
    label_problem: str | None = None  # why the file's labels are not used, and the remedy
    missing: tuple[str, ...] = ()  # members of the test split that the file does not have

    @classmethod
    def of(
        cls,
        name: str,
        image_shape: tuple[int, ...],
        train: tuple[np.ndarray, np.ndarray | None],
        valid: tuple[np.ndarray, np.ndarray | None],
        **found: Any,
    ) -> "TrainingData":
        """Build from (x, y) of both splits and compute the checksum; `found`: further fields."""
        return cls(name, image_shape, *train, *valid, fingerprint(*train, *valid), **found)

    @property
    def dim(self) -> int:
        return math.prod(self.image_shape)

    @property
    def classes(self) -> int:
        """Number of classes in the labels; 0 without labels."""
        labels = [y for y in (self.y_train, self.y_valid) if y is not None]
        return 1 + max((int(y.max()) for y in labels), default=-1)

    @property
    def record(self) -> dict[str, Any]:
        """The class labels and the notes, as JSON; empty for data without them."""
        found = {"labels": list(self.labels), "notes": list(self.notes)}
        return {name: values for name, values in found.items() if values}


@dataclass(frozen=True, eq=False)
class TestData:
    """The test split, on which only the final winners are scored, once."""

    __test__: ClassVar[bool] = False  # keeps pytest from collecting this class as tests

    x: np.ndarray  # (n, D)
    y: np.ndarray | None  # (n,) int64
    sha256: str
    labels: tuple[int, ...] = ()  # as in TrainingData, then those of no training image
    label_problem: str | None = None

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray | None, **found: Any) -> "TestData":
        return cls(x, y, fingerprint(x, y), **found)


def fingerprint(*arrays: np.ndarray | None) -> str:
    """Return the sha256 of the arrays' types, shapes and bytes, in order."""
    checksum = hashlib.sha256()
    for array in arrays:
        if array is None:
            checksum.update(b"none;")
        else:
            checksum.update(f"{array.dtype.str}{array.shape};".encode())
            checksum.update(np.ascontiguousarray(array).data)
    return checksum.hexdigest()


@overload
def unit_interval(x: np.ndarray, dtype: FloatType = ...) -> np.ndarray: ...


@overload
def unit_interval(x: "Tensor", dtype: FloatType = ...) -> "Tensor": ...


def unit_interval(x: "np.ndarray | Tensor", dtype: FloatType = "float32") -> "np.ndarray | Tensor":
    """Return pixels in [0, 1], any shape: uint8 is scaled by 1/255, floats are only cast."""
    if isinstance(x, np.ndarray):
        pixels = x.astype(dtype, copy=False)
        return pixels / 255 if x.dtype == np.uint8 else pixels
    tensor = x.float() if dtype == "float32" else x.double()
    return tensor if x.is_floating_point() else tensor / 255


def holds_pixels(dtype: np.dtype) -> bool:
    """Return True for uint8 and for floats of any size and byte order."""
    return dtype == np.uint8 or dtype.kind == "f"


def range_problem(x: np.ndarray, low: float = 0, high: float = 1) -> str | None:
    """Describe the values of floats that are not numbers in [low, high]; None if all are."""
    least, most = float(x.min()), float(x.max())  # NaN if any value is NaN
    if low <= least and most <= high:
        return None
    infinite = x.size - int(np.isfinite(x).sum())
    found = f"{infinite:,} are not finite" if infinite else f"they are {least:.4g} to {most:.4g}"
    return f"has values that are not numbers in [{low:g}, {high:g}]: {found}"


@dataclass(frozen=True)
class DataFile:
    path: Path  # location, or expected location if missing
    present: bool


@dataclass(frozen=True)
class Description:
    name: str
    files: tuple[DataFile, ...]
    sizes: dict[str, int]  # images in train, valid, test; empty if unknown without the file
    source: str
    licence: str
    obtain: str | None = None  # how to obtain files that cannot be downloaded

    @property
    def missing(self) -> tuple[Path, ...]:
        return tuple(file.path for file in self.files if not file.present)


@dataclass(frozen=True)
class FileCheck:
    """Result of the verification of one file; `problem` is None for a valid file."""

    path: Path
    problem: str | None

    @property
    def ok(self) -> bool:
        return self.problem is None


class DataSet(Protocol):
    """Protocol of data sets, one module each. Reading methods raise DataError naming the file."""

    def training(self) -> TrainingData:
        """Read training and validation images, without opening files or members of test images."""

    def test(self) -> TestData: ...

    def describe(self) -> Description: ...

    def fetch(self, *splits: Split) -> None:
        """Download missing files of these splits; write nothing if no file is missing."""

    def verify(self) -> list[FileCheck]:
        """Read every file as `training` and `test` do; return a verdict for each file."""
