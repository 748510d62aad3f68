"""Translate the search space to Optuna.

Optuna stores text, numbers and booleans as choices, but no lists. A list is stored as JSON text.
"""

import json
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, Protocol

from aae_core.config import TrialConfig
from orchestrator.sweepfile.parameters import (
    Choice,
    FloatRange,
    IntRange,
    Parameter,
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


def locate(config: TrialConfig, spec: SweepSpec) -> dict[str, Value] | None:
    """Return the parameters with which the search of `spec` would try this configuration.

    The seed does not matter. Returns None if the search never tries the configuration.
    """
    assert spec.search is not None
    settings = json.loads(json.dumps(config.to_dict()))
    params: dict[str, Value] = {}
    for path in parents_first(spec.search.space):
        parameter = spec.search.space[path]
        if parameter.exists(params):
            params[path] = reduce(lambda node, name: node[name], path.split("."), settings)
            if not parameter.includes(params[path]):
                return None
    same = spec.trial_config(params, config.seed).config_hash == config.config_hash
    return params if same else None


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
