"""Test virtual adversarial training: laws, known answers, and a plain reference."""

from typing import Any

import pytest
import torch
from plain import Build, Seen, Step, batches, normalised, require_same_losses, start, trial
from torch import Tensor
from torch.distributions import Categorical, kl_divergence
from torch.nn.functional import cross_entropy, softmax

from aae_core import testing
from aae_core.errors import ConfigError
from aae_core.phases import Batch
from aae_core.training import TrainState
from aae_rivals.vat import VAT, divergence, unit

# Differences over a large step lose few digits, so that two computations agree for fifty steps.
STABLE = {"epsilon": 1.0, "xi": 1.0, "weight": 0.7, "power_iterations": 2}


def vat(**model: Any) -> TrainState:
    return start(trial("vat", **model))


@pytest.mark.parametrize("batch_norm", ["none", "encoder"])
def test_vat_obeys_the_laws(batch_norm: str) -> None:
    testing.check_architecture("vat", batch_norm=batch_norm, settings={"epsilon": 0.5})


# -- plain reference -------------------------------------------------------------------------


def reference(state: TrainState, optimizer: Build) -> Step:
    settings = state.config.model.settings
    layers, norms = state.model.net.mlp.layers, state.model.net.mlp.norms
    descent = optimizer(state.model.parameters())

    def forward(x: Tensor) -> Tensor:
        for i, layer in enumerate(layers):
            x = x @ layer.weight.T + layer.bias
            if norms and (settings.output_norm or i < len(layers) - 1):
                x = normalised(x, 1e-5) * norms[i].weight + norms[i].bias
            x = x if i == len(layers) - 1 else x.clamp(min=0)
        return x

    def apart(p: Tensor, q: Tensor) -> Tensor:
        return kl_divergence(Categorical(logits=p), Categorical(logits=q)).mean()

    def step(state: TrainState, seen: Seen) -> dict[str, Tensor]:
        p = forward(seen.x).detach()
        d = torch.randn(seen.x.shape, generator=state.streams["noise"])
        for _ in range(settings.power_iterations):
            step = (settings.xi * d / d.norm(dim=1, keepdim=True)).requires_grad_()
            (d,) = torch.autograd.grad(apart(p, forward(seen.x + step)), step)
        r = settings.epsilon * d / d.norm(dim=1, keepdim=True)
        smoothness = apart(p, forward(seen.x + r))
        likelihood = cross_entropy(forward(seen.labelled), seen.y)
        descent.zero_grad()
        (likelihood + settings.weight * smoothness).backward()
        descent.step()
        return {"train/class": likelihood, "train/divergence": smoothness}

    return step


@pytest.mark.parametrize(
    ("optimizer", "batch_norm", "output_norm"),
    [
        ("sgd", "none", True),
        ("adam", "none", False),
        ("sgd", "encoder", True),
        ("adam", "encoder", True),
        ("adam", "encoder", False),
    ],
)
def test_vat_losses_match_plain_reference_for_fifty_steps(
    optimizer: str, batch_norm: str, output_norm: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = STABLE | {"output_norm": output_norm}
    config = trial("vat", optimizer, batch_norm=batch_norm, settings=settings)
    require_same_losses(config, reference, monkeypatch)


# -- known answers ---------------------------------------------------------------------------


def linear_model() -> tuple[VAT, Tensor]:
    """Return a model without hidden layers, in double precision, and its weights (K, D)."""
    model = vat(hidden=[], settings={"power_iterations": 200, "xi": 1e-5}).model.double()
    assert isinstance(model, VAT)
    return model, next(model.net.mlp.parameters()).detach()


def test_vat_perturbation_of_linear_net_maximises_the_quadratic_form_of_the_divergence() -> None:
    model, W = linear_model()
    x = torch.rand(5, W.shape[1], generator=torch.Generator().manual_seed(0)).double()
    r = model.perturbation(x, model.net(x).detach(), torch.Generator().manual_seed(1)).double()
    for one, p in zip(r, softmax(model.net(x), dim=1), strict=True):
        H = W.T @ (p.diag() - p.outer(p)) @ W
        assert one.norm().item() == pytest.approx(model.settings.epsilon)
        largest = model.settings.epsilon**2 * torch.linalg.eigvalsh(H)[-1]
        assert (one @ H @ one).item() == pytest.approx(largest.item(), rel=1e-3)


def test_vat_gradient_of_divergence_matches_closed_form_and_finite_differences() -> None:
    model, W = linear_model()
    stream = torch.Generator().manual_seed(0)
    x, r = torch.rand(2, 5, W.shape[1], dtype=torch.float64, generator=stream)
    p = model.net(x).detach()
    weight = model.net.mlp.layers[0].weight
    (got,) = torch.autograd.grad(divergence(p, model.net(x + r)), weight)
    rise = softmax(model.net(x + r), dim=1) - softmax(p, dim=1)
    torch.testing.assert_close(got, rise.T @ (x + r) / len(x))
    with torch.no_grad():
        for i, j in [(0, 0), (1, 7), (2, 15)]:
            before = weight[i, j].item()
            values = []
            for side in (1e-5, -1e-5):
                weight[i, j] = before + side
                values.append(divergence(p, model.net(x + r)))
            weight[i, j] = before
            difference = (values[0] - values[1]) / 2e-5
            assert got[i, j].item() == pytest.approx(difference.item(), rel=1e-6)


def test_unit_keeps_directions_far_below_the_resolution_of_float32() -> None:
    d = torch.tensor([[3e-30, -4e-30], [0.0, 0.0], [3e20, 4e20]])
    torch.testing.assert_close(unit(d), torch.tensor([[0.6, -0.8], [0.0, 0.0], [0.6, 0.8]]))


# -- what must not change --------------------------------------------------------------------


def test_vat_running_statistics_come_from_clean_unlabelled_images() -> None:
    state = vat(batch_norm="encoder")
    seen = next(batches(state))
    first = state.model.net.mlp.layers[0]
    want = 0.1 * (seen.x @ first.weight.T + first.bias).mean(dim=0).detach()
    unseen = torch.full((len(seen.x),), -1)
    state.model.train_step(
        state, Batch(seen.x, seen.noisy, unseen, labelled=(seen.labelled, seen.y))
    )
    norm = state.model.net.mlp.norms[0]
    torch.testing.assert_close(norm.running_mean, want)
    assert norm.num_batches_tracked == 1


def test_vat_refuses_bfloat16_and_dropout() -> None:
    config = trial("vat", dropout=0.5)
    with pytest.raises(ConfigError, match=r"model.dropout: vat does not read this"):
        start(config)
    document = trial("vat").to_dict()
    document["training"]["precision"] = "bfloat16"
    with pytest.raises(ConfigError, match=r"training.precision: vat does not read this"):
        start(type(config).from_dict(document))


def test_vat_error_names_the_wrong_setting() -> None:
    with pytest.raises(ConfigError, match=r"settings.epsilon: must be positive"):
        trial("vat", settings={"epsilon": 0.0})
