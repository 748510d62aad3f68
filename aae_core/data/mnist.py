"""MNIST (LeCun, Cortes, Burges 1998) and Fashion-MNIST (Xiao et al. 2017): idx files.

The last 10,000 of the 60,000 training images are the validation set. Files are untrusted until
their checksum is verified. The reader compares the header with the published header before
allocating memory, and inflates at most the published size.

Format: big-endian 0x0000, type 0x08 (uint8), number of dimensions; 4 bytes per dimension; data.
"""

import gzip
import hashlib
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self, cast

import numpy as np

from aae_core.config import DataConfig
from aae_core.data.fetch import fetch_files, missing_files
from aae_core.data.sets import DataFile, Description, FileCheck, Split, TestData, TrainingData
from aae_core.errors import DataError

_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class IdxFile:
    """Shape and checksum of a published file's decompressed content."""

    name: str  # without .gz
    shape: tuple[int, ...]
    sha256: str  # of the decompressed bytes

    @property
    def header(self) -> bytes:
        return struct.pack(f">HBB{len(self.shape)}I", 0, 0x08, len(self.shape), *self.shape)

    @property
    def size(self) -> int:
        """Number of bytes after the header."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class IdxSplit:
    images: IdxFile  # (n, H, W)
    labels: IdxFile  # (n,)


@dataclass(frozen=True)
class IdxDataSet:
    """A data set of four idx files; the last `n_valid` training images are the validation set."""

    name: str
    train: IdxSplit
    test: IdxSplit
    n_valid: int
    mirrors: tuple[str, ...]  # in order of preference, each ending in a slash
    source: str
    licence: str


def _published_files(
    name: str, checksums: tuple[str, str, str, str], mirrors: tuple[str, ...], **origin: str
) -> IdxDataSet:
    def split(prefix: str, n: int, images: str, labels: str) -> IdxSplit:
        return IdxSplit(
            IdxFile(f"{prefix}-images-idx3-ubyte", (n, 28, 28), images),
            IdxFile(f"{prefix}-labels-idx1-ubyte", (n,), labels),
        )

    train = split("train", 60_000, *checksums[:2])
    test = split("t10k", 10_000, *checksums[2:])
    return IdxDataSet(name, train, test, n_valid=10_000, mirrors=mirrors, **origin)


MNIST = _published_files(
    "mnist",
    checksums=(
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    source="LeCun, Cortes, Burges 1998",
    licence="CC BY-SA 3.0",
)

FASHION_MNIST = _published_files(
    "fashion_mnist",
    checksums=(
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    mirrors=(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
    source="Xiao, Rasul, Vollgraf 2017, Zalando Research",
    licence="MIT",
)


@dataclass(frozen=True)
class IdxSet:
    """A published data set in the folder `root`/name, as .gz or decompressed files."""

    published: IdxDataSet
    root: Path

    @classmethod
    def of(cls, config: DataConfig, root: Path) -> Self:
        return cls({"mnist": MNIST, "fashion_mnist": FASHION_MNIST}[config.name], root)

    @property
    def folder(self) -> Path:
        return self.root / self.published.name

    def training(self) -> TrainingData:
        x, y = self._read(self.published.train)
        cut = len(x) - self.published.n_valid
        image_shape = self.published.train.images.shape[1:]
        return TrainingData.of(
            self.published.name, image_shape, (x[:cut], y[:cut]), (x[cut:], y[cut:])
        )

    def test(self) -> TestData:
        return TestData.of(*self._read(self.published.test))

    def describe(self) -> Description:
        n_train, n_valid = self.published.train.images.shape[0], self.published.n_valid
        return Description(
            name=self.published.name,
            files=tuple(DataFile(path, path.is_file()) for path in map(self._path, self._files())),
            sizes={
                "train": n_train - n_valid,
                "valid": n_valid,
                "test": self.published.test.images.shape[0],
            },
            source=self.published.source,
            licence=self.published.licence,
        )

    def fetch(self, *splits: Split) -> None:
        missing = {f"{f.name}.gz": f for f in self._files(*splits) if not self._path(f).exists()}
        if missing:
            fetch_files(
                list(missing),
                self.folder,
                self.published.mirrors,
                check=lambda path, name: read_idx(path, missing[name]),
            )

    def verify(self) -> list[FileCheck]:
        return [self._verdict(file) for file in self._files()]

    def _verdict(self, file: IdxFile) -> FileCheck:
        path = self._path(file)
        if not path.exists():
            fetch = f"`aae-sweep data fetch {self.published.name}`"
            return FileCheck(path, f"{path}: missing; download it with {fetch}")
        try:
            self._read_file(file)
        except DataError as error:
            return FileCheck(path, str(error))
        return FileCheck(path, None)

    def _files(self, *splits: Split) -> list[IdxFile]:
        chosen = {"train": self.published.train, "test": self.published.test}
        return [
            file
            for split in splits or chosen
            for file in (chosen[split].images, chosen[split].labels)
        ]

    def _path(self, file: IdxFile) -> Path:
        plain = self.folder / file.name
        return plain if plain.exists() else self.folder / f"{file.name}.gz"

    def _read_file(self, file: IdxFile) -> np.ndarray:
        path = self._path(file)
        if not path.exists():
            raise missing_files([path.name], self.folder, [])
        try:
            return read_idx(path, file)
        except DataError as error:
            raise DataError(
                f"{error}. Delete the file and run `aae-sweep data fetch {self.published.name}`; "
                "give data of your own as `data: {name: arrays, path: FILE.npz}`"
            ) from error

    def _read(self, split: IdxSplit) -> tuple[np.ndarray, np.ndarray]:
        """Read images (n, D) uint8 and labels (n,) int64."""
        images, labels = self._read_file(split.images), self._read_file(split.labels)
        return images.reshape(len(images), -1), labels.astype(np.int64)


def read_idx(path: Path, published: IdxFile) -> np.ndarray:
    """Read an idx file, gzipped or not: uint8 of the published shape, read-only.

    Raises DataError unless header, size and checksum are the published ones.
    """
    try:
        with path.open("rb") as file, _inflated(file) as stream:
            header = stream.read(len(published.header))
            _check_header(path, header, published)
            body = stream.read(published.size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: cannot be read ({error}); expected an idx file of shape {published.shape}"
        ) from error
    if len(body) != published.size:
        found = f"only {len(body)}" if len(body) < published.size else f"over {published.size}"
        raise DataError(f"{path}: {found} bytes of data, expected {published.size}")
    sha256 = hashlib.sha256(header + body).hexdigest()
    if sha256 != published.sha256:
        raise DataError(
            f"{path}: not the published {published.name}: its decompressed bytes have the sha256 "
            f"{sha256}, expected {published.sha256}"
        )
    return np.frombuffer(body, np.uint8).reshape(published.shape)


@contextmanager
def _inflated(file: BinaryIO) -> Iterator[BinaryIO]:
    """Open a gzipped or plain file, detected by content: browsers inflate .gz downloads."""
    zipped = file.read(2) == _GZIP_MAGIC
    file.seek(0)
    if zipped:
        with gzip.GzipFile(fileobj=file) as stream:
            yield cast(BinaryIO, stream)
    else:
        yield file


def _check_header(path: Path, header: bytes, published: IdxFile) -> None:
    if header == published.header:
        return
    expected = published.header
    if header[:4] != expected[:4]:
        raise DataError(
            f"{path}: begins with 0x{header[:4].hex()}, expected 0x{expected[:4].hex()}: "
            f"an idx file, gzipped or not, of {len(published.shape)} dimensions"
        )
    dimensions = np.frombuffer(header[4 : len(header) & ~3], ">u4").tolist()
    raise DataError(f"{path}: dimensions {dimensions}, expected {list(published.shape)}")
