"""Checkpoints: folders that are either complete and verified, or absent.

`tensors.safetensors` holds tensors, `state.json` all other state.  `manifest.json`, written last,
holds the SHA-256 of both files.  `save` writes to a temporary folder and renames this folder once
its files are on disk.  Reading a checkpoint never executes code from the checkpoint.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from aae_core.errors import CheckpointError
from aae_core.files import replacing

_MANIFEST = "manifest.json"
_PARTS = ("tensors.safetensors", "state.json")


def save(folder: Path, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
    """Write a checkpoint to `folder`, which must not exist yet; create parent folders."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    try:
        parts = {
            _PARTS[0]: safetensors.torch.save({k: t.contiguous() for k, t in tensors.items()}),
            _PARTS[1]: json.dumps(document).encode(),
        }
        for name, content in parts.items():
            _write_durably(building / name, content)
        manifest = {name: hashlib.sha256(content).hexdigest() for name, content in parts.items()}
        _write_durably(building / _MANIFEST, json.dumps(manifest).encode())
        _sync_folder(building)
        building.rename(folder)
        _sync_folder(folder.parent)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def load(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read and verify a checkpoint's tensors (on the CPU) and document.

    Raises CheckpointError for a missing, incomplete or damaged checkpoint.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such checkpoint folder")
    try:
        manifest = json.loads((folder / _MANIFEST).read_bytes())
        parts = {name: (folder / name).read_bytes() for name in _PARTS}
        for name, content in parts.items():
            if hashlib.sha256(content).hexdigest() != manifest[name]:
                raise CheckpointError(
                    f"{folder / name}: damaged: the contents do not match their checksum"
                )
        return safetensors.torch.load(parts[_PARTS[0]]), json.loads(parts[_PARTS[1]])
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{folder}: not a complete checkpoint ({error})") from error


def save_part(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors of an unfinished job to one file, atomically unless the machine crashes."""
    content = safetensors.torch.save({k: t.contiguous() for k, t in tensors.items()})
    with replacing(path, durable=False) as part:
        part.write_bytes(hashlib.sha256(content).digest() + content)


def load_part(path: Path) -> dict[str, Tensor]:
    """Read and verify a file of `save_part`.  Raises CheckpointError for a damaged file."""
    content = path.read_bytes()
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        raise CheckpointError(f"{path}: damaged: the contents do not match their checksum")
    return safetensors.torch.load(content[32:])


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
