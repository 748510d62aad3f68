"""One stage on Ray Tune: the study decides, Tune places.

Every loss (of a worker, node or driver) is handled in the same way. The unfinished trial is
suggested again as its next attempt, from its last good checkpoint, in a folder of its own.
"""

import json
import logging
import shutil
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from ray import tune
from ray.air.execution._internal import actor_manager
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.execution import tune_controller
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from aae_core.config import TrialConfig
from aae_core.data import TrainingData
from aae_core.training.pack import form
from orchestrator import disk
from orchestrator.errors import DiskFull
from orchestrator.execution import cluster
from orchestrator.execution.hangs import Watch
from orchestrator.execution.worker import LEAVE, Report, TrialTask, train
from orchestrator.records import ENERGY, Stage, TrialState
from orchestrator.study.study import StageStudy, TrialAttempt
from orchestrator.sweepfile.spec import SweepSpec
from orchestrator.text import duration

MAX_LOSSES = 4  # losses of a trial's worker at one epoch until the trial is taken for the cause
STOPPED = "stopped by a user"  # the reason of such a trial's end
_CAPACITY_SECONDS = 5.0  # between two reads of the cluster's resources
_LOOK_SECONDS = 1.0  # between two looks at all trials, since a step handles only one of them
_SAVE_SECONDS = 0.1  # after a report until all reports since then are saved


class Listener(Protocol):
    """Receiver of a trial's events, in this order; called in the driver's main thread."""

    def trial_started(self, attempt: TrialAttempt) -> None: ...

    def trial_begun(self, stage: Stage, report: Report) -> None: ...

    def trial_epoch(self, stage: Stage, report: Report) -> None: ...

    def trial_ended(
        self, stage: Stage, number: int, state: TrialState, reason: str | None
    ) -> None: ...


class EventLog(Listener, Protocol):
    """Listener that records the events; those since the last `save` are lost with the process."""

    def save(self) -> None: ...


@dataclass
class PackWatch(Watch):
    process: tuple[str, int] | None = None  # node and pid; None before the first report
    hang: str | None = None  # description of the hang for which the worker was killed

    def started(self, process: tuple[str, int]) -> None:
        """Begin to watch: the time until the worker's process starts is no silence."""
        self.process, self.silence = process, 0.0

    def on_report(self, report: Report) -> None:
        if report.metrics:
            self.answered()
        self.silence = 0.0  # the time to start is no measure of an epoch


@dataclass
class Live:
    attempt: TrialAttempt
    last_epoch: int = 0  # of this attempt
    started: bool = False
    drained: bool = False  # it has reported an epoch since the drain began


class StageDriver:
    """The link between the study and Tune. Only this class uses Tune's trial ids."""

    def __init__(
        self,
        spec: SweepSpec,
        study: StageStudy,
        folder_of: Callable[[TrialAttempt], Path],
        resources: cluster.TrialResources,
        listener: EventLog,
        next_attempt: Callable[[], TrialAttempt | None],
        pack_size: Callable[[TrialConfig], int],  # maximum for trials of that form
        draining: threading.Event,
        paused: threading.Event,
        stopped: Collection[int],  # trials of the search that a user stops, which may become more
        allowed: Callable[[], int | None],  # packs that may train beside other sweeps; None: all
    ) -> None:
        self.spec = spec
        self.study = study
        self.live: dict[str, dict[int, Live]] = {}  # by Tune's trial, which is a pack of trials
        self.lost: deque[int] = deque(study.unfinished())
        self._aside: deque[TrialAttempt] = deque()  # attempts that wait for others of their form
        self._alone: set[int] = set()  # trials whose pack was lost
        self._watches: dict[str, PackWatch] = {}  # by Tune's trial
        self._hangs: Counter[int] = Counter()  # by trial
        self._folder_of = folder_of
        self._resources = resources
        self._listener = listener
        self._next_attempt = next_attempt
        self._pack_size = pack_size
        self._draining = draining
        self._paused = paused
        self._stopped = stopped
        self._allowed = allowed
        self._yielded: set[str] = set()  # packs that end, so that another sweep can train
        self._capacity = (0.0, 1)  # time of the last read, number of trials that fit
        self._unsaved_since: float | None = None  # time of the first report that is not saved
        self.full: str | None = None  # which disk, once a worker could not save

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Tune pickles this state, but a restart reads the study instead."""
        return {}

    # -- called by Tune ----------------------------------------------------------------------

    @property
    def _is_stopping(self) -> bool:
        return self._draining.is_set() or self.full is not None

    @property
    def is_drained(self) -> bool:
        """True once a drain waits for no epoch. Workers that still start have none to finish."""
        if not self._draining.is_set():
            return False
        packs = list(self.live.values())  # a copy, since other threads read this too
        members = [live for pack in packs for live in list(pack.values())]
        return all(m.drained or not m.started for m in members)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next pack; None for "later"; FINISHED at the end."""
        if self._is_stopping:
            self.save()
            return None if self.live else Searcher.FINISHED
        if self._paused.is_set() or len(self.live) >= self._limit():
            return None
        self.save()  # the study never has epochs that the listener would lose
        pack = self._next_pack()
        if not pack:
            return None if self.live else Searcher.FINISHED
        self.live[trial_id] = {attempt.number: Live(attempt) for attempt in pack}
        self._watches[trial_id] = PackWatch()
        for attempt in pack:
            self._listener.trial_started(attempt)
        return {"tasks": json.dumps([asdict(self._task(attempt)) for attempt in pack])}

    def _next_pack(self) -> list[TrialAttempt]:
        """Return the next attempt, with others that can train as one model with the first."""
        first = self._next()
        if first is None:
            return []
        pack, others, shape = [first], list[TrialAttempt](), self._form(first)
        most = 1 if shape is None else self._pack_size(shape)
        while len(pack) < most and len(others) < most:
            if (another := self._next()) is None:
                break
            (pack if self._form(another) == shape else others).append(another)
        self._aside.extendleft(reversed(others))
        return pack

    def _next(self) -> TrialAttempt | None:
        if self._aside:
            return self._aside.popleft()
        if self.lost:
            return self.study.next_attempt(self.lost.popleft(), self.spec)
        return self._next_attempt()

    def _form(self, attempt: TrialAttempt) -> TrialConfig | None:
        return None if attempt.number in self._alone else form(attempt.config)

    def _task(self, attempt: TrialAttempt) -> TrialTask:
        return TrialTask(
            stage=attempt.stage,
            number=attempt.number,
            attempt=attempt.attempt,
            config=attempt.config.to_dict(),
            folder=str(self._folder_of(attempt)),
            resume=str(attempt.resume) if attempt.resume else None,
            threads=self._resources.threads,
            gpu=self._resources.gpu,
            validate_at=self.spec.rungs if attempt.stage == "search" else [],
        )

    def _limit(self) -> int:
        """Return the number of packs that Tune may have; Ray places those that fit."""
        allowed, fit = self._allowed(), self.capacity()
        # one more than fit, so that an actor is reused
        return fit + 1 if allowed is None or allowed >= fit else allowed

    def _has_to_yield(self) -> bool:
        """Return True if more packs train than may, for which another sweep waits."""
        allowed = self._allowed()
        return allowed is not None and len(self.live) - len(self._yielded) > self._limit()

    def capacity(self) -> int:
        asked, fit = self._capacity
        if time.monotonic() - asked > _CAPACITY_SECONDS:
            fit = cluster.slots(self._resources)
            self._capacity = (time.monotonic(), fit)
        return fit

    def should_stop(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Process each report of a pack once; return True if the whole pack ends here."""
        members = self.live.get(trial_id)
        if members is not None and "process" in result:
            self._watches[trial_id].started(tuple(result["process"]))
            return False
        if members is None or "reports" not in result:
            return True  # ended already: Tune repeats the last report of a function that returns
        reports = [Report(**fields) for fields in json.loads(result["reports"])]
        self._unsaved_since = self._unsaved_since or time.monotonic()
        self._watches[trial_id].on_report(reports[0])
        for report in reports:
            if report.number in members:  # else ended, though its worker still trains
                self._on_report(members, report, len(reports))
        if not members:
            del self.live[trial_id], self._watches[trial_id]
            return True
        for live in members.values():
            live.drained = self._draining.is_set()
        if self._has_to_yield():
            self._yielded.add(trial_id)
        return self._is_stopping or self._paused.is_set() or trial_id in self._yielded

    def _on_report(self, members: dict[int, Live], report: Report, pack: int) -> None:
        live = members[report.number]
        if not live.started and (reason := self._on_start(live, report)):
            self._prune(members, live.attempt, reason)
            return
        if report.end in ("diverged", "failed"):
            self._end(members, report.number, report.end, None, report.reason)  # type: ignore[arg-type]
            return
        if report.end == "full":
            self.full = report.reason
        if report.epoch <= live.last_epoch or not report.metrics:
            return
        self._on_epoch(live, report, pack)
        if report.end == "complete":
            objective = report.metrics[self.spec.objective.metric]
            self._end(members, report.number, "complete", objective, None)
        elif reason := self._why_prune(live.attempt, report.epoch, report.metrics):
            self._prune(members, live.attempt, reason)

    def save_if_due(self) -> None:
        """Save the reports of the last moment together: a transaction costs more than a report."""
        if self._unsaved_since and time.monotonic() - self._unsaved_since > _SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Save all reports: the listener first, since the study says where a trial resumes."""
        if self._unsaved_since is not None:
            self._listener.save()
            self.study.save()
            self._unsaved_since = None

    def _why_prune(
        self, attempt: TrialAttempt, epoch: int, metrics: Mapping[str, float]
    ) -> str | None:
        """Return why a user or the pruner, which compares validated epochs only, ends the trial."""
        if attempt.stage != "search":
            return None
        if attempt.number in self._stopped:
            return STOPPED
        if self._objectives(metrics) is None or not self.study.should_prune(attempt.number):
            return None
        return f"behind its peers after epoch {epoch}"

    def _prune(self, members: dict[int, Live], attempt: TrialAttempt, reason: str) -> None:
        self._end(members, attempt.number, "pruned", None, reason)
        if members:
            self._send_away(attempt)

    def _objectives(self, metrics: Mapping[str, float]) -> list[float] | None:
        """Return the objectives' values, the main one first; None without validation."""
        objectives = self.spec.objectives
        if not objectives.keys() <= metrics.keys():
            return None
        return [metrics[name] for name in objectives]

    def _send_away(self, attempt: TrialAttempt) -> None:
        """Stop one trial of a pack through a file, since Tune can only end the whole pack."""
        folder = self._folder_of(attempt)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / LEAVE).touch()

    def watch(self, seconds: float) -> None:
        """Kill each worker that hangs; `seconds` have passed since the last call.

        Tune then reports the worker's death, as that of any other worker.
        """
        timeout = self.spec.resources.trial_timeout
        limit = None if timeout == "auto" else timeout
        for trial_id, watch in self._watches.items():
            watch.wait(seconds)
            earlier = max(self._hangs[number] for number in self.live[trial_id])
            if watch.process is not None and watch.hangs(limit, earlier):
                watch.hang = f"it hung: no report for {duration(watch.silence)}"
                self._hangs.update([*self.live[trial_id]])
                cluster.kill_worker(*watch.process)
                watch.silence = 0.0

    def tune_ended(self, trial_id: str, *, out_of_memory: str | None = None) -> None:
        """Handle a pack that Tune has ended. A trial that has not ended was lost or drained.

        `out_of_memory`: the message of Ray's memory monitor if the monitor killed the worker. A
        second kill fails the trial.
        """
        members, watch = self.live.pop(trial_id, None), self._watches.pop(trial_id, PackWatch())
        if members is None or self._is_stopping:
            return
        hang = watch.hang
        left = self._paused.is_set() or trial_id in self._yielded
        self._yielded.discard(trial_id)
        if left and hang is None:
            self.lost.extend(members)
            return
        for number in members:
            self.study.explain_loss(number, hang or out_of_memory or "its worker's process ended")
        if len(members) > 1:  # the trial to blame is unknown: each trial's next attempt is alone
            self._alone.update(members)
            self.lost.extend(members)
        else:
            for number in list(members):
                self._on_loss(members, number, out_of_memory, hang)

    def _on_loss(
        self, members: dict[int, Live], number: int, out_of_memory: str | None, hang: str | None
    ) -> None:
        if out_of_memory is not None:
            self._on_memory_kill(members, number, out_of_memory)
            return
        if self.study.lost(number) < MAX_LOSSES:
            self.lost.append(number)
        else:
            often = "often because memory ran out: see Ray's logs"
            reason = (
                f"its worker was lost {MAX_LOSSES} times after epoch {self.study.epochs(number)}, "
                f"{often if hang is None else f'the last time because {hang}'}"
            )
            self._end(members, number, "failed", None, reason)

    def _on_memory_kill(self, members: dict[int, Live], number: int, what: str) -> None:
        if not self.study.killed_for_memory(number):
            self.lost.append(number)
        else:
            reason = f"out of host memory, twice (resources.cpu: how many run at once): {what}"
            self._end(members, number, "failed", None, reason)

    def _on_start(self, live: Live, report: Report) -> str | None:
        """Record that an attempt has started; return why it ends at once, if it does."""
        live.started = True
        self.study.started(report.number, report.node, report.resumed_from)
        self._listener.trial_begun(live.attempt.stage, report)  # first: metrics may repeat
        return self._replay_epochs(live.attempt, report.history or [])

    def _replay_epochs(
        self, attempt: TrialAttempt, history: Sequence[Mapping[str, float]]
    ) -> str | None:
        """Replay the epochs of earlier attempts that the study lacks, with their decisions.

        Workers outlive a killed driver for a few seconds and finish epochs meanwhile.  The driver's
        last reports may be unsaved.
        """
        for row in history[self.study.epochs(attempt.number) :]:
            epoch = int(row["epoch"])
            objectives = self._objectives(row)
            self.study.epoch(attempt.number, epoch, objectives, None, trained=True)
            is_last = epoch == attempt.config.training.epochs  # which completes the trial
            if not is_last and (reason := self._why_prune(attempt, epoch, row)):
                return reason
        return None

    def _on_epoch(self, live: Live, report: Report, pack: int) -> None:
        live.last_epoch = report.epoch
        objectives = self._objectives(report.metrics)
        self._listener.trial_epoch(live.attempt.stage, report)  # first: metrics may repeat
        self.study.epoch(
            report.number,
            report.epoch,
            objectives,
            report.checkpoint,
            trained=report.trained,
            seconds=report.seconds / pack,
            gpu_seconds=report.seconds * self._resources.gpu / pack,
            joules=report.system.get(ENERGY),
            violations=None if objectives is None else self.spec.violations(report.metrics),
        )

    def _end(
        self,
        members: dict[int, Live],
        number: int,
        state: TrialState,
        value: float | None,
        reason: str | None,
    ) -> None:
        """End a trial, in the study last: if the driver dies before, the trial ends again."""
        live = members.pop(number)
        self._listener.trial_ended(live.attempt.stage, number, state, reason)
        self.study.end(number, state, value, reason)


class _Passing(BaseException):
    """Carrier of a driver's error past Tune, which would treat the error as a trial's."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class _Drained(BaseException):
    """Way out of Tune, which would wait seconds for its actors, once a drain waits for no epoch."""


def _leave_if_drained(driver: StageDriver) -> None:
    if driver.is_drained:
        raise _Drained


@contextmanager
def _past_tune() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise _Passing(error) from error


class _Searcher(Searcher):
    def __init__(self, driver: StageDriver) -> None:
        super().__init__()
        self._driver = driver

    @_past_tune()
    def suggest(self, trial_id: str) -> Any:
        return self._driver.suggest(trial_id)

    @_past_tune()
    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        if not error:  # on an error, Tune passes the cause to the callback
            self._driver.tune_ended(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the study is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing: the study is the state."""


class _Fifo(FIFOScheduler):
    """FIFO scheduler that chooses among live trials; Ray's looks at all trials in every step."""

    def __init__(self, driver: StageDriver) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._driver = driver

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        live = tune_controller.get_live_trials()
        pending = {trial.trial_id: trial for trial in live if trial.status == "PENDING"}
        return next((pending[each] for each in self._driver.live if each in pending), None)


class _Stopper(tune.Stopper):
    def __init__(self, driver: StageDriver) -> None:
        self._driver = driver

    @_past_tune()
    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        ends = self._driver.should_stop(trial_id, result)
        _leave_if_drained(self._driver)
        return ends

    def stop_all(self) -> bool:
        return False


class _Reconcile(tune.Callback):
    """Callback that reconciles the trials that Tune has ended, and watches those that train.

    Tune writes the error that ended a trial to a text file. Tune reports no error of an actor that
    dies during its reset for another trial.
    """

    def __init__(self, driver: StageDriver) -> None:
        self._driver = driver
        self._last_look = time.monotonic()

    @_past_tune()
    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        text = Path(trial.error_file).read_text() if trial.error_file else ""
        self._driver.tune_ended(trial.trial_id, out_of_memory=_of_memory(text))

    @_past_tune()
    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        passed = time.monotonic() - self._last_look
        if passed >= _LOOK_SECONDS:
            self._last_look += passed
            self._driver.watch(passed)
            for trial in trials:
                if trial.trial_id in self._driver.live and trial.status in ("TERMINATED", "ERROR"):
                    self._driver.tune_ended(trial.trial_id)
        self._driver.save_if_due()
        _leave_if_drained(self._driver)


def _of_memory(text: str) -> str | None:
    """Return the message of Ray's memory monitor if the monitor killed the worker, else None."""
    lines = [line for line in text.splitlines() if "running low on memory" in line]
    return lines[-1] if lines else None


def see_memory_kills() -> None:
    """Let Tune treat an actor that Ray's memory monitor killed during its work as a dead actor.

    Ray 2.60 raises an error of its own for such an actor. Tune does not handle this error and would
    end the stage.
    """
    for module in (actor_manager, tune_controller):
        vars(module)["RayActorError"] = (RayActorError, OutOfMemoryError)


def run_stage(
    driver: StageDriver, data: TrainingData, resources: cluster.TrialResources, scratch: Path
) -> None:
    """Run until nothing is left to suggest. `scratch` is Tune's folder, removed at the end."""
    shutil.rmtree(scratch, ignore_errors=True)  # left by a killed driver
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    # Tune lists the lost attempts at the end, by ids that no user knows
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)
    # Tune's last snapshot of its state may not fit on a full disk; no code reads the snapshot
    logging.getLogger("ray.tune.execution.experiment_state").setLevel(logging.CRITICAL)
    see_memory_kills()
    trainable = tune.with_resources(
        tune.with_parameters(train, data=data), {"cpu": resources.cpu, "gpu": resources.gpu}
    )
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=_Searcher(driver),
            scheduler=_Fifo(driver),
            num_samples=-1,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=scratch.name,
            storage_path=str(scratch.parent),
            stop=_Stopper(driver),
            callbacks=[_Reconcile(driver)],
            failure_config=tune.FailureConfig(max_failures=0),
            verbose=0,
        ),
    )
    try:
        try:
            tuner.fit()
        finally:
            driver.save()
    except _Passing as passing:
        raise passing.error from None
    except _Drained:
        pass
    except (EOFError, ValueError) as error:
        # at its end Tune reads its last snapshot, which a full disk cuts off or keeps from being
        if disk.has_room(scratch):
            raise
        raise DiskFull(driver.full or disk.described(scratch, error)) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
