"""Translate pydantic's errors into messages about the keys of the sweep file."""

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, Tag, ValidationError
from pydantic_core import ErrorDetails

from aae_core.errors import ConfigError

_LONGEST_VALUE = 40
_PLAIN = {  # characters that editors and web pages put in place of plain ones
    **dict.fromkeys("“”„‟", '"'),
    **dict.fromkeys("‘’‚‛", "'"),
    **dict.fromkeys("‐‑‒–—―−", "-"),
    **dict.fromkeys("\u1680\u2800\u3164\u115f\u1160", " "),
    "\t": "  ",
    **dict.fromkeys("\x85\u2028\u2029", "\n"),
}
_NAMES = {"\t": "tab", "\ufeff": "byte order mark", "\x85": "next-line character"}
_TYPED = {
    "": "delete it",
    " ": "type a plain space there",
    "  ": "type spaces there",
    "\n": "end the line there",
}

_MESSAGES: dict[str, str] = {
    "int_type": "must be a whole number",
    "int_parsing_size": "must be a smaller number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "tuple_type": "must be a list",
    "finite_number": "must be a finite number",
    "dict_type": "must be a mapping of `key: value`",
    "model_attributes_type": "must be a mapping of `key: value`",
    "model_type": "must be a mapping of `key: value`",
    "dataclass_type": "must be a mapping of `key: value`",
    "literal_error": "must be {expected}",
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le:,.0f}",
    "too_short": "must have {min_length} entries or more",
    "too_long": "must have at most {max_length} entries",
}


def problems(error: ValidationError, root: type[BaseModel]) -> dict[str, str]:
    """Return messages by dotted path, e.g. `model.prior.std`. List indices are part of a path."""
    found: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        if detail["type"] != "default_factory_not_called":  # a consequence of another error
            for path, message in _explain(detail, root):
                found.setdefault(path, message)
    return found


def keys(root: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted path of every setting of a type, over all members of its unions."""
    hint = _bare(root)
    kinds = _members(hint).values() or [hint]
    children = {name: child for kind in kinds for name, child in _children(_bare(kind)).items()}
    if not children:
        yield prefix.removesuffix(".")
    for name, child in children.items():
        yield from keys(child, f"{prefix}{name}.")


def nearest(wrong: str, right: Iterable[str]) -> str:
    """Return a hint for an unknown name: the closest valid name, else all valid names.

    >>> nearest("epoch", ["epochs", "batch_size"])
    'did you mean `epochs`?'
    """
    names = sorted(right)
    close = get_close_matches(wrong, names, n=1)
    return f"did you mean `{close[0]}`?" if close else f"known are {', '.join(names)}"


def shown(value: Any) -> str:
    """Return a value as in the file, shortened to 40 characters."""
    text = repr(value) if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"


def plain(text: str) -> str:
    """Return the text with plain ASCII in place of invisible characters and look-alikes."""
    return "".join(map(_plain, text))


def oddity(line: str) -> str | None:
    """Return a message about the first invisible character or look-alike outside a comment.

    >>> oddity("name:\\u00a0x")
    'a no-break space (U+00A0) after `name:`; type a plain space there'
    """
    for match in re.finditer(r"[^\x00-\x08\n-\x7f]", re.sub(r"(^|[ \t])#.*", "", line)):
        found = match[0]
        if (typed := _plain(found)) != found:
            before = line[: match.start()].split()
            where = f"after `{before[-1]}`" if before else "at the start of the line"
            return f"{named(found)} {where}; {_TYPED.get(typed) or f'type a plain {typed} there'}"
    return None


def named(character: str) -> str:
    """Return the name of a character that may be invisible, with its article and its number."""
    name = _NAMES.get(character) or unicodedata.name(character, "control character").lower()
    article = "an" if name[0] in "aeiou" else "a"
    return f"{article} {name} (U+{ord(character):04X})"


def _plain(character: str) -> str:
    if character.isascii() or character in _PLAIN:
        return _PLAIN.get(character, character)
    if unicodedata.category(character) == "Cf":  # zero-width characters and directional marks
        return ""
    compatible = unicodedata.normalize("NFKC", character)  # of wide letters and special spaces
    return compatible if compatible.isascii() else character


def _explain(detail: ErrorDetails, root: type[BaseModel]) -> Iterator[tuple[str, str]]:
    kind, given = detail["type"], detail["input"]
    path, parent = _locate(detail["loc"], root)
    dotted = ".".join(path)
    context = detail.get("ctx", {})
    cause = context.get("error")
    if isinstance(cause, ConfigError):
        for field, message in cause.problems.items():
            known = isinstance(given, Mapping) and field in given
            yield (
                ".".join([*path, field]),
                _with_value(message, given[field]) if known else message,
            )
    elif cause is not None:
        yield dotted, _with_value(str(cause), given)
    elif kind in ("extra_forbidden", "unexpected_keyword_argument"):
        yield dotted, f"unknown key `{path[-1]}`; {_hint(path[-1], parent)}"
    elif kind == "missing":
        in_list = isinstance(detail["loc"][-1], int)
        yield dotted, "has too few entries" if in_list else "is missing"
    elif kind == "union_tag_not_found":
        yield f"{dotted}.kind", "is missing"
    elif kind == "union_tag_invalid":
        message = f"must be one of {context['expected_tags']}"
        yield f"{dotted}.kind", _with_value(message, context["tag"])
    else:
        message = _MESSAGES[kind].format(**context) if kind in _MESSAGES else detail["msg"]
        yield dotted, _with_value(message, given)


def _hint(unknown: str, parent: Any) -> str:
    if new := getattr(parent, "RENAMED", {}).get(unknown):
        return f"its name is `{new}` now"
    return nearest(unknown, _children(parent))


def _with_value(message: str, value: Any) -> str:
    return f"{message}, not {shown(value)}" if message.startswith("must") else message


def _locate(loc: tuple[int | str, ...], root: type[BaseModel]) -> tuple[list[str], Any]:
    """Return the path in the file, without pydantic's union tags, and the type that encloses it."""
    path: list[str] = []
    parent: Any = root
    hint: Any = root
    for segment in loc:
        hint = _bare(hint)
        members = _members(hint)
        if segment in members:
            hint = members[str(segment)]
        else:
            path.append(str(segment))
            parent, hint = hint, _child(hint, segment)
    return path, parent


def _bare(hint: Any) -> Any:
    """Return the type without Annotated and without None."""
    if get_origin(hint) is Annotated:
        return _bare(get_args(hint)[0])
    if _is_union(hint):
        others = [arg for arg in get_args(hint) if arg is not NoneType]
        return _bare(others[0]) if len(others) == 1 else hint
    return hint


def _members(hint: Any) -> dict[str, Any]:
    """Return the members of a tagged union by tag, none for another type."""
    return {_tag(member): member for member in get_args(hint)} if _is_union(hint) else {}


def _tag(member: Any) -> str:
    for note in getattr(member, "__metadata__", ()):
        if isinstance(note, Tag):
            return note.tag
    return str(member.model_fields["kind"].default)


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, UnionType)


def _child(hint: Any, segment: int | str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if origin is dict:
        return args[1]
    if origin is tuple:
        return args[0]
    return _children(hint).get(str(segment), Any)


def _children(hint: Any) -> dict[str, Any]:
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return {f.alias or name: f.annotation for name, f in hint.model_fields.items()}
    return get_type_hints(hint) if is_dataclass(hint) else {}
