"""Fixtures that install packages with declarations for aae-sweep."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aae_core.architectures import ARCHITECTURES, PRIORS

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin"
Install = Callable[[str, str], None]


def forget_plugins() -> None:
    for registry in (ARCHITECTURES, PRIORS):
        registry._loaded.clear()
        vars(registry).pop("_points", None)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Yield a function that installs a package, version 1.2, with entry points, as pip does."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(EXAMPLE))

    def installed(name: str, entry_points: str) -> None:
        folder = tmp_path / f"{name.replace('-', '_')}-1.2.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (folder / "entry_points.txt").write_text(entry_points)
        forget_plugins()

    yield installed
    forget_plugins()


@pytest.fixture
def example(install: Install) -> None:
    declared = (EXAMPLE / "pyproject.toml").read_text().split("[project.entry-points.")[1:]
    groups = [group.partition("\n[tool")[0].replace('"', "") for group in declared]
    install("aae-example", "[" + "[".join(groups))
