"""Test M1: laws, known answers, and a plain reference."""

import math

import pytest
import torch
from plain import (
    Build,
    Losses,
    Seen,
    Step,
    batches,
    half_squares,
    referred_vae,
    require_same_losses,
    softplus_layers,
    start,
    trial,
)
from torch import Tensor
from torch.nn.functional import cross_entropy

from aae_core import testing
from aae_core.errors import ConfigError
from aae_core.training import TrainState
from aae_rivals.m1 import M1

SETTINGS = {"features": [10, 9], "share": 0.25, "decay": 0.01}


def m1() -> tuple[TrainState, M1]:
    state = start(trial("m1", settings=SETTINGS))
    assert isinstance(state.model, M1)
    return state, state.model


def test_m1_obeys_the_laws() -> None:
    testing.check_architecture("m1", settings=SETTINGS)


# -- plain reference -------------------------------------------------------------------------


def reference(state: TrainState, optimizer: Build) -> Step:
    vae, top, noise = state.model.vae, state.model.top, state.streams["noise"]
    below = referred_vae(state, optimizer, decay=0.01)
    descent = optimizer(top.parameters())

    def step(state: TrainState, seen: Seen) -> Losses:
        if state.epoch < 0.25 * state.config.training.epochs:
            return below(seen.x)
        mean, log_variance = softplus_layers(vae.encoder, seen.labelled).detach().chunk(2, dim=1)
        z = mean + (log_variance / 2).exp() * torch.randn(mean.shape, generator=noise)
        likelihood = cross_entropy(softplus_layers(top, z), seen.y)
        descent.zero_grad()
        (likelihood + 0.01 * half_squares(top)).backward()
        descent.step()
        return {"train/class": likelihood}

    return step


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_m1_losses_match_plain_reference_for_fifty_steps(
    optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_same_losses(trial("m1", optimizer, settings=SETTINGS), reference, monkeypatch)


# -- known answers ---------------------------------------------------------------------------


def test_m1_bound_of_zero_weights_is_that_of_fair_coins() -> None:
    """q(z|x) = p(z) and p(x|z) = 2⁻ᴰ, so the bound is −D·log 2, which is exact."""
    state, model = m1()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    x = next(batches(state)).x.round()
    got = model.vae.bound(x, *model.vae.moments(x), state.streams["noise"])
    torch.testing.assert_close(got, torch.full((len(x),), -16 * math.log(2)))


# -- what must not change --------------------------------------------------------------------


def test_m1_classifies_means_and_trains_on_draws_of_the_codes() -> None:
    state, model = m1()
    x = next(batches(state)).x
    mean, log_variance = model.vae.moments(x)
    assert torch.equal(model.codes(x), mean)
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(0))
    got = model.codes(x, torch.Generator().manual_seed(0))
    torch.testing.assert_close(got, mean + (log_variance / 2).exp() * noise)
    assert not got.requires_grad


def test_m1_parts_move_only_their_own_network() -> None:
    state, model = m1()
    parts = {"vae": model.vae, "top": model.top}
    for progress, moved in ((4, "vae"), (5, "top")):  # a quarter of 17 epochs ends in the fifth
        state.epoch = progress
        before = {name: [*map(Tensor.clone, net.parameters())] for name, net in parts.items()}
        model.train_step(state, next(batches(state)).batch())
        for name, net in parts.items():
            same = all(map(torch.equal, net.parameters(), before[name]))
            assert same == (name != moved), name


def test_m1_error_names_the_wrong_setting() -> None:
    with pytest.raises(ConfigError, match=r"settings.share: must lie in \(0, 1\)"):
        trial("m1", settings={"share": 1.0})
