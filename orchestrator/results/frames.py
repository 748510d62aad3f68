"""The results of one sweep as pandas frames, for scripts and notebooks."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

import aae_core
from orchestrator import documents
from orchestrator.errors import UsageError
from orchestrator.records import Stage
from orchestrator.results.reader import ResultsReader, as_row
from orchestrator.settings import Settings
from orchestrator.sweepfile.spec import SweepSpec

if TYPE_CHECKING:
    from aae_core.models import Model


class SweepReader:
    """The results of one sweep, read at each call, so a running sweep may be followed.

    `sweep` is a sweep's name, its id, the beginning of its id or `latest`, as for the commands.
    `settings` are those of the environment by default (`AAE_HOME` and the others).

    Missing figures are NaN. Metrics have the names and units of docs/sweep-file.md.

    >>> SweepReader("quickstart").trials("confirm")[["seed", "val/error"]]  # doctest: +SKIP
    """

    def __init__(self, sweep: str = "latest", settings: Settings | None = None) -> None:
        """Raise UsageError if `sweep` names no sweep, and EnvironmentUnusable without a study."""
        self._reader = ResultsReader(settings or Settings.from_environment())
        self.id = self._reader.resolve(sweep)

    def __repr__(self) -> str:
        return f"SweepReader({self.id!r})"

    @property
    def spec(self) -> SweepSpec:
        """The sweep as it last ran, with all defaults."""
        return SweepSpec.of(self._reader.spec(self.id))

    def status(self) -> documents.Status:
        """Return state, stage, counts of trials, times and addresses: `aae-sweep status --json`."""
        return self._reader.status(self.id)

    def best(self) -> documents.Best | None:
        """Return the winner and all candidates: `aae-sweep best --json`; None before a result."""
        return self._reader.best(self.id)

    def trials(self, stage: Stage | None = None) -> pd.DataFrame:
        """Return a row per trial, search before confirm: fields, parameters, last metrics.

        The index is (stage, number).
        """
        rows = [as_row(record) for record in self._reader.trials(self.id, stage)]
        return _frame(rows, ["stage", "number"])

    def curves(self, stage: Stage | None = None) -> pd.DataFrame:
        """Return a row per epoch of every trial; the index is (stage, number, epoch)."""
        rows = (
            {"stage": record.stage, "number": record.number, **row}
            for record in self._reader.trials(self.id, stage)
            for row in self._reader.curve(self.id, record)
        )
        return _frame(rows, ["stage", "number", "epoch"])

    def candidates(self) -> pd.DataFrame:
        """Return a row per configuration of `best`, the winner first and the control last.

        The columns are its parameters, the number of its seeds, and for each metric M the mean over
        seeds (`M`) with its standard error (`M se`). The index is the configuration's hash.
        """
        best = self.best()
        found = [*best["groups"], best["baseline"]] if best else []
        return _frame((_candidate(each) for each in found if each), ["config_hash"])

    def scores(self) -> pd.DataFrame:
        """Return a row per model that was scored on the test images; the index is its trial.

        Empty before the sweep's last stage: until then nothing opens the test images.
        """
        rows = ({**_plain(model), **model["metrics"]} for model in self._models())
        return _frame(rows, ["trial"])

    def parzen(self) -> pd.DataFrame:
        """Return a row per number of samples of every scored model and of its controls.

        `kind` is `model`, `train_images` or `kmeans`; log-likelihoods are in nats.
        """
        rows = (
            {"trial": model["trial"], "kind": "model", **point}
            for model in self._models()
            for point in [*model.get("curve", []), *model.get("controls", [])]
        )
        return _frame(rows, ["trial", "kind", "n_samples"])

    def model(self) -> "Model":
        """Return the model of the winner's first confirmation; see `aae_core.load`.

        Raises UsageError before a trial has finished, and CheckpointError without its checkpoint.
        """
        best = self.best()
        if best is None or best["checkpoints"][0] is None:
            raise UsageError(f"{self.id} has no finished trial yet")
        return aae_core.load(best["checkpoints"][0])

    def _models(self) -> list[dict[str, Any]]:
        evaluation = self._reader.evaluation(self.id)
        return [dict(model) for model in evaluation["models"]] if evaluation else []


def _candidate(found: Mapping[str, Any]) -> dict[str, Any]:
    row = {"config_hash": found["config_hash"], "seeds": len(found["seeds"]), **found["params"]}
    for name, figures in found["metrics"].items():
        row |= {name: figures["mean"], f"{name} se": figures["se"]}
    return row


def _plain(model: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in model.items() if not isinstance(value, dict | list)}


def _frame(rows: Iterable[dict[str, Any]], index: list[str]) -> pd.DataFrame:
    """Return a frame with an index; without rows, an empty one with the same index."""
    found = list(rows)
    return pd.DataFrame(found, columns=None if found else index).set_index(index)
