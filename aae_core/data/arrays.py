"""Reader of the user's own images: one untrusted .npz file.

Members: x_train (n, D) or (n, H, W[, C]), uint8 or float in [0, 1]; optional y_train (n,), whole
numbers from 0, or −1 for unlabelled images; optional x_valid, y_valid; optional x_test, y_test.
Without x_valid, the last tenth of a seeded permutation of the training images is the validation
set.

The reader never unpickles. Before allocating memory, the reader checks that a member's header
agrees to the byte with the member's size in the archive, and that the size fits this machine.
"""

import math
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from aae_core.data.memory import physical_memory
from aae_core.data.sets import DataFile, Description, FileCheck, Split, TestData, TrainingData
from aae_core.data.splits import last_tenth
from aae_core.errors import DataError

_FEWEST = {"train": 2, "valid": 2, "test": 1}  # images of a split; a standard deviation needs two
_FEWEST_TO_SPLIT = 4  # two of them for validation
_MEMBERS = tuple(f"{axis}_{split}" for split in _FEWEST for axis in "xy")
_DAMAGED = (OSError, EOFError, RuntimeError, ValueError, zlib.error, zipfile.BadZipFile)


@dataclass(frozen=True)
class Arrays:
    path: Path

    def training(self) -> TrainingData:
        with _opened(self.path) as npz:
            x, y = npz.split("train")
            image_shape = npz.image_header("train").shape[1:]
            if npz.has("valid"):
                return TrainingData.of("arrays", image_shape, (x, y), npz.split("valid"))
        kept, held_out = last_tenth(len(x))
        train, valid = (
            (x[indices], None if y is None else y[indices]) for indices in (kept, held_out)
        )
        return TrainingData.of("arrays", image_shape, train, valid)

    def test(self) -> TestData:
        with _opened(self.path) as npz:
            if not npz.has("test"):
                raise DataError(f"{self.path}: has no member x_test to evaluate on; add it")
            return TestData.of(*npz.split("test"))

    def describe(self) -> Description:
        return Description(
            name="arrays",
            files=(DataFile(self.path, self.path.is_file()),),
            sizes=self._sizes() if self.path.is_file() else {},
            source="your own",
            licence="your own",
        )

    def fetch(self, *splits: Split) -> None:
        """Do nothing: the user's file cannot be downloaded."""

    def verify(self) -> list[FileCheck]:
        try:
            self.training()
            if "test" in self._sizes():
                self.test()
        except DataError as error:
            return [FileCheck(self.path, str(error))]
        return [FileCheck(self.path, None)]

    def _sizes(self) -> dict[str, int]:
        with _opened(self.path) as npz:
            sizes = {split: npz.image_header(split).shape[0] for split in _FEWEST if npz.has(split)}
        if "valid" not in sizes:
            kept, held_out = last_tenth(sizes["train"])
            sizes |= {"train": len(kept), "valid": len(held_out)}
        return {split: sizes[split] for split in _FEWEST if split in sizes}


@dataclass(frozen=True)
class _Header:
    """Shape and type in a member's header."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class _Npz:
    """An open file whose members have valid names but unchecked contents."""

    path: Path
    archive: zipfile.ZipFile
    infos: dict[str, zipfile.ZipInfo]

    def has(self, split: str) -> bool:
        return f"x_{split}" in self.infos

    def split(self, split: str) -> tuple[np.ndarray, np.ndarray | None]:
        """Read a split: (n, D) uint8 or float32 in [0, 1]; (n,) int64 or None."""
        header = self.image_header(split)
        self._check_like_train(split, header)
        pixels = self._array(f"x_{split}")
        # Comparisons with NaN are False, so this condition also rejects NaN.
        if header.dtype.kind == "f" and not (pixels.min() >= 0 and pixels.max() <= 1):
            raise self._wrong(f"x_{split}", "has values that are not numbers in [0, 1]; scale them")
        flat = pixels.reshape(len(pixels), -1)
        dtype = np.uint8 if header.dtype == np.uint8 else np.float32
        return np.ascontiguousarray(flat, dtype), self._labels(split, len(pixels))

    def image_header(self, split: str) -> _Header:
        name = f"x_{split}"
        header = self._header(name)
        if header.dtype != np.uint8 and header.dtype.kind != "f":
            raise self._wrong(name, f"is {header.dtype}; give uint8, or float in [0, 1]")
        if not 2 <= len(header.shape) <= 4:
            raise self._wrong(name, f"has the shape {header.shape}; give (n, D) or (n, H, W[, C])")
        holds_out = split == "train" and not self.has("valid")
        fewest = _FEWEST_TO_SPLIT if holds_out else _FEWEST[split]
        if header.shape[0] < fewest:
            raise self._wrong(name, f"has {header.shape[0]} images; give at least {fewest}")
        return header

    def _check_like_train(self, split: str, header: _Header) -> None:
        images, expected = header.shape[1:], self.image_header("train").shape[1:]
        if images != expected:
            raise self._wrong(f"x_{split}", f"has images of {images}, those of x_train {expected}")

    def _labels(self, split: str, n: int) -> np.ndarray | None:
        name = f"y_{split}"
        if name not in self.infos:
            return None
        header = self._header(name)
        if header.dtype.kind not in "iu" or header.shape != (n,):
            raise self._wrong(
                name, f"is {header.dtype} of shape {header.shape}; give whole numbers, ({n},)"
            )
        labels = self._array(name).astype(np.int64)
        if split == "train" and self.has("valid"):
            if labels.min() < -1:
                raise self._wrong(name, "has labels below −1; −1 is unlabelled, classes are from 0")
        elif labels.min() < 0:
            raise self._wrong(
                name,
                "has negative labels; count classes from 0. Images without a label (−1) go into "
                "x_train, beside an x_valid",
            )
        return labels

    def _header(self, name: str) -> _Header:
        """Read a member's header.

        Raises DataError unless the header matches the member's size and the data fit in memory.
        """
        info = self.infos[name]
        with self._reading(name), self.archive.open(info) as stream:
            header = _parse_header(stream)
            nbytes = info.file_size - stream.tell()
        if header.dtype.hasobject:
            raise self._wrong(name, "holds Python objects, never unpickled; give plain numbers")
        if header.nbytes != nbytes:
            raise self._wrong(
                name,
                f"has a header for {header.dtype} of shape {header.shape}, and {nbytes} bytes of "
                "data; save it again by np.savez",
            )
        if nbytes > physical_memory() // 2:  # a permuted or cast copy doubles the memory
            raise self._wrong(
                name, f"takes {nbytes:,} bytes, this machine has {physical_memory():,}; give less"
            )
        return header

    def _array(self, name: str) -> np.ndarray:
        with self._reading(name), self.archive.open(self.infos[name]) as stream:
            return npy.read_array(stream, allow_pickle=False)

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        try:
            yield
        except _DAMAGED as error:
            raise self._wrong(name, f"cannot be read ({error}); save it by np.savez") from error

    def _wrong(self, member: str, problem: str) -> DataError:
        return DataError(f"{self.path}: {member} {problem}")


@contextmanager
def _opened(path: Path) -> Iterator[_Npz]:
    try:
        archive = zipfile.ZipFile(path)
    except _DAMAGED as error:
        raise DataError(
            f"{path}: cannot be opened ({error}); give a file written by np.savez"
        ) from error
    with archive:
        infos = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        _check_members(path, infos)
        yield _Npz(path, archive, infos)


def _check_members(path: Path, names: Collection[str]) -> None:
    """Raise DataError for unknown or missing members, such as a misspelt x_valid."""
    problems = [
        f"unknown member {name!r}{_suggestion(name)}" for name in names if name not in _MEMBERS
    ]
    problems += [
        f"{y} without its images {x}"
        for x, y in zip(_MEMBERS[::2], _MEMBERS[1::2], strict=True)
        if y in names and x not in names
    ]
    if "x_train" not in names:
        problems.append("no member x_train")
    if problems:
        raise DataError(f"{path}: {'; '.join(problems)}. Known are {', '.join(_MEMBERS)}")


def _suggestion(name: str) -> str:
    near = get_close_matches(name, _MEMBERS, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _parse_header(stream: IO[bytes]) -> _Header:
    """Parse a header of version 1.0, at most 64 KiB, the version that np.savez writes.

    Raises ValueError for other versions and damaged headers.
    """
    version = npy.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"npy format {version}, expected (1, 0)")
    try:
        shape, _, dtype = npy.read_array_header_1_0(stream)
    except Exception as error:  # numpy's parser can raise any exception on hostile text
        raise ValueError(f"its header does not parse: {error}") from error
    if not all(0 < length < 2**63 for length in shape):
        raise ValueError("empty, or larger than anything")
    return _Header(shape, dtype)
