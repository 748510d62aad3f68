"""Paths and addresses, read from the environment once. Every path is made absolute."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, quote

from orchestrator.errors import EnvironmentUnusable

# the options of a SQLite address that SQLAlchemy passes on; it ignores all others
_SQLITE_OPTIONS = {
    "cache", "cached_statements", "check_same_thread", "detect_types", "immutable",
    "isolation_level", "mode", "nolock", "timeout", "uri", "vfs",
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    home: Path  # AAE_HOME: all files that sweeps write
    data: Path  # AAE_DATA: the data sets
    study_uri: str  # AAE_STUDY_URI
    tracking_uri: str  # MLFLOW_TRACKING_URI
    ray_address: str | None  # RAY_ADDRESS; None starts Ray on this machine
    mlflow_ui: str | None  # AAE_MLFLOW_UI: address of MLflow for browsers, if different
    # receivers of a sweep's events
    notify_command: str | None = None  # AAE_NOTIFY_COMMAND, with the event on its standard input
    notify_url: str | None = field(default=None, repr=False)  # AAE_NOTIFY_URL, may be a secret
    notify_secret: str | None = field(default=None, repr=False)  # AAE_NOTIFY_SECRET: signs the POST

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Read the settings; raise EnvironmentUnusable for unusable values."""
        home = _folder("AAE_HOME", environ.get("AAE_HOME") or "aae-home")
        cache = Path(environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        data = _folder("AAE_DATA", environ.get("AAE_DATA") or str(cache / "aae-sweep"))
        return cls(
            home=home,
            data=data,
            study_uri=_database("AAE_STUDY_URI", environ) or sqlite_address(home / "studies.db"),
            tracking_uri=_database("MLFLOW_TRACKING_URI", environ)
            or sqlite_address(home / "mlflow.db"),
            ray_address=environ.get("RAY_ADDRESS") or None,
            mlflow_ui=environ.get("AAE_MLFLOW_UI") or None,
            notify_command=environ.get("AAE_NOTIFY_COMMAND") or None,
            notify_url=environ.get("AAE_NOTIFY_URL") or None,
            notify_secret=environ.get("AAE_NOTIFY_SECRET") or None,
        )

    @property
    def outbox(self) -> Path:
        return self.home / "outbox.db"

    @property
    def mlflow_artifacts(self) -> Path:
        return self.home / "mlartifacts"

    @property
    def parzen_folder(self) -> Path:
        """Results of `aae-sweep parzen`, and parts of unfinished jobs."""
        return self.home / "parzen"

    def training_folder(self, name: str) -> Path:
        """Checkpoints of `aae-sweep train`."""
        return self.home / "train" / name

    @property
    def smoke_folder(self) -> Path:
        """Small data sets of `--smoke`."""
        return self.home / "smoke"

    def sweep_folder(self, sweep_id: str) -> Path:
        return self.home / "sweeps" / sweep_id

    def trials_folder(self, sweep_id: str) -> Path:
        return self.sweep_folder(sweep_id) / "trials"

    def trial_folder(self, sweep_id: str, stage: str, number: int) -> Path:
        return self.trials_folder(sweep_id) / f"{stage}-{number:04d}"

    def attempt_folder(self, sweep_id: str, stage: str, number: int, attempt: int) -> Path:
        return self.trial_folder(sweep_id, stage, number) / str(attempt)

    def checkpoint(self, sweep_id: str, recorded: str) -> Path:
        """Return the place of a recorded checkpoint: the home may have been moved or copied."""
        return self.trials_folder(sweep_id).joinpath(*Path(recorded).parts[-3:])

    def attempt_logs(self, sweep_id: str, stage: str, number: int) -> list[Path]:
        """Return the existing logs of a trial's attempts, the first attempt's first."""
        attempts = self.trial_folder(sweep_id, stage, number).glob("[0-9]*")
        found = (attempt_log(folder) for folder in sorted(attempts, key=lambda a: int(a.name)))
        return [log for log in found if log.exists()]

    def pictures_folder(self, sweep_id: str) -> Path:
        """Pictures of the winner."""
        return self.sweep_folder(sweep_id) / "pictures"

    def scores_folder(self, sweep_id: str) -> Path:
        """Scores of models and controls on the test set, one file each."""
        return self.sweep_folder(sweep_id) / "evaluation"

    def evaluation(self, sweep_id: str) -> Path:
        return self.sweep_folder(sweep_id) / "evaluation.json"

    def resolved_file(self, sweep_id: str) -> Path:
        """The sweep file with all defaults."""
        return self.sweep_folder(sweep_id) / "sweep.json"

    def report(self, sweep_id: str) -> Path:
        return self.sweep_folder(sweep_id) / "report.html"

    def driver_log(self, sweep_id: str) -> Path:
        return self.sweep_folder(sweep_id) / "driver.log"


def attempt_log(attempt_folder: Path) -> Path:
    return attempt_folder / f"attempt-{attempt_folder.name}.log"


def sqlite_address(file: Path) -> str:
    """Return the address of a SQLite database, with reserved characters quoted.

    MLflow creates the folder that it reads after `sqlite:///`, without undoing the quotes. A quoted
    address names SQLAlchemy's driver, too, and MLflow then creates no folder.
    """
    quoted = quote(str(file))
    return f"sqlite:///{file}" if quoted == str(file) else f"sqlite+pysqlite:///{quoted}"


def _database(name: str, environ: Mapping[str, str]) -> str | None:
    """Return a database's address, if the user gives one.

    Refuse a SQLite address in which a part of the path reads as an option, which SQLAlchemy would
    ignore: several paths would then be one file.
    """
    address = environ.get(name) or None
    path, _, options = (address or "").partition("?")
    unknown = parse_qs(options, keep_blank_values=True).keys() - _SQLITE_OPTIONS
    if path.startswith("sqlite") and (unknown or "/" in options):
        raise EnvironmentUnusable(
            f"{name}: a database's path ends at the first `?`, and `{options}` is not an "
            "option of SQLite\nwrite %3F for a question mark in the path, and %25 for a %"
        )
    return address


def _folder(name: str, place: str) -> Path:
    """Return an absolute path. Refuse a URL: as a path, s3://… would be a local folder `s3:`."""
    scheme, is_address, _ = place.partition("://")
    if is_address and "/" not in scheme:
        raise EnvironmentUnusable(
            f"{name} is an address ({scheme}://…) and must be a folder: files are locked and "
            "renamed there\n"
            f"set {name} to a folder of this machine, or to one that is mounted on it, like NFS; "
            "artifacts alone may lie in an object store: start MLflow's server with "
            "--artifacts-destination s3://… and set MLFLOW_TRACKING_URI to it"
        )
    try:
        folder = Path(place).expanduser().resolve()
        str(folder).encode()
        _require_readable(folder)
    except FileNotFoundError:  # the first command that writes creates the folder
        return folder
    except UnicodeEncodeError:
        problem = "its name is not UTF-8, and the databases and MLflow keep names as text"
    except OSError as error:
        problem = str(error.strerror)
    except RuntimeError as error:  # Python's error for a loop of links
        problem = str(error)
    else:
        return folder
    raise EnvironmentUnusable(
        f"{name}={place} cannot be used: {problem}\n"
        f"set {name} to a folder that you can read and write"
    )


def _require_readable(folder: Path) -> None:
    """Raise an OSError if this process cannot read the folder."""
    with os.scandir(folder):
        pass
