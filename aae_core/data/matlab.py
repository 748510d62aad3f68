"""Numeric arrays of a MATLAB file of level 5, untrusted.

Format (MathWorks, MAT-File Format, R2014b): 128 bytes of header, then elements: a tag (type,
bytes), data, padding to 8 bytes; up to 4 bytes of data may stand in the tag itself. A variable is
an element of type matrix, often deflated inside an element of its own; it holds flags, dimensions,
name and numbers, the first index running fastest.

Nothing is allocated before all sizes agree with each other and with the file. This is not left to
scipy.io.loadmat, which finds the type of the numbers by an index out of the file, unchecked: one
wrong byte ends the process. It also holds in memory what here comes in blocks.
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
_HDF5 = (b"\x89HDF", b"\x00\x02IM", b"\x02\x00MI")  # as such, or behind a header of level 7.3
_MATRIX, _DEFLATED = 14, 15
_NUMBERS = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8",
}  # fmt: skip
_FIRST_NUMERIC, _LAST_NUMERIC = 6, 15
_OTHER_CLASSES = {1: "cell", 2: "struct", 3: "object", 4: "char", 5: "sparse", 16: "function"}
_COMPLEX = 0x800
_MOST_INFLATED = 1032  # bytes that one deflated byte can stand for
_LONGEST_PART = 256  # bytes of flags, dimensions or name
_CHUNK = 1 << 16
_DAMAGED = (OSError, ValueError, struct.error, zlib.error)


@dataclass(frozen=True)
class Variable:
    name: str  # empty for what MATLAB saves beside its objects
    start: int  # of its element in the file
    shape: Shape
    dtype: np.dtype | None  # of the numbers as stored
    kind: str = ""  # of what is no array of real numbers: cell, struct, object …

    def __str__(self) -> str:
        return f"{self.name} {self.shape} {self.dtype or self.kind}"


@dataclass(frozen=True)
class MatFile:
    path: Path
    byte_order: str
    variables: Mapping[str, Variable]

    @classmethod
    def open(cls, path: Path) -> "MatFile":
        """Only the variables' headers are read. Raises DataError, which names the file."""
        with _reading(path), path.open("rb") as file:
            byte_order = _byte_order(file.read(_HEADER_BYTES))
            variables: dict[str, Variable] = {}
            for variable in _variables(file, byte_order):
                if variable.name and variable.name in variables:
                    raise ValueError(f"it has {variable.name!r} twice")
                variables[variable.name] = variable
        return cls(path, byte_order, variables)

    def count(self, layout: Mapping[str, Shape], *, pixels: str, fewest: int) -> int:
        """The number N of images in a file that has the variables of `layout`, `pixels` of bytes.

        Raises DataError where it has not, and where the pixels do not fit into this machine.
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
        """A variable of whole numbers in [low, high], of its own shape, as int64."""
        values = self.array(name)
        if not np.isin(values, np.arange(low, high + 1)).all():
            raise DataError(f"{self.path}: {name} has values other than {low} … {high}")
        return values.astype(np.int64)

    def array(self, name: str) -> np.ndarray:
        (values,) = self.blocks(name, max(1, self.variables[name].shape[-1]))
        return values

    def blocks(self, name: str, length: int) -> Iterator[np.ndarray]:
        """The variable in parts of at most `length` along its last axis, read-only.

        Raises DataError if its numbers do not end where they should.
        """
        variable = self.variables[name]
        assert variable.dtype is not None  # since count found it so
        *others, n = variable.shape
        with _reading(self.path), self.path.open("rb") as file:
            elements = _numbers(file, variable.start, self.byte_order)
            for first in range(0, n, length):
                shape = (*others, min(length, n - first))
                numbers = elements.take(math.prod(shape) * variable.dtype.itemsize)
                yield np.frombuffer(numbers, variable.dtype).reshape(shape, order="F")
            elements.require_end(name)

    def _length(self, name: str, shape: Shape) -> int:
        """The N of a variable of this shape, or N itself if there is no such variable."""
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
        raise ValueError("it is of level 7.3 (HDF5); save it by `save -v7`")
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
    """Where the numbers of the variable begin."""
    elements, _ = _matrix(file, start, byte_order)
    _variable(elements, start)
    return elements


def _matrix(file: BinaryIO, start: int, byte_order: str) -> tuple["_Elements", int]:
    """The parts of the variable that starts there, and where the next one does."""
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
    """Leaves `elements` before the first number."""
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
    """A walk along elements: `tag`, then `take` of as many bytes as it says."""

    def __init__(self, stream: BinaryIO, byte_order: str, room: int) -> None:
        self.byte_order = byte_order
        self._stream = stream
        self._room = room  # bytes that can be there at most
        self._inline = b""  # data that stood in the tag
        self._padding = 0  # behind the data of the last tag

    def tag(self) -> tuple[int, int]:
        """Type and number of bytes."""
        raw = self.take(8)
        kind, nbytes = struct.unpack(f"{self.byte_order}II", raw)
        inline = kind >> 16
        if inline > 4:
            raise ValueError(f"{inline} bytes of data cannot stand in a tag")
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
        """Their type, if there are as many as the shape says."""
        kind, nbytes = self.tag()
        if kind not in _NUMBERS:
            raise ValueError(f"{name} has numbers of the unknown type {kind}")
        dtype = np.dtype(f"{self.byte_order}{_NUMBERS[kind]}")
        if min(shape, default=N) < 0 or math.prod(shape) * dtype.itemsize != nbytes:
            raise ValueError(f"{name} has the shape {shape} and {nbytes:,} bytes of {dtype}")
        return dtype

    def require_end(self, name: str) -> None:
        """Also makes zlib compare its checksum."""
        if len(self._stream.read(8)) > 7:  # of padding
            raise ValueError(f"{name} goes on behind its last number")


class _Slice(io.RawIOBase):
    """The next bytes of a stream, and no more."""

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
    """A deflated stream; some writers leave its end mark out."""

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
