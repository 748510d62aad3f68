"""Commands up and down: a cluster of containers on this machine, as in docker/compose.yaml."""

import os
import secrets
import subprocess
from pathlib import Path
from typing import Annotated

import typer

from aae_core.files import replacing
from orchestrator.errors import EnvironmentUnusable

_FOLDER = Path(__file__).resolve().parents[2] / "docker"
_USER = 1000  # runs the containers if root starts them

# pgpass lines are host:port:database:user:password; mlflow_auth serves MLflow and its clients
_SECRETS = {
    "ray_token": "{}",
    "postgres_password": "{}",
    "mlflow_pgpass": "db:5432:mlflow:mlflow:{}\n",
    "studies_pgpass": "db:5432:studies:studies:{}\n",
    "mlflow_env": "MLFLOW_FLASK_SERVER_SECRET_KEY={}\n",
    "mlflow_auth": """[mlflow]
admin_username = admin
admin_password = {0}
mlflow_tracking_username = admin
mlflow_tracking_password = {0}
database_uri = postgresql+psycopg://mlflow@db/mlflow
default_permission = NO_PERMISSIONS
""",
}


def up(
    workers: Annotated[
        int, typer.Option(min=1, help="Containers that train; they share this machine's CPUs.")
    ] = 2,
) -> None:
    """Build and start a cluster of containers, and wait until every service answers.

    Safe to repeat: running services stay, and the data that `down` left is used again.
    """
    from dotenv import dotenv_values

    cpus = _engine_cpus()
    given = dotenv_values(_FOLDER / ".env") | os.environ  # with compose's precedence
    folder = (_FOLDER / (given.get("AAE_SECRETS") or "secrets")).resolve()
    user = os.getuid() or _USER
    _make_secrets(folder, user, s3="compose.s3.yaml" in (given.get("COMPOSE_FILE") or ""))
    environment = {
        "AAE_SECRETS": str(folder),
        "AAE_UID": str(user),
        "AAE_WORKERS": str(workers),
        "AAE_WORKER_CPUS": given.get("AAE_WORKER_CPUS") or str(max(1, cpus // workers)),
        "AAE_WHEELS": given.get("AAE_WHEELS") or _wheels(),
    }
    _compose(["build"], environment)
    _compose(["up", "--detach", "--wait"], environment)
    port = given.get("AAE_MLFLOW_PORT") or "5000"
    print(
        f"the cluster is ready, with {workers} workers; in {os.path.relpath(_FOLDER)}:\n"
        "  run     docker compose run --rm sweep run sweeps/quickstart.yaml\n"
        "  check   docker compose run --rm sweep doctor\n"
        f"MLflow    http://127.0.0.1:{port}  (user admin, password in {folder / 'mlflow_auth'})\n"
        "stop      aae-sweep down"
    )


def down() -> None:
    """Stop the cluster of containers; running sweeps drain first.

    Studies, checkpoints and MLflow's record stay.
    """
    _engine_cpus()
    _stop_drivers()
    _compose(["--profile", "commands", "down", "--remove-orphans"], {})


COMMANDS = (up, down)


def _engine_cpus() -> int:
    """Return the CPUs of Docker's engine. Raises EnvironmentUnusable if no engine answers."""
    if not (_FOLDER / "compose.yaml").exists():
        raise EnvironmentUnusable(
            f"there is no {_FOLDER / 'compose.yaml'}: the cluster's files are not part of an "
            "installed package; run aae-sweep from a checkout of its repository (make setup)"
        )
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


def _make_secrets(folder: Path, user: int, *, s3: bool) -> None:
    """Create missing secrets. Only `user`, who runs the containers, may read the files.

    Raises EnvironmentUnusable if an S3 store is used without its credentials.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if s3 and not (folder / "s3_credentials").exists():
        raise EnvironmentUnusable(
            f"compose.s3.yaml needs {folder / 's3_credentials'}, a file like ~/.aws/credentials:\n"
            "[default]\naws_access_key_id = …\naws_secret_access_key = …\n"
            "endpoint_url = https://…  # unless Amazon's"
        )
    for name, text in _SECRETS.items():
        if not (folder / name).exists():
            with replacing(folder / name) as part:  # an empty secret would stay for ever
                part.touch(mode=0o600)
                part.write_text(text.format(secrets.token_urlsafe(32)))
    for path in folder.iterdir():
        path.chmod(0o600)
        if os.getuid() == 0:
            os.chown(path, user, -1)


def _stop_drivers() -> None:
    """Stop the drivers before their services. `docker compose stop` skips containers of `run`."""
    listing = ["ps", "--all", "--status=running", "--format={{.Service}} {{.ID}}"]
    command = ["docker", "compose", *listing]
    output = subprocess.run(command, cwd=_FOLDER, stdout=subprocess.PIPE, text=True, check=True)
    running = [line.split() for line in output.stdout.splitlines()]
    if drivers := [container for service, container in running if service == "sweep"]:
        subprocess.run(["docker", "stop", *drivers], stdout=subprocess.DEVNULL, check=True)


def _wheels() -> str:
    """Return the build's folder of wheels: PIP_FIND_LINKS if that is a folder, else `wheels`."""
    found = os.environ.get("PIP_FIND_LINKS", "")
    return str(Path(found).resolve()) if found and Path(found).is_dir() else "wheels"


def _compose(arguments: list[str], environment: dict[str, str]) -> None:
    command = ["docker", "compose", *arguments]
    done = subprocess.run(command, cwd=_FOLDER, env=os.environ | environment, check=False)
    if done.returncode:
        raise EnvironmentUnusable(
            f"`{' '.join(command)}` ended with {done.returncode}; what the containers say: "
            f"docker compose logs (in {os.path.relpath(_FOLDER)})"
        )
