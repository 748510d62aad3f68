"""The .npz reader trusts no file: every error names file and member and gives a remedy."""

import io
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aae_core.config import DataConfig
from aae_core.data import load_test_data, load_training_data
from aae_core.data.arrays import Arrays
from aae_core.errors import DataError

Save = Callable[..., Path]
X = np.linspace(0, 1, 40 * 6).reshape(40, 6)
Y = np.arange(40) % 4


class Trap:
    """An object whose unpickling would make a folder."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("sprung",)


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _write(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [("uint8", "uint8"), ("float16", "float32"), (">f4", "float32"), ("float64", "float32")],
)
def test_npz_reader_keeps_bytes_and_casts_floats_to_single(
    save_npz: Save, dtype: str, kept: str
) -> None:
    x = np.asfortranarray((X > 0.5).reshape(40, 2, 3).astype(dtype))
    data = Arrays(save_npz(x_train=x, x_valid=x[:5])).training()
    assert data.x_train.dtype == kept
    np.testing.assert_array_equal(data.x_train, x.reshape(40, 6))
    assert data.image_shape == (2, 3)


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int64", "uint64"])
def test_npz_reader_casts_integer_labels_to_int64(save_npz: Save, dtype: str) -> None:
    data = Arrays(save_npz(x_train=X, y_train=Y.astype(dtype))).training()
    assert data.y_train.dtype == np.int64
    assert sorted([*data.y_train, *data.y_valid]) == sorted(Y)


def test_npz_split_keeps_images_and_labels_together(save_npz: Save) -> None:
    data = Arrays(save_npz(x_train=X, y_train=np.arange(40))).training()
    np.testing.assert_array_equal(data.x_train, X[data.y_train].astype(np.float32))
    np.testing.assert_array_equal(data.x_valid, X[data.y_valid].astype(np.float32))
    assert len(data.x_valid) == 4


def test_npz_reader_accepts_unlabelled_training_images(save_npz: Save) -> None:
    data = Arrays(save_npz(x_train=X, y_train=Y - 1, x_valid=X, y_valid=Y)).training()
    assert data.y_train.tolist() == (Y - 1).tolist()
    assert data.classes == 4


def test_npz_training_reads_no_member_of_the_test_split(save_npz: Save) -> None:
    path = save_npz(x_train=X, x_test=np.array([Trap()]), y_test=np.array([Trap()]))
    config = DataConfig("arrays", str(path))
    without = Arrays(path).training().sha256
    assert load_training_data(config, path.parent).sha256 == without
    with pytest.raises(DataError, match=r"own\.npz: x_test holds Python objects"):
        load_test_data(config, path.parent)
    assert not Path("sprung").exists()


def test_npz_without_test_images_raises_only_on_test(save_npz: Save) -> None:
    path = save_npz(x_train=X)
    with pytest.raises(DataError, match=r"own\.npz: has no member x_test"):
        Arrays(path).test()
    assert all(verdict.ok for verdict in Arrays(path).verify())
    assert Arrays(path).describe().sizes == {"train": 36, "valid": 4}


def _with(index: tuple[int, int], value: float) -> np.ndarray:
    x = X.copy()
    x[index] = value
    return x


REFUSED: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "no training images": ({"x_test": X}, "no member x_train"),
    "misspelt": ({"x_train": X, "x_val": X}, r"'x_val' \(did you mean x_valid\?\)"),
    "labels alone": ({"x_train": X, "y_valid": Y}, "y_valid without its images x_valid"),
    "nan": ({"x_train": _with((3, 4), np.nan)}, r"x_train has values .* not numbers in \[0, 1\]"),
    "infinity": ({"x_train": _with((3, 4), np.inf)}, "x_train has values"),
    "too bright": ({"x_train": 255 * X}, "x_train has values"),
    "negative": ({"x_train": X - 0.5}, "x_train has values"),
    "wrong type": ({"x_train": (X * 255).astype(np.int32)}, "x_train is int32; give uint8, or"),
    "text": ({"x_train": X.astype(str)}, "x_train is <U"),
    "objects": ({"x_train": np.array([[Trap()]])}, "x_train holds Python objects"),
    "one axis": ({"x_train": X[0]}, r"x_train has the shape \(6,\)"),
    "five axes": ({"x_train": X.reshape(40, 1, 1, 2, 3)}, "x_train has the shape"),
    "no axis": ({"x_train": np.array(0.5)}, r"x_train has the shape \(\)"),
    "empty": ({"x_train": X[:0]}, "x_train cannot be read .*empty"),
    "no pixels": ({"x_train": X[:, :0]}, "x_train cannot be read .*empty"),
    "too few to split": ({"x_train": X[:3]}, "x_train has 3 images; give at least 4"),
    "too few to validate": ({"x_train": X, "x_valid": X[:1]}, "x_valid has 1 images"),
    "other images": ({"x_train": X, "x_valid": X[:, :5]}, r"x_valid has images of \(5,\), those"),
    "nan to validate on": ({"x_train": X, "x_valid": _with((0, 0), np.nan)}, "x_valid has values"),
    "labels missing": ({"x_train": X, "y_train": Y[:-1]}, r"y_train is int64 of shape \(39,\)"),
    "one-hot labels": ({"x_train": X, "y_train": np.eye(4)[Y]}, r"y_train is float64 of shape"),
    "negative labels": ({"x_train": X, "x_valid": X, "y_train": Y - 2}, "y_train has labels below"),
    "unlabelled, held out": (
        {"x_train": X, "y_train": Y - 1},
        "y_train has negative .* an x_valid",
    ),
    "unlabelled to validate on": (
        {"x_train": X, "x_valid": X, "y_valid": Y - 1},
        "y_valid has negative labels",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_npz_reader_errors_name_file_and_member(case: str, save_npz: Save) -> None:
    members, complaint = REFUSED[case]
    path = save_npz(**members)
    with pytest.raises(DataError, match=rf"own\.npz: .*{complaint}"):
        Arrays(path).training()
    assert not Arrays(path).verify()[0].ok
    assert not Path("sprung").exists()


def test_npz_reader_checks_test_split_by_the_same_rules(save_npz: Save) -> None:
    with pytest.raises(DataError, match="x_test has images of"):
        Arrays(save_npz(x_train=X, x_test=X[:, :5])).test()
    with pytest.raises(DataError, match="y_test has negative labels"):
        Arrays(save_npz(x_train=X, x_valid=X, x_test=X, y_test=Y - 1)).test()


@pytest.mark.parametrize(
    "shape", ["(4000000000, 6)", "(40, 5)", "(-40, -6)", "(0x" + "f" * 9_000 + ", 6)", "40", "("]
)
def test_npz_reader_allocates_nothing_for_a_header_larger_than_its_data(
    shape: str, tmp_path: Path
) -> None:
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    lying = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + X.tobytes()
    path = _write(tmp_path / "lying.npz", x_train=lying)
    with pytest.raises(DataError, match=r"lying\.npz: x_train (has a header|cannot be read)"):
        Arrays(path).training()


def test_npz_reader_rejects_arrays_larger_than_physical_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path / "bomb.npz", x_train=_npy(np.zeros((1000, 5000), np.uint8)))
    assert path.stat().st_size < 10_000
    monkeypatch.setattr("aae_core.data.arrays.physical_memory", lambda: 9_999_999)
    with pytest.raises(
        DataError, match=r"x_train takes 5,000,000 bytes, this machine has 9,999,99"
    ):
        Arrays(path).training()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not really", _npy(X)])
def test_npz_reader_rejects_files_that_are_no_archive(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "not.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"not\.npz: cannot be opened .* np\.savez"):
        Arrays(path).training()


def test_npz_reader_raises_data_error_for_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.npz: cannot be opened .*No such file"):
        Arrays(tmp_path / "none.npz").training()
    described = Arrays(tmp_path / "none.npz").describe()
    assert described.missing == (tmp_path / "none.npz",)


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.integers(0, 10_000), value=st.integers(0, 255), header=st.booleans())
def test_npz_reader_rejects_or_ignores_any_changed_byte(
    place: int, value: int, header: bool, tmp_path: Path
) -> None:
    member = bytearray(_npy(X[:, :2]))
    if header:  # inside an intact archive
        member[place % 128] = value
    path = _write(tmp_path / "fuzzed.npz", x_train=bytes(member))
    if not header:  # the archive itself
        content = bytearray(path.read_bytes())
        content[place % len(content)] = value
        path.write_bytes(content)
    try:
        data = Arrays(path).training()
    except DataError as error:
        complaint = str(error)
    else:
        assert data.dim * (len(data.x_train) + len(data.x_valid)) == 80
        return
    assert "fuzzed.npz" in complaint
