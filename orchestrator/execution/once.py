"""Results that are computed once, and stored by everything that they depend on."""

import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch import Tensor

from aae_core import checkpoint
from aae_core.errors import CheckpointError
from aae_core.reading import digest
from orchestrator.errors import EnvironmentUnusable, SweepLocked

Result = tuple[Mapping[str, Tensor], Mapping[str, Any]]  # tensors, and a JSON document

_log = logging.getLogger(__name__)


def once(
    folder: Path, content: Mapping[str, Any], compute: Callable[[Path], Result]
) -> tuple[Result, bool]:
    """Return `compute(unfinished)` and False, or the stored result for `content` and True.

    `content` is everything that the result depends on. Unfinished work stays in the folder
    `unfinished` below `folder`, for the next try.

    Raises SweepLocked while another process computes the same content, and EnvironmentUnusable if
    the folder cannot be written to.
    """
    path = folder / digest(content)
    unfinished = path.with_suffix(".unfinished")
    try:
        unfinished.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentUnusable(
            f"{folder} cannot be written to ({error.strerror}); "
            "set AAE_HOME to a folder that can be"
        ) from error
    try:
        with FileLock(f"{path}.lock", timeout=0):
            known = stored(folder, content)
            result = known or compute(unfinished)
            if known is None:
                checkpoint.save(path, *result)
            shutil.rmtree(unfinished)
            return result, known is not None
    except Timeout:
        raise SweepLocked(
            "another process scores the same samples and images; wait until it ends"
        ) from None


def stored(folder: Path, content: Mapping[str, Any]) -> Result | None:
    """Return the stored result for `content`, if there is one; remove a damaged one."""
    path = folder / digest(content)
    if not path.exists():
        return None
    try:
        return checkpoint.load(path)
    except CheckpointError as error:
        _log.warning("Parzen: %s; it is scored again", error)
        shutil.rmtree(path)
        return None
