"""Command reproduce: train a recorded run again and compare the two."""

from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli import common
from orchestrator.cli.common import AsJson, say
from orchestrator.cli.inspect import pick
from orchestrator.errors import EnvironmentUnusable
from orchestrator.text import count


def reproduce(
    run: Annotated[
        str,
        typer.Argument(
            help="A run's id in MLflow; or a sweep and its trial, as in digits/search-3.",
            show_default=False,
        ),
    ],
    data_path: Annotated[
        Path | None, typer.Option("--data-path", help="Present path of the recorded data.path.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Train a recorded run again from MLflow's record, and compare every number.

    On the same kind of CPU with the same versions both runs are identical, bit for bit. Otherwise
    the command names what differs and the largest difference. Exit code 3 where they differ.
    """
    settings, run_id = common.settings(), _run_id(run)
    from orchestrator.pipeline import reproduce

    document: dict[str, Any] = {}
    for event in reproduce.reproduce(reproduce.recorded(settings, run_id), settings, data_path):
        if event.pop("event") == "end":
            document = event
        else:
            say(_progress(event))
    if json:
        common.emit(document)
    else:
        _print(document)
    if not document["identical"]:
        raise typer.Exit(3)


COMMANDS = (reproduce,)


def _run_id(name: str) -> str:
    sweep, slash, trial = name.rpartition("/")
    if not slash:
        return name
    reader = common.reader()
    resolved = reader.resolve(sweep)
    record = pick(reader.trials(resolved), trial)
    if record.run_id is None:
        raise EnvironmentUnusable(
            f"MLflow does not have {resolved}/{trial} yet; send it: aae-sweep sync"
        )
    run_id: str = record.run_id
    return run_id


def _progress(event: dict[str, Any]) -> str:
    if "differing" in event:
        apart = event["differing"]
        verdict = f"differs in {', '.join(apart)}" if apart else "identical"
        return f"epoch {event['epoch']}  {verdict}"
    return (
        f"{event['run']}: seed {event['seed']} on {event['device']}, "
        f"{count(event['threads'], 'thread')}, {count(event['epochs'], 'epoch')} to compare"
    )


def _print(document: dict[str, Any]) -> None:
    name, conditions = document["run"], document["conditions"]
    compared = f"{count(document['values'], 'value')} of {count(document['epochs'], 'epoch')}"
    ends = document["diverged"]
    if document["identical"]:
        end = f", and diverges as it did: {ends['here']}" if ends["here"] else ""
        print(f"{name} is identical, bit for bit: {compared}{end}")
    elif document["metrics"]:
        most = document["max_difference"]
        by = "a value is missing" if most is None else f"by {most:.3g} at most"
        print(f"{name} differs, {by} ({compared} compared)\n")
        common.table(
            ("metric", "epochs that differ", "first", "recorded", "here", "largest difference"),
            (
                (
                    m["metric"],
                    m["epochs"],
                    m["first_epoch"],
                    *(_exactly(m[side]) for side in ("recorded", "here")),
                    "not a number" if m["largest"] is None else f"{m['largest']:.3g}",
                )
                for m in document["metrics"]
            ),
        )
    if ends["recorded"] != ends["here"]:
        print(f"{name} {_ending(ends['recorded'])} when recorded, here it {_ending(ends['here'])}")
    if document["not_compared"]:
        missing = ", ".join(document["not_compared"])
        print(f"not compared, because training does not produce them: {missing}")
    if conditions:
        print("\ndiffers from the recorded training" + (", without effect" * document["identical"]))
        common.table(
            ("", "recorded", "here"),
            ((c["what"], c["recorded"] or "not recorded", c["here"]) for c in conditions),
        )
    elif not document["identical"]:
        print("\nversions, code, CPU, threads, data and configuration match the record")


def _exactly(value: float | None) -> str:
    """Format a value with all digits, since only the last may differ."""
    return "none" if value is None else repr(value)


def _ending(reason: str | None) -> str:
    return f"diverged ({reason})" if reason else "did not diverge"
