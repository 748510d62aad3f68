"""Where things are, read from the environment once; every path is made absolute here."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    home: Path  # AAE_HOME: everything that sweeps leave behind
    data: Path  # AAE_DATA: the data sets
    study_uri: str  # AAE_STUDY_URI
    tracking_uri: str  # MLFLOW_TRACKING_URI
    ray_address: str | None  # RAY_ADDRESS; None starts Ray on this machine
    mlflow_ui: str | None  # AAE_MLFLOW_UI: where browsers find a server that has another name here

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        home = Path(environ.get("AAE_HOME") or "aae-home").expanduser().resolve()
        cache = Path(environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        data = Path(environ.get("AAE_DATA") or cache / "aae-sweep").expanduser().resolve()
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
