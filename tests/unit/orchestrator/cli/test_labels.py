"""The commands `train`, `plan` and `run` where a trial sees some of the labels."""

import json
from pathlib import Path

import numpy as np
import pytest
from sweep_command import aae
from sweep_file import make_text

from aae_core.training import TrainState

TRAIN = {"train/recon", "train/disc_z", "train/gen_z", "train/disc_y", "train/gen_y", "train/class"}
VAL = {"val/recon", "val/error", "val/latent_mmd", "val/latent_std"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "few_labels.yaml"
    model = {"kind": "semi_supervised", "output": "linear"}
    path.write_text(make_text("few_labels", data={"labels": 100}, model=model))
    return path


@pytest.mark.usefixtures("threads")
def test_train_json_lists_the_labelled_images(file: Path) -> None:
    start, *epochs, end = aae("train", file, "--seed", 3, "--evaluate", "--json").lines
    assert len(set(start["labelled_indices"])) == 100
    assert all(isinstance(index, int) for index in start["labelled_indices"])
    assert [epoch["metrics"].keys() for epoch in epochs] == [TRAIN | VAL] * 2
    assert epochs[0]["lr"] == {"reconstruction": 5e-3, "adversarial": 1e-3, "classification": 0.1}
    assert end["metrics"].keys() == TRAIN | VAL | {"test/recon", "test/error"}
    other, *_ = aae("train", file, "--seed", 4, "--set", "training.epochs=1", "--json").lines
    assert other["labelled_indices"] != start["labelled_indices"]


@pytest.mark.usefixtures("threads")
def test_train_with_every_label_lists_none(file: Path) -> None:
    few = ("--set", "training.epochs=1", "--set", "data.labels=null")
    assert aae("train", file, *few, "--json").lines[0]["labelled_indices"] is None


@pytest.mark.usefixtures("threads")
def test_train_text_counts_labelled_images_and_shows_test_error(file: Path) -> None:
    result = aae("train", file, "--evaluate", "--set", "training.epochs=1").out
    assert result.splitlines()[0].endswith(", 100 labelled images")
    assert "\ntest/error " in result


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("verb", ["run", "train", "plan"])
def test_setting_that_the_data_contradict_is_wrong_input(file: Path, home: Path, verb: str) -> None:
    ended = aae(verb, file, "--set=data.labels=15")
    assert (ended.code, ended.out) == (2, "")
    assert "few_labels on digits: data.labels: 15 cannot be drawn evenly from 10" in ended.err
    assert not (home / "studies.db").exists()


@pytest.mark.usefixtures("threads")
def test_train_refuses_a_class_only_in_the_test_images(file: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x, y = random.random((60, 16), dtype=np.float32), np.arange(60) % 2
    path = tmp_path / "own.npz"
    np.savez(path, x_train=x, y_train=y, x_valid=x, y_valid=y, x_test=x, y_test=y + 1)
    own = ("--set", "data.name=arrays", "--set", f"data.path={path}", "--set", "data.labels=null")
    ended = aae("train", file, *own, "--set", "training.epochs=1", "--evaluate")
    assert ended.code == 4
    assert "a test image has the label 2, the training images 0 to 1" in ended.err


@pytest.mark.usefixtures("threads")
def test_train_evaluates_on_a_few_test_images(file: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((40, 16), dtype=np.float32)
    path = tmp_path / "own.npz"
    np.savez(path, x_train=x, x_valid=x, x_test=x[:3])
    own = ("--set", "data.name=arrays", "--set", f"data.path={path}", "--set", "data.labels=null")
    plain = ("--set", "model.kind=aae", "--set", "training.epochs=1")
    *_, end = aae("train", file, *own, *plain, "--evaluate", "--json").lines
    assert "test/parzen_ll" in end["metrics"]
    assert "test/coverage" not in end["metrics"]


def _own(path: Path, **members: np.ndarray) -> tuple[object, ...]:
    np.savez(path, **members)  # type: ignore[arg-type]
    settings = ("data.name=arrays", f"data.path={path}", "data.labels=null", "training.epochs=1")
    return tuple(f"--set={setting}" for setting in settings)


X = np.random.default_rng(0).random((40, 16), dtype=np.float32)


@pytest.mark.usefixtures("threads")
def test_train_notes_renamed_labels_and_keeps_them_in_the_checkpoint(
    file: Path, tmp_path: Path
) -> None:
    y = np.array([3, 7])[np.arange(40) % 2]
    own = _own(tmp_path / "own.npz", x_train=X, y_train=y, x_test=X, y_test=y)
    ended = aae("train", file, *own, "--evaluate", "--json")
    note = "labels 3, 7 are the classes 0 to 1"
    assert ended.err == f"note: {note}\n"
    start, *_, end = ended.lines
    assert start["notes"] == [note]
    assert "test/error" in end["metrics"]
    state = json.loads((Path(end["checkpoint"]) / "state.json").read_text())
    assert state["data"] == {"labels": [3, 7], "notes": [note]}
    assert TrainState.load(Path(end["checkpoint"])).data_record == state["data"]


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("members", "code", "words"),
    [
        ({}, 4, "has no member x_test to evaluate on; add it"),
        ({"x_test": X * np.nan}, 4, "x_test has values that are not numbers"),
        ({"x_test": X, "y_test": np.arange(40)}, 4, "a test image has the label 39"),
        ({"x_test": X, "y_test": X}, 4, "y_test is float32 of shape"),
        ({"x_test": X}, 0, "no labels y_test, so test/error cannot be computed"),
    ],
)
def test_train_says_what_the_test_images_lack_before_the_first_epoch(
    file: Path,
    tmp_path: Path,
    members: dict[str, np.ndarray],
    code: int,
    words: str,
) -> None:
    own = _own(tmp_path / "own.npz", x_train=X, y_train=np.arange(40) % 2, **members)
    ended = aae("train", file, *own, "--evaluate", "--json")
    assert ended.code == code
    assert words in ended.err
    assert bool(ended.out) == (code == 0)


def test_train_without_enough_memory_names_memory_and_remedy(file: Path) -> None:
    ended = aae("train", file, "--set", "model.hidden=[2147483647]")
    assert (ended.code, ended.out) == (4, "")
    reason, remedy = ended.err.splitlines()
    assert reason.startswith("out of host memory: can't allocate memory: you tried to allocate ")
    assert remedy.startswith("use a smaller network")
