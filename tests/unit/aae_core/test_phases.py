"""Test that each phase moves only its own nets, and costs against known values."""

import math
from copy import deepcopy
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from aae_core.config import TrainConfig
from aae_core.phases import (
    Adversary,
    classification_phase,
    descend,
    discriminator_cost,
    discriminator_phase,
    generator_cost,
    generator_phase,
    joint_phase,
    reconstruction_cost,
    reconstruction_phase,
    regularisation_phase,
)


@dataclass
class Toy:
    """Linear nets, an image of 5 pixels, a code of 3, and 4 categories."""

    encoder: nn.Module = field(default_factory=lambda: nn.Linear(5, 3))
    decoder: nn.Module = field(default_factory=lambda: nn.Linear(3, 5))
    discriminator: nn.Module = field(default_factory=lambda: nn.Linear(3, 1))
    discriminator_y: nn.Module = field(default_factory=lambda: nn.Linear(3, 1))
    streams: dict[str, torch.Generator] = field(default_factory=dict)
    optimizers: dict[str, Optimizer] = field(default_factory=dict)
    training: TrainConfig = field(default_factory=TrainConfig)
    progress: float = 0.0

    def __post_init__(self) -> None:
        nets = {
            "reconstruction": (self.encoder, self.decoder),
            "discriminator": (self.discriminator, self.discriminator_y),
            "generator": (self.encoder,),
            "classification": (self.encoder,),
        }
        for name, group in nets.items():
            self.optimizers[name] = SGD([p for net in group for p in net.parameters()], lr=0.1)

    def adversaries(self, x: Tensor) -> list[Adversary]:
        z = self.encoder(x)
        return [
            Adversary("y", self.discriminator_y, torch.randn_like(z), z),
            Adversary("z", self.discriminator, torch.randn_like(z), z),
        ]


NETS = ("encoder", "decoder", "discriminator", "discriminator_y")


@pytest.fixture
def s() -> Toy:
    torch.manual_seed(0)
    return Toy()


@pytest.fixture
def x() -> Tensor:
    return torch.rand(12, 5, generator=torch.Generator().manual_seed(0))


def moved(s: Toy, before: Toy) -> set[str]:
    return {
        net
        for net in NETS
        for a, b in zip(
            getattr(s, net).parameters(), getattr(before, net).parameters(), strict=True
        )
        if not torch.equal(a, b)
    }


def test_reconstruction_phase_moves_encoder_and_decoder(s: Toy, x: Tensor) -> None:
    before = deepcopy(s)
    costs = reconstruction_phase(s, s.decoder(s.encoder(x)), x)
    assert list(costs) == ["train/recon"]
    assert moved(s, before) == {"encoder", "decoder"}


def test_reconstruction_phase_minimises_a_penalty_outside_its_cost(s: Toy, x: Tensor) -> None:
    before = deepcopy(s)
    x_hat = s.decoder(s.encoder(x))
    want = reconstruction_cost(x_hat, x).item()
    bias = s.decoder.bias.detach().clone()
    costs = reconstruction_phase(s, x_hat.detach() + 0 * x_hat, x, 7 * s.decoder.bias.sum())
    assert costs["train/recon"].item() == pytest.approx(want)
    torch.testing.assert_close(s.decoder.bias, bias - 0.1 * 7)
    assert moved(s, before) == {"decoder"}


def test_discriminator_phase_moves_only_the_discriminators(s: Toy, x: Tensor) -> None:
    before = deepcopy(s)
    costs = discriminator_phase(s, s.adversaries(x))
    assert list(costs) == ["train/disc_y", "train/disc_z"]
    assert moved(s, before) == {"discriminator", "discriminator_y"}


def test_generator_phase_moves_only_the_encoder(s: Toy, x: Tensor) -> None:
    before = deepcopy(s)
    costs = generator_phase(s, s.adversaries(x))
    assert list(costs) == ["train/gen_y", "train/gen_z"]
    assert moved(s, before) == {"encoder"}
    assert all(p.grad is None for p in s.discriminator.parameters())


def test_regularisation_phase_trains_generator_against_updated_discriminators(
    s: Toy, x: Tensor
) -> None:
    adversaries = s.adversaries(x)
    before = {a.name: generator_cost(a.discriminator(a.fake)).item() for a in adversaries}
    costs = regularisation_phase(s, lambda: adversaries)
    for a in adversaries:
        got = costs[f"train/gen_{a.name}"].item()
        assert got == pytest.approx(generator_cost(a.discriminator(a.fake)).item())
        assert got != before[a.name]


def test_joint_phase_with_adam_moves_the_encoder_by_both_steps(s: Toy, x: Tensor) -> None:
    """Test Adam, which ignores the scale of a cost: a weighted sum of costs gives other steps."""
    rates, betas, epsilon = {"reconstruction": 1e-3, "generator": 2e-4}, (0.8, 0.99), 1e-8
    nets = {"reconstruction": (s.encoder, s.decoder), "generator": (s.encoder,)}
    for name, lr in rates.items():
        own = [p for net in nets[name] for p in net.parameters()]
        s.optimizers[name] = Adam(own, lr=lr, betas=betas, eps=epsilon)
    moments = {name: [0.0, 0.0] for name in rates}
    for t in range(1, 6):
        twin, real = deepcopy(s), torch.randn(12, 3)
        for toy in (twin, s):
            z = toy.encoder(x)
            game = [Adversary("z", toy.discriminator, real, z)]
            if toy is s:
                joint_phase(s, s.decoder(z), x, lambda: game)  # noqa: B023 - called at once
                continue
            discriminator_phase(twin, game)  # the generator trains against the new discriminator
            costs = {
                "reconstruction": reconstruction_cost(twin.decoder(z), x),
                "generator": generator_cost(twin.discriminator(z)),
            }
        want = twin.encoder.weight.detach().clone()
        for name, cost in costs.items():
            (g,) = torch.autograd.grad(cost, twin.encoder.weight, retain_graph=True)
            m, v = moments[name]
            m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g**2
            moments[name] = [m, v]
            unbiased = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
            want -= rates[name] * unbiased[0] / (unbiased[1].sqrt() + epsilon)
        torch.testing.assert_close(s.encoder.weight.detach(), want)


def test_discriminator_phase_judges_real_and_fake_in_one_pass(s: Toy, x: Tensor) -> None:
    adversaries, shapes = s.adversaries(x), []
    want = {
        f"train/disc_{a.name}": discriminator_cost(a.discriminator(a.real), a.discriminator(a.fake))
        for a in adversaries
    }
    s.discriminator.register_forward_pre_hook(lambda _, args: shapes.append(args[0].shape))
    costs = discriminator_phase(s, adversaries)
    assert shapes == [(24, 3)]
    for name, cost in costs.items():
        assert cost.item() == pytest.approx(want[name].item(), rel=1e-6)


def test_classification_phase_moves_the_encoder_by_cross_entropy(s: Toy, x: Tensor) -> None:
    before, y = deepcopy(s), torch.arange(12) % 3
    logits = s.encoder(x)
    costs = classification_phase(s, logits, y)
    want = -logits.log_softmax(-1)[torch.arange(12), y].mean()
    assert costs["train/class"].item() == pytest.approx(want.item())
    assert moved(s, before) == {"encoder"}


def test_descend_ignores_gradients_of_another_phase(s: Toy, x: Tensor) -> None:
    other = deepcopy(s)
    generator_phase(s, s.adversaries(x))  # leaves gradients at the encoder
    s.encoder.load_state_dict(other.encoder.state_dict())
    for toy in (s, other):
        descend(toy.optimizers["reconstruction"], toy.decoder(toy.encoder(x)).square().mean())
    assert moved(s, other) == set()


def test_phase_costs_carry_no_graph(s: Toy, x: Tensor) -> None:
    costs = reconstruction_phase(s, s.decoder(s.encoder(x)), x)
    costs |= regularisation_phase(s, lambda: s.adversaries(x))
    assert not any(cost.requires_grad for cost in costs.values())


def test_reconstruction_cost_sums_pixels_and_averages_images() -> None:
    x_hat, x = torch.full((3, 784), 0.5), torch.zeros(3, 784)
    assert reconstruction_cost(x_hat, x).item() == pytest.approx(0.5 * 784 * 0.25)


def test_cost_of_an_undecided_discriminator_is_two_bits() -> None:
    undecided = torch.zeros(5, 1)
    assert discriminator_cost(undecided, undecided).item() == pytest.approx(2 * math.log(2))
    assert generator_cost(undecided).item() == pytest.approx(math.log(2))


def test_adversarial_costs_match_the_sigmoid_formula() -> None:
    real, fake = torch.tensor([[1.5], [-0.3]]), torch.tensor([[0.4], [-2.0]])
    want = -(real.sigmoid().log().mean() + (1 - fake.sigmoid()).log().mean())
    torch.testing.assert_close(discriminator_cost(real, fake), want)
    torch.testing.assert_close(generator_cost(fake), -fake.sigmoid().log().mean())


def test_generator_cost_does_not_saturate() -> None:
    logit = torch.full((1, 1), -50.0, requires_grad=True)
    generator_cost(logit).backward()
    assert logit.grad.item() == pytest.approx(-1.0)
