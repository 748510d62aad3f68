"""The command `figures`: the pictures of a checkpoint in a given folder."""

from pathlib import Path

import pytest
from sweep_command import aae
from sweep_file import make_text

pytestmark = pytest.mark.usefixtures("threads")

NAMES = {"samples.png", "latent.png", "codes.html", "walk.png", "walk.gif"}


def test_figures_writes_and_lists_pictures_reproducibly(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "pictures"
    ended = aae("figures", checkpoint, "--out", out, "--json")
    assert (ended.code, ended.err) == (0, "")
    document = ended.document
    assert (document["checkpoint"], document["folder"]) == (str(checkpoint), str(out))
    assert set(document["files"]) == NAMES == {path.name for path in out.iterdir()}
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    shown = aae("figures", checkpoint, "--out", out).out.splitlines()
    assert {Path(line).name for line in shown} == NAMES
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    aae("figures", checkpoint, "--out", out, "--seed", 1)
    assert (out / "samples.png").read_bytes() != before["samples.png"]


def test_figures_refuses_a_file_as_folder(checkpoint: Path, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.touch()
    ended = aae("figures", checkpoint, "--out", taken)
    assert (ended.code, ended.out) == (2, "")
    assert "is not a folder" in ended.err


def test_figures_refuses_a_classifier_checkpoint(sweep_file: Path, tmp_path: Path) -> None:
    sweep_file.write_text(make_text(model={"kind": "classifier"}, training={"epochs": 1}))
    trained = Path(aae("train", sweep_file, "--json").lines[-1]["checkpoint"])
    ended = aae("figures", trained, "--out", tmp_path / "pictures")
    assert (ended.code, ended.out) == (2, "")
    assert "classifier has no figures" in ended.err
    assert not (tmp_path / "pictures").exists()


def test_figures_refuses_data_other_than_the_training_data(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from aae_core import data

    load = data.load_training_data
    monkeypatch.setattr(
        data, "load_training_data", lambda *args: replace(load(*args), sha256="f" * 64)
    )
    ended = aae("figures", checkpoint, "--out", tmp_path / "pictures")
    assert (ended.code, ended.out) == (4, "")
    assert "put the old files back" in ended.err
    assert not (tmp_path / "pictures").exists()
