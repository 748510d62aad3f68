import hashlib
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mat_arrays import svhn_arrays
from scipy.io import savemat

from aae_core.config import DataConfig
from aae_core.data import load_test_data, load_training_data, open_data_set, svhn
from aae_core.data.splits import permutation
from aae_core.data.svhn import PUBLISHED, Svhn, SvhnFile
from aae_core.errors import DataError


def _rows(split: str) -> np.ndarray:
    """Return the images as rows, shape (n, 3072)."""
    images = svhn_arrays(split)["X"]
    return np.stack([images[..., i].reshape(-1) for i in range(images.shape[-1])])


def _path(data_set: Svhn, split: str = "train") -> Path:
    return data_set.folder / f"{split}_32x32.mat"


def _save(path: Path, *, deflate: bool = False, **variables: Any) -> None:
    savemat(path, variables, do_compression=deflate)


def test_svhn_pixels_are_ordered_by_row_column_channel(svhn_set: Svhn) -> None:
    test = svhn_set.test()
    np.testing.assert_array_equal(test.x, _rows("test"))
    images = svhn_arrays("test")["X"]
    assert test.x.reshape(-1, 32, 32, 3)[5, 2, 3, 1] == images[2, 3, 1, 5]


def test_svhn_label_10_becomes_digit_0(svhn_set: Svhn) -> None:
    data = svhn_set.training()
    originals = svhn_arrays("train")["y"].ravel()[permutation(40)]
    assert [*data.y_train, *data.y_valid] == [0 if y == 10 else y for y in originals]
    assert data.classes == 10


def test_svhn_validation_set_is_the_end_of_a_permutation(svhn_set: Svhn) -> None:
    data, order = svhn_set.training(), permutation(40)
    np.testing.assert_array_equal(data.x_train, _rows("train")[order[:36]])
    np.testing.assert_array_equal(data.x_valid, _rows("train")[order[36:]])


@pytest.mark.parametrize(
    ("n", "n_valid"), [(4, 2), (29, 2), (19_999, 1_999), (20_000, 10_000), (73_257, 10_000)]
)
def test_svhn_validation_set_size_for_each_number_of_images(
    n: int, n_valid: int, tmp_path: Path
) -> None:
    files = replace(PUBLISHED, train=replace(PUBLISHED.train, n=n))
    sizes = Svhn(tmp_path, published=files).describe().sizes
    assert (sizes["train"], sizes["valid"]) == (n - n_valid, n_valid)


def test_svhn_extra_images_follow_the_other_training_images(svhn_set: Svhn) -> None:
    without, data = svhn_set.training(), replace(svhn_set, extra=True).training()
    np.testing.assert_array_equal(data.x_train[:36], without.x_train)
    np.testing.assert_array_equal(data.x_train[36:], _rows("extra"))
    np.testing.assert_array_equal(data.y_train[36:], svhn_arrays("extra")["y"].ravel() % 10)
    np.testing.assert_array_equal(data.x_valid, without.x_valid)


def test_svhn_extra_file_is_needed_only_when_configured(svhn_set: Svhn) -> None:
    _path(svhn_set, "extra").unlink()
    svhn_set.training()
    assert not svhn_set.describe().missing
    with_extra = replace(svhn_set, extra=True)
    assert with_extra.describe().missing == (_path(svhn_set, "extra"),)
    with pytest.raises(DataError, match=r"^extra_32x32\.mat: not in .*/svhn\n.*AAE_DATA.*digits"):
        with_extra.training()


def test_svhn_training_needs_no_test_file(svhn_set: Svhn) -> None:
    _path(svhn_set, "test").unlink()
    svhn_set.training()
    with pytest.raises(DataError, match=r"test_32x32\.mat: not in"):
        svhn_set.test()


def test_svhn_grey_is_the_luma_of_itu_r_601(svhn_set: Svhn) -> None:
    data = replace(svhn_set, colour=False).test()
    red, green, blue = np.moveaxis(svhn_arrays("test")["X"].astype(float), 2, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    grey = np.moveaxis(data.x.reshape(-1, 32, 32), 0, -1)
    assert grey.dtype == np.uint8
    assert np.abs(grey - luma).max() <= 0.5 + 1e-9


@pytest.mark.parametrize(
    ("pixel", "grey"),
    [
        ((0, 0, 0), 0),
        ((255, 255, 255), 255),
        ((255, 0, 0), 76),
        ((0, 255, 0), 150),
        ((0, 0, 255), 29),
    ],
)
def test_svhn_grey_matches_known_pixel_values(
    pixel: tuple[int, int, int], grey: int, svhn_set: Svhn
) -> None:
    images = np.empty((32, 32, 3, 2), np.uint8)
    images[:] = np.array(pixel, np.uint8)[:, None]
    _save(_path(svhn_set, "test"), X=images, y=np.ones((2, 1)))
    assert set(replace(svhn_set, colour=False).test().x.flat) == {grey}


def test_svhn_same_checksum_for_any_block_size(
    svhn_set: Svhn, monkeypatch: pytest.MonkeyPatch
) -> None:
    for extra in (False, True):
        data_set = replace(svhn_set, extra=extra)
        whole = data_set.training().sha256
        with monkeypatch.context() as patch:
            patch.setattr(svhn, "_BLOCK", 7)
            assert data_set.training().sha256 == whole


def test_svhn_configuration_selects_colour_and_extra_images(svhn_set: Svhn) -> None:
    root = svhn_set.root
    load = partial(load_training_data, root=root, fetch=False)
    plain = load(DataConfig("svhn"))
    assert plain.image_shape == (32, 32, 3)
    assert load(DataConfig("svhn", colour=False)).image_shape == (32, 32)
    assert len(load(DataConfig("svhn", extra=True)).x_train) == len(plain.x_train) + 12
    assert load_test_data(DataConfig("svhn"), root).sha256 == svhn_set.test().sha256


X, Y = svhn_arrays("train")["X"], svhn_arrays("train")["y"]
OTHER: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "no labels": ({"X": X}, r"y \(n, 1\) with n of at least 4, found X \(32, 32, 3, 40\) uint8\."),
    "floats": ({"X": X / 255, "y": Y}, r"found X \(32, 32, 3, 40\) float64"),
    "images first": ({"X": X.T, "y": Y}, r"found X \(40, 3, 32, 32\) uint8"),
    "grey": ({"X": X[:, :, 0], "y": Y}, r"found X \(32, 32, 40\) uint8"),
    "fewer labels": ({"X": X, "y": Y[1:]}, r"y \(39, 1\) uint8"),
    "too few": ({"X": X[..., :3], "y": Y[:3]}, r"with n of at least 4, found"),
    "label 0": ({"X": X, "y": Y - 1}, "y has values other than 1 … 10"),
    "label 11": ({"X": X, "y": Y + 1}, "y has values other than 1 … 10"),
    "half a label": ({"X": X, "y": Y - 0.5}, "y has values other than 1 … 10"),
}


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("case", OTHER)
def test_svhn_rejects_variables_of_another_form(case: str, deflate: bool, svhn_set: Svhn) -> None:
    variables, complaint = OTHER[case]
    _save(_path(svhn_set), **variables, deflate=deflate)
    with pytest.raises(DataError, match=rf"^{_path(svhn_set)}: .*{complaint}") as caught:
        svhn_set.training()
    assert "aae-sweep data fetch svhn" in str(caught.value)
    train, test, extra = svhn_set.verify()
    assert str(train.problem) == str(caught.value)
    assert (test.ok, extra.ok) == (True, True)
    assert svhn_set.describe().sizes["test"] == 9


def test_svhn_rejects_a_file_cut_short(svhn_set: Svhn) -> None:
    content = _path(svhn_set).read_bytes()
    _path(svhn_set).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=rf"{_path(svhn_set)}: cannot be read: it is cut short"):
        svhn_set.training()
    assert svhn_set.describe().sizes == {"train": 36, "valid": 4, "test": 9}  # as published


def test_svhn_reads_but_does_not_verify_an_unpublished_file(svhn_set: Svhn) -> None:
    _save(_path(svhn_set), X=X[..., :30], y=Y[:30].astype(float))
    assert len(svhn_set.training().x_train) == 27
    assert svhn_set.describe().sizes == {"train": 27, "valid": 3, "test": 9}
    train, *others = svhn_set.verify()
    md5 = hashlib.md5(_path(svhn_set).read_bytes()).hexdigest()
    assert f"not the published train_32x32.mat: it has the md5 {md5}, expected" in train.problem
    assert all(verdict.ok for verdict in others)


def test_svhn_verify_reports_missing_files(tmp_path: Path) -> None:
    verdicts = open_data_set(DataConfig("svhn"), tmp_path).verify()
    assert [verdict.path.name for verdict in verdicts] == ["train_32x32.mat", "test_32x32.mat"]
    assert all("`aae-sweep data fetch svhn`" in str(verdict.problem) for verdict in verdicts)


def test_svhn_publishes_three_distinct_files() -> None:
    files: list[SvhnFile] = [PUBLISHED.train, PUBLISHED.extra, PUBLISHED.test]
    assert [file.n for file in files] == [73_257, 531_131, 26_032]
    assert len({file.md5 for file in files}) == 3
    assert all(len(bytes.fromhex(file.md5)) == 16 for file in files)
    assert all(mirror.endswith("/") for mirror in svhn.MIRRORS)
