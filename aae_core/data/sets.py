"""What a data set hands out, and what every data set must be able to do.

Shapes: n images, D = H·W·C pixels each.  Units: uint8, or float32 in [0, 1].
Labels y count classes from 0; −1 is an unlabelled image, which only y_train may hold.
"""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, overload

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Split = Literal["train", "test"]  # the validation images are part of the training files
FloatType = Literal["float32", "float64"]


@dataclass(frozen=True, eq=False)
class TrainingData:
    """All that search and confirm may see: there is no test member to look at."""

    name: str
    image_shape: tuple[int, ...]  # (H, W), (H, W, C) or (D,)
    x_train: np.ndarray  # (n, D)
    y_train: np.ndarray | None  # (n,) int64
    x_valid: np.ndarray
    y_valid: np.ndarray | None
    sha256: str  # of the four arrays: the data's name in every result

    @classmethod
    def of(
        cls,
        name: str,
        image_shape: tuple[int, ...],
        train: tuple[np.ndarray, np.ndarray | None],
        valid: tuple[np.ndarray, np.ndarray | None],
    ) -> "TrainingData":
        """From (x, y) of either split, the checksum taken here."""
        return cls(name, image_shape, *train, *valid, sha256=fingerprint(*train, *valid))

    @property
    def dim(self) -> int:
        return math.prod(self.image_shape)

    @property
    def classes(self) -> int:
        """How many the labels tell apart; 0 without labels."""
        labels = [y for y in (self.y_train, self.y_valid) if y is not None]
        return 1 + max((int(y.max()) for y in labels), default=-1)


@dataclass(frozen=True, eq=False)
class TestData:
    """The split that the fixed winners meet once, at the end."""

    __test__: ClassVar[bool] = False  # no test class, whatever pytest makes of the name

    x: np.ndarray  # (n, D)
    y: np.ndarray | None  # (n,) int64
    sha256: str

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray | None) -> "TestData":
        return cls(x, y, fingerprint(x, y))


def fingerprint(*arrays: np.ndarray | None) -> str:
    """sha256 of the arrays' types, shapes and bytes, in this order."""
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
    """Pixels in [0, 1]: uint8 is scaled by 1/255, floats are only cast. Any shape."""
    if isinstance(x, np.ndarray):
        pixels = x.astype(dtype, copy=False)
        return pixels / 255 if x.dtype == np.uint8 else pixels
    tensor = x.float() if dtype == "float32" else x.double()
    return tensor if x.is_floating_point() else tensor / 255


@dataclass(frozen=True)
class DataFile:
    path: Path  # where it is, or where it is looked for
    present: bool


@dataclass(frozen=True)
class Description:
    name: str
    files: tuple[DataFile, ...]
    sizes: dict[str, int]  # images in train, valid, test; empty if only the missing file knows
    source: str
    licence: str
    obtain: str | None = None  # how to come by files that cannot be downloaded

    @property
    def missing(self) -> tuple[Path, ...]:
        return tuple(file.path for file in self.files if not file.present)


@dataclass(frozen=True)
class Verdict:
    """What verification found of one file; the problem is None if all is well."""

    path: Path
    problem: str | None

    @property
    def ok(self) -> bool:
        return self.problem is None


class DataSet(Protocol):
    """One file of this package each. Whatever reads raises DataError, which names the file."""

    def training(self) -> TrainingData:
        """Opens no file that holds test images, and reads no test member."""

    def test(self) -> TestData: ...

    def describe(self) -> Description: ...

    def fetch(self, *splits: Split) -> None:
        """Get the files of these splits that are not there; if all are, nothing is written."""

    def verify(self) -> list[Verdict]:
        """Read every file as training and test would."""
