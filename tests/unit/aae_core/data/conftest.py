"""Small data sets with their own sizes and checksums, because the published sets are large."""

import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mat_arrays import N_SVHN, svhn_arrays, tfd_arrays
from scipy.io import savemat

from aae_core.data import svhn
from aae_core.data.mnist import IdxDataSet, IdxFile, IdxSet, IdxSplit
from aae_core.data.svhn import Svhn, SvhnFile
from aae_core.data.tfd import Tfd

N_TRAIN, N_VALID, N_TEST, SIDE = 50, 10, 20, 6

Files = dict[str, bytes]  # decompressed, by name


@pytest.fixture(scope="session")
def idx_bytes() -> Files:
    random = np.random.default_rng(0)
    contents = {}
    for prefix, n in [("train", N_TRAIN), ("test", N_TEST)]:
        images = random.integers(0, 256, (n, SIDE, SIDE), np.uint8)
        labels = (np.arange(n) % 10).astype(np.uint8)
        for name, array in [(f"{prefix}-images", images), (f"{prefix}-labels", labels)]:
            header = IdxFile(name, array.shape, "").header
            contents[name] = header + array.tobytes()
    return contents


@pytest.fixture(scope="session")
def published(idx_bytes: Files) -> IdxDataSet:
    def file(name: str, *shape: int) -> IdxFile:
        return IdxFile(name, shape, hashlib.sha256(idx_bytes[name]).hexdigest())

    def split(prefix: str, n: int) -> IdxSplit:
        return IdxSplit(file(f"{prefix}-images", n, SIDE, SIDE), file(f"{prefix}-labels", n))

    train, test = split("train", N_TRAIN), split("test", N_TEST)
    return IdxDataSet("tiny", train, test, N_VALID, mirrors=(), source="noise", licence="none")


@pytest.fixture
def idx_set(tmp_path: Path, idx_bytes: Files, published: IdxDataSet) -> IdxSet:
    """Return a set with all four files present, gzipped."""
    (tmp_path / "tiny").mkdir()
    for name, content in idx_bytes.items():
        (tmp_path / "tiny" / f"{name}.gz").write_bytes(gzip.compress(content))
    return IdxSet(published, tmp_path)


@pytest.fixture
def save_npz(tmp_path: Path) -> Callable[..., Path]:
    def save(**members: np.ndarray) -> Path:
        path = tmp_path / "own.npz"
        np.savez(path, **members)
        return path

    return save


@pytest.fixture
def svhn_set(tmp_path: Path) -> Svhn:
    """Return a set with all three files present, deflated. Its `extra` option is off."""
    (tmp_path / "svhn").mkdir()
    files = {}
    for split, n in N_SVHN.items():
        path = tmp_path / "svhn" / f"{split}_32x32.mat"
        savemat(path, svhn_arrays(split), do_compression=True)
        md5 = hashlib.md5(path.read_bytes()).hexdigest()
        files[split] = SvhnFile(path.name, n, md5, fewest=4 if split == "train" else 1)
    return Svhn(tmp_path, published=svhn.SvhnFiles(**files), mirrors=())


@pytest.fixture
def tfd_set(tmp_path: Path) -> Tfd:
    (tmp_path / "tfd").mkdir()
    savemat(tmp_path / "tfd" / "TFD_48x48.mat", tfd_arrays(), do_compression=True)
    return Tfd(tmp_path)
