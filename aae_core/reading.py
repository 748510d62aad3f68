"""Settings as frozen dataclasses: built from JSON documents, checked, named by a digest.

A wrong value raises ConfigError, which lists every problem under the name of its field.
"""

import hashlib
import json
import math
from dataclasses import is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from aae_core.errors import ConfigError, PluginError
from aae_core.plugins import Registry

Declared = TypeVar("Declared")

MOST = 2**31 - 1  # of a size or a number of steps: 32-bit numbers in places
# Training computes in float32. Smaller numbers lose digits or become 0, larger ones infinite.
_SMALLEST, _LARGEST = 2.0**-126, 2.0**127

_NO_DEFAULT = object()


def settings_class(hint: Any) -> type | None:
    """Return the settings class in a field's type, optional or not; None for other types."""
    if get_origin(hint) is UnionType:
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
    if get_origin(hint) is UnionType:
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
        for number in value if isinstance(value, tuple) else (value,):
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


def not_negative(value: float) -> tuple[bool, str]:
    return math.isfinite(value) and value >= 0, "must not be negative"


def positive(value: float) -> bool:
    return math.isfinite(value) and value > 0


def declared_by(registry: Registry[Declared], kind: str, key: str = "kind") -> Declared:
    """Return a declaration. Raises ConfigError, at `key`, for an unknown or broken one."""
    try:
        return registry[kind]
    except KeyError:
        raise ConfigError({key: f"must be one of {', '.join(registry)}"}) from None
    except PluginError as error:
        raise ConfigError({key: str(error)}) from error


def own_settings(declared: type | None, given: Any) -> Any:
    """Return a declaration's own settings as its dataclass, with defaults for what is not given."""
    if declared is None:
        return check(settings=(given is None, "there are none for this kind; drop this"))
    if isinstance(given, declared):
        return given
    try:
        settings = build(declared, given or {})
        hints = get_type_hints(declared)
        check(**{name: _has_type(hint, getattr(settings, name)) for name, hint in hints.items()})
    except ConfigError as error:
        problems = {f"settings.{name}": text for name, text in error.problems.items()}
        raise ConfigError(problems) from None
    return settings


_TYPES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def _has_type(hint: Any, value: Any) -> tuple[bool, str]:
    """Return whether a setting's value is of its declared type, and the message if not."""
    args = get_args(hint)
    if get_origin(hint) is UnionType:
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
