"""Commands sync and gc: send unsent records to MLflow, and remove unneeded files."""

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import common
from orchestrator.cli.common import AsJson, say

if TYPE_CHECKING:
    from orchestrator.pipeline.gc import Removed
    from orchestrator.settings import Settings
    from orchestrator.tracking.outbox import Spool

SweepOrAll = Annotated[
    str | None,
    typer.Argument(help="A sweep's name, id, prefix of an id, or `latest`; all without it."),
]


def sync(sweep: SweepOrAll = None, json: AsJson = False) -> None:
    """Send MLflow every metric and artifact that it missed.

    Runs that a killed driver left as RUNNING end as KILLED.
    """
    from orchestrator.tracking.mlflow_writer import in_words

    name = common.history().resolve(sweep) if sweep is not None else None
    killed, sent = _send(common.settings(), name)
    if json:
        common.emit({"sweep": name, "killed": killed, "sent": sent})
        return
    if killed:
        say(f"killed with their driver: {in_words({'runs': killed})}")
    print(f"sent to MLflow: {in_words(sent)}" if any(sent.values()) else "nothing waited")


def gc(
    sweep: SweepOrAll = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be removed.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Garbage-collect: remove the checkpoints that nothing needs.

    The command keeps those of confirmed models, of the search's best trials and of trials that will
    resume. Without a sweep's name it also removes the parts of unfinished Parzen jobs.
    """
    from orchestrator.pipeline.gc import clean, clean_parzen
    from orchestrator.study.study import open_storage

    reader = common.history()
    names = reader.sweeps() if sweep is None else [reader.resolve(sweep)]
    settings = common.settings()
    storage = open_storage(settings, read_only=True)
    found = {name: clean(settings, storage, name, dry_run=dry_run) for name in names}
    parzen = clean_parzen(settings, dry_run=dry_run) if sweep is None else []
    if json:
        common.emit(
            {
                "dry_run": dry_run,
                "sweeps": [{"sweep": name, **_listed(removed)} for name, removed in found.items()],
                "parzen": _listed(parzen),
                "bytes": sum(r.bytes for removed in (*found.values(), parzen) for r in removed),
            }
        )
        return
    for name, removed in {**found, "unfinished Parzen jobs": parzen}.items():
        if removed:
            freed = "would be freed" if dry_run else "freed"
            folders = f"{len(removed):,} folder{'s' if len(removed) > 1 else ''}"
            print(f"{name}: {folders}, {_size(sum(r.bytes for r in removed))} {freed}")
    if not any((*found.values(), parzen)):
        print("nothing to remove")


COMMANDS = (sync, gc)


def _send(settings: "Settings", sweep: str | None) -> tuple[int, dict[str, int]]:
    """Close abandoned runs and send the outbox. Return the number closed and the numbers sent."""
    from orchestrator.tracking.mlflow_writer import MlflowWriter
    from orchestrator.tracking.outbox import Spool

    nothing = dict.fromkeys(("runs", "metrics", "artifacts"), 0)
    if not settings.spool.exists():
        return 0, nothing
    with Spool(settings.spool) as spool:
        killed = _close_abandoned(spool, settings, sweep)
        writer = MlflowWriter(spool, settings.tracking_uri, settings.mlflow_artifacts, sweep)
        writer.sync_once()
    return killed, nothing | writer.sent


def _close_abandoned(spool: "Spool", settings: "Settings", sweep: str | None) -> int:
    """Close runs that are RUNNING although no driver holds their sweep. Return their number."""
    from orchestrator.errors import SweepHeld
    from orchestrator.study.lock import held

    closed = 0
    for name in {run.sweep for run in spool.runs(sweep) if run.status == "RUNNING"}:
        with suppress(SweepHeld), held(settings, name):  # keeps drivers from starting meanwhile
            closed += spool.abandon(name)
    return closed


def _listed(removed: "list[Removed]") -> dict[str, Any]:
    return {
        "folders": [str(r.folder) for r in removed],
        "bytes": sum(r.bytes for r in removed),
    }


def _size(size: float) -> str:
    """Format a size as 12.3 MB, with powers of 1000."""
    unit = "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 999.5:
            break
        size, unit = size / 1000, larger
    return f"{size:.3g} {unit}"
