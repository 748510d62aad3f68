"""The folder of a cluster of containers: compose files, settings, secrets and the image's sources.

The package holds the files that are the same for everybody. The folder lies in the user's
configuration, because it also holds the user's settings and secrets.
"""

import hashlib
import os
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from importlib.metadata import Distribution, distribution
from importlib.resources import files
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from aae_core.files import replacing
from orchestrator.errors import EnvironmentUnusable

_PACKAGED = Path(__file__).with_name("docker")  # in a checkout a link to its `docker/`
_PATTERNS = ("*.yaml", "*.sql", "*.sbatch", ".env.example", "image/*")  # as in pyproject.toml
_DISTRIBUTION = "aae-sweep"
_WHEEL = "Wheel-Version: 1.0\nGenerator: aae-sweep up\nRoot-Is-Purelib: true\nTag: py3-none-any\n"

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


def cluster_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of this user's cluster, which may not exist yet."""
    configuration = Path(environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    return configuration.resolve() / "aae-sweep" / "cluster"


def compose(folder: Path | str) -> list[str]:
    """Return the words that begin a command of Docker Compose, for any working directory."""
    return ["docker", "compose", "--project-directory", str(folder)]


def write_files(folder: Path) -> None:
    """Write this version's files; leave `.env` and the user's other files alone.

    Docker builds the image from the folder `image` alone, where no secret lies.
    """
    for path in _packaged_files():
        _write(folder / path.relative_to(_PACKAGED), path.read_bytes())
    for name in ("sweeps", "wheels"):  # the user's; Docker would create them as root's
        (folder / name).mkdir(exist_ok=True)
    quoted = str(folder).replace("'", r"\'")
    _write(folder / "cluster.env", f"AAE_CLUSTER='{quoted}'\n".encode())
    lines = "".join(f"{each}\n" for each in _requirements())
    _write(folder / "image" / "requirements.txt", lines.encode())
    for earlier in (folder / "image").glob("*.whl"):
        earlier.unlink()
    write_wheel(folder / "image")


def write_wheel(folder: Path) -> Path:
    """Write this installation of aae-sweep as a wheel, with equal bytes for equal sources.

    The wheel is the package as Python imports it, so a checkout needs no build and an installed
    package no sources.
    """
    described = distribution(_DISTRIBUTION)
    name = f"{_DISTRIBUTION.replace('-', '_')}-{described.version}"
    packages = sorted((described.read_text("top_level.txt") or "").split())
    entries = {place: path.read_bytes() for package in packages for place, path in _files(package)}
    entries |= {f"{name}.dist-info/{file}": data for file, data in _about(described)}
    record = f"{name}.dist-info/RECORD"
    lines = [f"{place},{_digest(data)},{len(data)}\n" for place, data in entries.items()]
    entries[record] = "".join([*lines, f"{record},,\n"]).encode()
    wheel = folder / f"{name}-py3-none-any.whl"
    with replacing(wheel) as part, ZipFile(part, "w", ZIP_DEFLATED) as archive:
        for place, data in entries.items():
            entry = ZipInfo(place)  # with the earliest time, not the present one
            entry.compress_type, entry.external_attr = ZIP_DEFLATED, 0o100644 << 16
            archive.writestr(entry, data)
    return wheel


def make_secrets(folder: Path, user: int, *, s3: bool) -> None:
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


def _packaged_files() -> Iterator[Path]:
    """Yield the cluster's files in the package, without other files of a checkout's folder."""
    for pattern in _PATTERNS:
        yield from sorted(_PACKAGED.glob(pattern))


def _requirements() -> Iterator[str]:
    """Yield the requirements of a cluster's nodes: those without extras, and those of `cluster`."""
    for each in distribution(_DISTRIBUTION).requires or ():
        requirement, _, condition = each.partition(";")
        if "extra ==" not in condition:
            yield each
        elif 'extra == "cluster"' in condition:
            yield requirement


def _about(described: Distribution) -> Iterator[tuple[str, bytes]]:
    """Yield the files in which a wheel describes itself, without the list of all files."""
    yield "WHEEL", _WHEEL.encode()
    metadata = described.read_text("METADATA") or described.read_text("PKG-INFO")
    yield "METADATA", (metadata or "").encode()
    for file in ("entry_points.txt", "licenses/LICENSE"):
        text = described.read_text(file)
        if text is not None:  # what Python finds first in a checkout has no licence
            yield file, text.encode()


def _files(package: str) -> Iterator[tuple[str, Path]]:
    """Yield each file of a package with its place in a wheel."""
    root = Path(str(files(package)))
    found = []
    for folder, folders, names in os.walk(root, followlinks=True):
        below = Path(folder)
        folders[:] = [n for n in folders if n != "__pycache__" and below / n != _PACKAGED]
        found += [below / name for name in names]
    if _PACKAGED.is_relative_to(root):
        found += _packaged_files()
    for path in sorted(found):
        yield path.relative_to(root.parent).as_posix(), path


def _digest(data: bytes) -> str:
    return "sha256=" + urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


def _write(path: Path, data: bytes) -> None:
    with replacing(path) as part:
        part.write_bytes(data)
        part.chmod(0o644)  # whatever the umask: the containers' user reads some of these files
