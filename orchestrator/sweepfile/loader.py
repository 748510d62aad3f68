"""Turn a sweep file, the files that it extends and the `--set` overrides into a SweepSpec.

All problems are reported at once. The file is YAML 1.2, so 1e-4 is a number and `no` a word. The
loader reads the file node by node. This keeps the line of every key, finds duplicate keys and never
builds an object that the file names.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from orchestrator.errors import Problem, SpecError
from orchestrator.sweepfile.messages import named, oddity, plain, problems, shown
from orchestrator.sweepfile.parameters import PARAMETER_KEYS, Parameter, TrialSpec, contradictions
from orchestrator.sweepfile.shipped import file_of, similar
from orchestrator.sweepfile.spec import SweepSpec

_MAX_BYTES = 256 * 1024
_MAX_NODES = 20_000  # after expansion of aliases
_MAX_DEPTH = 20
_TOO_LARGE = 2**63  # whole numbers have 64 bits in the databases
_OVERRIDE = r"\s*[^\s.=]+(\.[^\s.=]+)*\s*="
_EXTENDS = "extends"
_TAGS = tuple(f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float"))
_TEXT_TAGS = tuple(f"tag:yaml.org,2002:{name}" for name in ("str", "timestamp"))


def load_sweep(path: Path | str, overrides: Sequence[str] = ()) -> SweepSpec:
    """Read a sweep file, or the shipped file of that name.

    overrides: `key.path=value`, as given to `--set`. Raises SpecError. Odd but valid settings are
    listed in the spec's `notes`.
    """
    path = file_of(Path(path))
    try:
        text = _read(path)
    except _UnreadableError as error:
        raise SpecError(str(path), [Problem("", error.line, error.message)]) from error
    return parse_sweep(text, str(path), overrides, folder=path.parent)


def parse_sweep(
    text: str, source: str, overrides: Sequence[str] = (), *, folder: Path | None = None
) -> SweepSpec:
    """Read a sweep from text. Raises SpecError.

    A relative `extends` or `data.path` is resolved against `folder`, in an override against the
    current folder.
    """
    folder = folder or Path.cwd()
    try:
        draft = _Draft.read(text, folder, (_place(folder / Path(source).name),))
    except _UnreadableError as error:
        raise SpecError(source, [Problem("", error.line, error.message)]) from error
    for override in overrides:
        draft.override(override)
    draft.anchor_data_path(Path.cwd())
    spec, messages = _validate(draft.document)
    unread = {problem.path for problem in draft.problems}  # other messages there are consequences
    wrong = [draft.problem(path, message) for path, message in messages.items()]
    found = draft.problems + [problem for problem in wrong if problem.path not in unread]
    if spec is None or found:
        found = [_with_oddity(problem, text) for problem in found]
        raise SpecError(source, sorted(found, key=lambda p: (p.line is None, p.line or 0)))
    return spec


def sweep_text(path: Path) -> str:
    """Return the text of a valid sweep file, followed by that of every file that it extends."""
    path = file_of(path)
    text = _read(path)
    base = (_Tree(text).value or {}).get(_EXTENDS)
    if base is None:
        return text
    return f"{text.rstrip()}\n\n# {_EXTENDS}: {base}\n{sweep_text(_base(path.parent, base))}"


def _base(folder: Path, name: str) -> Path:
    """Return the file that a file in `folder` extends: a path from there, or a shipped name."""
    path = folder / name
    return path if path.is_file() else folder / file_of(Path(name))


class _UnreadableError(Exception):
    """The text is not YAML, or not a mapping within the limits. No further problem can be found."""

    def __init__(self, line: int | None, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


@dataclass
class _Draft:
    """The document so far, the origin of each of its parts, and its problems."""

    document: dict[str, Any]
    origins: dict[str, int | str]  # by dotted path: a line of the file, FILE:LINE or --set …
    problems: list[Problem]

    @classmethod
    def read(cls, text: str, folder: Path, above: tuple[Path, ...]) -> "_Draft":
        """Read a file of `folder` and its bases. `above` is this file and those that extend it."""
        tree = _Tree(text)
        if tree.value is None:
            raise _UnreadableError(None, "is empty; a sweep needs at least `name: …`")
        if not isinstance(tree.value, dict):
            _blame_oddities(text)
            raise _UnreadableError(tree.lines[""], "must be a mapping of `key: value`")
        draft = cls(tree.value, dict(tree.lines), [])
        draft.problems += [Problem(_public(path), line, m) for path, line, m in tree.problems]
        draft.anchor_data_path(folder)
        if _EXTENDS in draft.document:
            draft._extend(draft.document.pop(_EXTENDS), folder, above)
        return draft

    def _extend(self, name: Any, folder: Path, above: tuple[Path, ...]) -> None:
        """Add the keys of another file that this file does not set itself."""
        line = self.origins[_EXTENDS]
        assert isinstance(line, int)
        if not isinstance(name, str):
            raise _UnreadableError(line, f"{_EXTENDS}: must name one sweep file")
        path = _base(folder, name)
        if _place(path) in above:
            circle = " → ".join(each.name for each in (*above, path))
            raise _UnreadableError(line, f"{_EXTENDS}: refers to itself: {circle}")
        try:
            base = _Draft.read(_read(path), path.parent, (*above, _place(path)))
        except _UnreadableError as error:
            where = name if error.line is None else f"{name}:{error.line}"
            raise _UnreadableError(line, f"{_EXTENDS}: {where}: {error.message}") from error
        replaced: list[str] = []
        self.document = _merged(base.document, self.document, "", replaced)
        inherited: dict[str, int | str] = {
            path: f"{name}:{origin}" if isinstance(origin, int) else origin
            for path, origin in base.origins.items()
            if not any(f"{path}.".startswith(f"{other}.") for other in replaced)
        }
        self.origins = inherited | self.origins
        self.problems += [
            Problem(
                p.path, None, p.message if p.line is None else f"{p.message} (from {name}:{p.line})"
            )
            for p in base.problems
        ]

    def override(self, text: str) -> None:
        """Apply `key.path=value`."""
        if not re.match(_OVERRIDE, text):
            self.problems.append(Problem("", None, f"--set {text}: write key.path=value"))
            return
        path, _, value = text.partition("=")
        path = path.strip()
        try:
            tree = _Tree(value)
            self._set(_keys(path), tree.value, text)
        except _UnreadableError as error:
            self.problems.append(Problem(path, None, _blame(error.message, f"--set {text}")))
            return
        messages = [_blame(message, f"--set {text}") for _, _, message in tree.problems]
        self.problems += [Problem(path, None, message) for message in messages]
        for known in [p for p in self.origins if f"{p}.".startswith(f"{path}.")]:
            del self.origins[known]
        self.origins[path] = f"--set {text}"

    def _set(self, keys: list[str], value: Any, text: str) -> None:
        group = self.document
        for depth, key in enumerate(keys[:-1], start=1):
            path = ".".join(keys[:depth])
            if group.get(key) is None:
                group[key] = {}
                self.origins[path] = f"--set {text}"
            group = group[key]
            if not isinstance(group, dict):
                raise _UnreadableError(None, f"`{path}` is not a mapping; set it as a whole")
        group[keys[-1]] = value

    def anchor_data_path(self, folder: Path) -> None:
        """Make a relative `data.path` absolute, starting at `folder`."""
        data = self.document.get("data")
        if isinstance(data, dict) and isinstance(data.get("path"), str):
            path = os.path.expanduser(data["path"])  # noqa: PTH111 - an unknown ~user may stay
            data["path"] = str(folder.absolute() / path)

    def problem(self, path: str, message: str) -> Problem:
        origin = self._origin(path)
        if isinstance(origin, str):
            return Problem(_public(path), None, _blame(message, origin))
        return Problem(_public(path), origin, message)

    def _origin(self, path: str) -> int | str:
        while path not in self.origins:
            path = path.rpartition(".")[0]
        return self.origins[path]


class _Tree:
    """A YAML text as plain values, the line of each part, and problems that YAML itself allows."""

    def __init__(self, text: str) -> None:
        self.lines: dict[str, int] = {}
        self.problems: list[tuple[str, int, str]] = []
        self._left = _MAX_NODES
        yaml = YAML(typ="safe", pure=True)
        root = _compose(yaml, text)
        self._constructor = yaml.constructor
        self.value = None if root is None else self._plain(root, "", 0)

    def _plain(self, node: Node, path: str, depth: int) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(path, line)
        self._left -= 1
        if self._left < 0:
            raise _UnreadableError(line, f"more than {_MAX_NODES} values, aliases expanded")
        if depth > _MAX_DEPTH:
            raise _UnreadableError(line, f"nested deeper than {_MAX_DEPTH} levels")
        match node:
            case MappingNode():
                return dict(self._items(node, path, depth))
            case SequenceNode():
                return [
                    self._plain(item, f"{path}.{i}", depth + 1) for i, item in enumerate(node.value)
                ]
            case ScalarNode():
                return self._scalar(node, path)

    def _items(self, node: MappingNode, path: str, depth: int) -> Iterator[tuple[str, Any]]:
        first: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, ScalarNode):
                self.problems.append((path, line, "a key must be a single word"))
                continue
            name = key.value
            inner = f"{path}.{name}" if path else name
            if name in first:
                message = f"duplicate key `{name}`; the first is on line {first[name]}"
                self.problems.append((inner, line, message))
            first.setdefault(name, line)
            self.lines[inner] = line
            yield name, self._plain(value, inner, depth + 1)

    def _scalar(self, node: ScalarNode, path: str) -> Any:
        tag = str(node.tag)
        if tag in _TEXT_TAGS:
            return node.value
        message = f"the tag {tag} is not understood; write a plain value"
        if tag in _TAGS:
            message = f"cannot be read as {tag.rpartition(':')[2]}"
            with suppress(ValueError, LookupError):
                value = self._constructor.construct_object(node)
                if not isinstance(value, int) or abs(value) < _TOO_LARGE:
                    return value
                message = f"must be a whole number below 2^63 in size, not {shown(node.value)}"
        self.problems.append((path, node.start_mark.line + 1, message))
        return node.value


def _compose(yaml: YAML, text: str) -> Node | None:
    try:
        root: Node | None = yaml.compose(text)
    except MarkedYAMLError as error:
        _blame_oddities(text)
        mark = error.problem_mark or error.context_mark
        hint = "; indent with spaces, not tabs" if "\\t" in (error.problem or "") else ""
        said = ", ".join(part for part in (error.context, error.problem) if part)
        raise _UnreadableError(
            mark.line + 1 if mark else None, f"not YAML: {said}{hint}"
        ) from error
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        character = text[error.position]
        raise _UnreadableError(line, f"not YAML: it holds {named(character)}; delete it") from error
    except YAMLError as error:
        raise _UnreadableError(None, f"not YAML: {error}") from error
    except RecursionError as error:
        raise _UnreadableError(None, f"nested deeper than {_MAX_DEPTH} levels") from error
    return root


def _blame_oddities(text: str) -> None:
    """Raise _UnreadableError if only invisible characters or look-alikes make the text invalid."""
    odd = {n: said for n, line in enumerate(text.split("\n"), 1) if (said := oddity(line))}
    if not odd:
        return
    try:
        root = YAML(typ="safe", pure=True).compose(plain(text))
    except YAMLError:
        return
    if isinstance(root, MappingNode):
        (first, said), *others = odd.items()
        lines = ", ".join(str(n) for n, _ in others)
        more = f" (also on line{'s' if len(others) > 1 else ''} {lines})" if others else ""
        raise _UnreadableError(first, f"not YAML: {said}{more}")


def _with_oddity(problem: Problem, text: str) -> Problem:
    """Return the problem, with the invisible character or look-alike on its line if any."""
    lines = text.split("\n")
    line = lines[problem.line - 1] if problem.line and problem.line <= len(lines) else ""
    said = oddity(problem.message if problem.line is None else line)
    return replace(problem, message=f"{problem.message}; the line has {said}") if said else problem


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise _UnreadableError(None, f"cannot be read: {error.strerror}{similar(path)}") from error
    if len(raw) > _MAX_BYTES:
        raise _UnreadableError(
            None, f"larger than {_MAX_BYTES // 1024} KiB; this is not a sweep file"
        )
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise _UnreadableError(line, "is not UTF-8; save it as UTF-8") from error


def _validate(document: dict[str, Any]) -> tuple[SweepSpec | None, dict[str, str]]:
    try:
        return SweepSpec.of(document), {}
    except ValidationError as error:
        return None, {**_contradictions(document), **problems(error, SweepSpec)}


def _contradictions(document: dict[str, Any]) -> dict[str, str]:
    """Return the contradictions among the valid parts of an invalid document, by path."""
    base, found = _sound_trial(document)
    search = document.get("search") or {}
    space = search.get("space", {}) if isinstance(search, dict) else None
    if isinstance(space, dict):
        found |= contradictions(
            base,
            {path: _sound(Parameter, written) for path, written in space.items()},
            sampler=_text(search.get("sampler"), "kind"),
            balance=_text(search, "balance"),
            per=_text(document.get("confirm"), "per"),
        )
    return found


def _sound_trial(document: dict[str, Any]) -> tuple[TrialSpec, dict[str, str]]:
    """Return the trial without its invalid settings, and the messages about these, by path.

    Some problems only show after others are removed, hence the loop.
    """
    trial = {key: deepcopy(document[key]) for key in TrialSpec.model_fields if key in document}
    found: dict[str, str] = {}
    while True:
        try:
            return TrialSpec.of(trial), found
        except ValidationError as error:
            wrong = problems(error, TrialSpec)
            found |= wrong
            before = deepcopy(trial)
            for path in wrong:
                _drop(trial, path.split("."))
            if trial == before:  # a default contradicts a given setting
                return TrialSpec(), found


def _drop(group: dict[str, Any], keys: list[str]) -> None:
    """Remove the setting that `keys` name, or the innermost existing group around the setting."""
    inner = group.get(keys[0])
    if len(keys) > 1 and isinstance(inner, dict) and keys[1] in inner:
        _drop(inner, keys[1:])
    else:
        group.pop(keys[0], None)


def _sound(kind: Any, document: Any) -> Any:
    try:
        return TypeAdapter(kind).validate_json(json.dumps(document))
    except ValidationError:
        return None


def _text(document: Any, key: str) -> str | None:
    value = document.get(key) if isinstance(document, Mapping) else None
    return value if isinstance(value, str) else None


def _keys(path: str) -> list[str]:
    """Split an override's path into keys. Names of parameters in `search.space` contain dots."""
    parts = path.split(".")
    if parts[:2] != ["search", "space"] or len(parts) < 3:
        return parts
    end = next((i for i, part in enumerate(parts) if i > 2 and part in PARAMETER_KEYS), len(parts))
    name, key, rest = ".".join(parts[2:end]), parts[end : end + 1], parts[end + 1 :]
    return [*parts[:2], name, *key, *([".".join(rest)] if rest else [])]


def _public(path: str) -> str:
    """Return the path as in the file: no list indices and no kind of a parameter's range."""
    path = re.sub(r"(\.\d+)+(?=\.|$)", "", path)
    return re.sub(r"^(search\.space\..+)\.(choice|int|float)$", r"\1", path)


def _blame(message: str, origin: str) -> str:
    return f"{message} (from {origin})"


def _place(path: Path) -> Path:
    """Return a file's path with links resolved, so that one file has one path."""
    return Path(os.path.realpath(path))


_REPLACED_BY_KIND = ("search.sampler", "search.pruner")  # each kind has its own keys


def _merged(
    base: dict[str, Any], changes: dict[str, Any], path: str, replaced: list[str]
) -> dict[str, Any]:
    """Merge `changes` into `base` key by key; add the replaced paths of `base` to `replaced`.

    Lists and single values replace the old value, and null drops a key. A parameter of the search
    space replaces the whole mapping, as does a sampler or pruner of another kind.
    """
    merged = dict(base)
    for key, value in changes.items():
        inner, before = f"{path}.{key}" if path else key, base.get(key)
        keeps = path != "search.space" and not (
            inner in _REPLACED_BY_KIND
            and isinstance(value, dict)
            and isinstance(before, dict)
            and value.get("kind", before.get("kind")) != before.get("kind")
        )
        if isinstance(before, dict) and isinstance(value, dict) and keeps:
            merged[key] = _merged(before, value, inner, replaced)
            continue
        replaced.append(inner)
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = value
    return merged
