"""Conformance tests for every data set."""

import os
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest

from aae_core.config import DataConfig
from aae_core.data import DataSet, TrainingData, open_data_set, unit_interval
from aae_core.data.arrays import Arrays
from aae_core.data.digits import Digits
from aae_core.data.mnist import IdxSet
from aae_core.data.svhn import Svhn
from aae_core.data.tfd import Tfd
from aae_core.testing import check_data_set

Sizes = tuple[int, int, int]


@dataclass(frozen=True)
class Case:
    data_set: DataSet
    sizes: Sizes  # train, valid, test
    image_shape: tuple[int, ...]
    labelled: bool = True
    unlabelled_too: bool = False  # some training images lack labels


def _images(n: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(n).random((n, *shape))


def _arrays_given(save: Callable[..., Path]) -> Case:
    sizes = {"train": 30, "valid": 8, "test": 9}
    x = {f"x_{split}": _images(n, 4, 5, 3) for split, n in sizes.items()}
    y = {f"y_{split}": np.arange(n) % 3 for split, n in sizes.items()}
    return Case(Arrays(save(**x, **y)), (30, 8, 9), (4, 5, 3))


def _arrays_split(save: Callable[..., Path]) -> Case:
    path = save(x_train=(_images(50, 7) * 255).astype(np.uint8), x_test=_images(9, 7))
    return Case(Arrays(path), (45, 5, 9), (7,), labelled=False)


def _mnist() -> Case:
    root = Path(os.environ.get("AAE_DATA", "")).absolute()
    if not (root / "mnist").is_dir():
        pytest.skip("no mnist/ in AAE_DATA")
    return Case(open_data_set(DataConfig("mnist"), root), (50_000, 10_000, 10_000), (28, 28))


def _tfd(data_set: Tfd) -> Case:
    return Case(data_set, (45, 5, 10), (48, 48), unlabelled_too=True)


@pytest.fixture(
    params=[
        "digits",
        "idx",
        "arrays_given",
        "arrays_split",
        "svhn",
        "svhn_grey",
        "svhn_extra",
        "tfd",
        "tfd_last_fold",
        pytest.param("mnist", marks=pytest.mark.mnist),
    ]
)
def case(
    request: pytest.FixtureRequest,
    save_npz: Callable[..., Path],
    idx_set: IdxSet,
    svhn_set: Svhn,
    tfd_set: Tfd,
) -> Case:
    colour, grey = (32, 32, 3), (32, 32)
    cases: dict[str, Callable[[], Case]] = {
        "digits": lambda: Case(Digits(), (1_197, 300, 300), (8, 8)),
        "idx": lambda: Case(idx_set, (40, 10, 20), (6, 6)),
        "arrays_given": lambda: _arrays_given(save_npz),
        "arrays_split": lambda: _arrays_split(save_npz),
        "svhn": lambda: Case(svhn_set, (36, 4, 9), colour),
        "svhn_grey": lambda: Case(replace(svhn_set, colour=False), (36, 4, 9), grey),
        "svhn_extra": lambda: Case(replace(svhn_set, extra=True), (48, 4, 9), colour),
        "tfd": lambda: _tfd(tfd_set),
        "tfd_last_fold": lambda: _tfd(replace(tfd_set, fold=4)),
        "mnist": _mnist,
    }
    return cases[request.param]()


def _splits(case: Case) -> list[tuple[np.ndarray, np.ndarray | None]]:
    training, test = case.data_set.training(), case.data_set.test()
    return [
        (training.x_train, training.y_train),
        (training.x_valid, training.y_valid),
        (test.x, test.y),
    ]


def test_data_set_obeys_the_laws(case: Case) -> None:
    check_data_set(case.data_set)


def test_data_set_has_its_shape_and_labels(case: Case) -> None:
    training = case.data_set.training()
    assert training.image_shape == case.image_shape
    assert training.dim == np.prod(case.image_shape)
    assert (training.y_train is not None) == case.labelled


def test_data_set_classes_equal_those_in_its_labels(case: Case) -> None:
    training = case.data_set.training()
    if training.y_train is None:
        assert training.classes == 0
    else:
        assert set(training.y_train) - {-1} == set(range(training.classes))
    assert case.unlabelled_too == (training.y_train is not None and -1 in training.y_train)


def test_data_set_splits_share_no_image(case: Case) -> None:
    splits = [{row.tobytes() for row in unit_interval(x)} for x, _ in _splits(case)]
    assert tuple(map(len, splits)) == case.sizes  # no duplicates within a split either
    assert len(set.union(*splits)) == sum(case.sizes)


def test_data_set_description_agrees_with_its_arrays(case: Case) -> None:
    described = case.data_set.describe()
    assert tuple(described.sizes.values()) == case.sizes
    assert list(described.sizes) == ["train", "valid", "test"]
    assert described.files


def test_training_data_class_has_no_test_member() -> None:
    assert {field.name for field in fields(TrainingData)} == {
        "name", "image_shape", "x_train", "y_train", "x_valid", "y_valid", "sha256",
        "labels", "notes", "label_problem", "missing",  # words on the data, no pixel
    }  # fmt: skip
