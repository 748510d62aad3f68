"""Fixtures that install packages with declarations for aae-sweep."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aae_core.declarations import ARCHITECTURES, DATA_SETS, PRIORS
from aae_core.metrics import DECLARED_METRICS

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin"
OWN_PARTS = '''
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from aae_core.data import Description, FileCheck, TestData, TrainingData, unit_interval
from aae_core.declarations import Architecture, DataSetDeclaration
from aae_core.metrics import Metric
from aae_core.training import EpochMetrics


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


class Softmax(nn.Module):
    """A linear classifier of somebody who knows nothing of this project's models."""

    def __init__(self, plan):
        super().__init__()
        self.layer = nn.Linear(plan.dim, plan.classes)
        nn.init.normal_(self.layer.weight, std=0.1, generator=plan.generator)
        nn.init.zeros_(self.layer.bias)

    def optimizers(self):
        return {"adam": torch.optim.Adam(self.parameters())}

    def classify(self, x):
        return self.layer(x)


def fit_softmax(state, data, validate_at=()):
    x, y = torch.from_numpy(unit_interval(data.x_train)), torch.from_numpy(data.y_train)
    x_valid = torch.from_numpy(unit_interval(data.x_valid))
    y_valid = torch.from_numpy(data.y_valid)
    training, adam = state.config.training, state.optimizers["adam"]
    for group in adam.param_groups:
        group["lr"] = training.classification.lr
    for epoch in range(state.epoch + 1, training.epochs + 1):
        began, total = time.perf_counter(), 0.0
        for rows in torch.randperm(len(x), generator=state.streams["batches"]).split(20):
            cost = cross_entropy(state.model.layer(x[rows]), y[rows])
            adam.zero_grad()
            cost.backward()
            adam.step()
            total += float(cost.detach()) * len(rows) / len(x)
        wrong = state.model.classify(x_valid).argmax(1) != y_valid
        figures = {"train/class": total, "val/error": 100 * float(wrong.float().mean())}
        seconds = time.perf_counter() - began
        yield EpochMetrics(epoch, figures, {}, seconds, len(x) / seconds)


SOFTMAX = Architecture(
    "linear classifier", model="own_parts:Softmax", fit="own_parts:fit_softmax", objective="error",
    metrics=("error",), labels="only", adversaries=(), networks=(), encoders=("deterministic",),
    prior="unused",
)
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
    (tmp_path / "own_parts.py").write_text(OWN_PARTS)
    install(
        "own-parts",
        "[aae_sweep.architectures]\nsoftmax = own_parts:SOFTMAX\n"
        "[aae_sweep.datasets]\nstripes = own_parts:STRIPES\n"
        "[aae_sweep.metrics]\nbrightness = own_parts:BRIGHTNESS\ncontrast = own_parts:CONTRAST\n",
    )
