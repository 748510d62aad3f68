"""Which checkpoints of a sweep nobody will ask for any more, and their removal.

Needed are those of the confirmed models and of the search's contenders, and, of every trial that
will go on, the last and the one to fall back on.  Trials under way are let alone while a driver
holds the sweep, and a trial's checkpoints go only after the ledger has heard of its end: whatever
dies in between, what is resumed is still there.
"""

import logging
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from optuna.storages import RDBStorage

from orchestrator.errors import SweepHeld
from orchestrator.records import RunRecord
from orchestrator.results import ranking
from orchestrator.settings import Settings
from orchestrator.study.lock import held
from orchestrator.study.study import Ledger

_GENERATIONS = 2  # of a trial that will go on
_EVERY = 50  # a pass looks at all trials, so it waits for one more end in so many
_OVER = frozenset(("complete", "pruned", "diverged"))

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Removed:
    folder: Path
    bytes: int


def clean(
    settings: Settings,
    storage: RDBStorage,
    sweep: str,
    *,
    dry_run: bool = False,
    keep_failed: bool = False,
) -> list[Removed]:
    """Remove, or only name, what the sweep does not need.

    Failed trials can then start anew at best, unless `keep_failed`. The sweep is held meanwhile;
    where a driver holds it, only ended trials are touched.
    """
    search = Ledger.read(storage, sweep, "search")
    assert search is not None, sweep
    if not (settings.sweep_folder(sweep) / "trials").exists():
        return []
    with ExitStack() as stack:
        try:
            stack.enter_context(held(settings, sweep))
        except SweepHeld:
            driven = True
        else:
            driven = False
        confirm = Ledger.read(storage, sweep, "confirm")
        over = _OVER if keep_failed else _OVER | {"failed"}
        return _clean(settings, sweep, search, confirm, over, driven=driven, dry_run=dry_run)


def after_trial(
    settings: Settings,
    sweep: str,
    search: Ledger,
    confirm: Ledger,
    number: int,
    disk_gb: float | None,
) -> None:
    """For the driver, as trial `number` ends: keep the sweep's checkpoints within a disk budget.

    What trials left whose ends the ledger knows goes; failed ones keep what a retry goes on from.
    The more trials, the rarer the passes: what they cost per trial does not grow.
    """
    if disk_gb is None or number % (1 + number // _EVERY):
        return
    if _size(settings.sweep_folder(sweep) / "trials") > 1e9 * disk_gb:
        _clean(settings, sweep, search, confirm, _OVER, driven=True, dry_run=False)


def clean_parzen(settings: Settings, *, dry_run: bool = False) -> list[Removed]:
    """Remove, or only name, what Parzen jobs that nobody runs have left unfinished."""
    folder = settings.home / "parzen"
    removed: list[Removed] = []
    for path in sorted((*folder.glob("*.unfinished"), *folder.glob(".*.tmp"))):
        key = path.name.strip(".").partition(".")[0]
        with suppress(Timeout), FileLock(folder / f"{key}.lock", timeout=0):
            removed += _remove([path], dry_run)
    return removed


def _clean(
    settings: Settings,
    sweep: str,
    search: Ledger,
    confirm: Ledger | None,
    over: frozenset[str],
    *,
    driven: bool,
    dry_run: bool,
) -> list[Removed]:
    trials = settings.sweep_folder(sweep) / "trials"
    searched, confirmed = search.records(), confirm.records() if confirm else []
    winners = [*_contenders(search, searched), *(r for r in confirmed if r.state == "complete")]
    ended = [r for r in (*searched, *confirmed) if r.state in over]
    unfinished = [r for r in (*searched, *confirmed) if r.state not in over]
    needed = {_here(trials, r.checkpoint) for r in winners if r.checkpoint}
    for record in unfinished:
        needed.update(_to_go_on(trials, record))
    touched = (
        [settings.trial_folder(sweep, r.stage, r.number) for r in ended]
        if driven
        else sorted(trials.glob("*"))  # with those that a retry stands for
    )
    found = (path for trial in touched for path in _saved(trial) if path not in needed)
    removed = _remove(found, dry_run)
    if not dry_run:
        for attempt in {r.folder.parent for r in removed}:
            with suppress(OSError):  # it holds what is needed
                attempt.rmdir()
    return removed


def _contenders(search: Ledger, records: Sequence[RunRecord]) -> list[RunRecord]:
    """Those that are confirmed, or shown as the best until then."""
    if not records:
        return []
    confirm = search.attribute("spec")["confirm"]
    return ranking.contenders(records, search.goals, top=confirm["top"], per=confirm["per"])


def _to_go_on(trials: Path, record: RunRecord) -> Iterator[Path]:
    """The last one that the ledger knows, and of any attempt the one before, to fall back on."""
    if record.checkpoint is not None:
        last = _here(trials, record.checkpoint)
        folders = {trials / f"{record.stage}-{record.number:04d}", last.parent.parent}
        saved = (path for folder in folders for path in folder.glob("*/epoch-*"))
        before = sorted((path for path in saved if path.name <= last.name), key=lambda p: p.name)
        yield from {last, *before[-_GENERATIONS:]}


def _here(trials: Path, checkpoint: str) -> Path:
    """Where a checkpoint lies, though the home may have been moved since it was noted."""
    return trials.joinpath(*Path(checkpoint).parts[-3:])


def _saved(trial: Path) -> list[Path]:
    """The checkpoints of all attempts, and those that were never finished (`.epoch-….tmp`)."""
    return sorted(trial.glob("*/*epoch-*"))


def _size(folder: Path) -> int:
    """Bytes; what somebody removes meanwhile counts for nothing."""
    size = 0
    for file in folder.rglob("*"):
        with suppress(FileNotFoundError):
            size += file.lstat().st_size
    return size


def _remove(folders: Iterable[Path], dry_run: bool) -> list[Removed]:
    """What cannot be removed now is left to the next time."""
    removed = []
    for folder in folders:
        try:
            size = _size(folder)
            if not dry_run:
                shutil.rmtree(folder)
        except FileNotFoundError:
            continue  # somebody else has just removed it
        except OSError as error:
            _log.warning("%s cannot be removed: %s", folder, error)
        else:
            removed.append(Removed(folder, size))
    return removed
