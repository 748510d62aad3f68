"""Record a stage's trials in its study: starts, epochs, lost workers and ends."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import optuna
from optuna.trial import Trial
from optuna.trial import TrialState as OptunaState

from orchestrator.records import Stage, TrialState
from orchestrator.study import pruners
from orchestrator.study.database import StudyStorage
from orchestrator.study.view import StudyView
from orchestrator.study.write_behind import WriteBehindStorage

_ENDS: dict[str, OptunaState] = {
    "complete": OptunaState.COMPLETE,
    "pruned": OptunaState.PRUNED,
    "diverged": OptunaState.FAIL,
    "failed": OptunaState.FAIL,
}


class LiveTrial:
    """An unfinished trial with a cache of its attributes, which only the driver writes."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.attributes: dict[str, Any] = dict(trial.user_attrs)

    @property
    def progress(self) -> dict[str, Any]:
        progress: dict[str, Any] = self.attributes.get("progress", {})
        return progress

    def note(self, **attributes: Any) -> None:
        for name, value in attributes.items():
            if name not in self.attributes or self.attributes[name] != value:
                self.attributes[name] = value
                self.trial.set_user_attr(name, value)


class StudyLog(StudyView):
    """The study of one stage, for the driver's records. Only the driver writes trials.

    Starts and epochs wait for the next `save`; all other records are saved at once.
    """

    def __init__(self, study: optuna.Study, stage: Stage, storage: StudyStorage) -> None:
        super().__init__(study, stage, storage)
        self._open: dict[int, LiveTrial] = {}

    def save(self) -> None:
        """Write what waits to the database. Other programs than the driver write at once."""
        storage = self.optuna_study._storage
        if isinstance(storage, WriteBehindStorage):
            storage.save()

    def started(self, number: int, node: str, resumed_epoch: int | None) -> None:
        live = self._live(number)
        resumed = live.attributes.get("resumed_from", [])
        if resumed_epoch is not None:
            resumed = [*resumed, resumed_epoch]
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        live.note(node=node, resumed_from=resumed, started=live.attributes.get("started", now))

    def epoch(
        self,
        number: int,
        epoch: int,
        objectives: Sequence[float] | None,
        checkpoint: str | None,
        *,
        trained: bool,
        seconds: float = 0.0,
        gpu_seconds: float = 0.0,
        joules: float | None = None,
        violations: Mapping[str, float] | None = None,
    ) -> None:
        """Record a finished epoch; a repeated epoch keeps its first values.

        `objectives` are values, the main one first.  They and `violations` are None if the epoch
        was not validated.
        """
        live = self._live(number)
        before = live.progress
        progress = {
            "epochs": max(epoch, before.get("epochs", 0)),
            "epochs_computed": before.get("epochs_computed", 0) + trained,
            "checkpoint": checkpoint or before.get("checkpoint"),
        }
        if seconds or "seconds" in before:
            progress["seconds"] = before.get("seconds", 0.0) + seconds
        if gpu_seconds:
            progress["gpu_seconds"] = before.get("gpu_seconds", 0.0) + gpu_seconds
        if joules is not None:
            progress["joules"] = before.get("joules", 0.0) + joules
        elif "joules" in before:
            progress["joules"] = before["joules"]
        if violations := before.get("violations") if objectives is None else violations:
            progress["violations"] = dict(violations)
        new = objectives is not None and epoch > before.get("epochs", 0)
        secondary = before.get("secondary") if objectives is None or not new else objectives[1:]
        if secondary:
            progress["secondary"] = list(secondary)
        if objectives is not None and new:  # first: a driver that dies here repeats the epoch
            pruners.report(live.trial, objectives, epoch)
        live.note(progress=progress)

    def explain_loss(self, number: int, cause: str) -> None:
        """Record why the trial's current attempt was lost."""
        live = self._live(number)
        attempt = str(live.attributes["attempts"])
        live.note(lost=live.attributes.get("lost", {}) | {attempt: cause})
        self.save()

    def lost(self, number: int) -> int:
        """Count a lost worker of the trial; return the number of losses since its last epoch."""
        live, epoch = self._live(number), self.epochs(number)
        before = live.attributes.get("losses", {})
        losses = 1 + (before["losses"] if before.get("epoch") == epoch else 0)
        live.note(losses={"epoch": epoch, "losses": losses})
        self.save()
        return losses

    def killed_for_memory(self, number: int) -> bool:
        """Record that Ray killed the trial's worker for memory; return True from the second on."""
        live = self._live(number)
        again: bool = live.attributes.get("killed_for_memory", False)
        live.note(killed_for_memory=True)
        self.save()
        return again

    def should_prune(self, number: int) -> bool:
        return pruners.should_prune(self._live(number).trial)

    def epochs(self, number: int) -> int:
        """Return the last recorded epoch of any attempt."""
        return int(self._live(number).progress.get("epochs", 0))

    def end(self, number: int, state: TrialState, value: float | None, reason: str | None) -> None:
        live = self._live(number)
        live.note(end=state, reason=reason)
        self._constrain(live, live.progress.get("violations", {}))
        values = None
        if state == "complete" and value is not None:
            values = [value, *live.progress.get("secondary", [])]
        self.optuna_study.tell(number, values, _ENDS[state])
        self.save()
        del self._open[number]

    @staticmethod
    def _constrain(live: LiveTrial, violations: Mapping[str, float]) -> None:
        """Set each constraint once: an earlier driver may have died right after setting it."""
        for name, value in violations.items():
            if name not in live.trial.constraints:
                live.trial.set_constraint(name, value)

    def _live(self, number: int) -> "LiveTrial":
        if number not in self._open:
            frozen = self.optuna_study.get_trials(deepcopy=False)[number]
            # Optuna has no public way to continue a trial that another process started.
            self._open[number] = LiveTrial(Trial(self.optuna_study, frozen._trial_id))
        return self._open[number]
