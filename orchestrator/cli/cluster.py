"""Commands up and down: a cluster of containers on this machine, as in docker/compose.yaml."""

import os
import shlex
import subprocess
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.common import say
from orchestrator.errors import EnvironmentUnusable
from orchestrator.execution import containers

_USER = 1000  # runs the containers if root starts them


def up(
    workers: Annotated[
        int, typer.Option(min=1, help="Containers that train; they share this machine's CPUs.")
    ] = 2,
    files_only: Annotated[
        bool,
        typer.Option(
            "--files-only", help="Write the cluster's folder, with what the image is built from."
        ),
    ] = False,
) -> None:
    """Build and start a cluster of containers, and wait until every service answers.

    Safe to repeat: running services stay, and the data that `down` left is used again.
    """
    from dotenv import dotenv_values

    folder = containers.cluster_folder()
    if files_only:
        containers.write_files(folder)
        print(folder)
        return
    cpus = _engine_cpus()
    containers.write_files(folder)
    given = dotenv_values(folder / ".env") | os.environ  # with compose's precedence
    secrets = (folder / (given.get("AAE_SECRETS") or "secrets")).resolve()
    user = os.getuid() or _USER
    compose_files = given.get("COMPOSE_FILE") or ""
    _require_absolute_paths(compose_files, folder)
    containers.make_secrets(secrets, user, s3="compose.s3.yaml" in compose_files)
    environment = {
        "AAE_SECRETS": str(secrets),
        "AAE_UID": str(user),
        "AAE_WORKERS": str(workers),
        "AAE_WORKER_CPUS": given.get("AAE_WORKER_CPUS") or str(max(1, cpus // workers)),
        "AAE_WHEELS": given.get("AAE_WHEELS") or _wheels(),
    }
    _compose(folder, ["build"], environment)
    _compose(folder, ["up", "--detach", "--wait"], environment)
    port = given.get("AAE_MLFLOW_PORT") or "5000"
    sweep = f"{shlex.join(containers.compose(folder))} run --rm sweep"
    print(
        f"the cluster is ready, with {workers} workers\n"
        f"  run     {sweep} run quickstart\n"
        f"  check   {sweep} doctor\n"
        f"MLflow    http://127.0.0.1:{port}  (user admin, password in {secrets / 'mlflow_auth'})\n"
        "stop      aae-sweep down"
    )


def down() -> None:
    """Stop the cluster of containers; running sweeps drain first.

    Studies, checkpoints and MLflow's record stay.
    """
    _engine_cpus()
    folder = containers.cluster_folder()
    if not (folder / "compose.yaml").exists():
        say(f"no cluster has been started from {folder}; there is nothing to stop")
        return
    _stop_drivers(folder)
    _compose(folder, ["--profile", "commands", "down", "--remove-orphans"], {})


COMMANDS = (up, down)


def _engine_cpus() -> int:
    """Return the CPUs of Docker's engine. Raises EnvironmentUnusable if no engine answers."""
    command = ["docker", "info", "--format", "{{.NCPU}}"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or str(error)
        raise EnvironmentUnusable(
            f"Docker does not answer: {reason.strip()}\n"
            "install Docker Engine 25 or newer with its compose plugin, and start it"
        ) from error
    return int(output)


def _require_absolute_paths(compose_files: str, folder: Path) -> None:
    """Raise EnvironmentUnusable for a file that Compose would look for in the working directory."""
    files = [Path(file) for file in compose_files.split(":") if file]
    if not all(file.is_absolute() for file in files):
        whole = ":".join(str(folder / file) for file in files)
        raise EnvironmentUnusable(
            f"COMPOSE_FILE={compose_files} is valid in one working directory only\n"
            f"set it in {folder / '.env'} to absolute paths: COMPOSE_FILE={whole}"
        )


def _stop_drivers(folder: Path) -> None:
    """Stop the drivers before their services. `docker compose stop` skips containers of `run`."""
    listing = ["ps", "--all", "--status=running", "--format={{.Service}} {{.ID}}"]
    command = [*containers.compose(folder), *listing]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    running = [line.split() for line in output.stdout.splitlines()]
    if drivers := [container for service, container in running if service == "sweep"]:
        subprocess.run(["docker", "stop", *drivers], stdout=subprocess.DEVNULL, check=True)


def _wheels() -> str:
    """Return the build's folder of wheels: PIP_FIND_LINKS if that is a folder, else `wheels`."""
    found = os.environ.get("PIP_FIND_LINKS", "")
    return str(Path(found).resolve()) if found and Path(found).is_dir() else "wheels"


def _compose(folder: Path, arguments: list[str], environment: dict[str, str]) -> None:
    compose = containers.compose(folder)
    done = subprocess.run([*compose, *arguments], env=os.environ | environment, check=False)
    if done.returncode:
        raise EnvironmentUnusable(
            f"`{shlex.join([*compose, *arguments])}` ended with {done.returncode}; see the "
            f"containers' logs: {shlex.join([*compose, 'logs'])}"
        )
