"""Test the categorical GAN: laws, known answers, and a plain reference."""

import math

import pytest
import torch
from plain import Build, Seen, Step, batches, normalised, require_same_losses, start, trial
from torch import Tensor
from torch.distributions import Categorical
from torch.nn.functional import cross_entropy, softmax

from aae_core import testing
from aae_core.models import Samples
from aae_core.phases import Batch
from aae_core.training import TrainState
from aae_rivals.catgan import CatGAN, Net, entropy

SETTINGS = {"generator": [8, 12], "noise": 0.2, "weight": 0.5}


def test_catgan_obeys_the_laws() -> None:
    testing.check_architecture("catgan", settings=SETTINGS, prior={"kind": "uniform"})


# -- plain reference -------------------------------------------------------------------------


def reference(state: TrainState, optimizer: Build) -> Step:
    m, noise = state.model, state.streams["noise"]
    descent = optimizer(m.discriminator.parameters())
    ascent = optimizer(m.generator.parameters())

    def through(net: Net, h: Tensor, std: float) -> Tensor:
        for i, layer in enumerate(net.layers):
            if std > 0:
                h = h + std * torch.randn(h.shape, generator=noise)
            if i > 0:
                norm = net.norms[i - 1]
                h = normalised(h, 1e-5) * norm.weight + norm.bias
                h = torch.where(h > 0, h, 0.1 * h)
            h = h @ layer.weight.T + layer.bias
        return h

    def entropies(x: Tensor) -> tuple[Tensor, Tensor]:
        p = softmax(through(m.discriminator, x, 0.2), dim=1)
        return Categorical(probs=p.mean(dim=0)).entropy(), Categorical(probs=p).entropy().mean()

    def step(state: TrainState, seen: Seen) -> dict[str, Tensor]:
        z = state.model.prior.sample(len(seen.x), generator=state.streams["prior"])
        fake = torch.sigmoid(through(m.generator, z, 0.0))
        marginal, real = entropies(seen.x)
        generated = entropies(fake.detach())[1]
        likelihood = cross_entropy(through(m.discriminator, seen.labelled, 0.2), seen.y)
        descent.zero_grad()
        (real - marginal - generated + 0.5 * likelihood).backward()
        descent.step()
        marginal_of_fake, of_fake = entropies(fake)
        ascent.zero_grad()
        (of_fake - marginal_of_fake).backward()
        ascent.step()
        return {
            "train/class": likelihood,
            "train/entropy_classes": marginal,
            "train/entropy_real": real,
            "train/entropy_fake": generated,
            "train/gen_x": of_fake - marginal_of_fake,
        }

    return step


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_catgan_losses_match_plain_reference_for_fifty_steps(
    optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = trial("catgan", optimizer, settings=SETTINGS)
    require_same_losses(config, reference, monkeypatch)


# -- known answers ---------------------------------------------------------------------------


def test_entropy_has_known_values_and_a_finite_gradient() -> None:
    p = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.25] * 4, [0.5, 0.5, 0.0, 0.0]], requires_grad=True)
    got = entropy(p)
    torch.testing.assert_close(got, torch.tensor([0.0, math.log(4), math.log(2)]))
    got.sum().backward()
    assert p.grad is not None
    assert p.grad.isfinite().all()


# -- what must not change --------------------------------------------------------------------


def catgan() -> tuple[TrainState, CatGAN]:
    state = start(trial("catgan", settings=SETTINGS))
    assert isinstance(state.model, CatGAN)
    return state, state.model


def test_catgan_phases_move_only_their_own_network() -> None:
    state, model = catgan()
    seen = next(batches(state))
    batch = Batch(seen.x, seen.noisy, torch.full((20,), -1), labelled=(seen.labelled, seen.y))
    fake = model.image(model.prior.sample(20, generator=state.streams["prior"]))
    nets = {"discriminator": model.discriminator, "generator": model.generator}
    before = {name: net.layers[0].weight.clone() for name, net in nets.items()}
    model.discriminator_phase(state, batch, fake.detach())
    assert not torch.equal(model.discriminator.layers[0].weight, before["discriminator"])
    assert torch.equal(model.generator.layers[0].weight, before["generator"])
    before["discriminator"] = model.discriminator.layers[0].weight.clone()
    model.generator_phase(state, fake)
    assert torch.equal(model.discriminator.layers[0].weight, before["discriminator"])
    assert not torch.equal(model.generator.layers[0].weight, before["generator"])


def test_catgan_samples_images_in_the_unit_interval() -> None:
    model = catgan()[1].eval()
    assert isinstance(model, Samples)
    x = model.sample(6, generator=torch.Generator().manual_seed(0))
    assert x.shape == (6, 16)
    assert x.min() >= 0
    assert x.max() <= 1
