"""The command `aae-sweep`. Only this package imports all parts of the project.

Data goes to stdout, messages to stderr. Slow imports are inside the commands.
"""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from aae_core.errors import AAEError, ConfigError
from orchestrator import disk
from orchestrator.cli import (
    cluster,
    common,
    compare,
    control,
    environment,
    figures,
    inspect,
    maintenance,
    models,
    reproduce,
    run,
    streams,
    sweepfiles,
)
from orchestrator.errors import Interrupted, SweepError, UsageError
from orchestrator.records import failed_allocation

_LESS_MEMORY = "use a smaller network, batch or data set, or a machine with more memory"


class Commands(TyperGroup):
    """Commands that re-raise an EOFError: Typer would print "Aborted." without a reason."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except EOFError as error:
            raise RuntimeError("a file or an answer ends too early") from error


app = typer.Typer(
    name="aae-sweep",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _tell_version(asked: bool) -> None:
    if asked:
        parts = ", ".join(
            f"{name} {version(name)}" for name in ("ray", "optuna", "mlflow", "torch")
        )
        print(f"aae-sweep {version('aae-sweep')} ({parts})")
        raise typer.Exit


@app.callback()
def _about(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_tell_version, is_eager=True, help="Print the versions and exit."
        ),
    ] = False,
) -> None:
    """Honest, unstoppable hyper-parameter sweeps over adversarial autoencoders."""


PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "Sweeps": (run.run, run.plan, run.train, *sweepfiles.COMMANDS),
    "Control": control.COMMANDS,
    "Results": (*inspect.COMMANDS, *compare.COMMANDS, environment.ui),
    "Models": (*models.COMMANDS, *figures.COMMANDS, *reproduce.COMMANDS),
    "Cluster and data": cluster.COMMANDS,
    "Maintenance": (*maintenance.COMMANDS, environment.doctor),
}
for title, commands in PANELS.items():
    for command in commands:
        app.command(rich_help_panel=title)(command)
app.add_typer(environment.data, name="data", rich_help_panel="Cluster and data")


def main() -> None:
    """Run the command line. The README lists the exit codes."""
    with streams.standard_streams():
        try:
            _require_text(sys.argv)
            with disk.explaining(Path(os.environ.get("AAE_HOME") or "aae-home")):
                _run()
        except SweepError as error:
            _leave(str(error), error.exit_code)
        except ConfigError as error:
            _leave(str(error), 2)
        except AAEError as error:
            _leave(str(error), 4)
        except (MemoryError, RuntimeError) as error:
            reason = failed_allocation(error)
            if reason is None:
                raise
            _leave(f"{reason}\n{_LESS_MEMORY}", 4)
        except KeyboardInterrupt:
            _leave("interrupted", Interrupted.exit_code)
        except Exception as error:
            refused = disk.refusal(error)
            if refused is None:
                raise
            _leave(f"{refused}\ncheck the permissions there, or set AAE_HOME", 4)


def _run() -> None:
    try:
        app()
    except SystemExit:
        sys.stdout.flush()  # here a failure still becomes the exit status
        raise


def _require_text(words: list[str]) -> None:
    """Refuse names that are not UTF-8: the databases, MLflow and the documents keep text."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{word!a} is not UTF-8; rename the file or folder") from None


def _leave(message: str, code: int) -> None:
    if message:
        common.say(message)
    if code == Interrupted.exit_code:  # by Ray, torch and MLflow, Python's own exit takes seconds
        with suppress(SweepError):
            sys.stdout.flush()
        os._exit(code)
    sys.exit(code)
