"""Commands sync and gc: send unsent records to MLflow, and remove unneeded files."""

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import common
from orchestrator.cli.common import AsJson, say
from orchestrator.errors import UsageError
from orchestrator.text import count, size

if TYPE_CHECKING:
    from orchestrator.pipeline.gc import Removed
    from orchestrator.settings import Settings
    from orchestrator.tracking.mlflow_writer import MlflowWriter
    from orchestrator.tracking.outbox import Outbox

SweepOrAll = Annotated[
    str | None,
    typer.Argument(help="A sweep's name, id, prefix of an id, or `latest`; all by default."),
]


def sync(
    sweep: SweepOrAll = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Send everything to a new database of MLflow.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Send MLflow every metric and artifact that it missed.

    Runs that a killed driver left as RUNNING end as KILLED. With --rebuild everything is sent again
    to a new database; the former one is set aside.
    """
    from orchestrator.tracking.mlflow_writer import in_words

    if rebuild and sweep is not None:
        raise UsageError(f"--rebuild sends every sweep to a new store; drop {sweep}")
    name = common.reader().resolve(sweep) if sweep is not None else None
    killed, sent = _send(common.settings(), name, rebuild=rebuild)
    if json:
        common.emit({"sweep": name, "killed": killed, "sent": sent})
        return
    if killed:
        say(f"marked as killed with their driver: {in_words({'runs': killed})}")
    print(f"sent to MLflow: {in_words(sent)}" if any(sent.values()) else "nothing to send")


def gc(
    sweep: SweepOrAll = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be removed, and remove nothing.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Garbage-collect: remove the checkpoints that nothing needs.

    The command keeps those of confirmed models, of the search's best trials and of trials that will
    resume. Without a sweep's name it also removes the parts of unfinished Parzen jobs.
    """
    from orchestrator.pipeline.gc import clean, clean_parzen
    from orchestrator.study.study import open_storage

    reader = common.reader()
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
            folders = count(len(removed), "folder")
            print(f"{name}: {folders}, {size(sum(r.bytes for r in removed))} {freed}")
    if not any((*found.values(), parzen)):
        print("nothing to remove")


COMMANDS = (sync, gc)


def _send(settings: "Settings", sweep: str | None, *, rebuild: bool) -> tuple[int, dict[str, int]]:
    """Close abandoned runs and send the outbox. Return the number closed and the numbers sent."""
    from orchestrator.tracking.mlflow_writer import MlflowWriter
    from orchestrator.tracking.outbox import Outbox

    nothing = dict.fromkeys(("runs", "metrics", "artifacts"), 0)
    if not settings.outbox.exists():
        return 0, nothing
    with Outbox(settings.outbox) as outbox:
        killed = _close_abandoned(outbox, settings, sweep)
        writer = MlflowWriter(outbox, settings.tracking_uri, settings.mlflow_artifacts, sweep)
        if rebuild:
            _start_over(writer, outbox, settings)
        try:
            writer.sync_once()
        finally:
            for restored in writer.restored:
                say(restored)
    return killed, nothing | writer.sent


def _start_over(writer: "MlflowWriter", outbox: "Outbox", settings: "Settings") -> None:
    """Make the next pass fill a new store. Raises SweepLocked while a driver uses the old one."""
    from orchestrator.errors import SweepLocked
    from orchestrator.study.lock import is_held

    running = [run.key for run in outbox.runs() if run.parent is None]
    running = [sweep for sweep in running if is_held(settings, sweep)]
    if running:
        raise SweepLocked(
            f"{running[0]} runs and sends to MLflow; stop it first: aae-sweep stop {running[0]}"
        )
    aside = writer.start_over()
    if aside is not None:
        say(
            f"the former database is {aside}: registered models, and whatever else did not come "
            "from sweeps of this home, are only there"
        )


def _close_abandoned(outbox: "Outbox", settings: "Settings", sweep: str | None) -> int:
    """Close runs that are RUNNING although no driver holds their sweep. Return their number."""
    from orchestrator.errors import SweepLocked
    from orchestrator.study.lock import held

    closed = 0
    for name in {run.sweep for run in outbox.runs(sweep) if run.status == "RUNNING"}:
        with suppress(SweepLocked), held(settings, name):  # keeps drivers from starting meanwhile
            closed += outbox.abandon(name)
    return closed


def _listed(removed: "list[Removed]") -> dict[str, Any]:
    return {
        "folders": [str(r.folder) for r in removed],
        "bytes": sum(r.bytes for r in removed),
    }
