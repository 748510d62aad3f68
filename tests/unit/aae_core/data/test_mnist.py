"""Idx files are untrusted: every error names the file and its fault, and gives a remedy."""

import gzip
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aae_core.data.mnist import FASHION_MNIST, MNIST, IdxDataSet, IdxSet, read_idx
from aae_core.errors import DataError


def _images(idx_set: IdxSet) -> Path:
    return idx_set.folder / "train-images.gz"


def test_mnist_validation_set_is_the_last_training_images(
    idx_set: IdxSet, idx_bytes: dict[str, bytes]
) -> None:
    data = idx_set.training()
    pixels = np.frombuffer(idx_bytes["train-images"][16:], np.uint8).reshape(50, 36)
    np.testing.assert_array_equal(data.x_train, pixels[:40])
    np.testing.assert_array_equal(data.x_valid, pixels[40:])
    assert data.y_train.tolist() == [i % 10 for i in range(40)]


def test_mnist_training_needs_no_test_file(idx_set: IdxSet) -> None:
    for path in idx_set.folder.glob("test-*"):
        path.unlink()
    idx_set.training()
    with pytest.raises(DataError, match=r"test-images\.gz: not in .*\n.*AAE_DATA.*digits"):
        idx_set.test()


def test_mnist_reads_decompressed_files_like_gzipped_ones(
    idx_set: IdxSet, idx_bytes: dict[str, bytes]
) -> None:
    expected = idx_set.training().sha256
    _images(idx_set).unlink()
    (idx_set.folder / "train-images").write_bytes(idx_bytes["train-images"])
    # A browser saves a decompressed file under the unchanged name.
    (idx_set.folder / "train-labels.gz").write_bytes(idx_bytes["train-labels"])
    assert idx_set.training().sha256 == expected


def _squeeze(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def _overwrite(content: bytes, place: int, by: bytes) -> bytes:
    changed = bytearray(content)
    changed[place : place + len(by)] = by
    return bytes(changed)


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda good: b"", "begins with 0x, expected 0x00000803"),
    "a web page": (lambda good: b"<!DOCTYPE html><html>", "begins with 0x3c21444f"),
    "wrong magic": (lambda good: _squeeze(_overwrite(good, 2, b"\x0d")), "begins with 0x00000d03"),
    "a header cut short": (lambda good: _squeeze(good[:10]), r"dimensions \[50\], expected"),
    "absurd dimensions": (
        lambda good: _squeeze(_overwrite(good, 4, b"\xff" * 12)),
        r"dimensions \[4294967295, 4294967295, 4294967295\], expected \[50, 6, 6\]",
    ),
    "data cut short": (lambda good: _squeeze(good[:-7]), "only 1793 bytes of data, expected 1800"),
    "data too long": (
        lambda good: _squeeze(good + b"\0"),
        "over 1800 bytes of data, expected 1800",
    ),
    "truncated gzip": (lambda good: _squeeze(good)[:900], "cannot be read .*expected an idx file"),
    "damaged gzip": (lambda good: _overwrite(_squeeze(good), 10, b"\xff" * 40), "cannot be read"),
    "wrong crc": (lambda good: _overwrite(_squeeze(good), -8, b"\0\0\0"), "cannot be read"),
    "other bytes": (lambda good: _squeeze(_overwrite(good, 99, b"other")), "not the published"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_mnist_raises_data_error_for_each_kind_of_damage(
    damage: str, idx_set: IdxSet, idx_bytes: dict[str, bytes]
) -> None:
    spoil, complaint = DAMAGE[damage]
    _images(idx_set).write_bytes(spoil(idx_bytes["train-images"]))
    with pytest.raises(DataError, match=rf"{_images(idx_set)}: .*{complaint}") as caught:
        idx_set.training()
    assert "aae-sweep data fetch tiny" in str(caught.value)
    assert "name: arrays" in str(caught.value)
    assert [verdict.ok for verdict in idx_set.verify()] == [False, True, True, True]


def test_mnist_raises_data_error_for_a_folder_named_like_a_file(idx_set: IdxSet) -> None:
    _images(idx_set).unlink()
    _images(idx_set).mkdir()
    with pytest.raises(DataError, match=r"train-images\.gz: cannot be read"):
        idx_set.training()


def test_mnist_stops_inflating_a_gzip_bomb_at_the_expected_size(
    idx_set: IdxSet, idx_bytes: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    inflated = 0
    read = gzip.GzipFile.read

    def counting(self: gzip.GzipFile, size: int | None = -1) -> bytes:
        nonlocal inflated
        content = read(self, size)
        inflated += len(content)
        return content

    monkeypatch.setattr(gzip.GzipFile, "read", counting)
    _images(idx_set).write_bytes(gzip.compress(idx_bytes["train-images"][:16] + bytes(50_000_000)))
    with pytest.raises(DataError, match="over 1800 bytes"):
        idx_set.training()
    assert inflated <= 16 + 1800 + 1


def test_mnist_writes_nothing_when_all_files_are_present(idx_set: IdxSet) -> None:
    before = sorted(idx_set.folder.iterdir())
    idx_set.folder.chmod(0o500)
    idx_set.fetch()
    idx_set.training()
    assert sorted(idx_set.folder.iterdir()) == before


def test_idx_reader_returns_a_read_only_array(idx_set: IdxSet, published: IdxDataSet) -> None:
    array = read_idx(_images(idx_set), published.train.images)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 0


@pytest.mark.parametrize("published_set", [MNIST, FASHION_MNIST], ids=lambda p: p.name)
def test_published_mnist_sets_are_fully_described(published_set: IdxDataSet) -> None:
    files = [f for s in (published_set.train, published_set.test) for f in (s.images, s.labels)]
    assert len({file.sha256 for file in files}) == 4
    assert all(len(bytes.fromhex(file.sha256)) == 32 for file in files)
    assert len(published_set.mirrors) == 2
    assert all(mirror.endswith("/") for mirror in published_set.mirrors)
    assert files[0].header == bytes.fromhex("00000803 0000ea60 0000001c 0000001c")


def test_mnist_and_fashion_mnist_share_no_checksum() -> None:
    assert replace(MNIST.train.images, sha256="") == replace(FASHION_MNIST.train.images, sha256="")
    assert MNIST.train.images != FASHION_MNIST.train.images
