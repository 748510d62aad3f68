"""Test that a checkpoint is complete and verified, or does not exist."""

from pathlib import Path

import pytest
import torch

from aae_core import checkpoint
from aae_core.errors import CheckpointError
from aae_core.files import replacing

TENSORS = {"a": torch.arange(6).reshape(2, 3), "b": torch.tensor([0.1, float("inf")])}
DOCUMENT = {"epoch": 3, "history": [{"epoch": 1, "train/recon": 0.1}]}


def test_checkpoint_load_returns_the_saved_tensors_and_document(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "new" / "epoch-1", TENSORS, DOCUMENT)
    tensors, document = checkpoint.load(tmp_path / "new" / "epoch-1")
    assert document == DOCUMENT
    assert tensors.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        assert torch.equal(tensors[name], value)


def test_checkpoint_save_leaves_no_other_files(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "epoch-1", TENSORS, DOCUMENT)
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-1"]


@pytest.mark.parametrize("part", ["tensors.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
def test_checkpoint_load_rejects_each_kind_of_damage(
    tmp_path: Path, part: str, damage: str
) -> None:
    folder = tmp_path / "epoch-1"
    checkpoint.save(folder, TENSORS, DOCUMENT)
    path = folder / part
    content = path.read_bytes()
    match damage:
        case "truncated":
            path.write_bytes(content[:-1])
        case "flipped":
            path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
        case "missing":
            path.unlink()
    with pytest.raises(CheckpointError, match=str(folder)):
        checkpoint.load(folder)


def test_checkpoint_save_leaves_no_folder_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        checkpoint.save(tmp_path / "epoch-1", TENSORS, {"no": object()})
    assert not list(tmp_path.iterdir())


def test_replacing_writes_a_whole_folder_or_none(tmp_path: Path) -> None:
    folder = tmp_path / "new"

    def write(*, fails: bool) -> None:
        with replacing(folder, durable=False) as part:
            part.mkdir()
            (part / "file").write_text("x")
            if fails:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(fails=True)
    assert list(tmp_path.iterdir()) == []
    write(fails=False)
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "file"]
