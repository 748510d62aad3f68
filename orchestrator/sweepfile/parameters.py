"""Parameters of the search space, and the checks that find contradictions among them.

A parameter is a setting that the search varies. Its name is its dotted path: `model.prior.std`.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import product
from typing import Annotated, Any, Self, get_type_hints

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from aae_core.config import DataConfig, ModelConfig, TrainConfig, TrialConfig
from aae_core.declarations import ARCHITECTURES, PRIORS
from aae_core.plugins import Registry
from aae_core.reading import MOST, settings_class
from orchestrator.sweepfile.messages import nearest, problems, shown

Count = Annotated[int, Field(ge=1, le=MOST)]
_MOST_COMBINATIONS = 1_000_000  # of a grid: Optuna lists them all
Value = Any  # a setting's value: text, number, true or false, or a list of these


class Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Validate a document read from JSON or YAML. Only lists are converted, to tuples.

        Raises pydantic's ValidationError.
        """
        return cls.model_validate_json(json.dumps(document))


def _each_a_tuple(when: Any) -> Any:
    """Expand `when: {path: value}` to `when: {path: [value]}`."""
    if not isinstance(when, Mapping):
        return when
    return {
        path: tuple(values) if isinstance(values, list | tuple) else (values,)
        for path, values in when.items()
    }


class _Parameter(Spec):
    # Allowed values by parent. The parameter exists if every parent has one of its values.
    when: Annotated[dict[str, tuple[Value, ...]], BeforeValidator(_each_a_tuple)] = {}

    def exists(self, params: Mapping[str, Value]) -> bool:
        """Return whether a trial with these parameters has this parameter, too."""
        return all(
            parent in params and params[parent] in values for parent, values in self.when.items()
        )


class Choice(_Parameter):
    choices: tuple[Value, ...] = Field(alias="choice", min_length=1)

    @property
    def ends(self) -> tuple[Value, ...]:
        """Values to check. If the setting accepts these, it accepts all values."""
        return self.choices

    def allows(self, value: Value) -> bool:
        return _is_one_of(value, self.choices)

    includes = allows

    @model_validator(mode="after")
    def _no_repeats(self) -> Self:
        for i, choice in enumerate(self.choices):
            if _is_one_of(choice, self.choices[:i]):
                raise ValueError(f"the choice {shown(choice)} is given twice")
        return self


class IntRange(_Parameter):
    bounds: tuple[int, int] = Field(alias="int")
    log: bool = False
    step: Count = 1

    @property
    def values(self) -> range:
        low, high = self.bounds
        return range(low, high + 1, self.step)

    @property
    def ends(self) -> tuple[int, int]:
        return self.values[0], self.values[-1]

    def allows(self, value: Value) -> bool:
        return not isinstance(value, bool) and value in self.values

    includes = allows

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _check_bounds(self.bounds, self.log)
        if self.log and self.step > 1:
            raise ValueError("`log` and `step` exclude each other; drop one")
        return self


class FloatRange(_Parameter):
    bounds: tuple[float, float] = Field(alias="float")
    log: bool = False

    @property
    def ends(self) -> tuple[float, float]:
        return self.bounds

    def allows(self, value: Value) -> bool:
        """Return False: a `when` cannot name a single value of a float range."""
        return False

    def includes(self, value: Value) -> bool:
        low, high = self.bounds
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and low <= value <= high

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _check_bounds(self.bounds, self.log)
        return self


_KINDS: dict[str, type[_Parameter]] = {"choice": Choice, "int": IntRange, "float": FloatRange}


def _kind(written: Any) -> str | None:
    if isinstance(written, _Parameter):
        return type(written).__name__
    named = [key for key in _KINDS if isinstance(written, Mapping) and key in written]
    return _KINDS[named[0]].__name__ if len(named) == 1 else None


Parameter = Annotated[
    Annotated[Choice, Tag("Choice")]
    | Annotated[IntRange, Tag("IntRange")]
    | Annotated[FloatRange, Tag("FloatRange")],
    Discriminator(
        _kind,
        custom_error_type="parameter_kind",
        custom_error_message="give exactly one of `choice`, `int` and `float`",
    ),
]
PARAMETER_KEYS = (*_KINDS, "log", "step", "when")


class TrialSpec(Spec):
    """Settings of a trial, as the file gives them before the search varies some."""

    seed: int = Field(default=0, ge=0, lt=2**63)
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        TrialConfig(self.data, self.model, self.training, self.seed)  # raises ConfigError
        return self

    def trial(self, params: Mapping[str, Value], seed: int) -> "TrialSpec":
        """Return this trial with other values for the settings that `params` names by path.

        Raises pydantic's ValidationError.
        """
        document = self.model_dump(mode="json", include=set(TrialSpec.model_fields))
        for path, value in params.items():
            *groups, name = path.split(".")
            node = document
            for group in groups:
                node[group] = node.get(group) or {}  # an optional group may be null
                node = node[group]
            node[name] = value
        return TrialSpec.of({**document, "seed": seed})

    def trial_config(self, params: Mapping[str, Value], seed: int) -> TrialConfig:
        """Return the result of `trial` as the core's TrialConfig."""
        trial = self.trial(params, seed)
        return TrialConfig(trial.data, trial.model, trial.training, trial.seed)


def _settings(config: type, prefix: str) -> Iterator[str]:
    for name, hint in get_type_hints(config).items():
        path = f"{prefix}.{name}"
        if (settings := settings_class(hint)) is not None:
            yield from _settings(settings, path)
        elif hint is not Any:  # the settings of another package's declaration: see settings_of
            yield path


SETTINGS = (*_settings(ModelConfig, "model"), *_settings(TrainConfig, "training"))


def settings_of(base: TrialSpec, space: Mapping[str, "Parameter | None"]) -> tuple[str, ...]:
    """Return the paths of all settings, with those that the sweep's own kinds declare."""

    def own(registry: Registry[Any], where: str, kind: str) -> Iterator[str]:
        varied = space.get(f"{where}.kind")
        for name in (kind, *(varied.choices if isinstance(varied, Choice) else ())):
            if name in registry and registry[name].settings is not None:
                yield from _settings(registry[name].settings, f"{where}.settings")

    return (
        *SETTINGS,
        *own(ARCHITECTURES, "model", base.model.kind),
        *own(PRIORS, "model.prior", base.model.prior.kind),
    )


def parents_first(space: Mapping[str, Parameter]) -> list[str]:
    """Return the paths, every parameter after its parents. The order depends only on the space.

    Raises graphlib.CycleError; its second argument is the cycle.
    """
    graph: TopologicalSorter[str] = TopologicalSorter()
    for path in sorted(space):
        graph.add(path, *sorted(space[path].when.keys() & space.keys()))
    return list(graph.static_order())


def contradictions(
    base: TrialSpec,
    space: Mapping[str, Parameter | None],
    *,
    sampler: str | None = None,
    start: Sequence[Mapping[str, Value]] = (),
    balance: str | None = None,
    per: str | None = None,
) -> dict[str, str]:
    """Return messages by path about values that are valid alone but not together.

    None stands for a parameter already found invalid. Only its name is checked.
    """
    sound = {path: parameter for path, parameter in space.items() if parameter is not None}
    known = settings_of(base, space)
    return {
        **{f"search.space.{p}": _no_setting(p, known) for p in space if p not in known},
        **refusals(base, sound),
        **_idle_conditions(space, sound),
        **_circle(sound),
        **_not_included(sound, start),
        **(_no_grid(sound, start, balance) if sampler == "grid" else {}),
        **(_no_category("search.balance", balance, space) if balance is not None else {}),
        **(_no_category("confirm.per", per, space) if per is not None else {}),
    }


def _no_setting(path: str, known: Sequence[str]) -> str:
    if path.partition(".")[0] in ("data", "seed"):
        return f"`{path}` cannot be searched: trials share the data, and each has its own seed"
    return f"not a setting of a trial; {nearest(path, known)}"


def refusals(base: TrialSpec, space: Mapping[str, Parameter]) -> dict[str, str]:
    """Return messages by path about values of the space that a trial rejects, alone or in pairs."""
    settings = settings_of(base, space)
    known = {path: parameter for path, parameter in space.items() if path in settings}
    found: dict[str, list[str]] = {path: [] for path in known}
    sound: dict[str, list[Value]] = {path: [] for path in known}
    for path, parameter in known.items():
        for value in parameter.ends:
            messages = [message for _, message in _refused(base, known, {path: value})]
            found[path] += messages
            sound[path] += [] if messages else [value]
    for (path, value), (other, beside) in _pairs(known, sound):
        for blamed, message in _refused(base, known, {path: value, other: beside}):
            second, its = (path, value) if blamed == other else (other, beside)
            found[blamed].append(f"where {second} is {shown(its)}: {message}")
    return {
        f"search.space.{p}": "; ".join(sorted(set(messages)))
        for p, messages in found.items()
        if messages
    }


def _pairs(
    space: Mapping[str, Parameter], sound: Mapping[str, list[Value]]
) -> Iterator[tuple[tuple[str, Value], tuple[str, Value]]]:
    """Yield pairs of values to check together, at least one of a string-valued parameter.

    Only string-valued parameters, e.g. a kind, restrict others. Float ranges are left out.
    """
    words = [path for path in space if any(isinstance(value, str) for value in sound[path])]
    for path in words:
        for other, parameter in space.items():
            if not isinstance(parameter, FloatRange) and (other not in words or path < other):
                for value, beside in product(sound[path], sound[other]):
                    yield (path, value), (other, beside)


def _refused(
    base: TrialSpec, space: Mapping[str, Parameter], values: Mapping[str, Value]
) -> Iterator[tuple[str, str]]:
    """Yield `(parameter, message)` for each rejected value.

    A problem that another parameter of the space may solve is left out.
    """
    chosen = _with_parents(space, values)
    if chosen is None:
        return
    try:
        base.trial_config(chosen, base.seed)
    except ValidationError as error:
        for where, message in problems(error, TrialSpec).items():
            owner = next((path for path in space if f"{where}.".startswith(f"{path}.")), None)
            if owner is not None and owner in values:
                yield owner, message
            elif owner is None or not _may_exist(space[owner], chosen):
                path, value = next(iter(values.items()))
                yield path, f"with {shown(value)}, {where}: {message}"


def _with_parents(
    space: Mapping[str, Parameter], values: Mapping[str, Value]
) -> dict[str, Value] | None:
    """Return the values, plus parents with which these parameters exist; None if impossible."""
    chosen = dict(values)
    for path in values:
        for parent, allowed in space[path].when.items():
            if parent in chosen and not _is_one_of(chosen[parent], allowed):
                return None
            if allowed and (parent in space or parent in SETTINGS):
                chosen.setdefault(parent, allowed[0])
    return chosen


def _may_exist(parameter: Parameter, chosen: Mapping[str, Value]) -> bool:
    return all(
        _is_one_of(chosen[parent], allowed)
        for parent, allowed in parameter.when.items()
        if parent in chosen
    )


def _idle_conditions(
    space: Mapping[str, Parameter | None], sound: Mapping[str, Parameter]
) -> dict[str, str]:
    return {
        f"search.space.{path}.when.{parent}": message
        for path, parameter in sound.items()
        for parent, values in parameter.when.items()
        if (message := _idle(parent, values, space))
    }


def _idle(
    path: str, values: tuple[Value, ...], space: Mapping[str, Parameter | None]
) -> str | None:
    """Return why a condition on the parameter `path` is useless, None if the condition is valid."""
    parent = space.get(path)
    if path not in space:
        return f"is not in the space, so it never varies; {nearest(path, space)}"
    if not values:
        return "names no value: it can never hold"
    if isinstance(parent, FloatRange):
        return "is a float range, which hits no single value; use `choice` or `int`"
    never = [shown(value) for value in values if parent and not parent.allows(value)]
    if parent and never:
        return f"is never {' nor '.join(never)}; {_can_be(parent)}"
    return None


def _circle(space: Mapping[str, Parameter]) -> dict[str, str]:
    try:
        parents_first(space)
    except CycleError as error:
        circle = error.args[1]
        where = f"search.space.{circle[0]}.when"
        return {where: f"refers to itself: {' → '.join(circle)}"}
    return {}


def _not_included(
    space: Mapping[str, Parameter], start: Sequence[Mapping[str, Value]]
) -> dict[str, str]:
    found = {}
    for i, params in enumerate(start):
        for path, value in params.items():
            if path not in space:
                found[f"search.initial_trials.{i}.{path}"] = (
                    f"is not in the space; {nearest(path, space)}"
                )
            elif not space[path].includes(value):
                found[f"search.initial_trials.{i}.{path}"] = f"{shown(value)} is not in its range"
    return found


def _no_grid(
    space: Mapping[str, Parameter], start: Sequence[Mapping[str, Value]], balance: str | None
) -> dict[str, str]:
    found = {}
    enumerated = [p for p in space.values() if not isinstance(p, FloatRange)]
    combinations = math.prod(
        len(p.choices if isinstance(p, Choice) else p.values) for p in enumerated
    )
    if combinations > _MOST_COMBINATIONS:
        found["search.space"] = (
            f"a grid of {combinations:,} combinations, which are all listed before the first "
            f"trial; give at most {_MOST_COMBINATIONS:,}"
        )
    if start:
        found["search.initial_trials"] = "a grid has an order of its own; drop this"
    for path, parameter in space.items():
        if isinstance(parameter, FloatRange) or (isinstance(parameter, IntRange) and parameter.log):
            found[f"search.space.{path}"] = "a grid needs `choice`, or `int` without `log`"
        if parameter.when:
            found[f"search.space.{path}.when"] = "a grid cannot have `when`: it would repeat trials"
    if balance:
        found["search.balance"] = "a grid is balanced already; drop this"
    return found


def _no_category(where: str, path: str, space: Mapping[str, Parameter | None]) -> dict[str, str]:
    parameter = space.get(path)
    if path not in space:
        hint = nearest(path, space) if space else "there is none"
        return {where: f"`{path}` is not in the search space; {hint}"}
    if isinstance(parameter, IntRange | FloatRange):
        return {where: f"`{path}` is a range; name a parameter with `choice`"}
    if parameter and parameter.when:
        return {where: f"`{path}` has a `when`, so some trials are without it; name another"}
    return {}


def _can_be(parent: Choice | IntRange) -> str:
    if isinstance(parent, Choice):
        return f"its choices are {', '.join(map(shown, parent.choices))}"
    low, high = parent.ends
    return f"it runs from {low} to {high}" + (f" by {parent.step}" if parent.step > 1 else "")


def _check_bounds(bounds: tuple[float, float], log: bool) -> None:
    low, high = bounds
    wrong = []
    if low > high:
        wrong.append(f"low {low:g} > high {high:g}; swap them")
    if log and min(low, high) <= 0:
        wrong.append(f"a `log` range needs bounds above 0, not {min(low, high):g}")
    if wrong:
        raise ValueError("; ".join(wrong))


def _is_one_of(value: Value, others: Iterable[Value]) -> bool:
    """Compare values as YAML does: 1 equals 1.0, but 1 does not equal true."""
    return any(isinstance(value, bool) == isinstance(b, bool) and value == b for b in others)
