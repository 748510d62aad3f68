"""Each phase moves its own nets and no other; each cost has a known value."""

import math
from copy import deepcopy

import pytest
import torch

from aae_core.config import EncoderConfig, ModelConfig, TrialConfig
from aae_core.phases import (
    discriminator_cost,
    discriminator_phase,
    generator_cost,
    generator_phase,
    reconstruction_cost,
    reconstruction_phase,
)
from aae_core.training import TrainState

KINDS = ("deterministic", "gaussian", "universal")


@pytest.fixture(params=KINDS)
def state(request: pytest.FixtureRequest) -> TrainState:
    model = ModelConfig(EncoderConfig(request.param), code_dim=3, hidden=(16, 8), init_std=0.3)
    return TrainState.create(TrialConfig(model=model), (4, 5), "")


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(12, 20, generator=torch.Generator().manual_seed(0))


def moved(state: TrainState, before: TrainState) -> set[str]:
    nets = ("encoder", "decoder", "discriminator")
    return {
        net
        for net in nets
        for a, b in zip(
            getattr(state.model, net).parameters(),
            getattr(before.model, net).parameters(),
            strict=True,
        )
        if not torch.equal(a, b)
    }


def test_reconstruction_moves_encoder_and_decoder(state: TrainState, x: torch.Tensor) -> None:
    before = deepcopy(state)
    reconstruction_phase(state, state.model, x)
    assert moved(state, before) == {"encoder", "decoder"}


def test_the_discriminator_phase_moves_the_discriminator(
    state: TrainState, x: torch.Tensor
) -> None:
    before = deepcopy(state)
    z_q = state.model.encode(x, generator=state.streams["noise"])
    discriminator_phase(state, state.model.discriminator, torch.randn_like(z_q), z_q, block="z")
    assert moved(state, before) == {"discriminator"}


def test_the_generator_phase_moves_the_encoder(state: TrainState, x: torch.Tensor) -> None:
    before = deepcopy(state)
    z_q = state.model.encode(x, generator=state.streams["noise"])
    generator_phase(state, state.model.discriminator, z_q, block="z")
    assert moved(state, before) == {"encoder"}


def test_a_step_runs_the_phases_in_the_paper_s_order(state: TrainState, x: torch.Tensor) -> None:
    costs = state.model.train_step(state, x)
    assert list(costs) == ["train/recon", "train/disc_z", "train/gen_z"]


def test_reconstruction_sums_over_pixels_and_averages_over_images() -> None:
    x_hat, x = torch.full((3, 784), 0.5), torch.zeros(3, 784)
    assert reconstruction_cost(x_hat, x).item() == pytest.approx(0.5 * 784 * 0.25)


def test_an_undecided_discriminator_costs_two_bits_in_nats() -> None:
    undecided = torch.zeros(5, 1)
    assert discriminator_cost(undecided, undecided).item() == pytest.approx(2 * math.log(2))
    assert generator_cost(undecided).item() == pytest.approx(math.log(2))


def test_the_generator_s_cost_does_not_saturate() -> None:
    logit = torch.full((1, 1), -50.0, requires_grad=True)
    generator_cost(logit).backward()
    assert logit.grad is not None
    assert logit.grad.item() == pytest.approx(-1.0)
