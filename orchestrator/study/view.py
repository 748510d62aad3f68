"""Read a stage's study: the sweep's state, the trials' records, counts."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from aae_core.metrics import Direction
from orchestrator.records import RunRecord, Stage
from orchestrator.study.database import StudyStorage
from orchestrator.study.pruners import reported
from orchestrator.study.state import SweepState

ENDED = (OptunaState.COMPLETE, OptunaState.PRUNED, OptunaState.FAIL)
NOT_TRAINED = {"repeats", "taken_from"}  # attributes of trials that only the sampler uses


class StudyView:
    """The study of one stage of one sweep, for readers."""

    def __init__(self, study: optuna.Study, stage: Stage, storage: StudyStorage) -> None:
        self.optuna_study = study
        self.stage: Stage = stage
        self._storage = storage
        self._objectives: dict[str, Direction] = {}

    @property
    def state(self) -> SweepState:
        """The sweep's state, read again at each use."""
        return SweepState.of(self.optuna_study.user_attrs)

    @property
    def objectives(self) -> dict[str, Direction]:
        """Direction of each objective, the main one first; empty in a study without its state."""
        if self._objectives:
            return self._objectives
        towards: dict[StudyDirection, Direction] = {
            StudyDirection.MINIMIZE: "minimize",
            StudyDirection.MAXIMIZE: "maximize",
        }
        named = zip(self.state.objectives, self.optuna_study.directions, strict=False)
        self._objectives = {name: towards[direction] for name, direction in named}
        return self._objectives

    def records(self) -> list[RunRecord]:
        """Return a record of each trial; its metrics are the objectives' last values.

        A retry stands for the trial that it replaces. Repeats have no record of their own.
        """
        objectives, over = list(self.objectives), set(self._retries().values())
        trials = self.optuna_study.get_trials(deepcopy=False)
        return [
            self._record(t, objectives)
            for t in trials
            if t.number not in over and not NOT_TRAINED & t.user_attrs.keys()
        ]

    def unfinished(self) -> list[int]:
        """Return the numbers of trials that earlier drivers started but did not end, in order."""
        return [t.number for t in self._trials(OptunaState.RUNNING)]

    def count_ended(self) -> int:
        ended = self._trials(*ENDED)
        others = sum(bool(NOT_TRAINED & t.user_attrs.keys()) for t in ended)
        return len(ended) - others - len(self._retries())

    def gpu_hours(self) -> float:
        """Return the GPU hours of all epochs so far, including repeated epochs."""
        trials = self.optuna_study.get_trials(deepcopy=False)
        seconds = (t.user_attrs.get("progress", {}).get("gpu_seconds", 0.0) for t in trials)
        return float(sum(seconds)) / 3600

    def _record(self, trial: FrozenTrial, objectives: Sequence[str]) -> RunRecord:
        a = trial.user_attrs
        progress = a.get("progress", {})
        running = trial.state == OptunaState.RUNNING and "node" in a
        checkpoint = self._checkpoint(progress)
        last, secondary = last_value(trial), progress.get("secondary", [])
        return RunRecord(
            number=trial.number,
            stage=self.stage,
            state=a.get("end") or ("running" if running else "waiting"),
            seed=a.get("seed", 0),
            config_hash=a.get("config_hash", ""),
            params=a.get("params", {}),
            reason=a.get("reason"),
            attempts=a.get("attempts", 0),
            lost=a.get("lost", {}),
            epochs=progress.get("epochs", 0),
            epochs_computed=progress.get("epochs_computed", 0),
            train_seconds=progress.get("seconds", 0.0),
            energy_joules=progress.get("joules"),
            resumed_from=a.get("resumed_from", []),
            extends=a.get("extends"),
            extended_to=a.get("extended_to", []),
            metrics={} if last is None else dict(zip(objectives, [last, *secondary], strict=True)),
            violated=[name for name, value in progress.get("violations", {}).items() if value > 0],
            checkpoint=str(checkpoint) if checkpoint else None,
            node=a.get("node"),
            started=a.get("started"),
            seconds=_seconds(trial),
        )

    def _checkpoint(self, progress: Mapping[str, Any]) -> Path | None:
        """Return a trial's last checkpoint, under the present home."""
        recorded = progress.get("checkpoint")
        sweep_id = self.optuna_study.study_name.removesuffix(f"/{self.stage}")
        return self._storage.settings.checkpoint(sweep_id, recorded) if recorded else None

    def _retries(self) -> dict[int, int]:
        """Return the number of each retried trial, keyed by its retry's number."""
        trials = self.optuna_study.get_trials(deepcopy=False)
        attributes = ((t.number, t.user_attrs.get("retry_of")) for t in trials)
        return {number: old for number, old in attributes if old is not None}

    def _trials(self, *states: OptunaState) -> list[FrozenTrial]:
        return self.optuna_study.get_trials(deepcopy=False, states=states or None)


def last_value(trial: FrozenTrial) -> float | None:
    values = reported(trial)
    return values[max(values)][0] if values else None


def _seconds(trial: FrozenTrial) -> float | None:
    """Return the seconds from the first worker's start to the trial's end, or to now."""
    started = trial.user_attrs.get("started")
    if started is None:
        return None
    ended = trial.datetime_complete or datetime.now()
    return (ended.astimezone(UTC) - datetime.fromisoformat(started)).total_seconds()
