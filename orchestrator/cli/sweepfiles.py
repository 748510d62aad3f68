"""Commands validate and schema."""

from typing import Annotated

import typer

from orchestrator.cli import common
from orchestrator.cli.common import AsJson, Overrides, SweepFile
from orchestrator.errors import SpecError


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
    common.say_notes(spec.notes)
    if json:
        common.emit({"ok": True, "errors": [], "notes": spec.notes, "id": spec.sweep_id})
    else:
        print(f"{file} is valid (sweep id {spec.sweep_id}).")


def schema(
    builtin: Annotated[
        bool, typer.Option("--builtin", help="Leave out what other installed packages declare.")
    ] = False,
) -> None:
    """Print the JSON Schema of the sweep file, for editors."""
    from json import dumps

    from orchestrator.sweepfile.schema import sweep_schema

    print(dumps(sweep_schema(installed=not builtin), indent=1))


COMMANDS = (validate, schema)
