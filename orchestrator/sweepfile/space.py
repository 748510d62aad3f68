"""Translate the search space to Optuna.

Optuna stores text, numbers and booleans as choices, but no lists. A list is stored as JSON text.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import ValidationError

from aae_core.config import TrialConfig
from orchestrator.sweepfile.messages import problems, shown
from orchestrator.sweepfile.parameters import (
    Choice,
    FloatRange,
    IntRange,
    Parameter,
    TrialSpec,
    Value,
    parents_first,
)
from orchestrator.sweepfile.spec import SweepSpec

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Space = Mapping[str, Parameter]


class Suggester(Protocol):
    """Methods of `optuna.trial.Trial` that `suggest` calls."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int: ...
    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float: ...


def suggest(trial: Suggester, space: Space) -> dict[str, Value]:
    """Suggest a value for every parameter whose conditions hold, parents first."""
    params: dict[str, Value] = {}
    for path in parents_first(space):
        if space[path].exists(params):
            params[path] = _ask(trial, path, space[path])
    return params


def locate(config: TrialConfig, spec: SweepSpec) -> tuple[dict[str, Value], list[str]]:
    """Return the parameters with which the search of `spec` would try this configuration.

    The seed and settings that change no number are ignored.  If the search never tries the
    configuration, the list names each setting that prevents it: "model.code_dim outside of [5, 7]".
    """
    assert spec.search is not None
    settings = _document(config)
    params: dict[str, Value] = {}
    outside: dict[str, str] = {}
    for path in parents_first(spec.search.space):
        parameter = spec.search.space[path]
        if not parameter.exists(params):
            continue
        value: Any = settings
        for name in path.split("."):
            value = (value or {}).get(name)
        if parameter.includes(value):
            params[path] = value
        else:
            outside[path] = f"{path} {_unmet(parameter)}"
    return params, [*{**_misfits(config, params, spec), **outside}.values()]


def _misfits(config: TrialConfig, params: Mapping[str, Value], spec: SweepSpec) -> dict[str, str]:
    """Return messages by path where the configuration differs from a trial with the parameters."""
    try:
        own = spec.trial_config(params, config.seed)
    except ValidationError as error:
        messages = problems(error, TrialSpec).items()
        return {path: f"a problem with {path}: {message}" for path, message in messages}
    unread = {*config.unread} & {*own.unread}
    return {
        path: message
        for path, message in _differences(_document(config), _document(own))
        if not any(f"{path}.".startswith(f"{each}.") for each in unread)
    }


def _document(config: TrialConfig) -> dict[str, Any]:
    """Return the configuration as JSON holds it, with lists for tuples."""
    document: dict[str, Any] = json.loads(json.dumps(config.to_dict()))
    return document


def _differences(settings: Any, own: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield `(path, message)` for each setting that is not as in the document `own`."""
    if isinstance(settings, dict) and isinstance(own, dict):
        for name in sorted(settings.keys() | own.keys()):
            inner = f"{path}.{name}" if path else name
            yield from _differences(settings.get(name), own.get(name), inner)
    elif settings != own:
        yield path, f"{path} other than {shown(own)}"


def _unmet(parameter: Parameter) -> str:
    if isinstance(parameter, Choice):
        return f"other than {' or '.join(map(shown, parameter.choices))}"
    low, high = parameter.ends
    by = f" by {parameter.step}" if isinstance(parameter, IntRange) and parameter.step > 1 else ""
    return f"outside of [{low:g}, {high:g}]{by}"


def labels(space: Space, params: Mapping[str, Value]) -> dict[str, Any]:
    """Return the parameters as Optuna stores them."""
    return {path: _label(value) for path, value in params.items() if path in space}


def distributions(space: Space) -> dict[str, "BaseDistribution"]:
    """Return Optuna's distribution of every parameter, without conditions."""
    return {path: _distribution(space[path]) for path in parents_first(space)}


def grid(space: Space) -> dict[str, list[Any]]:
    """Return every value of every parameter. Raises ValueError for a float range."""
    return {path: _values(space[path]) for path in parents_first(space)}


def _ask(trial: Suggester, path: str, parameter: Parameter) -> Value:
    match parameter:
        case Choice():
            return _value(parameter, trial.suggest_categorical(path, _values(parameter)))
        case IntRange(log=log, step=step):
            return trial.suggest_int(path, *parameter.ends, step=step, log=log)
        case FloatRange(log=log):
            return trial.suggest_float(path, *parameter.ends, log=log)


def _distribution(parameter: Parameter) -> "BaseDistribution":
    from optuna import distributions as optuna  # slow to import

    match parameter:
        case Choice():
            return optuna.CategoricalDistribution(_values(parameter))
        case IntRange(log=log, step=step):
            return optuna.IntDistribution(*parameter.ends, step=step, log=log)
        case FloatRange(log=log):
            return optuna.FloatDistribution(*parameter.ends, log=log)


def _values(parameter: Parameter) -> list[Any]:
    match parameter:
        case Choice():
            return [_label(choice) for choice in parameter.choices]
        case IntRange():
            return list(parameter.values)
        case FloatRange():
            raise ValueError("a float range has no list of values")


def _label(value: Value) -> Any:
    return json.dumps(value) if isinstance(value, list | tuple) else value


def _value(parameter: Parameter, kept: Any) -> Value:
    """Return the choice that a stored label stands for. A number stands for itself."""
    if isinstance(parameter, Choice):
        return next(choice for choice in parameter.choices if _label(choice) == kept)
    return kept
