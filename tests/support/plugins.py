"""Fixtures that install packages with declarations for aae-sweep."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aae_core.declarations import ARCHITECTURES, DATA_SETS, PRIORS
from aae_core.metrics import DECLARED_METRICS

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin"
OWN_DATA_AND_METRIC = '''
from dataclasses import dataclass

import numpy as np

from aae_core.data import Description, FileCheck, TestData, TrainingData, unit_interval
from aae_core.declarations import DataSetDeclaration
from aae_core.metrics import Metric


@dataclass(frozen=True)
class StripeSettings:
    side: int = 4


class Stripes:
    """Images of one bright column, whose place is the class."""

    def __init__(self, side):
        self.side = side

    @classmethod
    def of(cls, config, root):
        return cls(config.settings.side)

    def _drawn(self, seed, n):
        random = np.random.default_rng(seed)
        y = np.arange(n) % self.side
        x = random.integers(0, 100, (n, self.side, self.side)).astype(np.uint8)
        x[np.arange(n), :, y] += 150
        return x.reshape(n, -1), y

    def training(self):
        shape = (self.side, self.side)
        return TrainingData.of("stripes", shape, self._drawn(0, 60), self._drawn(1, 24))

    def test(self):
        return TestData.of(*self._drawn(2, 24))

    def describe(self):
        return Description("stripes", (), {"train": 60, "valid": 24, "test": 24}, "drawn", "none")

    def fetch(self, *splits):
        pass

    def verify(self):
        return []


def brightness(model, images, valid, generator):
    return model.sample(100, generator=generator).mean() - unit_interval(valid.x).mean()


STRIPES = DataSetDeclaration("stripes", "own_parts:Stripes.of", StripeSettings)
BRIGHTNESS = Metric("pixel", "none", "mean pixel of samples less that of images",
                    measure="own_parts:brightness")
CONTRAST = Metric("pixel", "min", "the same", sound=(None, 1.0), measure="own_parts:brightness")
'''

Install = Callable[[str, str], None]


def forget_plugins() -> None:
    for registry in (ARCHITECTURES, PRIORS, DATA_SETS, DECLARED_METRICS):
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


@pytest.fixture
def own_parts(install: Install, tmp_path: Path) -> None:
    (tmp_path / "own_parts.py").write_text(OWN_DATA_AND_METRIC)
    install(
        "own-parts",
        "[aae_sweep.datasets]\nstripes = own_parts:STRIPES\n"
        "[aae_sweep.metrics]\nbrightness = own_parts:BRIGHTNESS\ncontrast = own_parts:CONTRAST\n",
    )
