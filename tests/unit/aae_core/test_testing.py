"""The laws for other packages' declarations hold for ours, and name what a wrong one breaks."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from aae_core import testing
from aae_core.config import PriorConfig
from aae_core.declarations import ARCHITECTURES, PRIORS, PriorDeclaration
from aae_core.models import AAE
from aae_core.phases import Batch, Costs, State


@pytest.mark.parametrize("kind", ARCHITECTURES.own)
def test_own_architecture_obeys_the_laws(kind: str) -> None:
    prior = ARCHITECTURES[kind].priors[0]
    testing.check_architecture(kind, prior={"kind": prior, "modes": testing.CLASSES})


@pytest.mark.parametrize("kind", PRIORS.own)
def test_own_prior_obeys_the_laws(kind: str) -> None:
    testing.check_prior(kind)


@pytest.mark.usefixtures("example")
def test_example_plugin_obeys_the_laws() -> None:
    testing.check_prior("ring", settings={"width": 0.3})
    ring = {"kind": "ring", "settings": {"width": 0.3}}
    testing.check_architecture("sliced_wasserstein", prior=ring, settings={"weight": 0.1})


class Careless(AAE):
    """Draws from torch's global stream."""

    def train_step(self, s: State, batch: Batch) -> Costs:
        noisy = batch.noisy + 0.1 * torch.randn_like(batch.noisy)
        return super().train_step(s, replace(batch, noisy=noisy))


class Forgetful(AAE):
    """Keeps a number outside its state, which a checkpoint loses."""

    steps = 0

    def train_step(self, s: State, batch: Batch) -> Costs:
        self.steps += 1
        return super().train_step(s, replace(batch, noisy=batch.noisy / self.steps))


class Overflowing(AAE):
    def train_step(self, s: State, batch: Batch) -> Costs:
        return super().train_step(s, batch) | {"train/extra": torch.tensor(float("inf"))}


@pytest.mark.parametrize(
    ("model", "law"),
    [
        (Careless, "depends only on the configuration and its seed"),
        (Forgetful, "has the digits of an uninterrupted one"),
        (Overflowing, "every metric is a finite number"),
    ],
)
def test_wrong_architecture_breaks_a_law_by_name(
    model: type[AAE], law: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = replace(ARCHITECTURES["aae"], model=f"{__name__}:{model.__name__}")
    monkeypatch.setitem(ARCHITECTURES.own, "wrong", wrong)
    with pytest.raises(AssertionError, match=law):
        testing.check_architecture("wrong")


@dataclass(frozen=True)
class Shifted:
    dim: int
    std: float = 1.0
    mean: float = 3.0

    def sample(self, n: int, *, generator: torch.Generator) -> torch.Tensor:
        return self.mean + torch.randn(n, self.dim, generator=generator)


def shifted(config: PriorConfig, dim: int) -> Shifted:
    return Shifted(dim)


def standard(config: PriorConfig, dim: int) -> Shifted:
    return Shifted(dim, mean=0.0)


def one_coordinate(config: PriorConfig, dim: int) -> Shifted:
    return Shifted(1)


@pytest.mark.parametrize(
    ("build", "changes", "law"),
    [
        (shifted, {}, "std is the root mean square"),
        (one_coordinate, {}, "has the shape"),
        (standard, {"has_density": True}, "the density and the modes that it declares"),
    ],
)
def test_wrong_prior_breaks_a_law_by_name(
    build: Callable[..., Shifted],
    changes: dict[str, Any],
    law: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong = PriorDeclaration("wrong", f"{__name__}:{build.__name__}", **changes)
    monkeypatch.setitem(PRIORS.own, "wrong", wrong)
    with pytest.raises(AssertionError, match=law):
        testing.check_prior("wrong")


def test_setting_that_is_wrongly_declared_as_unread_breaks_a_law(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong = replace(ARCHITECTURES["aae"], unread=("training.reconstruction",))
    monkeypatch.setitem(ARCHITECTURES.own, "aae", wrong)
    with pytest.raises(AssertionError, match="declared as unread changes no digit"):
        testing.check_architecture("aae")
