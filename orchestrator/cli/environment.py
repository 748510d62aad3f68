"""Commands data, ui and doctor: data sets, MLflow's UI and checks of the machines."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator import disk
from orchestrator.cli import common
from orchestrator.cli.common import AsJson, say
from orchestrator.errors import EnvironmentUnusable, UsageError
from orchestrator.text import count, masked

if TYPE_CHECKING:
    from aae_core.data import DataSet
    from orchestrator.execution.doctor import Node

_LEAST_FREE_GB = 1.0
_MOST_SKEW_SECONDS = 2.0
_LOOKING_SECONDS = 0.2  # between two looks at a server that starts

data = typer.Typer(help="List, fetch or verify the data sets.", no_args_is_help=True)
DataName = Annotated[str, typer.Argument(help="digits, mnist, fashion_mnist, svhn or tfd.")]


@data.command("list")
def list_(json: AsJson = False) -> None:
    """List the data sets, and which of them are on this machine."""
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
        bool, typer.Option("--extra", help="Also fetch SVHN's 531,131 extra images.")
    ] = False,
) -> None:
    """Download the missing files of a data set."""
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
            common.tell(v.problem or f"{v.path}: ok")
    if not all(v.ok for v in verdicts):
        raise typer.Exit(4)


def ui(port: Annotated[int, typer.Option(min=1, max=65535)] = 5000) -> None:
    """Serve the MLflow UI with this home's sweeps, on this machine only."""
    from orchestrator.execution.doctor import unreachable
    from orchestrator.tracking.mlflow_writer import make_store, ui_command, ui_url

    settings = common.settings()
    if settings.tracking_uri.startswith("http"):
        if problem := unreachable(settings.tracking_uri):
            raise EnvironmentUnusable(
                f"MLflow at {masked(settings.tracking_uri)} does not answer ({problem})\n"
                "start it, or set MLFLOW_TRACKING_URI to a running server"
            )
        print(ui_url(settings, port))
        return
    _require_free(port)
    command, environment = ui_command(settings, port)
    environment = os.environ | environment
    say("starting MLflow …")  # which takes seconds
    make_store(common.writable().tracking_uri)
    with subprocess.Popen(command, env=environment) as server:
        before = signal.signal(signal.SIGTERM, lambda *_: server.terminate())
        try:
            while server.poll() is None and unreachable(ui_url(settings, port)):
                time.sleep(_LOOKING_SECONDS)
            if server.poll() is None:
                say(f"MLflow on {ui_url(settings, port)}; Ctrl-C ends it")
            raise typer.Exit(server.wait())
        finally:
            server.terminate()  # an interrupt may have reached this process alone
            server.wait()
            signal.signal(signal.SIGTERM, before)


def doctor(json: AsJson = False) -> None:
    """Check what a sweep needs, here and on every node; each failure comes with its remedy."""
    checks: list[dict[str, Any]] = []

    def note(name: str, check: Callable[[], str]) -> None:
        try:
            ok, detail = True, check()
        except Exception as error:
            ok, detail = False, str(error)
        checks.append({"check": name, "ok": ok, "detail": detail})
        if not json:
            common.tell(f"{'ok  ' if ok else 'FAIL'}  {name}: {detail}")

    for name, check in _CHECKS.items():
        note(name, check)
    if common.settings().ray_address:
        nodes: list[Node] = []
        note("nodes", lambda: _ask_nodes(nodes))
        for name, check_nodes in _NODE_CHECKS.items() if nodes else ():
            note(name, partial(check_nodes, nodes))
    healthy = all(c["ok"] for c in checks)
    if json:
        common.emit({"ok": healthy, "checks": checks})
    if not healthy:
        raise typer.Exit(4)


def _open(name: str, *, extra: bool = False) -> "DataSet":
    from aae_core.config import DataConfig
    from aae_core.data import open_data_set
    from aae_core.declarations import ARRAYS, DATA_SETS

    known = [other for other in DATA_SETS if other != ARRAYS]
    if name not in known:
        raise UsageError(f"unknown data set `{name}`; there are {', '.join(known)}")
    return open_data_set(DataConfig(name, extra=extra), common.settings().data)


def _require_free(port: int) -> None:
    """Raise UsageError if another process listens on the port that MLflow needs."""
    from orchestrator.tracking.mlflow_writer import UI_HOST

    try:
        socket.create_server((UI_HOST, port)).close()
    except OSError as error:
        raise UsageError(
            f"cannot listen on {UI_HOST}:{port} ({error.strerror}); try another --port"
        ) from error


def _versions() -> str:
    from importlib.metadata import version

    packages = ("aae-sweep", "torch", "ray", "optuna", "mlflow")
    return _listed({name: version(name) for name in packages})


def _plugins() -> str:
    from aae_core.declarations import ARCHITECTURES, DATA_SETS, PRIORS
    from aae_core.metrics import DECLARED_METRICS
    from aae_core.plugins import Registry

    registries: tuple[Registry[Any], ...] = (ARCHITECTURES, PRIORS, DATA_SETS, DECLARED_METRICS)
    found = []
    for registry in registries:
        for name in registry:
            if owner := registry.owner(name):
                registry[name]  # raises PluginError for a broken one
                found.append(f"{name} of {owner}")
    return ", ".join(found) or "none; declarations of other packages would be listed here"


def _home() -> str:
    settings = common.settings()
    disk.require_writable(settings.home)
    settings.home.mkdir(parents=True, exist_ok=True)
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
    from orchestrator.study.study import open_storage, sweep_ids

    return count(len(sweep_ids(open_storage(common.settings(), read_only=True))), "sweep")


def _tracking() -> str:
    from orchestrator.tracking.mlflow_writer import MlflowWriter
    from orchestrator.tracking.outbox import Outbox

    settings = common.settings()
    with Outbox(settings.outbox) as outbox:
        sent = MlflowWriter(outbox, settings.tracking_uri, settings.mlflow_artifacts).sync_once()
    return f"MLflow answers; {sent} missing records were sent"


def _ray() -> str:
    from orchestrator.execution import cluster

    with cluster.connected(common.settings()):
        has = cluster.capacity()
    return f"{has['cpu']:g} CPUs, {has['gpu']:g} GPUs"


def _accelerator() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none; models train on the CPU"
    return torch.cuda.get_device_name(0)


def _ask_nodes(found: "list[Node]") -> str:
    from orchestrator.execution import cluster, doctor

    settings = common.settings()
    with cluster.connected(settings):
        found += doctor.examine(settings)
    if not found:
        raise EnvironmentUnusable("no node has CPUs for training; start workers")
    return ", ".join(node.name for node in found)


def _same_versions(nodes: "list[Node]") -> str:
    from orchestrator.execution.doctor import versions

    here = versions()
    _require(
        nodes,
        lambda node: ", ".join(
            f"{name} {node.versions.get(name, 'missing')}, here {here.get(name, 'missing')}"
            for name in here | node.versions
            if node.versions.get(name) != here.get(name)
        ),
        "use the same image, or the same constraints.txt, everywhere",
    )
    return f"the same everywhere: {_listed(here)}"


def _shared_storage(nodes: "list[Node]") -> str:
    home = common.settings().home
    _require(
        nodes,
        lambda node: node.storage_problem,
        f"set AAE_HOME to a shared folder that every node can write at the path {home}",
    )
    return f"every node writes to {home}, and this machine sees the files"


def _room(nodes: "list[Node]") -> str:
    _require(
        nodes,
        lambda node: f"{node.free_gb:.1f} GB free" if node.free_gb < _LEAST_FREE_GB else None,
        "free some: `aae-sweep gc` removes checkpoints that nothing needs",
    )
    return f"{min(node.free_gb for node in nodes):.0f} GB free"


def _tracking_from(nodes: "list[Node]") -> str:
    if not common.settings().tracking_uri.startswith("http"):
        return "a database that only the driver writes to"
    _require(
        nodes,
        lambda node: node.tracking_problem,
        "set MLFLOW_TRACKING_URI to an address that is valid on every node",
    )
    return "every node reaches MLflow's server"


def _clocks(nodes: "list[Node]") -> str:
    _require(
        nodes,
        lambda node: (
            f"{node.clock_ahead:+.1f} s" if abs(node.clock_ahead) > _MOST_SKEW_SECONDS else None
        ),
        "synchronise all clocks with a time server",
    )
    return f"all within {_MOST_SKEW_SECONDS:g} s of this one"


def _token(nodes: "list[Node]") -> str:
    from orchestrator.execution.doctor import admits_strangers

    address = common.settings().ray_address
    assert address is not None
    if admits_strangers(address):
        raise EnvironmentUnusable(
            f"Ray at {address} takes commands from any host that reaches it; start every node "
            "with RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH set to a file with the same secret"
        )
    return "Ray accepts our token and refuses clients without one"


def _require(nodes: "list[Node]", problem_of: "Callable[[Node], str | None]", remedy: str) -> None:
    problems = [f"{node.name}: {problem}" for node in nodes if (problem := problem_of(node))]
    if problems:
        raise EnvironmentUnusable("; ".join([*problems, remedy]))


def _listed(found: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in found.items())


_CHECKS: dict[str, Callable[[], str]] = {
    "packages": _versions,
    "plugins": _plugins,
    "home": _home,
    "data sets": _data,
    "study storage": _studies,
    "tracking": _tracking,
    "Ray": _ray,
    "GPU": _accelerator,
}
_NODE_CHECKS: "dict[str, Callable[[list[Node]], str]]" = {
    "versions": _same_versions,
    "shared storage": _shared_storage,
    "room": _room,
    "tracking from nodes": _tracking_from,
    "clocks": _clocks,
    "token": _token,
}
