"""data, ui, doctor: the machine around the sweeps."""

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import common
from orchestrator.cli.common import AsJson, say
from orchestrator.errors import EnvironmentUnusable, UsageError

if TYPE_CHECKING:
    from aae_core.data import DataSet

data = typer.Typer(help="List, fetch or verify the data sets.", no_args_is_help=True)
DataName = Annotated[str, typer.Argument(help="digits, mnist, fashion_mnist, svhn or tfd.")]


@data.command("list")
def list_(json: AsJson = False) -> None:
    """List the data sets, and whether their files are there."""
    from aae_core.data import catalogue

    described = catalogue(common.settings().data)
    if json:
        common.emit(
            [
                {
                    "name": d.name,
                    "present": not d.missing,
                    "files": [str(file.path) for file in d.files],
                    "sizes": d.sizes,
                    "source": d.source,
                    "licence": d.licence,
                    "obtain": d.obtain,
                }
                for d in described
            ]
        )
        return
    common.table(
        ("data set", "there", "train / valid / test", "source", "licence"),
        (
            (
                d.name,
                "no" if d.missing else "yes",
                " / ".join(f"{n:,}" for n in d.sizes.values()),
                d.source,
                d.licence,
            )
            for d in described
        ),
    )
    for d in described:
        if d.missing and d.obtain:
            say(d.obtain)


@data.command()
def fetch(
    name: DataName,
    extra: Annotated[
        bool, typer.Option("--extra", help="SVHN's 531,131 extra images as well.")
    ] = False,
) -> None:
    """Download a data set's files where they are missing."""
    if extra and name != "svhn":
        raise UsageError(f"{name} has no extra images; drop --extra")
    _open(name, extra=extra).fetch("train", "test")
    say(f"{name} is in {common.settings().data}")


@data.command()
def verify(name: DataName, json: AsJson = False) -> None:
    """Read a data set's files and compare them with their published checksums."""
    verdicts = _open(name).verify()
    if json:
        common.emit([{"file": str(v.path), "ok": v.ok, "problem": v.problem} for v in verdicts])
    else:
        for v in verdicts:
            print(v.problem or f"{v.path}: ok")
    if not all(v.ok for v in verdicts):
        raise typer.Exit(4)


def ui(port: Annotated[int, typer.Option(min=1, max=65535)] = 5000) -> None:
    """Open the MLflow UI on the sweeps of this home; it listens on this machine alone."""
    from orchestrator.tracking import ui_command, ui_url

    settings = common.settings()
    if settings.tracking_uri.startswith("http"):
        print(ui_url(settings, port))
        return
    settings.home.mkdir(parents=True, exist_ok=True)
    command, environment = ui_command(settings, port)
    say(f"MLflow on {ui_url(settings, port)}; Ctrl-C ends it")
    sys.stdout.flush()
    os.execvpe(command[0], command, os.environ | environment)


def doctor(json: AsJson = False) -> None:
    """Check what a sweep needs on this machine; each failure comes with its remedy."""
    checks = []
    for name, check in _CHECKS.items():
        try:
            ok, detail = True, check()
        except Exception as error:
            ok, detail = False, str(error)
        checks.append({"check": name, "ok": ok, "detail": detail})
        if not json:
            print(f"{'ok  ' if ok else 'FAIL'}  {name}: {detail}", flush=True)
    healthy = all(c["ok"] for c in checks)
    if json:
        common.emit({"ok": healthy, "checks": checks})
    if not healthy:
        raise typer.Exit(4)


COMMANDS = (ui, doctor)


def _open(name: str, *, extra: bool = False) -> "DataSet":
    from aae_core.config import DataConfig
    from aae_core.data import catalogue, open_data_set

    root = common.settings().data
    known = [described.name for described in catalogue(root)]
    if name not in known:
        raise UsageError(f"unknown data set `{name}`; there are {', '.join(known)}")
    return open_data_set(DataConfig(name, extra=extra), root)  # type: ignore[arg-type]


def _versions() -> str:
    from importlib.metadata import version

    packages = ("aae-sweep", "torch", "ray", "optuna", "mlflow")
    return ", ".join(f"{name} {version(name)}" for name in packages)


def _home() -> str:
    settings = common.settings()
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        probe = settings.home / f".doctor-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise EnvironmentUnusable(
            f"{settings.home} cannot be written ({error.strerror}); set AAE_HOME to a folder of "
            "yours"
        ) from error
    free = os.statvfs(settings.home)
    return f"{settings.home}, {free.f_bavail * free.f_frsize / 1e9:.0f} GB free"


def _data() -> str:
    from aae_core.data import catalogue

    root = common.settings().data
    described = catalogue(root)
    there = [d.name for d in described if not d.missing]
    others = [d.name for d in described if d.missing and not d.obtain]
    fetched = f"; {', '.join(others)} are fetched when first used" if others else ""
    return f"{root}: {', '.join(there)} ready{fetched}"


def _studies() -> str:
    from orchestrator.study import open_storage, sweep_ids

    return f"{len(sweep_ids(open_storage(common.settings(), read_only=True)))} sweeps"


def _tracking() -> str:
    from orchestrator.spool import Spool
    from orchestrator.tracking import MlflowWriter

    settings = common.settings()
    with Spool(settings.spool) as spool:
        sent = MlflowWriter(spool, settings.tracking_uri, settings.mlflow_artifacts).sync_once()
    return f"MLflow answers; {sent} records that it missed were sent"


def _ray() -> str:
    from orchestrator import cluster

    with cluster.connected(common.settings()):
        has = cluster.capacity()
    return f"{has['cpu']:g} CPUs, {has['gpu']:g} GPUs"


def _accelerator() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none; models train on the CPU"
    return torch.cuda.get_device_name(0)


_CHECKS: dict[str, Callable[[], str]] = {
    "packages": _versions,
    "home": _home,
    "data sets": _data,
    "study storage": _studies,
    "tracking": _tracking,
    "Ray": _ray,
    "GPU": _accelerator,
}
