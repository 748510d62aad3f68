"""Test M2 and M1+M2: laws, known answers, and plain references."""

import math
from collections.abc import Callable
from typing import Any

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
from torch.distributions import Bernoulli, Distribution, Normal, kl_divergence
from torch.nn.functional import cross_entropy

from aae_core import testing
from aae_core.errors import ConfigError
from aae_core.models import Samples
from aae_core.training import TrainState
from aae_rivals.m1_m2 import M1M2, CodeVAE
from aae_rivals.m2 import M2, LabelledVAE

SETTINGS = {"alpha": 0.7, "decay": 0.01}
STACKED = {"features": [10, 9], "share": 0.25, **SETTINGS}
KINDS = {"m2": SETTINGS, "m1_m2": STACKED}
# The first weights of a trained M2 keep all entries of its codes; fixed ones also leave some out.
KEPT = torch.tensor([1.0, 0.0, 1.0])


def m2(**model: Any) -> tuple[TrainState, M2]:
    state = start(trial("m2", settings=SETTINGS, **model))
    assert isinstance(state.model, M2)
    return state, state.model


def m1_m2(**model: Any) -> tuple[TrainState, M1M2]:
    state = start(trial("m1_m2", settings=STACKED, **model))
    assert isinstance(state.model, M1M2)
    return state, state.model


@pytest.mark.parametrize("kind", KINDS)
def test_generative_models_obey_the_laws(kind: str) -> None:
    testing.check_architecture(kind, settings=KINDS[kind])


# -- plain references ------------------------------------------------------------------------

Likelihood = Callable[[Tensor], Distribution]  # p(x|y,z) of the decoder's output


def binary(parameters: Tensor) -> Distribution:
    return Bernoulli(logits=parameters)


def gaussian(parameters: Tensor) -> Distribution:
    mean, log_variance = parameters.chunk(2, dim=1)
    return Normal(mean, (log_variance / 2).exp())


def class_bound(
    net: LabelledVAE, x: Tensor, k: int, eps: Tensor, likelihood: Likelihood, kept: Tensor
) -> Tensor:
    """Return log p(x|y,z) + log p(y) − KL(q(z|x,y) ‖ p(z)) of one class, z = μ + σ·ε."""
    code = softplus_layers(net.encoder, x, net.encoder.classes.weight[:, k])
    mean, log_variance = code.chunk(2, dim=1)
    q = Normal(mean, (log_variance / 2).exp())
    output = softplus_layers(net.decoder, q.loc + q.scale * eps, net.decoder.classes.weight[:, k])
    divergence = kl_divergence(q, Normal(0.0, 1.0)).sum(dim=1)
    log_p = (likelihood(output).log_prob(x) * kept).sum(dim=1)
    return log_p - math.log(testing.CLASSES) - divergence


def m2_step(
    state: TrainState,
    net: LabelledVAE,
    x: Tensor,
    seen: Seen,
    few: Tensor,
    likelihood: Likelihood,
    kept: Tensor,
) -> tuple[Tensor, Losses]:
    K, L = testing.CLASSES, state.config.model.code_dim
    eps = torch.randn((len(x), K, L), generator=state.streams["noise"])
    each = [class_bound(net, x, k, eps[:, k], likelihood, kept) for k in range(K)]
    q = softplus_layers(net.classifier, x).softmax(dim=1)
    total = torch.tensor(0.0)
    for i, y in enumerate(seen.known):
        if y >= 0:
            total = total + each[y][i]
        else:
            for k in range(K):
                total = total + q[i, k] * (each[k][i] - q[i, k].log())
    bound = total / len(x)
    likelihood_of_classes = cross_entropy(softplus_layers(net.classifier, few), seen.y)
    cost = 0.7 * likelihood_of_classes - bound + 0.01 * half_squares(net)
    return cost, {"train/class": likelihood_of_classes, "train/bound": bound}


def reference(state: TrainState, optimizer: Build) -> Step:
    net, noise = state.model.net, state.streams["noise"]
    descent = optimizer(net.parameters())

    def step(state: TrainState, seen: Seen) -> Losses:
        x = torch.bernoulli(seen.x, generator=noise)
        few = torch.bernoulli(seen.labelled.clamp(0, 1), generator=noise)
        cost, losses = m2_step(state, net, x, seen, few, binary, torch.ones(16))
        descent.zero_grad()
        cost.backward()
        descent.step()
        return losses

    return step


def stacked_reference(state: TrainState, optimizer: Build) -> Step:
    vae, top, noise = state.model.vae, state.model.top, state.streams["noise"]
    below = referred_vae(state, optimizer, decay=0.01)
    descent = optimizer(top.parameters())

    def drawn(x: Tensor) -> Tensor:
        with torch.no_grad():
            mean, log_variance = softplus_layers(vae.encoder, x).chunk(2, dim=1)
            eps = torch.randn(mean.shape, generator=noise)
            return (mean + (log_variance / 2).exp() * eps) * KEPT

    def step(state: TrainState, seen: Seen) -> Losses:
        if state.epoch < 0.25 * state.config.training.epochs:
            return below(seen.x)
        x, few = drawn(seen.x), drawn(seen.labelled)
        cost, losses = m2_step(state, top, x, seen, few, gaussian, KEPT)
        descent.zero_grad()
        cost.backward()
        descent.step()
        return losses

    return step


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_m2_losses_match_plain_reference_for_fifty_steps(
    optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_same_losses(trial("m2", optimizer, settings=SETTINGS), reference, monkeypatch)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_m1_m2_losses_match_plain_reference_for_fifty_steps(
    optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CodeVAE, "keep", lambda self, _: self.kept.copy_(KEPT))
    config = trial("m1_m2", optimizer, settings=STACKED)
    require_same_losses(config, stacked_reference, monkeypatch)


# -- known answers ---------------------------------------------------------------------------


def zero(net: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()


def test_m2_bound_of_zero_weights_is_that_of_fair_coins_and_exact() -> None:
    """q(z|x,y) = p(z) and p(x|y,z) = 2⁻ᴰ, so −L = −D·log 2 − log K; −U lacks only log K."""
    state, model = m2()
    zero(model)
    x = torch.ones(2, 16)
    got = model.net.bound(x, torch.tensor([1, -1]), state.streams["noise"])
    coins = -16 * math.log(2)
    torch.testing.assert_close(got, torch.tensor([coins - math.log(3), coins]))


def test_m2_bound_of_labelled_image_matches_sums_by_hand() -> None:
    """Zero weights: only biases set μ, log σ², the pixels' logits and the classes' shares."""
    state, model = m2(hidden=[2], code_dim=1)
    zero(model)
    with torch.no_grad():
        model.net.encoder.layers[-1].bias.copy_(torch.tensor([0.5, math.log(0.25)]))
        model.net.decoder.layers[-1].bias.fill_(math.log(3))  # each pixel is 1 with 3/4
    x = torch.zeros(1, 16)
    x[0, :10] = 1
    divergence = 0.5 * (0.25 + 0.5**2 - 1 - math.log(0.25))
    want = 10 * math.log(3 / 4) + 6 * math.log(1 / 4) - math.log(3) - divergence
    got = model.net.bound(x, torch.tensor([2]), state.streams["noise"])
    assert got.item() == pytest.approx(want, rel=1e-6)


def test_m2_bound_of_unlabelled_image_is_the_sum_over_classes() -> None:
    state, model = m2()
    x = next(batches(state)).x.round()

    def bound(y: int) -> Tensor:
        stream = torch.Generator().manual_seed(0)
        return model.net.bound(x, torch.full((len(x),), y), stream)

    q = model.net.classifier(x).softmax(dim=1)
    each = torch.stack([bound(y) for y in range(3)], dim=1)
    entropy = -(q * q.log()).sum(dim=1)
    torch.testing.assert_close(bound(-1), (q * each).sum(dim=1) + entropy)


def test_m2_bound_is_below_the_log_likelihood_and_tight_for_the_best_classifier() -> None:
    """The best q(y|x) for joint bounds b_y gives log Σ exp b_y; any other gives less."""
    state, model = m2()
    x = next(batches(state)).x.round()
    joint = model.net.joint_bounds(x, torch.Generator().manual_seed(0))
    got = model.net.bound(x, torch.full((len(x),), -1), torch.Generator().manual_seed(0))
    assert (got < joint.logsumexp(dim=1)).all()
    model.net.classifier.forward = lambda _: joint  # type: ignore[method-assign]
    got = model.net.bound(x, torch.full((len(x),), -1), torch.Generator().manual_seed(0))
    torch.testing.assert_close(got, joint.logsumexp(dim=1))


def test_m1_m2_density_of_kept_entries_integrates_to_one() -> None:
    model = m1_m2()[1].double()
    model.top.kept.copy_(torch.tensor([0.0, 1.0, 0.0]))
    x = torch.zeros(4001, 1, 3, dtype=torch.float64)
    x[:, 0, 1] = torch.linspace(-20, 20, 4001)
    parameters = torch.tensor([[0.3, -1.0, 0.2, 0.0, 1.2, 0.4]]).double()
    density = model.top.log_likelihood(parameters.expand(4001, 1, 6), x).exp()
    assert (density.sum() * 0.01).item() == pytest.approx(1.0)


# -- what must not change --------------------------------------------------------------------


def test_m2_labelled_images_of_the_batch_leave_the_classifier_alone() -> None:
    state, model = m2()
    seen = next(batches(state))
    known = torch.arange(len(seen.x)) % 3
    model.net.bound(seen.x.round(), known, state.streams["noise"]).sum().backward()
    for parameter in model.net.classifier.parameters():
        assert parameter.grad is None or not parameter.grad.any()


def test_m1_m2_ignores_entries_of_the_code_that_it_does_not_keep() -> None:
    state, model = m1_m2()
    means = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    model.top.keep(means * torch.tensor([1.0, 0.01, 0.5]))
    assert model.top.kept.tolist() == [1, 0, 1]
    x = next(batches(state)).x
    logits = model.logits(x)
    with torch.no_grad():
        model.vae.encoder.layers[-1].bias[1] += 5.0
    assert torch.equal(model.logits(x), logits)


def test_m1_m2_parts_move_only_their_own_network() -> None:
    state, model = m1_m2()
    parts = {"vae": model.vae, "top": model.top}
    for progress, moved in ((0, "vae"), (5, "top")):  # 5 of 17 epochs are the share
        state.epoch = progress
        before = {name: [*map(Tensor.clone, net.parameters())] for name, net in parts.items()}
        model.train_step(state, next(batches(state)).batch())
        for name, net in parts.items():
            same = all(map(torch.equal, net.parameters(), before[name]))
            assert same == (name != moved), name


@pytest.mark.parametrize("kind", KINDS)
def test_generative_models_sample_images_in_the_unit_interval(kind: str) -> None:
    model = start(trial(kind, settings=KINDS[kind])).model.eval()
    assert isinstance(model, Samples)
    x = model.sample(6, generator=torch.Generator().manual_seed(0))
    assert x.shape == (6, 16)
    assert x.min() >= 0
    assert x.max() <= 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"channels": [4]}, "model.channels: {} does not read this"),
        ({"dropout": 0.1}, "model.dropout: {} does not read this"),
        ({"output": "linear"}, "model.output: the pixels of {} are binary; set sigmoid"),
        ({"settings": {"alpha": -1.0}}, "settings.alpha: must not be negative"),
    ],
)
def test_generative_models_refuse_settings_that_they_cannot_use(
    kind: str, given: dict[str, object], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem.format(kind)):
        start(trial(kind, **given))
