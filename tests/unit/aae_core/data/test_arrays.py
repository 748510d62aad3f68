"""The .npz reader trusts no file: every error names file and member and gives a remedy."""

import io
import os
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aae_core.config import DataConfig
from aae_core.data import load_test_data, load_training_data, open_array
from aae_core.data.arrays import Arrays
from aae_core.errors import DataError
from aae_core.evaluation.parzen import to_float64

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
}
UNUSABLE: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "missing": ({"y_train": Y[:-1]}, r"y_train is int64 of shape \(39,\), values 0, 1, 2, 3; give"),
    "one-hot": ({"y_train": np.eye(4)[Y]}, r"y_train is .*: one-hot; save y\.argmax\(axis=1\)"),
    "one-hot flags": ({"y_train": np.eye(4)[Y] > 0}, "y_train is bool .*: one-hot"),
    "negative": ({"x_valid": X, "y_train": Y - 2}, "y_train has labels below −1: -2, -1, 0, 1"),
    "unlabelled, held out": ({"y_train": Y - 1}, "y_train has negative labels: -1, .* an x_valid"),
    "unlabelled to validate on": (
        {"x_valid": X, "y_valid": Y - 1},
        "y_valid has negative labels",
    ),
    "words": ({"y_train": np.array(["dog", "cat"])[Y % 2]}, "values cat, dog; give .*numpy.unique"),
    "objects": ({"y_train": Y.astype(object)}, "y_train holds Python objects"),
    "complex": ({"y_train": Y * 1j}, "y_train is complex128 .* give whole numbers"),
    "halves": ({"y_train": Y / 2}, r"values 0\.0, 0\.5, 1\.0, 1\.5; give whole numbers"),
    "not numbers": ({"y_train": np.where(Y == 0, np.nan, Y)}, "values 1.0, 2.0, 3.0, nan; give"),
    "beyond int64": ({"y_train": Y.astype(np.uint64) + 2**63}, "give whole numbers below 2"),
    "floats beyond int64": ({"y_train": Y * 1e300}, "give whole numbers below 2"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_npz_reader_errors_name_file_and_member(case: str, save_npz: Save) -> None:
    members, complaint = REFUSED[case]
    path = save_npz(**members)
    with pytest.raises(DataError, match=rf"own\.npz: .*{complaint}"):
        Arrays(path).training()
    assert not Arrays(path).verify()[0].ok
    assert not Path("sprung").exists()


@pytest.mark.parametrize("case", UNUSABLE)
def test_unusable_labels_are_a_problem_only_for_models_that_read_them(
    case: str, save_npz: Save
) -> None:
    members, complaint = UNUSABLE[case]
    path = save_npz(x_train=X, **members)
    data = Arrays(path).training()
    assert re.search(rf"own\.npz: .*{complaint}", str(data.label_problem))
    assert data.y_train is data.y_valid is None
    assert data.classes == 0
    assert Arrays(path).verify()[0].problem == data.label_problem


def test_npz_reader_checks_test_split_by_the_same_rules(save_npz: Save) -> None:
    with pytest.raises(DataError, match="x_test has images of"):
        Arrays(save_npz(x_train=X, x_test=X[:, :5])).test()
    test = Arrays(save_npz(x_train=X, x_valid=X, x_test=X, y_test=Y - 1)).test()
    assert test.y is None
    assert "y_test has negative labels" in str(test.label_problem)


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
def test_npz_reader_rejects_files_that_are_not_archives(content: bytes, tmp_path: Path) -> None:
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


# -- labels ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [(1, 2, 3), (0, 10**10, 2 * 10**10), (3, 7, 255), (0.0, 1.0, 2.0), (-0.0, 4.0, 5.0)],
)
@pytest.mark.parametrize("column", [False, True])
def test_any_whole_labels_become_classes_from_0_in_order(
    values: tuple[float, ...], column: bool, save_npz: Save
) -> None:
    y = np.array(values)[np.arange(40) % 3]
    members = {"x_train": X, "x_valid": X, "x_test": X}
    labels = {f"y_{split}": y[:, None] if column else y for split in ("train", "valid", "test")}
    arrays = Arrays(save_npz(**members, **labels))
    data, test = arrays.training(), arrays.test()
    for classes in (data.y_train, data.y_valid, test.y):
        assert classes is not None
        assert classes.dtype == np.int64
        assert classes.tolist() == (np.arange(40) % 3).tolist()
    assert data.classes == 3
    renamed = sorted(values) != [0, 1, 2]
    assert data.labels == test.labels == (tuple(map(int, values)) if renamed else ())
    assert len(data.notes) == renamed
    assert data.record.get("labels", []) == list(data.labels)


def test_note_on_renamed_labels_lists_the_first_labels(save_npz: Save) -> None:
    data = Arrays(save_npz(x_train=X, y_train=np.arange(40) + 1)).training()
    [note] = data.notes
    assert note == "labels 1, 2, 3, 4, 5, … (40 in all) are the classes 0 to 39"


def test_boolean_labels_are_the_classes_0_and_1(save_npz: Save) -> None:
    data = Arrays(save_npz(x_train=X, y_train=Y > 1)).training()
    assert data.y_train is not None
    assert (data.classes, data.labels, data.notes) == (2, (), ())


def test_unlabelled_images_stay_unlabelled_beside_renamed_labels(save_npz: Save) -> None:
    y = np.array([-1.0, 5.0, 9.0])[np.arange(40) % 3]
    data = Arrays(save_npz(x_train=X, y_train=y, x_valid=X, y_valid=np.maximum(y, 5))).training()
    assert data.y_train is not None
    assert data.y_train.tolist() == (np.arange(40) % 3 - 1).tolist()
    assert data.labels == (5, 9)


def test_test_labels_of_no_training_image_follow_the_known_ones(save_npz: Save) -> None:
    test = Arrays(save_npz(x_train=X, y_train=Y + 2, x_test=X[:3], y_test=np.array([2, 1, 6])))
    loaded = test.test()
    assert loaded.y is not None
    assert loaded.y.tolist() == [0, 4, 5]
    assert loaded.labels == (2, 3, 4, 5, 1, 6)


# -- axes and range ----------------------------------------------------------------------------

GREY = np.random.default_rng(0).random((24, 5, 4)).astype(np.float32)
COLOUR = np.random.default_rng(1).random((24, 5, 4, 3)).astype(np.float32)


def _moved(x: np.ndarray, axes: str) -> np.ndarray:
    """Return images (n, h, w[, c]) with the axes in another order."""
    return x.transpose(["nhwc".index(letter) for letter in axes])


@pytest.mark.parametrize("axes", ["nhw", "hwn", "whn", "nwh"])
def test_axes_setting_gives_the_order_of_grey_images(axes: str, save_npz: Save) -> None:
    members = {f"x_{split}": _moved(GREY, axes) for split in ("train", "valid", "test")}
    arrays = Arrays(save_npz(**members), axes=axes)
    data = arrays.training()
    assert (data.image_shape, data.notes) == ((5, 4), ())
    assert (data.x_train == GREY.reshape(24, -1)).all()
    assert (arrays.test().x == data.x_train).all()
    assert arrays.describe().sizes == {"train": 24, "valid": 24, "test": 24}


@pytest.mark.parametrize("axes", ["nhwc", "nchw", "hwcn", "cwhn"])
def test_axes_setting_gives_the_order_of_colour_images(axes: str, save_npz: Save) -> None:
    x = _moved(COLOUR, axes)
    data = Arrays(save_npz(x_train=x, x_valid=x), axes=axes).training()
    assert (data.image_shape, data.notes) == ((5, 4, 3), ())
    assert (data.x_train == COLOUR.reshape(24, -1)).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_first_are_recognised_and_noted(channels: int, save_npz: Save) -> None:
    images = COLOUR[..., :channels]
    x = _moved(images, "nchw")
    data = Arrays(save_npz(x_train=x, x_valid=x)).training()
    assert data.image_shape == (5, 4, channels)
    assert (data.x_train == images.reshape(24, -1)).all()
    [note] = data.notes
    assert f"x_train has the shape {x.shape}; assumed (n, C, H, W)" in note
    assert data.record["notes"] == [note]


def test_images_in_the_last_axis_are_recognised_by_their_channels(save_npz: Save) -> None:
    x = _moved(COLOUR[:, :4], "hwcn")
    data = Arrays(save_npz(x_train=x, x_valid=x)).training()
    assert data.image_shape == (4, 4, 3)
    assert (data.x_train == COLOUR[:, :4].reshape(24, -1)).all()
    assert "assumed (H, W, C, n)" in data.notes[0]


@pytest.mark.parametrize("shape", [(24, 20, 1), (24, 1, 20), (24, 1, 20, 1)])
def test_images_of_one_row_are_vectors(shape: tuple[int, ...], save_npz: Save) -> None:
    data = Arrays(save_npz(x_train=GREY.reshape(shape), x_valid=GREY.reshape(shape))).training()
    assert data.image_shape == (20,)
    assert (data.x_train == GREY.reshape(24, 20)).all()
    assert "assumed images of 20 pixels in one row" in data.notes[0]


def test_last_axis_of_one_channel_is_the_usual_form(save_npz: Save) -> None:
    data = Arrays(save_npz(x_train=GREY[..., None])).training()
    assert (data.image_shape, data.notes) == ((5, 4, 1), ())


def test_transposed_pixels_are_noted_and_read_with_their_axes(save_npz: Save) -> None:
    images = GREY[:, :4].reshape(24, 16)
    path = save_npz(x_train=images.T)
    [note] = Arrays(path).training().notes
    assert "(16, 24); assumed (n, D)" in note
    assert "set data.axes: dn" in note
    data = Arrays(path, axes="dn").training()
    assert (data.dim, len(data.x_train) + len(data.x_valid), data.notes) == (16, 24, ())
    square = save_npz(x_train=_moved(GREY[:, :4], "hwn"))
    assert "set data.axes: hwn" in Arrays(square).training().notes[0]


def test_wrong_axes_are_named_where_splits_or_labels_disagree(save_npz: Save) -> None:
    x = GREY.reshape(24, 20).T
    with pytest.raises(DataError, match=r"x_test has images of .*set data\.axes"):
        Arrays(save_npz(x_train=x, x_test=x[:, :4])).test()
    problem = Arrays(save_npz(x_train=x, y_train=np.arange(24))).training().label_problem
    assert "set data.axes" in str(problem)
    with pytest.raises(DataError, match=r"give data\.axes 2 letters"):
        Arrays(save_npz(x_train=x), axes="nhw").training()


def test_bytes_of_0_and_1_are_noted_and_read_with_their_range(save_npz: Save) -> None:
    x = (GREY > 0.5).astype(np.uint8)
    path = save_npz(x_train=x, x_valid=x)
    [note] = Arrays(path).training().notes
    assert "uint8 from 0 to 1; assumed that 255 is white" in note
    assert "set data.range: [0, 1]" in note
    data = Arrays(path, range=(0, 1)).training()
    assert (data.x_train == x.reshape(24, -1)).all()
    assert (data.x_train.dtype, data.notes) == (np.float32, ())


@pytest.mark.parametrize(("low", "high"), [(0, 255), (-1, 1), (-0.5, 0.5), (0, 16)])
@pytest.mark.parametrize("dtype", ["float32", "float64", ">f4"])
def test_range_setting_scales_black_to_0_and_white_to_1(
    low: float, high: float, dtype: str, save_npz: Save
) -> None:
    x = np.linspace(low, high, 24 * 20).reshape(24, 20)
    path = save_npz(x_train=x.astype(dtype), x_valid=x.astype(dtype))
    with pytest.raises(DataError, match=r"not numbers in \[0, 1\]: they are .* set data\.range"):
        Arrays(path).training()
    data = Arrays(path, range=(low, high)).training()
    assert (data.x_train.min(), data.x_train.max(), data.notes) == (0, 1, ())
    np.testing.assert_allclose(data.x_train.ravel(), np.linspace(0, 1, 480), atol=1e-6)


def test_values_beyond_the_range_setting_raise_an_error(save_npz: Save) -> None:
    path = save_npz(x_train=np.full((9, 4), 200, np.uint8))
    with pytest.raises(DataError, match=r"in \[0, 16\]: they are 200 to 200; set data\.range"):
        Arrays(path, range=(0, 16)).training()
    assert Arrays(path, range=(0, 255)).training().sha256 == Arrays(path).training().sha256


def test_floats_far_from_white_are_noted(save_npz: Save) -> None:
    [note] = Arrays(save_npz(x_train=GREY / 255)).training().notes
    assert "assumed that 1 is white, so the brightest pixel is 0.0039" in note
    [note] = Arrays(save_npz(x_train=GREY), range=(0, 255)).training().notes
    assert "with data.range the brightest pixel is 0.00391 of 1" in note


# -- a .npy of pixels --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32", ">f4", "float64", ">f8", "longdouble"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_array_of_any_float_type_has_the_same_values(
    dtype: str, order: Literal["C", "F"], tmp_path: Path
) -> None:
    values = np.arange(24).reshape(6, 4) / 32  # exact in every type
    np.save(tmp_path / "x.npy", np.array(values, dtype, order=order))
    array = open_array(tmp_path / "x.npy")
    assert (array == values).all()
    doubles = to_float64(array, "x")
    assert doubles.dtype == torch.float64
    assert (doubles.numpy() == values).all()


def test_bytes_of_an_array_are_scaled_in_double_precision(tmp_path: Path) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(2, 128)
    np.save(tmp_path / "x.npy", values)
    doubles = to_float64(open_array(tmp_path / "x.npy"), "x")
    assert (doubles.numpy() == values / 255).all()


NO_PIXELS: dict[str, tuple[Any, str]] = {
    "integers": (np.zeros((3, 2), np.int64), "type int64; give uint8, or floats"),
    "truth values": (np.zeros((3, 2), bool), "type bool; give uint8, or floats"),
    "complex": (np.zeros((3, 2), complex), "type complex128; give uint8, or floats"),
    "words": (np.array([["a", "b"]]), "type <U1; give uint8, or floats"),
    "records": (np.zeros((3, 2), [("a", "f4")]), "type .*give uint8, or floats"),
    "objects": (np.array([[Trap()]]), "no .npy of numbers"),
    "no axis": (np.array(0.5), r"shape \(\); give a .npy with one array \(n, D\)"),
    "one axis": (np.zeros(3), r"shape \(3,\); give"),
    "three axes": (np.zeros((3, 2, 1)), r"shape \(3, 2, 1\); give"),
    "no images": (np.zeros((0, 2)), r"shape \(0, 2\); give"),
    "no pixels": (np.zeros((3, 0)), r"shape \(3, 0\); give"),
}


@pytest.mark.parametrize("case", NO_PIXELS)
def test_open_array_error_names_file_and_form_of_other_arrays(case: str, tmp_path: Path) -> None:
    array, complaint = NO_PIXELS[case]
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match=rf"x\.npy: {complaint}"):
        open_array(tmp_path / "x.npy")
    assert not Path("sprung").exists()


def test_open_array_names_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "torn.npy").write_bytes(b"\x93NUMPY")
    (tmp_path / "short.npy").write_bytes(_npy(X)[:-8])
    (tmp_path / "odd.npy").write_bytes(_npy(X).replace(b"'shape': (40, 6)", b"'shape': (40,((("))
    (tmp_path / "empty.npy").touch()
    (tmp_path / "folder.npy").mkdir()
    np.savez(tmp_path / "many.npz", x=np.zeros((3, 2)))
    for name in ("missing", "torn", "short", "odd", "empty", "folder", "many"):
        path = next(tmp_path.glob(f"{name}.*"), tmp_path / f"{name}.npy")
        with pytest.raises(DataError, match=rf"{path.name}: (cannot be read|no \.npy of numbers)"):
            open_array(path)
