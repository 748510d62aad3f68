"""Garbage-collect the checkpoints of a sweep that are no longer needed.

Confirmed models and the search's candidates need their checkpoints.  Every trial that will resume
needs its last checkpoint and one to fall back on.  While a driver holds the lock, running trials
are not touched.  A trial's checkpoints are removed only after the study has recorded the trial's
end, so a process may die at any time without losing a checkpoint to resume from.
"""

import logging
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from orchestrator.errors import SweepLocked
from orchestrator.records import RunRecord
from orchestrator.results import ranking
from orchestrator.settings import Settings
from orchestrator.study.database import StudyStorage
from orchestrator.study.lock import held
from orchestrator.study.study import StageStudy

_GENERATIONS = 2  # of checkpoints, per trial that will resume
_EVERY = 50  # a pass reads all trials, so the gap between passes grows by 1 per 50 trials
_OVER = frozenset(("complete", "pruned", "diverged"))

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Removed:
    folder: Path
    bytes: int


def clean(
    settings: Settings,
    storage: StudyStorage,
    sweep: str,
    *,
    dry_run: bool = False,
    keep_failed: bool = False,
) -> list[Removed]:
    """Remove, or only list, the checkpoints that the sweep does not need.

    Unless `keep_failed`, a retry of a failed trial starts from its first epoch.  The function
    holds the sweep's lock.  If a driver holds the lock, only ended trials are touched.
    """
    search = StageStudy.read(storage, sweep, "search")
    assert search is not None, sweep
    if not (settings.trials_folder(sweep)).exists():
        return []
    with ExitStack() as stack:
        try:
            stack.enter_context(held(settings, sweep))
        except SweepLocked:
            driven = True
        else:
            driven = False
        confirm = StageStudy.read(storage, sweep, "confirm")
        over = _OVER if keep_failed else _OVER | {"failed"}
        return _clean(settings, sweep, search, confirm, over, driven=driven, dry_run=dry_run)


def after_trial(
    settings: Settings,
    sweep: str,
    search: StageStudy,
    confirm: StageStudy,
    number: int,
    disk_gb: float | None,
) -> None:
    """Keep the sweep's checkpoints within a disk budget; the driver calls this as a trial ends.

    Only trials whose end is in the study lose checkpoints.  Failed trials keep those that a retry
    resumes from.  Passes become rarer with more trials, so the cost per trial does not grow.
    """
    if disk_gb is None or number % (1 + number // _EVERY):
        return
    if _size(settings.trials_folder(sweep)) > 1e9 * disk_gb:
        _clean(settings, sweep, search, confirm, _OVER, driven=True, dry_run=False)


def clean_parzen(settings: Settings, *, dry_run: bool = False) -> list[Removed]:
    """Remove, or only list, the unfinished files of Parzen jobs that no process runs."""
    folder = settings.parzen_folder
    removed: list[Removed] = []
    for path in sorted((*folder.glob("*.unfinished"), *folder.glob(".*.tmp"))):
        key = path.name.strip(".").partition(".")[0]
        with suppress(Timeout), FileLock(folder / f"{key}.lock", timeout=0):
            removed += _remove([path], dry_run)
    return removed


def _clean(
    settings: Settings,
    sweep: str,
    search: StageStudy,
    confirm: StageStudy | None,
    over: frozenset[str],
    *,
    driven: bool,
    dry_run: bool,
) -> list[Removed]:
    trials = settings.trials_folder(sweep)
    searched, confirmed = search.records(), confirm.records() if confirm else []
    winners = [*_best_trials(search, searched), *(r for r in confirmed if r.state == "complete")]
    ended = [r for r in (*searched, *confirmed) if r.state in over]
    unfinished = [r for r in (*searched, *confirmed) if r.state not in over]
    needed = {Path(r.checkpoint) for r in winners if r.checkpoint}
    for record in unfinished:
        needed.update(_resumable(trials, record))
    touched = (
        [settings.trial_folder(sweep, r.stage, r.number) for r in ended]
        if driven
        else sorted(trials.glob("*"))  # includes failed trials that a retry has replaced
    )
    found = (path for trial in touched for path in _saved(trial) if path not in needed)
    removed = _remove(found, dry_run)
    if not dry_run:
        for attempt in {r.folder.parent for r in removed}:
            with suppress(OSError):  # the folder holds needed checkpoints
                attempt.rmdir()
    return removed


def _best_trials(search: StageStudy, records: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the search's candidates, which are confirmed or, until then, shown as the best."""
    if not records:
        return []
    confirm = search.state.spec["confirm"]
    return ranking.best_trials(records, search.objectives, top=confirm["top"], per=confirm["per"])


def _resumable(trials: Path, record: RunRecord) -> Iterator[Path]:
    """Yield the last recorded checkpoint, and the one before from any attempt as a fallback."""
    if record.checkpoint is not None:
        last = Path(record.checkpoint)
        folders = {trials / f"{record.stage}-{record.number:04d}", last.parent.parent}
        saved = (path for folder in folders for path in folder.glob("*/epoch-*"))
        before = sorted((path for path in saved if path.name <= last.name), key=lambda p: p.name)
        yield from {last, *before[-_GENERATIONS:]}


def _saved(trial: Path) -> list[Path]:
    """Return the checkpoints of all attempts, including unfinished ones (`.epoch-….tmp`)."""
    return sorted(trial.glob("*/*epoch-*"))


def _size(folder: Path) -> int:
    """Return the size in bytes; files that are removed meanwhile count as 0."""
    size = 0
    for file in folder.rglob("*"):
        with suppress(FileNotFoundError):
            size += file.lstat().st_size
    return size


def _remove(folders: Iterable[Path], dry_run: bool) -> list[Removed]:
    """Remove, or only list, folders; log those that cannot be removed, and leave them."""
    removed = []
    for folder in folders:
        try:
            size = _size(folder)
            if not dry_run:
                shutil.rmtree(folder)
        except FileNotFoundError:
            continue  # another process has just removed the folder
        except OSError as error:
            _log.warning("%s cannot be removed: %s", folder, error)
        else:
            removed.append(Removed(folder, size))
    return removed
