"""The study: two Optuna studies per sweep, and the only truth about its trials.

`<sweep>/search` uses the sampler.  `<sweep>/confirm` is a queue of (candidate, fresh seed) pairs
and uses no sampler.  The driver writes every start, epoch and end of a trial here.  The next driver
reads here which trials were lost and from which checkpoints they resume.

A lost attempt and a retry differ: an attempt is lost while its trial is unfinished, and the same
trial gets a further attempt.  A retry is asked for by a user after a trial has failed; Optuna
cannot reopen a finished trial, so a new trial takes the place of the old one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import StorageInternalError
from optuna.samplers import RandomSampler
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from aae_core.config import TrialConfig
from aae_core.seeding import stream_seed
from orchestrator.records import OUT_OF_GPU_MEMORY, OUT_OF_HOST_MEMORY, RunRecord, Stage
from orchestrator.settings import Settings
from orchestrator.study import database
from orchestrator.study.database import StudyStorage
from orchestrator.study.log import LiveTrial, StudyLog
from orchestrator.study.repeats import Repeats
from orchestrator.study.samplers import build_pruner, build_sampler
from orchestrator.study.state import VERSION, SweepState
from orchestrator.study.view import NOT_TRAINED
from orchestrator.study.write_behind import WriteBehindStorage
from orchestrator.sweepfile import space
from orchestrator.sweepfile.spec import SweepSpec

optuna.logging.set_verbosity(optuna.logging.WARNING)

# attributes that a retry does not copy
_OF_ITS_END = ("end", "reason", "node", "started", "losses", "lost", "killed_for_memory")
_ENQUEUED = "enqueued"  # marks a trial of the user's with its index in the state's list
_NOT_ASKED_FOR = {"retry_of", "taken_from"}  # mark trials that no sampler suggested


@dataclass(frozen=True)
class TrialAttempt:
    """One attempt at one trial, ready to be placed."""

    stage: Stage
    number: int
    attempt: int  # counted from 1
    config: TrialConfig
    resume: Path | None  # the last good checkpoint of an earlier attempt
    params: Mapping[str, Any] = field(default_factory=dict)  # of the search space, by path
    extends: int | None = None  # number of the confirmation that it trains on


def open_storage(settings: Settings, *, read_only: bool = False) -> StudyStorage:
    """Open the database of all studies. A reader creates no file: a missing file reads as empty."""
    url = database.url_of(settings)
    file = database.sqlite_file(url)
    if file is None:
        arguments: dict[str, Any] = {"pool_pre_ping": True}
    else:
        arguments = {}
        if not read_only:
            file.parent.mkdir(parents=True, exist_ok=True)
    absent = read_only and file is not None and not file.exists()
    arguments["connect_args"] = database.connect_arguments(url)
    try:
        address = "sqlite://" if absent else url.render_as_string(hide_password=False)
        storage = StudyStorage(settings, address, arguments)
    except (sqlalchemy.exc.SQLAlchemyError, StorageInternalError, ImportError) as error:
        raise database.unusable(url, error) from error
    if file is not None:
        with storage.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    return storage


def sweep_ids(storage: BaseStorage) -> list[str]:
    """Return the id of every sweep in the storage, oldest first."""
    studies = storage.get_all_studies()
    return [
        s.study_name.removesuffix("/search") for s in studies if s.study_name.endswith("/search")
    ]


class StageStudy(StudyLog):
    """The study of one stage: it also suggests trials and retries failed ones."""

    def __init__(self, study: optuna.Study, stage: Stage, storage: StudyStorage) -> None:
        super().__init__(study, stage, storage)
        self._repeats: Repeats | None = None
        self._tally = _Tally()

    @classmethod
    def create(cls, storage: StudyStorage, spec: SweepSpec, stage: Stage) -> "StageStudy":
        """Open the stage's study for a driver; the first call creates the study."""
        name = f"{spec.sweep_id}/{stage}"
        directions = list(spec.objectives.values())
        optuna.create_study(
            storage=storage, study_name=name, directions=directions, load_if_exists=True
        )
        study = optuna.load_study(
            storage=WriteBehindStorage(storage, name),
            study_name=name,
            sampler=RandomSampler(seed=0),
            pruner=build_pruner(spec),
        )
        found = cls(study, stage, storage)
        found.note(version=VERSION, objectives=list(spec.objectives))
        return found

    @classmethod
    def read(cls, storage: StudyStorage, sweep_id: str, stage: Stage) -> "StageStudy | None":
        """Open the stage's study for readers; return None if the stage has not begun."""
        try:
            study = optuna.load_study(
                storage=storage, study_name=f"{sweep_id}/{stage}", sampler=RandomSampler(seed=0)
            )
        except KeyError:
            return None
        return cls(study, stage, storage)

    def asked(self) -> int:
        """Return the number of trials suggested so far; retries and repeats do not count."""
        tally = self._tallied()
        return tally.trials - tally.others - tally.repeats

    def since_best(self) -> int:
        """Return the number of trials completed since the best trial."""
        values = self.completed_values()
        if not values:
            return 0
        best = min if self.optuna_study.directions[0] == StudyDirection.MINIMIZE else max
        return len(values) - 1 - values.index(best(values))

    def completed_values(self) -> list[float]:
        """Return the objective of each completed trial in order of their ends.

        Trials of other sweeps, and those that violate a constraint, are left out.
        """
        complete = self._trials(OptunaState.COMPLETE)
        complete.sort(key=lambda trial: trial.datetime_complete or datetime.max)
        return [
            trial.values[0]
            for trial in complete
            if not NOT_TRAINED & trial.user_attrs.keys()
            and all(violation <= 0 for violation in trial.constraints.values())
        ]

    def ask(self, spec: SweepSpec) -> TrialAttempt | None:
        """Let the sampler suggest the next trial; return None if the suggestion is a repeat.

        After None there is nothing to train: call `ask` again.  The suggestion depends only on the
        file's seed and the trial's number, and for samplers that learn also on finished trials.
        """
        tally = self._tallied()
        number, place = tally.trials, tally.trials - tally.others
        self._fix_parameters(spec, place, len(tally.enqueued))
        config = self._suggest(spec, number, place)
        return None if self._end_repeat(number) else self._attempt(number, config)

    def warm_start(self, other: str, records: Iterable[RunRecord], spec: SweepSpec) -> int:
        """Add another sweep's finished trials, with their parameters in this sweep's space.

        Only the sampler uses these trials: they are not counted, ranked or confirmed.  Returns the
        number of trials.
        """
        assert spec.search is not None
        known = {
            t.user_attrs.get("taken_from") for t in self.optuna_study.get_trials(deepcopy=False)
        }
        every = space.distributions(spec.search.space)
        taken = 0
        for record in records:
            source = f"{other}/{record.number}"
            if source not in known:
                trial = optuna.create_trial(
                    values=[record.metrics[name] for name in spec.objectives],
                    params=space.labels(spec.search.space, record.params),
                    distributions={path: every[path] for path in record.params},
                    user_attrs={"taken_from": source},
                    constraints=spec.violations(record.metrics),
                )
                self.optuna_study.add_trial(trial)
            taken += 1
        self.save()
        return taken

    def enqueue(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Queue confirmations, each with "params" and "seed"; skip those queued before."""
        trials = self.optuna_study.get_trials(deepcopy=False)
        known = [_confirmed(t.user_attrs) for t in trials]
        for entry in entries:
            if _confirmed(entry) not in known:
                self.optuna_study.enqueue_trial({}, user_attrs=dict(entry))
        self.save()

    def extend(self, records: Iterable[RunRecord], epochs: int) -> None:
        """Queue complete confirmations to be trained on, each from its checkpoint.

        The new trial stands for the old one, which stays in the study.
        """
        self.enqueue(
            {
                "params": record.params,
                "seed": record.seed,
                "extends": record.number,
                "extended_to": [*record.extended_to, epochs],
                "progress": {"checkpoint": record.checkpoint},
            }
            for record in records
        )

    def pop(self, spec: SweepSpec) -> TrialAttempt | None:
        """Return the next queued confirmation; None if the queue is empty."""
        if not self._trials(OptunaState.WAITING):
            return None
        trial = self.optuna_study.ask()
        self._open[trial.number] = LiveTrial(trial)
        return self.next_attempt(trial.number, spec)

    def retry(self, *, out_of_memory: bool = False) -> dict[int, int]:
        """Retry every failed trial; return the new trials' numbers, keyed by the old ones.

        Trials that ran out of memory would do so again; only `out_of_memory` retries them.

        The new trial keeps parameters, seed and checkpoint, and begins with another attempt.
        """
        over = set(self._retries().values())
        failed = [
            trial
            for trial in self._trials(OptunaState.FAIL)
            if trial.user_attrs.get("end") == "failed" and trial.number not in over
        ]
        for trial in failed:
            if not out_of_memory and _ran_out_of_memory(trial):
                continue
            kept = {k: v for k, v in trial.user_attrs.items() if k not in _OF_ITS_END}
            self.optuna_study.add_trial(
                optuna.create_trial(
                    state=OptunaState.RUNNING,
                    params=trial.params,
                    distributions=trial.distributions,
                    user_attrs=kept | {"retry_of": trial.number},
                    intermediate_values=trial.intermediate_values,
                )
            )
        self.save()
        return {old: new for new, old in self._retries().items() if old not in over}

    def next_attempt(self, number: int, spec: SweepSpec) -> TrialAttempt:
        known = self._live(number).attributes
        config = spec.stage_config(self.stage, known["params"], known["seed"])
        return self._attempt(number, config.extended(*known.get("extended_to", ())))

    def _attempt(self, number: int, config: TrialConfig) -> TrialAttempt:
        live = self._live(number)
        known = live.attributes
        live.note(attempts=known.get("attempts", 0) + 1, config_hash=config.config_hash)
        self.save()
        # even after a power cut, no later attempt may get this attempt's folder
        database.make_durable(self._storage.engine)
        return TrialAttempt(
            self.stage,
            number,
            known["attempts"],
            config,
            self._checkpoint(live.progress),
            known["params"],
            known.get("extends"),
        )

    @property
    def repeats(self) -> Repeats:
        """The configurations suggested so far."""
        if self._repeats is None:
            trials = self.optuna_study.get_trials(deepcopy=False)
            known = [(t.number, t.user_attrs) for t in trials if "retry_of" not in t.user_attrs]
            self._repeats = Repeats((n, a["config_hash"]) for n, a in known if "config_hash" in a)
        return self._repeats

    def note(self, **changes: Any) -> None:
        """Write fields of the sweep's state."""
        for name, value in SweepState.checked(changes).items():
            self.optuna_study.set_user_attr(name, value)

    def _suggest(self, spec: SweepSpec, number: int, place: int) -> TrialConfig:
        assert spec.search is not None
        self.optuna_study.sampler = build_sampler(spec, place)
        trial = self.optuna_study.ask()
        params = space.suggest(trial, spec.search.space)
        self.optuna_study.sampler = RandomSampler(seed=0)  # the grid sampler would raise in `tell`
        self._open[number] = LiveTrial(trial)
        seed = search_seed(spec.seed, place)
        config = spec.trial_config(params, seed)
        self._open[number].note(params=params, config_hash=config.config_hash, seed=seed)
        return config

    def _end_repeat(self, number: int) -> bool:
        """End a trial that repeats a configuration; return False if the configuration is new.

        The trial gets the first trial's result so far, which only the sampler uses.
        """
        live = self._live(number)
        first = self.repeats.of(number, live.attributes["config_hash"])
        if first is None:
            return False
        live.note(repeats=first)
        newer = {old: new for new, old in self._retries().items()}
        while first in newer:
            first = newer[first]
        known = self.optuna_study.get_trials(deepcopy=False)[first]
        complete = known.state == OptunaState.COMPLETE
        pruned = known.state == OptunaState.PRUNED
        values = known.values if complete else None
        self._constrain(live, known.constraints)
        self.optuna_study.tell(
            number, values, known.state if complete or pruned else OptunaState.FAIL
        )
        self.save()
        del self._open[number]
        return True

    def _fix_parameters(self, spec: SweepSpec, place: int, tried: int) -> None:
        """Enqueue the next trial's fixed parameters.

        These are the user's (`aae-sweep enqueue`) unless all have been tried, else those that the
        file fixes at the place.
        """
        fixed, attributes = _fixed(spec, place), {}
        if tried < len(queue := self.state.enqueued):
            assert spec.search is not None
            fixed = space.labels(spec.search.space, queue[tried])
            attributes = {_ENQUEUED: tried}
        if fixed:
            self.optuna_study.enqueue_trial(fixed, user_attrs=attributes)

    def _tallied(self) -> "_Tally":
        """Return the counts of all suggested trials; each trial is looked at once."""
        for trial in self._trials()[self._tally.trials :]:
            if trial.state == OptunaState.WAITING:
                break
            self._tally.add(trial.user_attrs)
        return self._tally


@dataclass
class _Tally:
    """Counts of a study's first trials, by attributes that never change after the suggestion."""

    trials: int = 0
    others: int = 0  # that no sampler suggested
    repeats: int = 0
    enqueued: set[int] = field(default_factory=set)  # of the user's configurations

    def add(self, attributes: Mapping[str, Any]) -> None:
        other = not _NOT_ASKED_FOR.isdisjoint(attributes)
        self.trials += 1
        self.others += other
        self.repeats += not other and "repeats" in attributes
        if _ENQUEUED in attributes:
            self.enqueued.add(attributes[_ENQUEUED])


def _confirmed(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what makes two entries of the confirmation's queue the same."""
    return entry["params"], entry["seed"], entry.get("extended_to", [])


def _fixed(spec: SweepSpec, place: int) -> dict[str, Any]:
    """Return the parameters that the file fixes at this place, as Optuna stores them."""
    assert spec.search is not None
    fixed = {}
    if spec.search.balance is not None:
        distribution = space.distributions(spec.search.space)[spec.search.balance]
        assert isinstance(distribution, CategoricalDistribution)
        fixed[spec.search.balance] = distribution.choices[place % len(distribution.choices)]
    if place < len(spec.search.initial_trials):
        fixed |= space.labels(spec.search.space, spec.search.initial_trials[place])
    return fixed


def search_seed(seed: int, number: int) -> int:
    """Return an even seed of 32 bits, short enough to type.

    confirm_seed returns odd seeds, so no confirmation repeats a seed of the search.

    Some two of n trials have the same seed with a probability of about n²/2³²: 1e-5 for 200
    trials, 2 % for 10,000. Such trials start from the same noise, as all candidates of a
    confirmation do on purpose. Their settings differ, so neither trial repeats the other.
    """
    return stream_seed(seed, "search", number) >> 32 << 1


def confirm_seed(seed: int, index: int) -> int:
    """Return an odd seed, the same for every candidate: candidates are compared seed by seed.

    Some two of n seeds are equal with a probability of about n²/2³²: 2e-8 for 10 seeds.
    """
    return stream_seed(seed, "confirm", index) >> 32 << 1 | 1


def _ran_out_of_memory(trial: FrozenTrial) -> bool:
    """Return True if an allocation failed; a retry of a worker killed for memory may succeed."""
    reason = str(trial.user_attrs.get("reason"))
    return reason.startswith((OUT_OF_GPU_MEMORY, OUT_OF_HOST_MEMORY))
