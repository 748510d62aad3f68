"""Test the Ladder network: laws, known answers, and a plain reference."""

import pytest
import torch
from plain import Build, Seen, Step, batches, normalised, require_same_losses, start, trial
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss, softmax

from aae_core import testing
from aae_core.errors import ConfigError
from aae_core.phases import Batch
from aae_core.training import TrainState
from aae_rivals.ladder import Denoiser, Ladder

SETTINGS = {"noise": 0.2, "denoising": [10.0, 1.0, 0.1]}  # three weights for four layers


def ladder() -> tuple[TrainState, Ladder]:
    state = start(trial("ladder", settings=SETTINGS))
    assert isinstance(state.model, Ladder)
    return state, state.model


def test_ladder_obeys_the_laws() -> None:
    testing.check_architecture("ladder", settings=SETTINGS)


# -- plain reference -------------------------------------------------------------------------


def reference(state: TrainState, optimizer: Build) -> Step:
    m, tiny = state.model, 1e-10
    W, V, beta = [u.weight for u in m.up], [d.weight for d in m.down], list(m.shifts)
    weights = [10.0, 1.0, 0.1, 0.1]
    descent = optimizer(m.parameters())
    top = len(W)

    def encoder(h: Tensor, std: float) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Return z, W·h and the logits; without noise if std is 0."""
        z, products = [h], [h]
        for layer in range(1, top + 1):
            product = h @ W[layer - 1].T
            new = normalised(product, tiny)
            if std > 0:
                new = new + std * torch.randn(new.shape, generator=state.streams["noise"])
            z, products = [*z, new], [*products, product]
            h = new + beta[layer - 1]
            h = h.clamp(min=0) if layer < top else m.scale * h
        return z, products, h

    def g(layer: int, z: Tensor, u: Tensor) -> Tensor:
        a = [None, *m.denoisers[layer].a]
        mu = a[1] * torch.sigmoid(a[2] * u + a[3]) + a[4] * u + a[5]
        upsilon = a[6] * torch.sigmoid(a[7] * u + a[8]) + a[9] * u + a[10]
        return z * upsilon + mu * (1 - upsilon)

    def step(state: TrainState, seen: Seen) -> dict[str, Tensor]:
        z, products, _ = encoder(seen.x, std=0.0)
        corrupted, _, logits = encoder(seen.noisy, std=0.2)
        likelihood = cross_entropy(encoder(seen.labelled, std=0.2)[2], seen.y)
        denoising, u = torch.tensor(0.0), normalised(softmax(logits, dim=1), tiny)
        for layer in range(top, -1, -1):
            estimate = g(layer, corrupted[layer], u)
            if layer > 0:
                u = normalised(estimate @ V[layer - 1].T, tiny)
                deviation = ((products[layer] - products[layer].mean(dim=0)) ** 2).mean(dim=0)
                estimate = (estimate - products[layer].mean(dim=0)) / (deviation + tiny).sqrt()
            denoising = denoising + weights[layer] * mse_loss(estimate, z[layer])
        descent.zero_grad()
        (likelihood + denoising).backward()
        descent.step()
        return {"train/class": likelihood, "train/denoising": denoising}

    return step


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_ladder_losses_match_plain_reference_for_fifty_steps(
    optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = trial("ladder", optimizer, settings=SETTINGS)
    require_same_losses(config, reference, monkeypatch)


# -- known answers ---------------------------------------------------------------------------


def test_denoiser_represents_the_posterior_mean_of_a_gaussian() -> None:
    """E[z | z̃] is (z̃ + σ²u)/(1 + σ²) for z ~ N(u, 1) and z̃ = z + n, n ~ N(0, σ²)."""
    variance = 0.25
    denoiser = Denoiser(1)
    with torch.no_grad():
        denoiser.a.zero_()
        denoiser.a[3], denoiser.a[9] = 1.0, 1 / (1 + variance)
    z, u = torch.randn(2, 8, 1, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(denoiser(z, u), (z + variance * u) / (1 + variance))


def test_ladder_denoising_cost_of_unchanged_clean_pixels_is_zero() -> None:
    state, model = ladder()
    x = next(batches(state)).x
    with torch.no_grad():
        model.denoisers[0].a.zero_()
        model.denoisers[0].a[9] = 1.0  # ẑ = z̃
        whole = model.denoising(model.encode(x), model.encode(x))
        model.denoisers[0].a[9] = 0.0  # ẑ = 0
        without = model.denoising(model.encode(x), model.encode(x))
    torch.testing.assert_close(without - whole, 10.0 * x.square().mean())


def test_ladder_weights_repeat_the_last_for_all_layers_above() -> None:
    model = ladder()[1]
    assert [model.weight(layer) for layer in range(5)] == [10.0, 1.0, 0.1, 0.1, 0.1]


# -- what must not change --------------------------------------------------------------------


def test_ladder_running_statistics_come_from_clean_unlabelled_images() -> None:
    state, model = ladder()
    seen = next(batches(state))
    want = 0.1 * (seen.x @ model.up[0].weight.T).mean(dim=0).detach()
    unseen = torch.full((len(seen.x),), -1)
    model.train_step(state, Batch(seen.x, seen.noisy, unseen, labelled=(seen.labelled, seen.y)))
    torch.testing.assert_close(model.norms[0].running_mean, want)
    assert model.norms[0].num_batches_tracked == 1


def test_every_weight_of_the_ladder_gets_a_gradient() -> None:
    state, model = ladder()
    for seen in batches(state):  # υ = 0 at first hides some weights for one step
        unseen = torch.full((len(seen.x),), -1)
        model.train_step(state, Batch(seen.x, seen.noisy, unseen, labelled=(seen.labelled, seen.y)))
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().max() > 0, name


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"channels": [4]}, "model.channels: ladder does not read this"),
        ({"batch_norm": "encoder"}, "model.batch_norm: ladder does not read this"),
        ({"dropout": 0.1}, "model.dropout: ladder does not read this"),
        ({"encoder": {"activation": "sigmoid"}}, "encoder: ladder does not read this"),
        ({"settings": {"denoising": []}}, "settings.denoising: give a weight"),
        ({"settings": {"noise": -1.0}}, "settings.noise: must not be negative"),
    ],
)
def test_ladder_refuses_settings_that_it_does_not_read(
    given: dict[str, object], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        start(trial("ladder", **given))
