"""MATLAB files are untrusted: the reader returns what scipy wrote, or raises DataError."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.io import savemat
from scipy.sparse import csc_array

from aae_core.data import matlab
from aae_core.data.matlab import MatFile, N
from aae_core.errors import DataError

LAYOUT = {"images": (2, N, 3), "labels": (N, 1)}
IMAGES = np.arange(30, dtype=np.uint8).reshape(2, 5, 3)
LABELS = np.arange(5, dtype=np.int8).reshape(5, 1)
NUMBERS = st.sampled_from(["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]).flatmap(
    lambda code: arrays(code, array_shapes(min_dims=2, max_dims=4, max_side=5))
)

in_one_folder = settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def _content(*, deflate: bool = False, **variables: Any) -> bytes:
    buffer = io.BytesIO()
    savemat(buffer, variables, do_compression=deflate)
    return buffer.getvalue()


def _write(folder: Path, content: bytes) -> Path:
    path = folder / "some.mat"
    path.write_bytes(content)
    return path


def _count(path: Path) -> int:
    return MatFile.open(path).count(LAYOUT, pixels="images", fewest=2)


def _read_all(path: Path) -> tuple[np.ndarray, np.ndarray]:
    mat = MatFile.open(path)
    mat.count(LAYOUT, pixels="images", fewest=2)
    return mat.array("images"), mat.integers("labels", 0, 9)


@in_one_folder
@given(values=NUMBERS, deflate=st.booleans(), length=st.integers(1, 6))
def test_mat_reader_returns_arrays_as_scipy_wrote_them(
    values: np.ndarray, deflate: bool, length: int, tmp_path: Path
) -> None:
    mat = MatFile.open(_write(tmp_path, _content(before=LABELS, x=values, deflate=deflate)))
    assert mat.variables["x"].dtype == values.dtype
    np.testing.assert_array_equal(mat.array("x"), values)
    blocks = list(mat.blocks("x", length))
    assert all(block.shape[-1] <= length for block in blocks)
    np.testing.assert_array_equal(np.concatenate(blocks, axis=-1), values)


def test_mat_layout_determines_the_number_of_images(tmp_path: Path) -> None:
    path = _write(tmp_path, _content(images=IMAGES, labels=LABELS, notes={"other": "things"}))
    assert _count(path) == 5
    images, labels = _read_all(path)
    np.testing.assert_array_equal(images, IMAGES)
    assert labels.dtype == np.int64
    assert labels.tolist() == [[0], [1], [2], [3], [4]]


def _big_endian(name: bytes, kind: int, shape: tuple[int, ...], numbers: bytes) -> bytes:
    def element(kind: int, data: bytes) -> bytes:
        return struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)

    parts = (
        element(6, struct.pack(">II", 9, 0))
        + element(5, struct.pack(f">{len(shape)}i", *shape))
        + struct.pack(">HH4s", len(name), 1, name)  # inside the tag
        + element(kind, numbers)
    )
    return bytes(124) + b"\x01\x00MI" + element(14, parts)


def test_mat_reader_accepts_big_endian_files(tmp_path: Path) -> None:
    content = _big_endian(b"x", 4, (1, 3), struct.pack(">3H", 1, 2, 515))
    assert MatFile.open(_write(tmp_path, content)).array("x").tolist() == [[1, 2, 515]]


def test_mat_reader_skips_objects_beside_the_arrays(tmp_path: Path) -> None:
    opaque = struct.pack("<IIIIII", 14, 16, 6, 8, 17, 0)
    path = _write(tmp_path, GOOD + opaque + opaque)
    assert _count(path) == 5
    assert str(MatFile.open(path).variables[""]) == " () opaque"


def _replaced(content: bytes, old: bytes, new: bytes) -> bytes:
    assert content.count(old) == 1
    return content.replace(old, new)


GOOD = _content(images=IMAGES, labels=LABELS)
PIXELS_TAG = struct.pack("<II", 2, 30)
IMAGES_SHAPE = struct.pack("<3i", 2, 5, 3)
MARK = b"\x00\x01IM"

NOT_READ: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "does not begin as a MATLAB file of level 5"),
    "random bytes": (np.random.default_rng(0).bytes(4096), "does not begin as a MATLAB file"),
    "a web page": (b"<!DOCTYPE html>" * 50, "does not begin as a MATLAB file"),
    "level 4": (bytes(4) + GOOD[4:124] + bytes(100), "does not begin as a MATLAB file"),
    "level 7.3": (_replaced(GOOD, MARK, b"\x00\x02IM"), r"level 7\.3 \(HDF5\); save .* -v7"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(600), r"level 7\.3 \(HDF5\)"),
    "header only": (GOOD[:128], r"expected images \(2, n, 3\) uint8, .* found nothing"),
    "cut in a tag": (GOOD[:132], "cut short"),
    "cut in the pixels": (GOOD[:200], "cut short"),
    "cut at the end": (GOOD[:-1], "cut short"),
    "a tail": (GOOD + b"tail", "cut short"),
    "no variable": (GOOD + struct.pack("<IId", 9, 8, 0.5), "type 9, expected a variable"),
    "unknown numbers": (
        _replaced(GOOD, PIXELS_TAG, struct.pack("<II", 8, 30)),
        "images has numbers of the unknown type 8",
    ),
    "wild numbers": (
        _replaced(GOOD, PIXELS_TAG, struct.pack("<II", 60_000, 30)),
        "images has numbers of the unknown type 60000",
    ),
    "other size": (
        _replaced(GOOD, PIXELS_TAG, struct.pack("<II", 2, 29)),
        r"images has the shape \(2, 5, 3\) and 29 bytes of uint8",
    ),
    "absurd size": (
        _replaced(GOOD, PIXELS_TAG, struct.pack("<II", 2, 2**32 - 1)),
        "4,294,967,295 bytes, where at most",
    ),
    "absurd shape": (
        _replaced(GOOD, IMAGES_SHAPE, struct.pack("<3i", 2**31 - 1, 2**31 - 1, 2**31 - 1)),
        "images has the shape",
    ),
    "negative shape": (
        _replaced(GOOD, IMAGES_SHAPE, struct.pack("<3i", 2, -5, -3)),
        "images has the shape",
    ),
    "no deflated bytes": (_replaced(GOOD, MARK, MARK + struct.pack("<II", 15, 20)), "cannot be"),
    "twice": (GOOD + _content(images=IMAGES)[128:], "it has 'images' twice"),
}  # fmt: skip

OTHER: dict[str, dict[str, Any]] = {
    "missing": {"labels": LABELS},
    "misspelt": {"image": IMAGES, "labels": LABELS},
    "wrong type": {"images": IMAGES.astype(np.float64), "labels": LABELS},
    "wrong shape": {"images": IMAGES[:, :, :2], "labels": LABELS},
    "too few axes": {"images": IMAGES[0], "labels": LABELS},
    "other number": {"images": IMAGES, "labels": LABELS[:-1]},
    "labels as a row": {"images": IMAGES, "labels": LABELS.T},
    "too few": {"images": IMAGES[:, :1], "labels": LABELS[:1]},
    "empty": {"images": IMAGES[:, :0], "labels": LABELS[:0]},
    "cell": {"images": np.array([[IMAGES]], object), "labels": LABELS},
    "struct": {"images": {"pixels": IMAGES}, "labels": LABELS},
    "text": {"images": IMAGES, "labels": "12345"},
    "complex": {"images": IMAGES, "labels": LABELS * 1j},
    "sparse": {"images": IMAGES, "labels": csc_array(LABELS.astype(float))},
}


@pytest.mark.parametrize("case", NOT_READ)
def test_mat_reader_names_the_problem_of_an_unreadable_file(case: str, tmp_path: Path) -> None:
    content, complaint = NOT_READ[case]
    with pytest.raises(DataError, match=rf"some\.mat: .*{complaint}"):
        _read_all(_write(tmp_path, content))


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("case", OTHER)
def test_mat_layout_error_gives_expected_and_found_variables(
    case: str, deflate: bool, tmp_path: Path
) -> None:
    path = _write(tmp_path, _content(**OTHER[case], deflate=deflate))
    with pytest.raises(DataError) as caught:
        _count(path)
    expected = "expected images (2, n, 3) uint8, labels (n, 1) with n of at least 2, found "
    assert f"{path}: {expected}" in str(caught.value)


@pytest.mark.parametrize("kind", ["cell", "struct", "complex"])
def test_mat_reader_names_variables_that_are_not_numeric_arrays(kind: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf" \(.*\) {kind}"):
        _count(_write(tmp_path, _content(**OTHER[kind])))


@pytest.mark.parametrize("labels", [LABELS + 5, LABELS - 1, LABELS + 0.5, LABELS * np.nan])
def test_mat_reader_rejects_labels_out_of_range(labels: np.ndarray, tmp_path: Path) -> None:
    path = _write(tmp_path, _content(images=IMAGES, labels=labels))
    with pytest.raises(DataError, match=r"some\.mat: labels has values other than 0 … 4"):
        MatFile.open(path).integers("labels", 0, 4)


def test_mat_reader_raises_data_error_for_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.mat", tmp_path):
        with pytest.raises(DataError, match=f"{path}: cannot be read: "):
            MatFile.open(path)


def _deflated(inflated: bytes) -> bytes:
    deflated = zlib.compress(inflated)
    return GOOD[:128] + struct.pack("<II", 15, len(deflated)) + deflated


DEFLATED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "numbers behind the last": (lambda good: good + bytes(8), "images has data after its last"),
    "cut short": (lambda good: good[:-9], "cut short"),
}


@pytest.mark.parametrize("case", DEFLATED)
def test_mat_reader_rejects_deflated_numbers_too_long_or_short(case: str, tmp_path: Path) -> None:
    spoil, complaint = DEFLATED[case]
    path = _write(tmp_path, _deflated(spoil(_content(images=IMAGES)[128:])))
    with pytest.raises(DataError, match=rf"some\.mat: cannot be read: .*{complaint}"):
        MatFile.open(path).array("images")


def test_mat_reader_accepts_a_deflated_stream_without_end_mark(tmp_path: Path) -> None:
    deflate = zlib.compressobj()
    stream = deflate.compress(_content(images=IMAGES)[128:]) + deflate.flush(zlib.Z_SYNC_FLUSH)
    content = GOOD[:128] + struct.pack("<II", 15, len(stream)) + stream
    np.testing.assert_array_equal(MatFile.open(_write(tmp_path, content)).array("images"), IMAGES)


def test_mat_reader_rejects_a_wrong_checksum_of_the_deflated_stream(tmp_path: Path) -> None:
    content = _deflated(_content(images=IMAGES)[128:])
    path = _write(tmp_path, content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DataError, match=r"some\.mat: cannot be read: .*incorrect data check"):
        MatFile.open(path).array("images")


def test_mat_reader_rejects_a_size_beyond_any_deflated_stream(tmp_path: Path) -> None:
    lying = _content(images=IMAGES)[128:]
    lying = struct.pack("<II", 14, 4_000_000_000) + lying[8:]
    with pytest.raises(DataError, match="4,000,000,000 bytes, where at most"):
        MatFile.open(_write(tmp_path, _deflated(lying)))


def test_mat_reader_rejects_arrays_larger_than_physical_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.zeros((2, 1_000_000, 3), np.uint8)
    labels = np.zeros((1_000_000, 1), np.uint8)
    path = _write(tmp_path, _content(images=images, labels=labels, deflate=True))
    assert path.stat().st_size < 10_000
    monkeypatch.setattr(matlab, "physical_memory", lambda: 9_999_999)
    with pytest.raises(DataError, match="images takes 6,000,000 bytes, this machine has 9,999,99"):
        _count(path)


@in_one_folder
@given(place=st.integers(0, 10_000), value=st.integers(0, 255), deflate=st.sampled_from([0, 1, 2]))
def test_mat_reader_rejects_or_ignores_any_changed_byte(
    place: int, value: int, deflate: int, tmp_path: Path
) -> None:
    if deflate == 2:  # inside intact deflated streams
        changed = bytearray(_content(images=IMAGES)[128:])
        changed[place % len(changed)] = value
        content = _deflated(bytes(changed)) + _content(labels=LABELS, deflate=True)[128:]
    else:
        changed = bytearray(_content(images=IMAGES, labels=LABELS, deflate=bool(deflate)))
        changed[place % len(changed)] = value
        content = bytes(changed)
    try:
        images, labels = _read_all(_write(tmp_path, content))
    except DataError as error:
        complaint = str(error)
    else:
        assert (images.shape, images.dtype, labels.shape) == ((2, 5, 3), np.uint8, (5, 1))
        return
    assert "some.mat" in complaint
