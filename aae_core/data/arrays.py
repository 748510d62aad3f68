"""Reader of the user's own images: one untrusted .npz file, or a .npy of pixels.

Members: x_train, images as (n, D) or (n, H, W[, C]), uint8 or float in [0, 1]; optional y_train
(n,), whole numbers, −1 for unlabelled images; optional x_valid, y_valid; optional x_test, y_test.
Without x_valid, the last tenth of a seeded permutation of the training images is the validation
set. Other axes and other values of black and white are settings of the reader, which notes a file
that seems to need them. The labels in the file become the classes 0 … K−1 in ascending order.

The reader never unpickles. Before allocating memory, the reader checks that a member's header
agrees to the byte with the member's size in the archive, and that the size fits this machine.
"""

import math
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
from numpy.lib import format as npy

from aae_core.config import DataConfig
from aae_core.data.memory import physical_memory
from aae_core.data.sets import (
    DataFile,
    Description,
    FileCheck,
    Split,
    TestData,
    TrainingData,
    holds_pixels,
    range_problem,
)
from aae_core.data.splits import last_tenth
from aae_core.errors import DataError

_FEWEST = {"train": 2, "valid": 2, "test": 1}  # images of a split; a standard deviation needs two
_FEWEST_TO_SPLIT = 4  # two of them for validation
_MEMBERS = tuple(f"{axis}_{split}" for split in _FEWEST for axis in "xy")
_DAMAGED = (OSError, EOFError, RuntimeError, ValueError, zlib.error, zipfile.BadZipFile)
_AXES = {2: "nd", 3: "nhw", 4: "nhwc"}  # by number of axes, where nothing speaks against them
_OTHER_AXES = ("nchw", "hwcn")  # of images with channels
_CHANNELS = (1, 3)
_DIM = 0.5  # brightest pixel below which the values of black and white look wrong
_BYTE = (0, 255)
_UNLABELLED = -1
_LISTED = 5  # labels in a message
_TURNED = "; if the last axis of x counts the images, set data.axes (nd is images first)"


@dataclass(frozen=True)
class Arrays:
    """A file, with the meaning of its arrays where the settings give one."""

    path: Path
    range: tuple[float, float] | None = None  # values of black and white; None: 0, and 255 or 1
    axes: str | None = None  # a letter for each axis of x: n images, then h, w, c, or d pixels

    @classmethod
    def of(cls, config: DataConfig, _root: Path) -> Self:
        assert config.path is not None  # as the configuration demands
        return cls(Path(config.path), config.range, config.axes)

    def training(self) -> TrainingData:
        with self._opened() as npz:
            x, layout = npz.images("train"), npz.layout()
            valid = npz.images("valid") if npz.has("valid") else None
            labels = npz.labels("train", *(["valid"] if npz.has("valid") else []))
            found: dict[str, Any] = {
                "labels": labels.values if labels.renamed else (),
                "label_problem": labels.problem,
                "notes": (*layout.notes, *npz.darkness(x), *labels.notes),
                "missing": tuple(m for m in ("x_test", "y_test") if m not in npz.infos),
            }
        y, y_valid = labels.of("train"), labels.of("valid")
        if valid is not None:
            return TrainingData.of("arrays", layout.image_shape, (x, y), (valid, y_valid), **found)
        kept, held_out = (
            (x[indices], None if y is None else y[indices]) for indices in last_tenth(len(x))
        )
        return TrainingData.of("arrays", layout.image_shape, kept, held_out, **found)

    def test(self) -> TestData:
        with self._opened() as npz:
            if not npz.has("test"):
                raise DataError(f"{self.path}: has no member x_test to evaluate on; add it")
            trained = npz.labels("train", *(["valid"] if npz.has("valid") else []))
            labels = trained if trained.problem else npz.labels("test", known=trained.values)
            return TestData.of(
                npz.images("test"),
                labels.of("test"),
                labels=labels.values if labels.renamed else (),
                label_problem=labels.problem,
            )

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
            problem = self.training().label_problem
            if "test" in self._sizes():
                problem = problem or self.test().label_problem
        except DataError as error:
            problem = str(error)
        return [FileCheck(self.path, problem)]

    def _sizes(self) -> dict[str, int]:
        with self._opened() as npz:
            sizes = {split: npz.size(split) for split in _FEWEST if npz.has(split)}
        if "valid" not in sizes:
            kept, held_out = last_tenth(sizes["train"])
            sizes |= {"train": len(kept), "valid": len(held_out)}
        return {split: sizes[split] for split in _FEWEST if split in sizes}

    @contextmanager
    def _opened(self) -> "Iterator[_Npz]":
        with _opened(self.path) as (archive, infos):
            yield _Npz(self.path, archive, infos, self.range, self.axes)


def open_array(path: Path) -> np.ndarray:
    """Open a .npy of pixels (n, D), memory-mapped and never unpickled.

    Pixels are uint8, or floats of any size and byte order; their values are not checked here.
    Raises DataError if the file is missing, damaged or something else.
    """
    try:
        array = npy.open_memmap(path, mode="r")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # numpy's parser can raise any exception on hostile text
        raise DataError(
            f"{path}: no .npy of numbers, or a damaged one; numpy.save an array (n, D) of uint8 "
            "or floats"
        ) from error
    if array.ndim != 2 or not array.size:
        raise DataError(
            f"{path}: shape {array.shape}; give a .npy with one array (n, D), n and D above 0"
        )
    if not holds_pixels(array.dtype):
        raise DataError(f"{path}: type {array.dtype}; give uint8, or floats of any size")
    return array


@dataclass(frozen=True)
class _Header:
    """Shape and type in a member's header."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class _Layout:
    """Meaning of the axes of x, the same for every split."""

    axes: str
    image_shape: tuple[int, ...]  # (H, W), (H, W, C) or (D,)
    notes: tuple[str, ...]

    @property
    def images_axis(self) -> int:
        return self.axes.index("n")

    @property
    def order(self) -> list[int]:
        """The axes of x as n, h, w, c or n, d."""
        return [self.axes.index(letter) for letter in "nhwcd" if letter in self.axes]


@dataclass(frozen=True)
class _Labels:
    """Labels of some splits as classes 0 … K−1; −1 is unlabelled."""

    classes: dict[str, np.ndarray]  # by split, int64
    values: tuple[int, ...] = ()  # the file's label of each class
    notes: tuple[str, ...] = ()
    problem: str | None = None

    @property
    def renamed(self) -> bool:
        return self.values != tuple(range(len(self.values)))

    def of(self, split: str) -> np.ndarray | None:
        return self.classes.get(split)


@dataclass(frozen=True)
class _Npz:
    """An open file whose members have valid names but unchecked contents."""

    path: Path
    archive: zipfile.ZipFile
    infos: dict[str, zipfile.ZipInfo]
    range: tuple[float, float] | None
    axes: str | None

    def has(self, split: str) -> bool:
        return f"x_{split}" in self.infos

    def images(self, split: str) -> np.ndarray:
        """Read the images of a split: (n, D), uint8 or float32 in [0, 1]."""
        name, layout = f"x_{split}", self.layout()
        self._check_like_train(split)
        raw = self._array(name).transpose(layout.order)
        flat = raw.reshape(len(raw), -1)
        if raw.dtype == np.uint8 and self.range in (None, _BYTE):
            return np.ascontiguousarray(flat)
        low, high = self.range or (0, 1)
        problem = range_problem(flat, low, high)
        if problem:
            raise self._wrong(name, f"{problem}; {self._remedy(flat)}")
        if self.range is None:
            return np.ascontiguousarray(flat, np.float32)
        pixels = flat.astype(np.result_type(flat.dtype, np.float32))
        pixels -= low
        pixels /= high - low
        return np.ascontiguousarray(pixels.clip(0, 1), np.float32)  # rounding may exceed 1

    def layout(self) -> _Layout:
        """Return the meaning of the axes: as the settings give it, or as the shape suggests."""
        shape = self._image_header("train").shape
        axes = self.axes or _likely_axes(shape)
        if len(axes) != len(shape):
            raise self._wrong(
                "x_train", f"has the shape {shape}; give data.axes {len(shape)} letters"
            )
        image_shape = tuple(shape[axes.index(letter)] for letter in "hwcd" if letter in axes)
        notes = [] if self.axes else _odd_axes(shape, axes)
        if len(image_shape) > 1 and math.prod(image_shape) == max(image_shape):
            if self.axes is None:
                notes = [
                    f"x_train has the shape {shape}; assumed images of {max(image_shape):,} "
                    "pixels in one row"
                ]
            image_shape = (max(image_shape),)
        return _Layout(axes, image_shape, tuple(notes))

    def darkness(self, x: np.ndarray) -> list[str]:
        """Return a note if the brightest pixel of x is far from white."""
        most = int(x.max()) / _BYTE[1] if x.dtype == np.uint8 else float(x.max())
        if most >= _DIM:
            return []
        if self.range is not None:
            return [f"x_train: with data.range the brightest pixel is {most:.3g} of 1"]
        found, white, other = "float", "1", "set data.range to [black, white]"
        if x.dtype == np.uint8:
            found, white = f"uint8 from {x.min()} to {x.max()}", "255"
            other = f"as {x.max()}, set data.range: [0, {x.max()}]"
        return [
            f"x_train is {found}; assumed that {white} is white, so the brightest pixel is "
            f"{most:.3g}; if white is another value, {other}"
        ]

    def size(self, split: str) -> int:
        return self._image_header(split).shape[self.layout().images_axis]

    def labels(self, *splits: str, known: tuple[int, ...] = ()) -> _Labels:
        """Read the labels of splits as classes, those in `known` first.

        Labels that cannot be used are a problem for models that read labels; others ignore it.
        """
        try:
            raw = {s: y for s in splits if (y := self._whole_labels(s)) is not None}
        except DataError as error:
            return _Labels({}, known, problem=str(error))
        found = {value for y in raw.values() for value in np.unique(y).tolist()} - {_UNLABELLED}
        labels = _Labels({}, (*known, *sorted(found.difference(known))))
        classes = {label: index for index, label in enumerate(labels.values)}
        for split, y in raw.items():
            values, places = np.unique(y, return_inverse=True)
            numbers = [classes.get(value, _UNLABELLED) for value in values.tolist()]
            labels.classes[split] = np.array(numbers, np.int64)[places]
        if not labels.renamed:
            return labels
        note = f"labels {_listed(labels.values)} are the classes 0 to {len(labels.values) - 1}"
        return replace(labels, notes=(note,))

    def _image_header(self, split: str) -> _Header:
        name = f"x_{split}"
        header = self._header(name)
        if not holds_pixels(header.dtype):
            raise self._wrong(name, f"is {header.dtype}; give uint8, or float in [0, 1]")
        if not 2 <= len(header.shape) <= 4:
            raise self._wrong(name, f"has the shape {header.shape}; give (n, D) or (n, H, W[, C])")
        return header

    def _check_like_train(self, split: str) -> None:
        """Raise DataError unless the split has enough images, and images like those of x_train."""
        name, at = f"x_{split}", self.layout().images_axis
        shape, expected = (self._image_header(each).shape for each in (split, "train"))
        if [*shape[:at], *shape[at + 1 :]] != [*expected[:at], *expected[at + 1 :]]:
            turned = shape[-1] != expected[-1] and shape[:-1] == expected[:-1]
            problem = f"has images of {shape[1:]}, those of x_train {expected[1:]}"
            raise self._wrong(name, problem + (_TURNED if turned else ""))
        holds_out = split == "train" and not self.has("valid")
        fewest = _FEWEST_TO_SPLIT if holds_out else _FEWEST[split]
        if shape[at] < fewest:
            raise self._wrong(name, f"has {shape[at]} images; give at least {fewest}")

    def _remedy(self, x: np.ndarray) -> str:
        least, most = float(x.min()), float(x.max())
        if not math.isfinite(least + most):
            return "replace them"
        if self.range is not None:
            return "set data.range to the values of black and white"
        usual = next((r for r in (_BYTE, (-1, 1)) if r[0] <= least and most <= r[1]), None)
        black, white = usual or (math.floor(least), math.ceil(most))
        return f"scale them, or set data.range: [{black}, {white}] (the values of black and white)"

    def _whole_labels(self, split: str) -> np.ndarray | None:
        """Read labels, (n,) int64. Raises DataError unless they are whole numbers from 0, or −1."""
        name = f"y_{split}"
        if name not in self.infos:
            return None
        header, n = self._header(name), self.size(split)
        raw = self._array(name)
        wrong = f"is {header.dtype} of shape {header.shape}, values {_listed(np.unique(raw))}"
        if raw.ndim == 2 and raw.shape[1] > 1 and set(np.unique(raw).tolist()) == {0, 1}:
            raise self._wrong(name, f"{wrong}: one-hot; save y.argmax(axis=1)")
        if header.dtype.kind in "SU":
            remedy = "save numpy.unique(y, return_inverse=True)[1]"
            raise self._wrong(name, f"{wrong}; give whole numbers: {remedy}")
        if header.dtype.kind not in "biuf" or header.shape not in ((n,), (n, 1)):
            turned = header.shape == self._image_header(split).shape[-1:]
            remedy = f"; give whole numbers, ({n},)" + (_TURNED if turned else "")
            raise self._wrong(name, wrong + remedy)
        with np.errstate(invalid="ignore"):
            labels = raw.reshape(-1).astype(np.int64)
        if not np.array_equal(labels, raw.reshape(-1)):
            raise self._wrong(name, f"{wrong}; give whole numbers below 2^63")
        self._check_unlabelled(split, labels)
        return labels

    def _check_unlabelled(self, split: str, labels: np.ndarray) -> None:
        name, found = f"y_{split}", _listed(np.unique(labels))
        if split == "train" and self.has("valid"):
            if labels.min() < _UNLABELLED:
                raise self._wrong(
                    name, f"has labels below −1: {found}; −1 is unlabelled, give classes from 0"
                )
        elif labels.min() < 0:
            raise self._wrong(
                name,
                f"has negative labels: {found}; give classes from 0. Images without a label (−1) "
                "go into x_train, beside an x_valid",
            )

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
            raise self._wrong(name, f"cannot be read ({error}); save it with np.savez") from error

    def _wrong(self, member: str, problem: str) -> DataError:
        return DataError(f"{self.path}: {member} {problem}")


@contextmanager
def _opened(path: Path) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    try:
        archive = zipfile.ZipFile(path)
    except _DAMAGED as error:
        raise DataError(
            f"{path}: cannot be opened ({error}); give a file written by np.savez"
        ) from error
    with archive:
        infos = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        _check_members(path, infos)
        yield archive, infos


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
        raise ValueError("empty, or an axis of 2^63 or more")
    return _Header(shape, dtype)


def _likely_axes(shape: tuple[int, ...]) -> str:
    """Return the usual axes, or others if only these give a usual number of channels."""
    usual = _AXES[len(shape)]
    if len(shape) < 4 or shape[usual.index("c")] in _CHANNELS:
        return usual
    first, last = _OTHER_AXES
    if shape[first.index("c")] in _CHANNELS:
        return first
    square = shape[last.index("h")] == shape[last.index("w")]
    return last if square and shape[last.index("c")] in _CHANNELS else usual


def _odd_axes(shape: tuple[int, ...], axes: str) -> list[str]:
    """Return a note if the axes are not the usual ones, or others are as likely."""
    found = f"x_train has the shape {shape}"
    read = f"assumed ({', '.join(axes.upper()).replace('N', 'n')})"
    if axes != _AXES[len(shape)]:
        return [f"{found}; {read}; if the axes mean something else, set data.axes"]
    turned = {
        2: _is_image_size(shape[0]) and not _is_image_size(shape[-1]) and shape[0] < shape[-1],
        3: shape[0] == shape[1] != shape[-1],
    }
    if not turned.get(len(shape)):
        return []
    other = axes[1:] + axes[0]
    return [f"{found}; {read}; if the last axis counts the images, set data.axes: {other}"]


def _is_image_size(pixels: int) -> bool:
    """Return True for the size of a square image, grey or in colour."""
    return any(math.isqrt(pixels // c) ** 2 * c == pixels and pixels >= 16 for c in _CHANNELS)


def _listed(labels: Collection[Any]) -> str:
    """List the first labels, and how many there are."""
    first = ", ".join(str(label) for label in list(labels)[:_LISTED])
    return first if len(labels) <= _LISTED else f"{first}, … ({len(labels):,} in all)"
