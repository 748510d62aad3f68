"""Street View House Numbers, cropped digits (Netzer et al. 2011): MATLAB files of level 5.

X (32, 32, 3, n) uint8: row, column, channel, image; y (n, 1): 1 … 9, and 10 for the digit 0.
The validation set is the last 10,000 of a seeded permutation of the training file's images.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from aae_core.config import DataConfig
from aae_core.data.fetch import fetch_files, missing_files
from aae_core.data.matlab import MatFile, N
from aae_core.data.sets import DataFile, Description, FileCheck, Split, TestData, TrainingData
from aae_core.data.splits import hold_out
from aae_core.errors import DataError

MIRRORS = ("http://ufldl.stanford.edu/housenumbers/",)

_LAYOUT = {"X": (32, 32, 3, N), "y": (N, 1)}
_BLOCK = 4096  # images
_LUMA = np.array([299, 587, 114], np.uint32)  # ITU-R BT.601, in thousandths


@dataclass(frozen=True)
class SvhnFile:
    """A published file; a file added by hand may have another number of images."""

    name: str
    n: int
    md5: str
    fewest: int = 1


@dataclass(frozen=True)
class SvhnFiles:
    train: SvhnFile
    extra: SvhnFile
    test: SvhnFile


PUBLISHED = SvhnFiles(
    train=SvhnFile("train_32x32.mat", 73_257, "e26dedcc434d2e4c54c9b2d4a06d8373", fewest=4),
    extra=SvhnFile("extra_32x32.mat", 531_131, "a93ce644f1a588dc4d68dda5feec44a7"),
    test=SvhnFile("test_32x32.mat", 26_032, "eb5a983be6a315427106f1b164d9cef3"),
)


@dataclass(frozen=True)
class Svhn:
    """SVHN in `root`/svhn; `extra` adds training images, `colour` keeps the 3 channels."""

    root: Path
    colour: bool = True
    extra: bool = False
    published: SvhnFiles = PUBLISHED
    mirrors: Sequence[str] = MIRRORS

    @classmethod
    def of(cls, config: DataConfig, root: Path) -> Self:
        return cls(root, config.colour, config.extra)

    @property
    def folder(self) -> Path:
        return self.root / "svhn"

    def training(self) -> TrainingData:
        with self._readable(self._files("train")) as files:
            mats, counts = zip(*map(self._open, files), strict=True)
            n_train, n = counts[0], sum(counts)
            kept, held_out = hold_out(n_train, _n_valid(n_train))
            x, y = self._read(mats, np.concatenate([kept, np.arange(n_train, n), held_out]))
        cut = n - len(held_out)
        image_shape = (32, 32, 3) if self.colour else (32, 32)
        return TrainingData.of("svhn", image_shape, (x[:cut], y[:cut]), (x[cut:], y[cut:]))

    def test(self) -> TestData:
        with self._readable(self._files("test")) as (file,):
            mat, n = self._open(file)
            return TestData.of(*self._read([mat], np.arange(n)))

    def describe(self) -> Description:
        n_train, *n_extra = map(self._count, self._files("train"))
        n_valid = _n_valid(n_train)
        paths = [self.folder / file.name for file in self._files()]
        return Description(
            name="svhn",
            files=tuple(DataFile(path, path.is_file()) for path in paths),
            sizes={
                "train": n_train - n_valid + sum(n_extra),
                "valid": n_valid,
                "test": self._count(self.published.test),
            },
            source="Netzer et al. 2011, Stanford",
            licence="non-commercial use",
        )

    def fetch(self, *splits: Split) -> None:
        missing = {f.name: f for f in self._files(*splits) if not (self.folder / f.name).exists()}
        if missing:
            fetch_files(
                list(missing),
                self.folder,
                self.mirrors,
                check=lambda path, name: _require_published(path, missing[name]),
            )

    def verify(self) -> list[FileCheck]:
        files, extra = self._files(), self.published.extra
        if extra not in files and (self.folder / extra.name).exists():
            files.append(extra)
        return [self._verdict(file) for file in files]

    def _verdict(self, file: SvhnFile) -> FileCheck:
        path = self.folder / file.name
        if not path.exists():
            return FileCheck(path, f"{path}: missing; download it with {self._fetch_command}")
        try:
            with self._readable([file]):
                _labels(self._open(file)[0])
                _require_published(path, file)
        except DataError as error:
            return FileCheck(path, str(error))
        return FileCheck(path, None)

    @property
    def _fetch_command(self) -> str:
        return f"`aae-sweep data fetch svhn{' --extra' if self.extra else ''}`"

    def _files(self, *splits: Split) -> list[SvhnFile]:
        train = [self.published.train, *([self.published.extra] if self.extra else [])]
        chosen = {"train": train, "test": [self.published.test]}
        return [file for split in splits or chosen for file in chosen[split]]

    def _open(self, file: SvhnFile) -> tuple[MatFile, int]:
        """Open a file; return the file and its number of images."""
        mat = MatFile.open(self.folder / file.name)
        return mat, mat.count(_LAYOUT, pixels="X", fewest=file.fewest)

    @contextmanager
    def _readable(self, files: list[SvhnFile]) -> Iterator[list[SvhnFile]]:
        """Yield the files; raise DataError with a remedy for a missing or invalid file."""
        absent = [file.name for file in files if not (self.folder / file.name).exists()]
        if absent:
            raise missing_files(absent, self.folder, [])
        try:
            yield files
        except DataError as error:
            raise DataError(
                f"{error}. Delete the file and run {self._fetch_command}; give data of your own as "
                "`data: {name: arrays, path: FILE.npz}`"
            ) from error

    def _count(self, file: SvhnFile) -> int:
        """Return the file's number of images, or the published number if the file is unreadable."""
        try:
            return self._open(file)[1]
        except DataError:
            return file.n

    def _read(self, mats: Sequence[MatFile], order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Read images (n, D) uint8 and labels (n,) of all files, permuted by `order`.

        The images are never in memory twice.
        """
        x = np.empty((len(order), 32 * 32 * (3 if self.colour else 1)), np.uint8)
        row = np.argsort(order)  # each image's row in x
        start = 0
        for mat in mats:
            for block in mat.blocks("X", _BLOCK):
                images = block.transpose(3, 0, 1, 2)  # (b, H, W, C)
                pixels = images if self.colour else _grey(images)
                x[row[start : start + len(images)]] = pixels.reshape(len(images), -1)
                start += len(images)
        return x, np.concatenate([_labels(mat) for mat in mats])[order]


def _n_valid(n: int) -> int:
    return 10_000 if n >= 20_000 else max(2, n // 10)


def _grey(images: np.ndarray) -> np.ndarray:
    """Convert (b, H, W, 3) to grey (b, H, W) in integers, with the same bytes on every machine."""
    return ((images @ _LUMA + 500) // 1000).astype(np.uint8)


def _labels(mat: MatFile) -> np.ndarray:
    return mat.integers("y", 1, 10).ravel() % 10


def _require_published(path: Path, file: SvhnFile) -> None:
    try:
        with path.open("rb") as stream:
            md5 = hashlib.file_digest(stream, "md5").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if md5 != file.md5:
        raise DataError(
            f"{path}: not the published {file.name}: it has the md5 {md5}, expected {file.md5}"
        )
