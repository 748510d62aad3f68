"""Write docs/commands.md from the help of the commands.

make docs
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from orchestrator.cli import PANELS, app

PAGE = Path(__file__).with_name("commands.md")
PROGRAM = "aae-sweep"
INTRODUCTION = """\
# Commands

<!-- `make docs` writes this page from the help of the commands (docs/commands.py). -->

`aae-sweep COMMAND --help` prints the same text in a terminal. `aae-sweep --install-completion`
completes commands, sweeps and `--set` keys in your shell.

| exit code | meaning |
|---|---|
| 0 | done; pruned and diverged trials are results |
| 2 | wrong input; nothing was started |
| 3 | finished, but some trials failed |
| 4 | the environment is not usable; the message has the remedy |
| 130 | interrupted; the same command resumes |
"""


def page() -> str:
    """Return the page: a section for each group of commands, in the order of `--help`."""
    root = get_command(app)
    context = root.context_class(root, info_name=PROGRAM, terminal_width=80)
    parts = [INTRODUCTION]
    for panel in PANELS:
        parts.append(f"## {panel}\n")
        parts += [
            described(command, context)
            for command in root.commands.values()
            if command.rich_help_panel == panel
        ]
    return "\n".join(parts)


def described(command: Any, parent: Any) -> str:
    """Return the section of a command, with those of its subcommands."""
    context = command.context_class(command, info_name=command.name, parent=parent)
    usage = context.get_usage().removeprefix("Usage: ")
    words = [f"### `{context.command_path}`", command.help.strip(), f"```text\n{usage}\n```"]
    if rows := list(parameters(command, context)):
        words.append("\n".join(["| parameter | meaning |", "|---|---|", *rows]))
    inner = getattr(command, "commands", {}).values()
    return "\n".join([*(f"{word}\n" for word in words), *(described(c, context) for c in inner)])


def parameters(command: Any, context: Any) -> Iterator[str]:
    for parameter in command.get_params(context):
        if "--help" not in parameter.opts and (record := parameter.get_help_record(context)):
            name, text = (cell.replace("|", "\\|") for cell in record)
            yield f"| `{name}` | {text} |"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
