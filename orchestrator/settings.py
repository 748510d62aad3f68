"""Paths and addresses, read from the environment once. Every path is made absolute."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
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
        )

    @property
    def spool(self) -> Path:
        return self.home / "spool.db"

    @property
    def mlflow_artifacts(self) -> Path:
        return self.home / "mlartifacts"

    def sweep_folder(self, sweep_id: str) -> Path:
        return self.home / "sweeps" / sweep_id

    def trial_folder(self, sweep_id: str, stage: str, number: int) -> Path:
        return self.sweep_folder(sweep_id) / "trials" / f"{stage}-{number:04d}"


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
