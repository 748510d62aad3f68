"""Messages of a container, with the commands and paths of the host, where the user types.

Compose gives the driver AAE_CLUSTER, the cluster's folder on the host, and AAE_CLUSTER_HOME, the
home's place there: a folder, or the name of a volume.
"""

import os
import re
import shlex
from functools import cache
from pathlib import Path

from orchestrator.execution import containers
from orchestrator.settings import Settings


def compose() -> str | None:
    """Return the beginning of each command of Docker Compose; None outside of a container."""
    folder = os.environ.get("AAE_CLUSTER")
    return shlex.join(containers.compose(folder)) if folder else None


def commands(message: str) -> str:
    """Return a message whose commands of aae-sweep run as printed."""
    prefix = compose()
    if prefix is None:
        return message

    def on_host(found: re.Match[str]) -> str:
        service = "" if found["name"] == "data" else "sweep "  # `data` has a service of its own
        return f"{prefix} run --rm {service}{found['name']}"

    return re.sub(rf"\baae-sweep (?P<name>{'|'.join(_names())})\b(?!-)", on_host, message)


def file(path: str, settings: Settings) -> str:
    """Return a file of the home by its path on the host, or the command that copies it there."""
    prefix, home = compose(), os.environ.get("AAE_CLUSTER_HOME", "")
    if prefix is None or not Path(path).is_relative_to(settings.home):
        return path
    if not home.startswith((".", "/", "~")):  # Compose's rule: the name of a volume
        return f"{prefix} cp worker:{shlex.quote(path)} ."
    folder = Path() if home.startswith("~") else Path(os.environ["AAE_CLUSTER"])
    return os.path.normpath(folder / home / Path(path).relative_to(settings.home))


@cache
def _names() -> list[str]:
    """Return the commands that a container can run."""
    from typer.main import get_command

    from orchestrator.cli import app, cluster

    on_host_alone = {command.__name__ for command in cluster.COMMANDS}
    return sorted(get_command(app).commands.keys() - on_host_alone)  # type: ignore[attr-defined]
