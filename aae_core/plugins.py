"""Declarations by name: those of this package, and those of other installed packages.

Another package names a declaration in its `pyproject.toml`:

    [project.entry-points."aae_sweep.priors"]
    ring = "my_package:RING"

A sweep file then gives the name. It cannot point at a file or carry code: only entry points of
installed packages are loaded, and each only when its name is looked up.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from aae_core.errors import PluginError

Declared = TypeVar("Declared")
_PREFIX = "aae_sweep."  # of the groups of entry points


def packages() -> dict[str, str]:
    """Return the version of every installed package that declares something, by its name."""
    groups = [group for group in entry_points().groups if group.startswith(_PREFIX)]
    declaring = [point.dist for group in groups for point in entry_points(group=group)]
    return {dist.name: dist.version for dist in declaring if dist}


class Registry(Mapping[str, Declared]):
    """The declarations of one kind by name; `own` are those of this package.

    A look-up raises KeyError for an unknown name, and PluginError for a name that two packages
    declare and for a declaration that cannot be loaded.
    """

    def __init__(self, group: str, kind: type[Declared], own: Mapping[str, Declared]) -> None:
        self.group = _PREFIX + group
        self.own = dict(own)
        self._kind = kind
        self._loaded: dict[str, Declared] = {}

    def __getitem__(self, name: str) -> Declared:
        if name not in self._points:
            return self.own[name]
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self.own or name in self._points

    def __iter__(self) -> Iterator[str]:
        return iter({**self.own, **self._points})

    def __len__(self) -> int:
        return len({**self.own, **self._points})

    def find(self, name: str) -> Declared | None:
        """Return a declaration, or None for an unknown or broken one: results outlive packages."""
        try:
            return self.get(name)
        except PluginError:
            return None

    def owner(self, name: str) -> str | None:
        """Return the package, with its version, that declares a name; None for this package."""
        return " and ".join(map(_package, self._points[name])) if name in self._points else None

    @cached_property
    def _points(self) -> dict[str, list[EntryPoint]]:
        found: dict[str, list[EntryPoint]] = {}
        for point in entry_points(group=self.group):
            found.setdefault(point.name, []).append(point)
        return found

    def _load(self, name: str) -> Declared:
        first, *others = self._points[name]
        if others or name in self.own:
            raise PluginError(
                f"`{name}` is declared by {'aae-sweep and ' if name in self.own else ''}"
                f"{self.owner(name)}; uninstall one"
            )
        try:
            declared = first.load()
        except Exception as error:
            raise PluginError(
                f"`{name}` of {_package(first)} cannot be loaded: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(declared, self._kind):
            raise PluginError(
                f"`{name}` of {_package(first)} is not of type {self._kind.__name__}: {first.value}"
            )
        return declared


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unnamed package"
