"""Shared parts of the commands: options, output, and the lookup of sweeps and checkpoints."""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from shutil import get_terminal_size
from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator import disk
from orchestrator.cli import on_host
from orchestrator.errors import SweepError, UsageError
from orchestrator.settings import Settings
from orchestrator.text import count, number

if TYPE_CHECKING:
    from orchestrator.documents import Best, Status
    from orchestrator.results.reader import ResultsReader


def _sweep_names(incomplete: str) -> list[str]:
    """Complete a sweep's name or id. Return none if AAE_HOME is unusable: shells show no errors."""
    try:
        known = reader().sweeps()
    except SweepError:
        return []
    names = [*(sweep.rpartition("-")[0] for sweep in known), *known, "latest"]
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]


def _override_keys(incomplete: str) -> list[str]:
    """Complete the key of `--set key.path=value`."""
    from orchestrator.sweepfile.messages import keys
    from orchestrator.sweepfile.spec import SweepSpec

    return [f"{key}=" for key in keys(SweepSpec) if key.startswith(incomplete)]


def shipped_names(incomplete: str) -> list[str]:
    from orchestrator.sweepfile.shipped import shipped

    return [name for name in shipped() if name.startswith(incomplete)]


SweepFile = Annotated[
    Path,
    typer.Argument(
        help="The sweep file, YAML, or a shipped sweep's name.",
        show_default=False,
        autocompletion=shipped_names,
    ),
]
SweepName = Annotated[
    str,
    typer.Argument(
        help="A sweep's name, id, prefix of an id, or `latest`.", autocompletion=_sweep_names
    ),
]
Overrides = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY.PATH=VALUE",
        help="Override a key of the file; repeatable.",
        autocompletion=_override_keys,
    ),
]
_PIPE_WIDTH = 1000  # columns; programs that read the output get unbroken rows
_UNBROKEN = 20  # columns; a table breaks no narrower cell
_GAP = 2  # columns between the columns of a table
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document, nothing else.")]


def settings() -> Settings:
    return Settings.from_environment()


def writable() -> Settings:
    """Return the settings for a command that writes to the home.

    Raises EnvironmentUnusable if no file can be written there, before any work is lost.
    """
    found = settings()
    disk.require_writable(found.home)
    return found


def reader() -> "ResultsReader":
    from orchestrator.results.reader import ResultsReader

    return ResultsReader(settings())


def tell(message: str) -> None:
    """Print a result in words on stdout."""
    print(on_host.commands(message), flush=True)


def say(message: str) -> None:
    """Print a message on stderr."""
    print(on_host.commands(message), file=sys.stderr, flush=True)


def say_notes(notes: list[str]) -> None:
    for note in notes:
        say(f"note: {note}")


def emit(document: Any) -> None:
    """Print a JSON document, or one line of JSON lines, on stdout."""
    print(json.dumps(document, allow_nan=False, default=str), flush=True)


def table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print aligned plain columns on stdout, no line longer than the terminal or COLUMNS.

    Long cells wrap. Columns that do not fit beside the others follow below, after the first column.
    """
    from rich.console import Console
    from rich.table import Table

    cells = [list(headers), *(list(map(cell, row)) for row in rows)]
    console = Console(file=sys.stdout, width=_width(), highlight=False)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for block, shown in enumerate(_blocks(widths, console.width)):
        sheet = Table(box=None, header_style="bold", pad_edge=False)
        for place in shown:
            whole = widths[place] <= _UNBROKEN or place == 0
            sheet.add_column(cells[0][place], overflow="fold", no_wrap=whole)
        for row in cells[1:]:
            sheet.add_row(*(row[place] for place in shown))
        if block:
            print()
        console.print(sheet, crop=False)


def cell(value: Any) -> str:
    """Format a value as `table` does."""
    if value is None:
        return ""
    return number(value) if isinstance(value, float) else str(value)


def prose(text: str) -> None:
    """Print sentences on stdout, wrapped between words like the cells of a table."""
    for line in on_host.commands(text).splitlines():
        print(fill(line, _width() or get_terminal_size().columns, break_long_words=False))


def report_of(status: "Status") -> str:
    """Return the path of a sweep's report on the user's host, or the command that builds it."""
    path = status["report"]
    return on_host.file(path, settings()) if path else f"aae-sweep report {status['id']}"


def setting(path: str, value: Any) -> str:
    """Format a parameter briefly: `prior.std 2.15`."""
    short = path.removeprefix("model.").removeprefix("training.")
    return f"{short} {value:.3g}" if isinstance(value, float) else f"{short} {value}"


def rivals(best: "Best") -> str | None:
    """Describe the other candidates against the winner, from the document of `best`.

    The text gives verdicts if the sweep file has a margin, else the number of ties.
    """
    from orchestrator.results.verdicts import rivals_in_words

    values = [str(group["value"]) for group in best["groups"]]
    named = [
        (value if values.count(value) == 1 else group["config_hash"], group)
        for value, group in zip(values[1:], best["groups"][1:], strict=True)
    ]
    ties = len(best["tied_with"])
    tied = (
        f"ties with {count(ties, 'other candidate')} (t-tests by seeds, α = 0.05)" if ties else None
    )
    return rivals_in_words(named, best["objective"]["metric"], best["margin"]) or tied


def checkpoint_of(name: str) -> Path:
    """Return the checkpoint folder `name`, or that of the winner of the sweep `name`.

    The winner's checkpoint is that of its first confirmation. Raises UsageError.
    """
    if (Path(name) / "manifest.json").exists():
        return Path(name).resolve()
    if "/" in name:
        raise UsageError(f"{name} is not a checkpoint folder: it has no manifest.json")
    results = reader()
    best = results.best(results.resolve(name))
    if best is None or best["checkpoints"][0] is None:
        raise UsageError(f"{name} has no finished trial yet; see: aae-sweep status {name}")
    return Path(best["checkpoints"][0])


def output(path: Path, *inputs: Path | None) -> Path:
    """Return the absolute path of an output, links followed.

    Raises UsageError if the output is one of the inputs, by any name, or is in an input folder.
    """
    resolved = path.resolve()
    for source in filter(None, inputs):
        same = resolved.exists() and source.exists() and resolved.samefile(source)
        if same or source.resolve() in resolved.parents:
            raise UsageError(f"{path} would overwrite the input {source}; name another output")
    return resolved


def page(path: Path) -> Path:
    """Return the absolute path of an HTML page to write. Raises UsageError for other files."""
    resolved = path.resolve()
    if resolved.is_dir() or (resolved.exists() and resolved.suffix not in (".html", ".htm")):
        raise UsageError(f"{path} exists and is not an HTML page; name another file with --out")
    return resolved


def _width() -> int | None:
    """Return the line width for a pipe; None if COLUMNS or a terminal gives the width."""
    return None if sys.stdout.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH


def _blocks(widths: Sequence[int], width: int) -> Iterator[list[int]]:
    """Yield the columns of each block by their places; every block starts with the first column."""
    block, used = [0], widths[0]
    for place, wanted in enumerate(widths[1:], 1):
        least = _GAP + min(wanted, _UNBROKEN)
        if len(block) > 1 and used + least > width:
            yield block
            block, used = [0], widths[0]
        block.append(place)
        used += least
    yield block
