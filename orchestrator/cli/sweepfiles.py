"""Commands validate, sweeps, new and schema."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import common
from orchestrator.cli.common import AsJson, Overrides, SweepFile
from orchestrator.errors import SpecError, UsageError

if TYPE_CHECKING:
    from orchestrator.sweepfile.shipped import ShippedSweep
    from orchestrator.sweepfile.spec import SweepSpec


def validate(file: SweepFile, set_: Overrides = [], json: AsJson = False) -> None:  # noqa: B006
    """Check a sweep file, and name every problem with its line."""
    from orchestrator.sweepfile.loader import load_sweep

    try:
        spec = load_sweep(file, set_)
    except SpecError as error:
        if json:
            problems = [
                {"path": p.path, "line": p.line, "message": p.message} for p in error.problems
            ]
            common.emit({"ok": False, "errors": problems})
            raise typer.Exit(2) from error
        raise
    notes = [*spec.notes, *_of_warm_start(spec)]
    common.say_notes(notes)
    if json:
        common.emit({"ok": True, "errors": [], "notes": notes, "id": spec.sweep_id})
    else:
        print(f"{file} is valid (sweep id {spec.sweep_id}).")


def _of_warm_start(spec: "SweepSpec") -> list[str]:
    """Describe the trials that the search takes from another sweep, or why it can take none."""
    if spec.search is None or spec.search.warm_start is None:
        return []  # the import takes a second
    from orchestrator.results import warm_start

    try:
        found = warm_start.read(spec, common.settings())
    except UsageError as error:
        return [str(error)]
    return [found.summary] if found else []


def sweeps(json: AsJson = False) -> None:
    """List the shipped sweeps: what each reproduces, its size, and its published figure.

    `run NAME` runs one; `new FILE --from NAME` copies one to a file of yours.
    """
    from orchestrator.sweepfile.shipped import shipped

    rows = [_described(sweep) for sweep in shipped().values()]
    if json:
        common.emit(rows)
        return
    common.table(
        ("sweep", "published", "trials", "epochs", "reproduces"),
        (
            (row["name"], row["published"], row["trials"], row["epochs"], _first(row["about"]))
            for row in rows
        ),
    )


def new(
    file: Annotated[Path, typer.Argument(help="The file to write, YAML.", show_default=False)],
    from_: Annotated[
        str,
        typer.Option(
            "--from", help="The shipped sweep to copy.", autocompletion=common.shipped_names
        ),
    ] = "quickstart",
) -> None:
    """Write a sweep file of yours, which starts as a copy of a shipped one."""
    from orchestrator.sweepfile.messages import nearest
    from orchestrator.sweepfile.shipped import copied, shipped

    if from_ not in shipped():
        raise UsageError(f"no shipped sweep is named `{from_}`; {nearest(from_, shipped())}")
    name = re.sub(r"[^a-z0-9_-]+", "_", file.stem.lower())
    try:
        with file.open("x") as out:
            out.write(copied(shipped()[from_], file, name))
    except FileExistsError:
        raise UsageError(f"{file} exists; give another name") from None
    common.tell(
        f"{file} is a copy of the shipped sweep {from_}\n"
        f"  edit   aae-sweep schema > {file.parent / 'schema.json'}  (completion in an editor)\n"
        f"  check  aae-sweep validate {file}\n"
        f"  try    aae-sweep run {file} --smoke\n"
        f"  run    aae-sweep run {file}"
    )


def schema(
    builtin: Annotated[
        bool, typer.Option("--builtin", help="Leave out what other installed packages declare.")
    ] = False,
) -> None:
    """Print the JSON Schema of the sweep file, for editors."""
    from json import dumps

    from orchestrator.sweepfile.schema import sweep_schema

    print(dumps(sweep_schema(installed=not builtin), indent=1))


COMMANDS = (validate, sweeps, new, schema)


def _described(sweep: "ShippedSweep") -> dict[str, Any]:
    from dashboards.paper import printed_figure
    from orchestrator.sweepfile.loader import load_sweep

    spec = load_sweep(sweep.file)
    searched = spec.search.planned if spec.search else 0
    epochs = searched * spec.max_epochs + spec.confirmations * spec.confirm_epochs
    return {
        "name": sweep.name,
        "file": str(sweep.file),
        "about": sweep.about,
        "data": spec.data.name,
        "model": spec.model.kind,
        "trials": searched + spec.confirmations,
        "epochs": epochs,  # without pruning
        "published": printed_figure(spec.resolved(), spec.objective.metric) or None,
    }


def _first(about: str) -> str:
    """Return the first sentence."""
    return re.split(r"\. (?=[A-Z])", about, maxsplit=1)[0].rstrip(".")
