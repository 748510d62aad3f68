"""Paths and addresses, read from the environment once. Every path is made absolute."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.errors import EnvironmentUnusable


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
        """Read the settings; raise EnvironmentUnusable if AAE_HOME or AAE_DATA is a URL."""
        home = _folder("AAE_HOME", environ.get("AAE_HOME") or "aae-home")
        cache = Path(environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        data = _folder("AAE_DATA", environ.get("AAE_DATA") or str(cache / "aae-sweep"))
        return cls(
            home=home,
            data=data,
            study_uri=environ.get("AAE_STUDY_URI") or f"sqlite:///{home / 'studies.db'}",
            tracking_uri=environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home / 'mlflow.db'}",
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


def _folder(name: str, place: str) -> Path:
    """Return an absolute path. Refuse a URL: as a path, s3://… would be a local folder `s3:`."""
    scheme, is_address, _ = place.partition("://")
    if is_address:
        raise EnvironmentUnusable(
            f"{name} is an address ({scheme}://…) and must be a folder: files are locked and "
            "renamed there\n"
            f"set {name} to a folder of this machine, or to one that is mounted on it, like NFS; "
            "artifacts alone may lie in an object store: start MLflow's server with "
            "--artifacts-destination s3://… and set MLFLOW_TRACKING_URI to it"
        )
    return Path(place).expanduser().resolve()
