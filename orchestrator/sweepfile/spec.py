"""The sweep file as a frozen, validated object with all defaults.

A setting is named by its dotted path, such as `model.prior.std`. An invalid value raises pydantic's
ValidationError. `loader` adds the lines of the file to the messages.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Discriminator, Field, Tag, ValidationError, model_validator

from aae_core.config import TrialConfig, without_younger
from aae_core.declarations import ARCHITECTURES
from aae_core.errors import ConfigError
from aae_core.metrics import METRICS, Bounds, Direction
from aae_core.reading import MOST, digest
from orchestrator.records import EVENTS, Event, Stage, violation
from orchestrator.sweepfile.messages import nearest, problems
from orchestrator.sweepfile.parameters import (
    Choice,
    Count,
    FloatRange,
    Parameter,
    Spec,
    TrialSpec,
    Value,
    contradictions,
    refusals,
    settings_of,
)

# Upper limits, within what a database and Optuna hold. The study has a trial for each confirmation.
_Confirmations = Annotated[Count, Field(le=10_000)]
_Hours = Annotated[float, Field(ge=0.0001, le=1_000_000)]


class TpeSpec(Spec):
    """Tree-structured Parzen estimator."""

    kind: Literal["tpe"] = "tpe"
    startup_trials: Count = 10  # random trials before the model suggests any


class GpSpec(Spec):
    """Gaussian process."""

    kind: Literal["gp"] = "gp"
    startup_trials: Count = 10


class QmcSpec(Spec):
    """Quasi-random search by a scrambled Sobol' sequence."""

    kind: Literal["qmc"] = "qmc"


class RandomSpec(Spec):
    kind: Literal["random"] = "random"


class GridSpec(Spec):
    """Grid search: every combination once."""

    kind: Literal["grid"] = "grid"


SamplerSpec = Annotated[TpeSpec | GpSpec | QmcSpec | RandomSpec | GridSpec, Discriminator("kind")]


class HalvingSpec(Spec):
    """Asynchronous successive halving."""

    kind: Literal["successive_halving"] = "successive_halving"
    grace_epochs: Count = 5  # epochs before a trial may be pruned
    reduction_factor: int = Field(default=3, ge=2, le=MOST)  # one in so many trials continues


class HyperbandSpec(Spec):
    kind: Literal["hyperband"] = "hyperband"
    grace_epochs: Count = 5
    reduction_factor: int = Field(default=3, ge=2, le=MOST)


class MedianSpec(Spec):
    """Median rule: prune a trial worse than the median of earlier trials at the same epoch."""

    kind: Literal["median"] = "median"
    grace_epochs: Count = 5
    startup_trials: Count = 5  # trials that must end before any is pruned


class NoPrunerSpec(Spec):
    kind: Literal["none"] = "none"


PrunerSpec = Annotated[
    HalvingSpec | HyperbandSpec | MedianSpec | NoPrunerSpec, Discriminator("kind")
]


_OBJECTIVES = [n for n, m in METRICS.items() if n.startswith("val/") and m.better != "none"]


def objectives_of(kind: str, labels: int | None = None, further: Sequence[str] = ()) -> list[str]:
    """Return the metrics that can be objectives for this architecture, the default first.

    `labels` is as in the sweep file, and `further` its `training.metrics`. Categories are classes
    if a trial sees labels, else clusters.
    """
    architecture = ARCHITECTURES[kind]
    clusters = ("cluster_error", "cluster_error_majority")
    unmeasured: tuple[str, ...] = ()
    if kind == "dimensionality_reduction":
        unmeasured = ("error",) if labels == 0 else clusters
    measured = [
        f"val/{name}" for name in (*architecture.metrics, *further) if name not in unmeasured
    ]
    default = f"val/{architecture.objective}"
    objectives = [name for name in _OBJECTIVES if name in measured]
    objectives += [name for name in measured if name not in _OBJECTIVES and _is_objective(name)]
    return sorted(objectives, key=lambda name: (name != default, name != "val/cluster_error"))


def _is_objective(name: str) -> bool:
    return name.startswith("val/") and name in METRICS and METRICS[name].better != "none"


def _objective_name(name: str) -> str:
    if _is_objective(name):
        return name
    if name not in METRICS:
        raise ValueError(f"unknown metric `{name}`; {nearest(name, _OBJECTIVES)}")
    if name.startswith("val/"):
        raise ValueError(
            f"`{name}` is a diagnostic, not an objective; choose {' or '.join(_OBJECTIVES)}"
        )
    raise ValueError(
        f"`{name}` is not a validation metric: search has no test data, and the training loss "
        f"rewards memorisation; choose {' or '.join(_OBJECTIVES)}"
    )


def _choose(objectives: list[str]) -> str:
    return f"choose one of {', '.join(objectives)}" if objectives else "no metric is"


class ObjectiveSpec(Spec):
    metric: Annotated[str, AfterValidator(_objective_name)]
    direction: Direction = Field(default_factory=lambda given: METRICS[given["metric"]].direction)

    @model_validator(mode="after")
    def _as_declared(self) -> Self:
        declared = METRICS[self.metric].direction
        if self.direction != declared:
            raise ConfigError({"direction": f"must be {declared} for {self.metric}"})
        return self


class BudgetSpec(Spec):
    """Limits after which no trial starts. Running trials continue to their ends."""

    hours: _Hours | None = None  # hours of wall clock
    gpu_hours: _Hours | None = None  # duration of epochs times `resources.gpu`

    @model_validator(mode="after")
    def _of_something(self) -> Self:
        if self.hours is None and self.gpu_hours is None:
            raise ValueError("must say `hours` or `gpu_hours`")
        return self


def _open_at_most_on_one_side(bounds: Bounds) -> Bounds:
    low, high = bounds
    if low is None and high is None:
        raise ValueError("must have a low end, a high end, or both")
    if low is not None and high is not None and low >= high:
        raise ValueError(f"must be [low, high]; {low:g} is not below {high:g}")
    return bounds


class SearchSpec(Spec):
    RENAMED: ClassVar = {  # former keys, for the message about an unknown key
        "also": "secondary_objectives",
        "learn_from": "warm_start",
        "start": "initial_trials",
    }

    trials: Count
    space: dict[str, Parameter] = Field(min_length=1)
    sampler: SamplerSpec = TpeSpec()
    pruner: PrunerSpec = NoPrunerSpec()
    objective: ObjectiveSpec | None = None  # None: the architecture's default
    secondary_objectives: tuple[
        Annotated[str, AfterValidator(_objective_name)], ...
    ] = ()  # more objectives: a Pareto front
    balance: str | None = None  # a parameter; each of its choices gets the same number of trials
    budget: BudgetSpec | None = None
    patience: Count | None = None  # completed trials without a better one that end the search
    target: float | None = None  # value of the objective that ends the search
    constraints: dict[str, Annotated[Bounds, AfterValidator(_open_at_most_on_one_side)]] = Field(
        default={}  # by metric; a trial that breaks one is confirmed only if no other is left
    )
    initial_trials: tuple[
        dict[str, Value], ...
    ] = ()  # the first trials; missing parameters are sampled
    warm_start: str | None = None  # a sweep whose trials the sampler uses from the start

    @property
    def planned(self) -> int:
        """Maximum number of trials. A grid ends with its last combination."""
        if self.sampler.kind != "grid":
            return self.trials
        return min(self.trials, self._combinations)

    @property
    def span(self) -> str:
        """Limits of the search in words: trials and hours."""
        hours = f"{self.budget.hours:g}" if self.budget and self.budget.hours else "unlimited"
        return f"{self.trials} trials, hours {hours}"

    @property
    def _combinations(self) -> int:
        varied = [p for p in self.space.values() if not isinstance(p, FloatRange)]
        return math.prod(len(p.choices if isinstance(p, Choice) else p.values) for p in varied)


class ConfirmSpec(Spec):
    """Selection of the winners to train again, and the number of seeds."""

    top: _Confirmations = 1
    per: str | None = None  # `top` winners for every choice of this parameter
    seeds: _Confirmations = 3
    race: Annotated[_Confirmations, Field(ge=2)] | None = None  # seeds until losers get no more
    overrides: dict[str, Value] = Field(default={}, alias="set")  # by path, only for confirmation
    baseline: bool = True  # control: also train the file's own configuration with the same seeds
    margin: float | None = Field(default=None, gt=0)  # smaller differences do not matter

    @property
    def heats(self) -> list[int]:
        """Seeds of each candidate after each round. A race doubles the number."""
        heats = [] if self.race is None else [self.race]
        while heats and heats[-1] < self.seeds:
            heats.append(min(2 * heats[-1], self.seeds))
        return heats or [self.seeds]


class ParzenSpec(Spec):
    samples: Count = 10_000_000  # for the first `models` seeds of each group's winner
    models: Count = 1  # number of seeds that get `samples`
    screen_samples: Count = 100_000  # for every other confirmed model


class EvaluateSpec(Spec):
    parzen: ParzenSpec = ParzenSpec()


def _web_address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an address, like https://host/path")
    if parts.username or parts.password:
        raise ValueError(
            "must not have a password, which every record would show; set it as AAE_NOTIFY_URL"
        )
    return url


_LEAST_SHARE = 0.0001  # of a CPU or GPU: Ray counts in ten-thousandths
_MOST_RESOURCES = 100_000  # CPUs or GPUs


def _share(amount: float) -> float:
    if round(amount, 4) != amount:
        raise ValueError("must have at most 4 decimals: Ray counts in ten-thousandths")
    return amount


def _gpus(amount: float) -> float:
    if 0 < amount < _LEAST_SHARE:
        raise ValueError(f"must be 0 or at least {_LEAST_SHARE}")
    if amount > 1 and not amount.is_integer():
        raise ValueError("must be a whole number above 1: Ray shares a GPU, but not several")
    return _share(amount)


_Gpus = Annotated[float, Field(ge=0, le=_MOST_RESOURCES), AfterValidator(_gpus), Tag("number")]
_Auto = Annotated[Literal["auto"], Tag("auto")]
_Seconds = Annotated[float, Field(gt=0), Tag("number")]
_AutoOrNumber = Discriminator(lambda value: "auto" if isinstance(value, str) else "number")


class ResourcesSpec(Spec):
    """`cpu` and `gpu` of one trial (`auto`: a GPU if there is one); `disk_gb` for checkpoints.

    `pack`: how many trials of the same form may share the resources, trained as one model. `auto`:
    as many as gain speed and still let the sampler learn between trials.

    `price_per_hour`: price of an hour of the `cpu` and `gpu` of one trial, in `currency`. `plan`,
    `status` and the report then show what the training costs.

    `trial_timeout`: seconds without a report after which a worker counts as hung and its attempt as
    lost. `auto`: ten times the attempt's longest epoch so far, and at least a minute.
    """

    cpu: Annotated[float, Field(ge=_LEAST_SHARE, le=_MOST_RESOURCES), AfterValidator(_share)] = 1.0
    gpu: Annotated[_Gpus | _Auto, _AutoOrNumber] = "auto"
    pack: Annotated[Annotated[Count, Tag("number")] | _Auto, _AutoOrNumber] = 1
    disk_gb: float | None = Field(default=None, ge=0)
    price_per_hour: float | None = Field(default=None, ge=0)
    currency: str | None = None  # the word beside the amounts, such as EUR
    trial_timeout: Annotated[_Seconds | _Auto, _AutoOrNumber] = "auto"


class NotifySpec(Spec):
    """Address to which the driver posts the `events` of the sweep, as JSON.

    Only AAE_NOTIFY_COMMAND can name a command: a file from somebody else must run nothing.
    """

    url: Annotated[str, AfterValidator(_web_address)]
    events: tuple[Event, ...] = EVENTS


_NAME = r"[a-z0-9_-]{1,64}"


def _sound_name(name: str) -> str:
    if not re.fullmatch(_NAME, name):
        raise ValueError("must be 1 to 64 of the characters a-z, 0-9, `_` and `-`")
    return name


class SweepSpec(TrialSpec):
    """A sweep. Without `search` it only confirms the file's own configuration."""

    name: Annotated[
        str, AfterValidator(_sound_name), Field(json_schema_extra={"pattern": f"^{_NAME}$"})
    ]
    search: SearchSpec | None = None
    confirm: ConfirmSpec = ConfirmSpec()
    evaluate: EvaluateSpec = EvaluateSpec()
    resources: ResourcesSpec = ResourcesSpec()
    notify: NotifySpec | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        search = self.search
        found = contradictions(
            self,
            search.space if search else {},
            sampler=search.sampler.kind if search else None,
            start=search.initial_trials if search else (),
            balance=search.balance if search else None,
            per=self.confirm.per,
        )
        if self.objective.metric not in self._objectives:
            kinds = " and ".join(self._kinds)
            found["search.objective.metric"] = (
                f"`{self.objective.metric}` is not measured on {kinds}; {_choose(self._objectives)}"
            )
        found |= self._contradictions_of_objectives()
        found |= {
            f"search.constraints.{name}": f"is not measured; {nearest(name, self._measured)}"
            for name in (search.constraints if search else ())
            if name not in self._measured
        }
        found |= self._contradictions_of_overrides()
        if self.confirm.race is not None and self.confirm.race >= self.confirm.seeds:
            found["confirm.race"] = f"must be below confirm.seeds, {self.confirm.seeds}"
        if found:
            raise ConfigError(found)
        return self

    def _contradictions_of_objectives(self) -> dict[str, str]:
        search = self.search
        if search is None or not search.secondary_objectives:
            return {}
        found, key, secondary = {}, "search.secondary_objectives", search.secondary_objectives
        if len({self.objective.metric, *secondary}) <= len(secondary):
            found[key] = "names an objective twice; search.objective counts too"
        for name in (name for name in secondary if name not in self._objectives):
            left = [other for other in self._objectives if other != self.objective.metric]
            found[key] = f"`{name}` is not measured on all its models; {_choose(left)}"
        for key in ("patience", "target"):
            if getattr(search, key) is not None:
                found[f"search.{key}"] = "must be left out: several objectives have no single best"
        return found

    def _contradictions_of_overrides(self) -> dict[str, str]:
        overrides = self.confirm.overrides
        space = self.search.space if self.search else {}
        known = settings_of(self, space)
        found = {
            f"confirm.set.{path}": "is searched, and confirm trains what the search chose; drop one"
            if path in space
            else f"not a setting of a trial; {nearest(path, known)}"
            for path in overrides
            if path in space or path not in known
        }
        if found or not overrides:
            return found
        if self.search is None:
            return {"confirm.set": "needs a `search`; without one, change the settings themselves"}
        try:
            confirmed = self.trial({**overrides}, self.seed)
        except ValidationError as error:
            messages = problems(error, TrialSpec).items()
            return {f"confirm.set.{path}": message for path, message in messages}
        refused = "; ".join(f"{path}: {said}" for path, said in refusals(confirmed, space).items())
        return {"confirm.set": f"contradicts {refused}"} if refused else {}

    @property
    def _kinds(self) -> tuple[str, ...]:
        """Kinds of the sweep's models."""
        varied = self.search.space.get("model.kind") if self.search else None
        return tuple(varied.ends) if varied else (self.model.kind,)

    @property
    def _objectives(self) -> list[str]:
        """Possible objectives that are measured on every kind of the sweep's models."""
        known = [kind for kind in self._kinds if kind in ARCHITECTURES]
        first, *others = [
            objectives_of(kind, self.data.labels, self.training.metrics)
            for kind in (known or [self.model.kind])
        ]
        return [
            objective
            for objective in first
            if all(objective in objectives for objectives in others)
        ]

    @property
    def _measured(self) -> list[str]:
        """Metrics for constraints, measured on all kinds of the sweep's models after each epoch."""
        first, *others = [
            [
                *(f"train/disc_{block}" for block in ARCHITECTURES[kind].adversaries),
                *(f"val/{name}" for name in ARCHITECTURES[kind].metrics),
                *(f"val/{name}" for name in self.training.metrics),
            ]
            for kind in self._kinds
            if kind in ARCHITECTURES
        ] or [[]]
        return [name for name in first if all(name in names for names in others)]

    def violations(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return by how much each constraint of the search is violated; at most 0 if it is met."""
        constraints = self.search.constraints if self.search else {}
        return {name: violation(metrics[name], bounds) for name, bounds in constraints.items()}

    @property
    def objective(self) -> ObjectiveSpec:
        """The file's objective, else the architecture's default."""
        if self.search and self.search.objective:
            return self.search.objective
        return ObjectiveSpec(metric=objectives_of(self.model.kind, self.data.labels)[0])

    @property
    def objectives(self) -> dict[str, Direction]:
        """Direction of each objective, the main one first."""
        secondary = self.search.secondary_objectives if self.search else ()
        return {self.objective.metric: self.objective.direction} | {
            name: METRICS[name].direction for name in secondary
        }

    @property
    def compared(self) -> str | None:
        """The parameter whose values every result compares, if any."""
        return self.confirm.per or (self.search.balance if self.search else None)

    @property
    def has_parzen(self) -> bool:
        """True if Parzen likelihood is measured on any of the sweep's models."""
        return any("parzen_ll" in ARCHITECTURES[kind].metrics for kind in self._kinds)

    def stage_config(self, stage: Stage, params: Mapping[str, Value], seed: int) -> TrialConfig:
        """Return a trial's configuration; for confirmation with the settings of `confirm.set`."""
        overrides = self.confirm.overrides if stage == "confirm" else {}
        return self.trial_config({**params, **overrides}, seed)

    @property
    def confirm_epochs(self) -> int:
        """Epochs of the longest confirmation."""
        return int(self.confirm.overrides.get("training.epochs", self.max_epochs))

    @property
    def max_epochs(self) -> int:
        """Epochs of the longest trial of the search."""
        varied = self.search.space.get("training.epochs") if self.search else None
        return int(max(varied.ends)) if varied else self.training.epochs

    @property
    def confirmations(self) -> int:
        """Number of confirmation trials if every group has all its winners."""
        if self.search is None:
            return self.confirm.seeds
        per = self.confirm.per
        groups = len(self.search.space[per].ends) if per else 1
        return self.confirm.seeds * (self.confirm.top * groups + self.confirm.baseline)

    @property
    def baseline_hash(self) -> str | None:
        """Hash of the file's own configuration as `confirm` trains it; None without a search."""
        own = self.stage_config("confirm", {}, self.seed)
        return own.config_hash if self.search else None

    @property
    def pruner(self) -> PrunerSpec:
        """The file's pruner, its grace period at most the epochs of the longest trial."""
        pruner = self.search.pruner if self.search else NoPrunerSpec()
        if isinstance(pruner, NoPrunerSpec):
            return pruner
        grace = min(pruner.grace_epochs, self.max_epochs)
        return pruner.model_copy(update={"grace_epochs": grace})

    @property
    def rungs(self) -> list[int]:
        """Epochs at which the pruner compares trials. These epochs are therefore validated.

        The median pruner has no rungs, since it compares at every validated epoch.
        """
        pruner = self.pruner
        if not isinstance(pruner, HalvingSpec | HyperbandSpec):
            return []
        rungs = [pruner.grace_epochs]  # the same for all brackets of Hyperband
        while (rung := rungs[-1] * pruner.reduction_factor) <= self.max_epochs:
            rungs.append(rung)
        return rungs

    @property
    def notes(self) -> list[str]:
        """Remarks for the author about valid but odd settings."""
        if self.search is None:
            return []
        found = []
        if self.search.pruner != self.pruner:
            found.append(
                "search.pruner.grace_epochs: longer than any trial; "
                f"clamped to {self.max_epochs} epochs, so nothing is pruned"
            )
        if self.confirm.race is not None and self.confirm.top == 1:
            found.append("confirm.race: every group has a single winner (confirm.top)")
        if self.search.planned < self.search.trials:
            found.append(
                f"search.trials: the grid ends after its {self.search.planned} combinations"
            )
        return found

    @property
    def config_hash(self) -> str:
        """Hash of the experiment (8 digits), without settings that may change between runs."""
        document = without_younger(self.resolved())
        for key in ("evaluate", "resources"):
            del document[key]
        if overrides := document.pop("confirm")["set"]:
            document["confirm"] = {"set": overrides}
        if document["search"] is not None:
            for key in ("trials", "budget", "patience", "target"):
                del document["search"][key]
            # keys added after the first sweeps; empty ones must not change an old hash
            for key in ("secondary_objectives", "constraints", "initial_trials", "warm_start"):
                if not document["search"][key]:
                    del document["search"][key]
        return digest(document)[:8]

    @property
    def sweep_id(self) -> str:
        return f"{self.name}-{self.config_hash}"

    def extended(self, *, trials: int = 0, hours: float = 0.0) -> Self:
        """Return the sweep with at least so many trials and hours. Existing larger limits stay."""
        if self.search is None:
            return self
        budget = self.search.budget
        if budget and budget.hours:
            budget = budget.model_copy(update={"hours": max(hours, budget.hours)})
        longer = {"trials": max(trials, self.search.trials), "budget": budget}
        return self.model_copy(update={"search": self.search.model_copy(update=longer)})

    def resolved(self) -> dict[str, Any]:
        """Return the sweep and its defaults as a JSON document that `SweepSpec.of` reads."""
        document = self.model_dump(mode="json", by_alias=True)
        if document["search"] is not None:
            document["search"]["objective"] = self.objective.model_dump(mode="json")
        return document
