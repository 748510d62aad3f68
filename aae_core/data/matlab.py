"""Reader of numeric arrays in an untrusted MATLAB file of level 5.

Format (MathWorks, MAT-File Format, R2014b): 128 bytes of header, then elements. An element is a tag
(type, bytes), data, padding to 8 bytes. The tag itself may hold up to 4 bytes of data. A variable
is an element of type matrix, often deflated inside another element. A variable holds flags,
dimensions, name and numbers, with the first index varying fastest.

The reader checks all sizes against each other and the file before allocating memory.
scipy.io.loadmat is unsuitable: its index of number types comes unchecked from the file, so one
wrong byte ends the process. scipy.io.loadmat also holds whole arrays; this reader returns blocks.
"""

import io
import math
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from aae_core.data.memory import physical_memory
from aae_core.errors import DataError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

N = -1  # in a layout: the number of images
Shape = tuple[int, ...]

_HEADER_BYTES = 128
_BYTE_ORDERS = {b"\x00\x01IM": "<", b"\x01\x00MI": ">"}  # by version and endian mark
_HDF5 = (b"\x89HDF", b"\x00\x02IM", b"\x02\x00MI")  # plain HDF5, or a header of level 7.3
_MATRIX, _DEFLATED = 14, 15
_NUMBERS = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8",
}  # fmt: skip
_FIRST_NUMERIC, _LAST_NUMERIC = 6, 15
_OTHER_CLASSES = {1: "cell", 2: "struct", 3: "object", 4: "char", 5: "sparse", 16: "function"}
_COMPLEX = 0x800
_MOST_INFLATED = 1032  # maximum inflated bytes per deflated byte
_LONGEST_PART = 256  # maximum bytes of flags, dimensions or name
_CHUNK = 1 << 16
_DAMAGED = (OSError, ValueError, struct.error, zlib.error)


@dataclass(frozen=True)
class Variable:
    name: str  # empty for data that MATLAB saves beside its objects
    start: int  # the element's offset in the file
    shape: Shape
    dtype: np.dtype | None  # stored type; None for other than real numbers
    kind: str = ""  # for other than real numbers: cell, struct, object …

    def __str__(self) -> str:
        return f"{self.name} {self.shape} {self.dtype or self.kind}"


@dataclass(frozen=True)
class MatFile:
    path: Path
    byte_order: str
    variables: Mapping[str, Variable]

    @classmethod
    def open(cls, path: Path) -> "MatFile":
        """Read only the variables' headers. Raises DataError, which names the file."""
        with _reading(path), path.open("rb") as file:
            byte_order = _byte_order(file.read(_HEADER_BYTES))
            variables: dict[str, Variable] = {}
            for variable in _variables(file, byte_order):
                if variable.name and variable.name in variables:
                    raise ValueError(f"it has {variable.name!r} twice")
                variables[variable.name] = variable
        return cls(path, byte_order, variables)

    def count(self, layout: Mapping[str, Shape], *, pixels: str, fewest: int) -> int:
        """Return the number N of images in a file with the variables of `layout`.

        Raises DataError for a file with another layout, for `pixels` other than uint8, for fewer
        than `fewest` images, and if the pixels do not fit into this machine.
        """
        (n, *others) = {self._length(name, shape) for name, shape in layout.items()}
        if others or n < fewest or self.variables[pixels].dtype != np.uint8:
            raise self._other_than(layout, pixels, fewest)
        nbytes = math.prod(self.variables[pixels].shape)
        if nbytes > physical_memory() // 2:
            raise DataError(
                f"{self.path}: {pixels} takes {nbytes:,} bytes, this machine has "
                f"{physical_memory():,}; give less"
            )
        return n

    def integers(self, name: str, low: int, high: int) -> np.ndarray:
        """Read whole numbers as int64. Raises DataError for numbers outside [low, high]."""
        values = self.array(name)
        if not np.isin(values, np.arange(low, high + 1)).all():
            raise DataError(f"{self.path}: {name} has values other than {low} … {high}")
        return values.astype(np.int64)

    def array(self, name: str) -> np.ndarray:
        (values,) = self.blocks(name, max(1, self.variables[name].shape[-1]))
        return values

    def blocks(self, name: str, length: int) -> Iterator[np.ndarray]:
        """Yield read-only parts of a variable, of at most `length` along its last axis.

        Raises DataError if data follow the variable's last number.
        """
        variable = self.variables[name]
        assert variable.dtype is not None  # checked by `count`
        *others, n = variable.shape
        with _reading(self.path), self.path.open("rb") as file:
            elements = _numbers(file, variable.start, self.byte_order)
            for first in range(0, n, length):
                shape = (*others, min(length, n - first))
                numbers = elements.take(math.prod(shape) * variable.dtype.itemsize)
                yield np.frombuffer(numbers, variable.dtype).reshape(shape, order="F")
            elements.require_end(name)

    def _length(self, name: str, shape: Shape) -> int:
        """Return the number of images in a variable of this shape, else N (−1)."""
        variable = self.variables.get(name)
        if variable is None or variable.dtype is None or len(variable.shape) != len(shape):
            return N
        fits = all(k in (N, found) for k, found in zip(shape, variable.shape, strict=True))
        return variable.shape[shape.index(N)] if fits else N

    def _other_than(self, layout: Mapping[str, Shape], pixels: str, fewest: int) -> DataError:
        expected = ", ".join(
            f"{name} ({', '.join('n' if k == N else str(k) for k in shape)})"
            f"{' uint8' if name == pixels else ''}"
            for name, shape in layout.items()
        )
        found = ", ".join(map(str, self.variables.values())) or "nothing"
        return DataError(
            f"{self.path}: expected {expected} with n of at least {fewest}, found {found}"
        )


def _byte_order(header: bytes) -> str:
    mark = header[124:128]
    if header.startswith(_HDF5) or mark in _HDF5:
        raise ValueError("it is of level 7.3 (HDF5); save it with `save -v7`")
    if mark not in _BYTE_ORDERS:
        raise ValueError("it does not begin as a MATLAB file of level 5 does")
    return _BYTE_ORDERS[mark]


def _variables(file: BinaryIO, byte_order: str) -> Iterator[Variable]:
    start, end = _HEADER_BYTES, file.seek(0, os.SEEK_END)
    while start < end:
        elements, following = _matrix(file, start, byte_order)
        yield _variable(elements, start)
        start = following


def _numbers(file: BinaryIO, start: int, byte_order: str) -> "_Elements":
    """Return the elements of the variable at `start`, positioned at its first number."""
    elements, _ = _matrix(file, start, byte_order)
    _variable(elements, start)
    return elements


def _matrix(file: BinaryIO, start: int, byte_order: str) -> tuple["_Elements", int]:
    """Return the elements of the variable at `start`, and the next variable's start."""
    room = file.seek(0, os.SEEK_END) - start - 8
    file.seek(start)
    kind, nbytes = _Elements(file, byte_order, room).tag()
    content: BinaryIO = io.BufferedReader(_Slice(file, nbytes))
    inside = nbytes
    if kind == _DEFLATED:
        content = io.BufferedReader(_Inflated(content))
        kind, inside = _Elements(content, byte_order, nbytes * _MOST_INFLATED).tag()
    if kind != _MATRIX:
        raise ValueError(f"at byte {start} is an element of type {kind}, expected a variable")
    return _Elements(content, byte_order, inside), start + 8 + nbytes


def _variable(elements: "_Elements", start: int) -> Variable:
    """Read a variable's header; leaves `elements` before the variable's first number."""
    (flags,) = elements.unpack("I4x")
    code = flags & 0xFF
    if code not in _OTHER_CLASSES and not _FIRST_NUMERIC <= code <= _LAST_NUMERIC:
        return Variable("", start, (), None, "opaque")
    dimensions = elements.part()
    shape = struct.unpack(f"{elements.byte_order}{len(dimensions) // 4}i", dimensions)
    name = elements.part().decode("ascii")
    if code in _OTHER_CLASSES or flags & _COMPLEX:
        return Variable(name, start, shape, None, _OTHER_CLASSES.get(code, "complex"))
    return Variable(name, start, shape, elements.numbers(name, shape))


class _Elements:
    """Sequential reader of elements: call `tag`, then `take` with the tag's number of bytes."""

    def __init__(self, stream: BinaryIO, byte_order: str, room: int) -> None:
        self.byte_order = byte_order
        self._stream = stream
        self._room = room  # maximum bytes of an element
        self._inline = b""  # data inside the tag
        self._padding = 0  # bytes after the data of the last tag

    def tag(self) -> tuple[int, int]:
        """Read a tag; return its type and number of bytes. Raises ValueError for a bad size."""
        raw = self.take(8)
        kind, nbytes = struct.unpack(f"{self.byte_order}II", raw)
        inline = kind >> 16
        if inline > 4:
            raise ValueError(f"{inline} bytes of data do not fit into a tag")
        if inline:
            self._inline, self._padding = raw[4 : 4 + inline], 0
            return kind & 0xFFFF, inline
        if nbytes > self._room:
            raise ValueError(
                f"it is cut short or damaged: {nbytes:,} bytes, where at most {self._room:,} can be"
            )
        self._padding = -nbytes % 8
        return kind, nbytes

    def take(self, nbytes: int) -> bytes:
        data = self._inline[:nbytes] or self._stream.read(nbytes)
        self._inline = self._inline[nbytes:]
        if len(data) < nbytes:
            raise ValueError(f"it is cut short: {nbytes - len(data):,} bytes are missing")
        return data

    def part(self) -> bytes:
        _, nbytes = self.tag()
        if nbytes > _LONGEST_PART:
            raise ValueError(f"{nbytes:,} bytes of flags, dimensions or name")
        data = self.take(nbytes)
        self.take(self._padding)
        return data

    def unpack(self, layout: str) -> tuple[int, ...]:
        return struct.unpack(f"{self.byte_order}{layout}", self.part())

    def numbers(self, name: str, shape: Shape) -> np.dtype:
        """Return the numbers' type; raise ValueError if their count does not match the shape."""
        kind, nbytes = self.tag()
        if kind not in _NUMBERS:
            raise ValueError(f"{name} has numbers of the unknown type {kind}")
        dtype = np.dtype(f"{self.byte_order}{_NUMBERS[kind]}")
        if min(shape, default=N) < 0 or math.prod(shape) * dtype.itemsize != nbytes:
            raise ValueError(f"{name} has the shape {shape} and {nbytes:,} bytes of {dtype}")
        return dtype

    def require_end(self, name: str) -> None:
        """Raise ValueError if data follow; this read also makes zlib verify its checksum."""
        if len(self._stream.read(8)) > 7:  # up to 7 bytes are padding
            raise ValueError(f"{name} has data after its last number")


class _Slice(io.RawIOBase):
    """A stream limited to the next `nbytes` bytes of another stream."""

    def __init__(self, stream: BinaryIO, nbytes: int) -> None:
        self._stream = stream
        self._left = nbytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        data = self._stream.read(min(len(memoryview(buffer)), self._left))
        memoryview(buffer)[: len(data)] = data
        self._left -= len(data)
        return len(data)


class _Inflated(io.RawIOBase):
    """A deflated stream, inflated; tolerates a missing end mark, which some writers omit."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._inflate = zlib.decompressobj()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        view = memoryview(buffer)
        while not self._inflate.eof:
            deflated = self._inflate.unconsumed_tail or self._stream.read(_CHUNK)
            data = self._inflate.decompress(deflated, len(view))
            if data or not deflated:
                view[: len(data)] = data
                return len(data)
        return 0


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGED as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
