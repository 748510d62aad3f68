"""Settings as frozen dataclasses: built from JSON documents, checked, named by a digest.

A wrong value raises ConfigError, which lists every problem under the name of its field.
"""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from aae_core.errors import ConfigError, PluginError
from aae_core.plugins import Registry

Declared = TypeVar("Declared")

MOST = 2**31 - 1  # of a size or a number of steps: 32-bit numbers in places
# Training computes in float32. Smaller numbers lose digits or become 0, larger ones infinite.
_SMALLEST, _LARGEST = 2.0**-126, 2.0**127

_NO_DEFAULT = object()
_UNIONS = (Union, UnionType)  # `int | None`, with and without limits


@dataclass(frozen=True)
class Limits:
    """Range of a setting's number, or of each number in its list; finite.

    The type of the field declares it: `Annotated[int, Limits("must be at least 1", minimum=1)]`.
    """

    message: str  # about a number outside
    minimum: float = -math.inf
    above: float = -math.inf
    below: float = math.inf
    maximum: float = math.inf

    def hold(self, number: float) -> bool:
        return self.minimum <= number <= self.maximum and self.above < number < self.below

    def __get_pydantic_json_schema__(
        self, core: Any, build: Callable[[Any], dict[str, Any]]
    ) -> dict[str, Any]:
        """Return the JSON Schema; pydantic calls this where a sweep file has such a setting."""
        ends = {
            "minimum": self.minimum,
            "exclusiveMinimum": self.above,
            "exclusiveMaximum": self.below,
            "maximum": self.maximum,
        }
        return build(core) | {name: end for name, end in ends.items() if math.isfinite(end)}


Count = Annotated[int, Limits("must be at least 1", minimum=1)]
NotNegative = Annotated[float, Limits("must not be negative", minimum=0)]
Positive = Annotated[float, Limits("must be positive", above=0)]
Share = Annotated[float, Limits("must lie in [0, 1)", minimum=0, below=1)]  # smaller than the whole


def settings_class(hint: Any) -> type | None:
    """Return the settings class in a field's type, optional or not; None for other types."""
    if get_origin(hint) in _UNIONS:
        hint = next(arg for arg in get_args(hint) if arg is not NoneType)
    return hint if is_dataclass(hint) and isinstance(hint, type) else None


def digest(document: Any) -> str:
    """Return 12 hexadecimal digits that name a JSON document, independent of its key order."""
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def build(hint: Any, value: Any) -> Any:
    """Return a value of a field's type from its JSON. Raises ConfigError for unknown keys."""
    if value is None and NoneType in get_args(hint):
        return None
    if (settings := settings_class(hint)) is not None:
        hints = get_type_hints(settings)
        unknown = set(value) - hints.keys()
        if unknown:
            raise ConfigError(dict.fromkeys(sorted(unknown), "unknown key"))
        return settings(**{name: build(hints[name], item) for name, item in value.items()})
    if get_origin(hint) in _UNIONS:
        return build(get_args(hint)[0], value)  # as in `int | None`
    if get_origin(hint) is tuple:
        return tuple(build(get_args(hint)[0], item) for item in value)
    return value


def without(document: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Return the document without values that equal their default and without emptied groups."""
    kept: dict[str, Any] = {}
    for key, value in document.items():
        default = defaults.get(key, _NO_DEFAULT)
        if isinstance(value, dict) and isinstance(default, dict):
            value = without(value, default)
            default = {}
        if value != default:
            kept[key] = value
    return kept


def ranges(document: dict[str, Any], prefix: str = "") -> dict[str, tuple[bool, str]]:
    """Return the rules that every number of a configuration obeys, by dotted path."""
    found: dict[str, tuple[bool, str]] = {}
    for name, value in document.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict):
            found |= ranges(value, f"{path}.")
        for number in _numbers(value):
            if found.get(path, (True, ""))[0]:
                found[path] = _in_range(number)
    return found


def _in_range(value: Any) -> tuple[bool, str]:
    if isinstance(value, int):
        return value <= MOST, f"must be at most {MOST:,}"
    if isinstance(value, float):
        fits = value == 0 or _SMALLEST <= abs(value) <= _LARGEST
        return fits, f"must be 0 or from {_SMALLEST:.2g} to {_LARGEST:.2g} in size, as a float32"
    return True, ""


def check(**rules: tuple[bool, str]) -> None:
    """Raise ConfigError with the message of every rule that does not hold, by its field."""
    problems = {name: message for name, (holds, message) in rules.items() if not holds}
    if problems:
        raise ConfigError(problems)


def limits(settings: Any) -> dict[str, tuple[bool, str]]:
    """Return the rules of a settings object's declared limits, by field."""
    return {
        name: (all(map(limit.hold, _numbers(getattr(settings, name)))), limit.message)
        for name, limit in _declared_limits(settings.__class__).items()
    }


@cache
def _declared_limits(settings: type) -> dict[str, Limits]:
    hints = get_type_hints(settings, include_extras=True)
    return {name: found[0] for name, hint in hints.items() if (found := _limits_in(hint))}


def _limits_in(hint: Any) -> list[Limits]:
    own = [item for item in getattr(hint, "__metadata__", ()) if isinstance(item, Limits)]
    return own + [limit for inner in get_args(hint) for limit in _limits_in(inner)]


def _numbers(value: Any) -> tuple[Any, ...]:
    if value is None:
        return ()
    return value if isinstance(value, tuple) else (value,)


def declared_by(registry: Registry[Declared], kind: str, key: str = "kind") -> Declared:
    """Return a declaration. Raises ConfigError, at `key`, for an unknown or broken one."""
    try:
        return registry[kind]
    except KeyError:
        raise ConfigError({key: f"must be one of {', '.join(registry)}"}) from None
    except PluginError as error:
        raise ConfigError({key: str(error)}) from error


def own_settings(declared: type | None, given: Any) -> Any:
    """Return a declaration's own settings as its dataclass, with defaults for missing ones."""
    if declared is None:
        return check(settings=(given is None, "this kind has no settings of its own; drop this"))
    if isinstance(given, declared):
        return given
    try:
        settings = build(declared, given or {})
        hints = get_type_hints(declared)
        check(**{name: _has_type(hint, getattr(settings, name)) for name, hint in hints.items()})
        check(**limits(settings))
    except ConfigError as error:
        problems = {f"settings.{name}": text for name, text in error.problems.items()}
        raise ConfigError(problems) from None
    return settings


_TYPES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def _has_type(hint: Any, value: Any) -> tuple[bool, str]:
    """Return whether a setting's value is of its declared type, and the message if not."""
    args = get_args(hint)
    if get_origin(hint) in _UNIONS:
        return (True, "") if value is None else _has_type(args[0], value)
    if get_origin(hint) is tuple:
        items = [_has_type(args[0], item) for item in value] if isinstance(value, tuple) else []
        return next((item for item in items if not item[0]), (isinstance(value, tuple), "a list"))
    if get_origin(hint) is Literal:
        return value in args, f"must be one of {', '.join(map(str, args))}"
    if hint not in _TYPES:
        return False, f"is declared as {hint}, which no setting can be"
    accepted = (int, float) if hint is float else hint
    fits = isinstance(value, accepted) and (hint is bool or not isinstance(value, bool))
    return fits, f"must be {_TYPES[hint]}"
