from pathlib import Path

import numpy as np
import pytest
import torch

from aae_core.config import DataConfig
from aae_core.data import catalogue, load_test_data, load_training_data, unit_interval
from aae_core.data.digits import Digits
from aae_core.data.sets import fingerprint
from aae_core.data.splits import class_balanced, labelled, last_tenth
from aae_core.errors import ConfigError, DataError

# Every earlier result was measured on these images, so these checksums must not change.
DIGITS_TRAINING = "4e7d29dcc1eb684dd339652e2b30c671498f8ac8500fa0c4d8a62b20c7c2358b"
DIGITS_TEST = "9298191acdcbdd6bec13a5cb352b9580d9376729b73df97c635fb5a867835088"


def test_digits_split_matches_the_recorded_checksums(tmp_path: Path) -> None:
    assert load_training_data(DataConfig("digits"), tmp_path).sha256 == DIGITS_TRAINING
    assert load_test_data(DataConfig("digits"), tmp_path).sha256 == DIGITS_TEST
    assert not list(tmp_path.iterdir())


def test_digits_splits_are_class_balanced() -> None:
    training, test = Digits().training(), Digits().test()
    assert training.y_train is not None
    for held_out in (training.y_valid, test.y):
        assert held_out is not None
        assert np.bincount(held_out).tolist() == [30] * 10
    assert set(np.bincount(training.y_train)) <= set(range(114, 124))


def test_catalogue_describes_every_set_without_files(tmp_path: Path) -> None:
    digits, mnist, fashion, svhn, tfd = catalogue(tmp_path)
    assert [described.name for described in (digits, mnist, fashion, svhn, tfd)] == [
        "digits", "mnist", "fashion_mnist", "svhn", "tfd",
    ]  # fmt: skip
    assert not digits.missing
    assert svhn.missing == tuple(
        tmp_path / "svhn" / f"{split}_32x32.mat" for split in ("train", "test")
    )
    assert svhn.sizes == {"train": 63_257, "valid": 10_000, "test": 26_032}
    assert tfd.missing == (tmp_path / "tfd" / "TFD_48x48.mat",)
    assert tfd.sizes == {}
    assert "Josh Susskind" in tfd.obtain
    assert mnist.missing == tuple(
        tmp_path / "mnist" / f"{split}-{kind}-ubyte.gz"
        for split in ("train", "t10k")
        for kind in ("images-idx3", "labels-idx1")
    )
    assert mnist.sizes == {"train": 50_000, "valid": 10_000, "test": 10_000}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_unit_interval_scales_bytes_and_only_casts_floats(dtype: str) -> None:
    pixels = np.array([[0, 51, 255]], np.uint8)
    for x in (pixels, torch.from_numpy(pixels)):
        scaled = unit_interval(x, dtype)  # type: ignore[call-overload]
        assert str(scaled.dtype).removeprefix("torch.") == dtype
        np.testing.assert_array_equal(scaled, (pixels.astype(dtype) / 255))
    for x in (scaled, scaled.numpy()):
        np.testing.assert_array_equal(unit_interval(x, dtype), x)  # type: ignore[call-overload]


def test_unit_interval_same_bits_for_arrays_and_tensors() -> None:
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(unit_interval(every), unit_interval(torch.from_numpy(every)))


def test_fingerprint_depends_on_bytes_types_shapes_and_positions() -> None:
    x = np.arange(6, dtype=np.uint8)
    variants = [
        (x, None),
        (None, x),
        (x + 1, None),
        (x.reshape(2, 3), None),
        (x.astype(np.int64), None),
        (x.view(np.int8), None),
        (x, x),
    ]
    assert len({fingerprint(*variant) for variant in variants}) == len(variants)
    assert fingerprint(x[::2]) == fingerprint(x[::2].copy())


@pytest.mark.parametrize(("n", "n_valid"), [(4, 2), (19, 2), (20, 2), (50, 5), (99, 9)])
def test_last_tenth_partitions_the_images(n: int, n_valid: int) -> None:
    kept, held_out = last_tenth(n)
    assert len(held_out) == n_valid
    assert sorted([*kept, *held_out]) == list(range(n))


def test_class_balanced_parts_are_a_partition() -> None:
    y = np.array([0] * 9 + [1] * 7 + [2] * 8)
    first, second, rest = class_balanced(y, 6, 9)
    assert np.bincount(y[first]).tolist() == [2, 2, 2]
    assert np.bincount(y[second]).tolist() == [3, 3, 3]
    assert sorted([*first, *second, *rest]) == list(range(len(y)))


Y = np.array([-1, 0, 1, 2] * 25)  # 25 images of each class, 25 unlabelled


@pytest.mark.parametrize("n", [3, 6, 75])
@pytest.mark.parametrize("seed", [0, 1, 2**62])
def test_labelled_images_are_drawn_evenly_over_the_classes(n: int, seed: int) -> None:
    chosen = labelled(Y, n, seed)
    assert np.bincount(Y[chosen]).tolist() == [n // 3] * 3
    assert chosen.tolist() == sorted(set(chosen))
    np.testing.assert_array_equal(labelled(Y, n, seed), chosen)


def test_labelled_images_differ_between_seeds() -> None:
    draws = {tuple(labelled(Y, 6, seed)) for seed in range(10)}
    assert len(draws) == 10


def test_labelled_images_match_the_recorded_draws() -> None:
    assert labelled(Y, 9, 0).tolist() == [3, 23, 38, 41, 42, 62, 65, 85, 87]
    assert labelled(Y, 9, 7).tolist() == [31, 37, 38, 59, 62, 74, 81, 95, 97]


def test_labelled_gives_all_labels_for_none_and_none_for_zero() -> None:
    assert labelled(Y, None, 0).tolist() == np.flatnonzero(Y >= 0).tolist()
    assert labelled(Y, 0, 0).tolist() == []
    assert labelled(None, 0, 0).tolist() == []


@pytest.mark.parametrize("n", [None, 3])
@pytest.mark.parametrize("y", [None, np.full(10, -1)], ids=["no labels", "all unlabelled"])
def test_labelled_raises_data_error_without_any_labels(y: np.ndarray | None, n: int | None) -> None:
    with pytest.raises(DataError, match="have no labels; give y_train"):
        labelled(y, n, 0)


@pytest.mark.parametrize(
    ("n", "words"),
    [
        (1, "1 cannot be drawn evenly from 3 classes; give 3"),
        (10, "10 cannot be drawn evenly from 3 classes; give 9 or 12"),
        (74, "74 cannot be drawn evenly from 3 classes; give 72 or 75"),
        (78, "78 takes 26 images of each class, and class 0 has 25; give at most 75"),
    ],
)
def test_labelled_error_gives_the_nearest_numbers_that_divide_evenly(n: int, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        labelled(Y, n, 0)
    assert caught.value.problems == {"data.labels": words}


def test_labelled_error_names_the_scarcest_class() -> None:
    with pytest.raises(ConfigError, match="class 1 has 2; give at most 4"):
        labelled(np.array([0, 0, 0, 1, 1, 0]), 6, 0)
