from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mat_arrays import tfd_arrays
from scipy.io import savemat

from aae_core.config import DataConfig
from aae_core.data import load_test_data, load_training_data
from aae_core.data.tfd import Tfd
from aae_core.errors import DataError

FOLDS = range(5)


def _bytes(x: np.ndarray) -> set[bytes]:
    return {row.tobytes() for row in x}


def _in_fold(fold: int, *parts: int) -> set[bytes]:
    """Return the images of these parts, directly from the arrays."""
    arrays = tfd_arrays()
    return _bytes(arrays["images"][np.isin(arrays["folds"][:, fold], parts)])


@pytest.mark.parametrize("fold", FOLDS)
def test_tfd_fold_selects_training_validation_and_test_images(fold: int, tfd_set: Tfd) -> None:
    data_set = replace(tfd_set, fold=fold)
    training, test = data_set.training(), data_set.test()
    assert _bytes(training.x_train) == _in_fold(fold, 0, 1)
    assert _bytes(training.x_valid) == _in_fold(fold, 2)
    assert _bytes(test.x) == _in_fold(fold, 3)


@pytest.mark.parametrize("fold", FOLDS)
def test_tfd_training_data_contain_no_test_image(fold: int, tfd_set: Tfd) -> None:
    training = replace(tfd_set, fold=fold).training()
    handed_out = _bytes(training.x_train) | _bytes(training.x_valid)
    assert not handed_out & _in_fold(fold, 3)


def test_tfd_folds_have_different_checksums(tfd_set: Tfd) -> None:
    assert len({replace(tfd_set, fold=fold).training().sha256 for fold in FOLDS}) == 5


def test_tfd_labels_count_from_0_with_minus_1_for_unlabelled(tfd_set: Tfd) -> None:
    arrays, data = tfd_arrays(), tfd_set.training()
    assert data.y_train[:30].tolist() == [-1] * 30  # −1 or 0 in the file
    trains = arrays["folds"][:, 0] == 1
    assert data.y_train[30:].tolist() == (arrays["labs_ex"][trains, 0] - 1).tolist()
    assert data.classes == 7


def test_tfd_pixels_are_ordered_by_row_and_column(tfd_set: Tfd) -> None:
    images = tfd_arrays()["images"]
    np.testing.assert_array_equal(tfd_set.training().x_train[3], images[3].reshape(-1))


def test_tfd_configuration_selects_the_fold(tfd_set: Tfd) -> None:
    config, root = DataConfig("tfd", fold=3), tfd_set.root
    expected = replace(tfd_set, fold=3)
    assert load_training_data(config, root).sha256 == expected.training().sha256
    assert load_test_data(config, root).sha256 == expected.test().sha256


def test_tfd_error_without_the_file_names_the_authors(tmp_path: Path) -> None:
    data_set = Tfd(tmp_path)
    for act in (data_set.fetch, data_set.training, data_set.test):
        with pytest.raises(DataError) as caught:
            act()
        message = str(caught.value)
        assert message.startswith(f"TFD_48x48.mat: not in {tmp_path / 'tfd'}\n")
        assert "ask its authors (Josh Susskind" in message
        assert "digits" in message
    (verdict,) = data_set.verify()
    assert not verdict.ok
    assert data_set.describe().sizes == {}


GOOD = tfd_arrays()
OTHER: dict[str, tuple[dict[str, Any], str]] = {
    "no folds": ({"folds": None}, r"folds \(n, 5\) with n of at least 5, found images \(60, "),
    "larger images": (
        {"images": np.zeros((60, 96, 96), np.uint8)},
        r"expected images \(n, 48, 48\) uint8, .* found images \(60, 96, 96\) uint8",
    ),
    "floats": ({"images": GOOD["images"] / 255}, r"found images \(60, 48, 48\) float64"),
    "fewer labels": ({"labs_ex": GOOD["labs_ex"][:-1]}, r"labs_ex \(59, 1\) int8"),
    "four folds": ({"folds": GOOD["folds"][:, :4]}, r"folds \(60, 4\) uint8"),
    "expression 8": ({"labs_ex": GOOD["labs_ex"] + 1}, "labs_ex has values other than -1 … 7"),
    "part 4": ({"folds": GOOD["folds"] + 1}, "folds has values other than 0 … 3"),
    "nothing validates": (
        {"folds": np.where(GOOD["folds"] == 2, 3, GOOD["folds"])},
        "folds has 0 valid images in fold 0, expected at least 2",
    ),
    "unlabelled to validate on": (
        {"labs_ex": np.where(GOOD["folds"][:, :1] == 2, 0, GOOD["labs_ex"])},
        "labs_ex has no label for some valid images of fold 0",
    ),
    "a struct": ({"folds": {"one": 1}}, r"folds \(1, 1\) struct"),
}


@pytest.mark.parametrize("case", OTHER)
def test_tfd_rejects_variables_of_another_form(case: str, tfd_set: Tfd) -> None:
    changes, complaint = OTHER[case]
    variables = {k: v for k, v in (GOOD | changes).items() if v is not None}
    savemat(tfd_set.path, variables, do_compression=True)
    with pytest.raises(DataError, match=rf"^{tfd_set.path}: .*{complaint}"):
        tfd_set.training()
    (verdict,) = tfd_set.verify()
    assert not verdict.ok


@pytest.mark.parametrize("content", [b"", b"<html>", np.random.default_rng(0).bytes(1000)])
def test_tfd_rejects_files_that_are_not_mat(content: bytes, tfd_set: Tfd) -> None:
    tfd_set.path.write_bytes(content)
    with pytest.raises(DataError, match=rf"{tfd_set.path}: cannot be read: "):
        tfd_set.training()
    assert tfd_set.describe().sizes == {}
