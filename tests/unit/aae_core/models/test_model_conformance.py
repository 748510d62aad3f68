"""Laws that every architecture obeys with each of its encoders and priors."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import (
    CASES,
    CLASSES,
    COVERING,
    KINDS,
    RIVALS,
    SIDE,
    as_published,
    changed,
    dressed,
    first_batch,
    images,
    pixels,
    start,
    step,
    stream,
    trial,
    weights,
)
from torch import Tensor

import aae_core
from aae_core.config import NetworkConfig, TrialConfig
from aae_core.declarations import ARCHITECTURES
from aae_core.models import Autoencoder, Classifies, Model, Samples
from aae_core.phases import Costs
from aae_core.training import EpochMetrics, TrainState, fit

COSTS = {
    "aae": {"recon", "disc_z", "gen_z"},
    "label_regularised": {"recon", "disc_z", "gen_z"},
    "supervised": {"recon", "disc_z", "gen_z"},
    "semi_supervised": {"recon", "disc_y", "gen_y", "disc_z", "gen_z", "class"},
    "clustering": {"recon", "disc_y", "gen_y", "disc_z", "gen_z"},
    "dimensionality_reduction": {"recon", "disc_y", "gen_y", "disc_z", "gen_z", "class"},
    "vae": {"recon", "kl"},
    "gan": {"disc_x", "gen_x"},
    "gmmn_ae": {"recon", "gen_z"},
    "classifier": {"class"},
}
CLUSTERS = {"cluster_error", "cluster_error_majority", "cluster_ties", "empty_clusters"}
NEEDS_LABELS = {"error", "knn_error", "mode_accuracy", "mode_mmd", *CLUSTERS}
PHASES = [
    (kind, optimizer) for kind in KINDS for optimizer in start(trial(kind)).model.objectives()
]


def declared(config: TrialConfig) -> set[str]:
    metrics = set(ARCHITECTURES[config.model.kind].metrics)
    if config.model.kind == "dimensionality_reduction":
        metrics -= {"error"} if config.data.labels == 0 else CLUSTERS
    return metrics


def on_validation(epoch: EpochMetrics) -> set[str]:
    return on_validation_of(epoch.metrics)


def on_validation_of(metrics: dict[str, float]) -> set[str]:
    return {name.removeprefix("val/") for name in metrics if name.startswith("val/")}


def on_training(epochs: list[EpochMetrics]) -> set[str]:
    names = {name for epoch in epochs for name in epoch.metrics}
    return {name.removeprefix("train/") for name in names if name.startswith("train/")}


def abilities(model: Model) -> dict[str, Tensor]:
    """Return the model's output for the same images and draws, for each of its abilities."""
    x, y = pixels(5), torch.arange(5) % CLASSES
    made: dict[str, Tensor] = {}
    if isinstance(model, Autoencoder):
        made["encode"] = model.encode(x)
        made["style"] = model.style(x, generator=stream(1))
        made["reconstruct"] = model.reconstruct(x, y)
    if isinstance(model, Samples):
        made["sample"] = model.sample(7, generator=stream(2))
    if isinstance(model, Classifies):
        made["classify"] = model.classify(x)
    return made


@pytest.mark.parametrize(("kind", "encoder", "prior"), CASES)
def test_model_trains_and_measures_the_declared_metrics(
    kind: str, encoder: str, prior: str
) -> None:
    config = trial(kind, encoder, prior)
    epochs = list(fit(start(config), images()))
    assert on_training(epochs) == COSTS[kind]
    for epoch in epochs:
        assert on_validation(epoch) == declared(config)
        json.dumps(epoch.metrics, allow_nan=False)


def test_cluster_heads_without_labels_train_and_measure_clusters() -> None:
    config = trial("dimensionality_reduction", labels=0)
    epochs = list(fit(start(config), images()))
    assert on_training(epochs) == COSTS["clustering"]
    assert on_validation(epochs[-1]) == declared(config) >= CLUSTERS


@pytest.mark.parametrize("kind", [k for k, a in ARCHITECTURES.own.items() if a.labels == "none"])
def test_unlabelled_images_suffice_for_models_without_labels(kind: str) -> None:
    labelled = images()
    data = type(labelled).of(
        "bare", labelled.image_shape, (labelled.x_train, None), (labelled.x_valid, None)
    )
    epochs = list(fit(start(trial(kind), data), data))
    assert on_validation(epochs[-1]) == declared(trial(kind)) - NEEDS_LABELS


@pytest.mark.parametrize(("kind", "encoder", "prior"), COVERING)
def test_model_resumed_from_checkpoint_equals_uninterrupted(
    kind: str, encoder: str, prior: str, tmp_path: Path
) -> None:
    optimizer = "adam" if encoder == "gaussian" else "sgd"
    config = dressed(trial(kind, encoder, prior, optimizer=optimizer, epochs=3))
    whole = start(config)
    want = [epoch.metrics for epoch in fit(whole, images())]

    state = start(config)
    got = [next(fit(state, images())).metrics]
    state.save(tmp_path / "checkpoint")
    state = TrainState.load(tmp_path / "checkpoint")
    got += [epoch.metrics for epoch in fit(state, images())]

    assert got == want
    assert not changed(weights(whole.model), state.model)


@pytest.mark.parametrize("kind", RIVALS)
def test_rivals_resumed_after_every_epoch_equal_uninterrupted(kind: str, tmp_path: Path) -> None:
    """Test the authors' networks for nine epochs.

    Nine epochs cover each phase of gmmn_ae: three layers, all layers together, the matcher.
    """
    config = dressed(as_published(trial(kind, epochs=9)))
    whole = start(config)
    want = [epoch.metrics for epoch in fit(whole, images())]
    assert on_validation_of(want[-1]) == declared(config)

    state, got = start(config), []
    for epoch in range(9):
        got.append(next(fit(state, images())).metrics)
        state.save(tmp_path / str(epoch))
        state = TrainState.load(tmp_path / str(epoch))
    assert got == want
    assert not changed(weights(whole.model), state.model)
    made, again = abilities(state.model.eval()), abilities(aae_core.load(tmp_path / "8"))
    assert all(torch.equal(again[ability], value) for ability, value in made.items())


@pytest.mark.parametrize("kind", RIVALS)
def test_rivals_with_authors_networks_get_a_gradient_everywhere(kind: str) -> None:
    state = start(as_published(trial(kind, epochs=9)))
    state.model.train()
    moved: dict[str, float] = {}
    for state.epoch in range(9):
        step(state)
        for name, parameter in state.model.named_parameters():
            if parameter.grad is not None:
                moved[name] = max(moved.get(name, 0), parameter.grad.abs().sum().item())
    assert moved.keys() == {name for name, _ in state.model.named_parameters()}
    assert all(gradient > 0 for gradient in moved.values())


@pytest.mark.parametrize("kind", KINDS)
def test_training_depends_only_on_configuration_and_seed(kind: str) -> None:
    first, second = start(trial(kind)), start(trial(kind))
    metrics = [[epoch.metrics for epoch in fit(state, images())] for state in (first, second)]
    assert metrics[0] == metrics[1]
    assert not changed(weights(first.model), second.model)


@pytest.mark.parametrize(("kind", "encoder", "prior"), COVERING)
def test_checkpoint_restores_all_abilities_of_its_model(
    kind: str, encoder: str, prior: str, tmp_path: Path
) -> None:
    state = start(dressed(trial(kind, encoder, prior)))
    next(fit(state, images()))
    state.save(tmp_path / "checkpoint")
    want, got = abilities(state.model), abilities(aae_core.load(tmp_path / "checkpoint"))
    assert want.keys() == got.keys()
    for ability, value in want.items():
        assert torch.equal(got[ability], value), ability


@pytest.mark.parametrize(("kind", "encoder", "prior"), COVERING)
def test_model_outputs_have_expected_shapes_and_ranges(kind: str, encoder: str, prior: str) -> None:
    model = start(trial(kind, encoder, prior)).model.eval()
    shapes = {
        "encode": (5, 2),
        "style": (5, 2),
        "reconstruct": (5, SIDE * SIDE),
        "sample": (7, SIDE * SIDE),
        "classify": (5, 4 if kind == "clustering" else CLASSES),
    }
    for ability, value in abilities(model).items():
        assert value.shape == shapes[ability], ability
        if ability in ("reconstruct", "sample", "classify"):
            assert 0 <= value.min() <= value.max() <= 1, ability
    if isinstance(model, Classifies):
        torch.testing.assert_close(model.classify(pixels(5)).sum(-1), torch.ones(5))


@pytest.mark.parametrize(("kind", "optimizer"), PHASES)
def test_training_phase_moves_only_its_own_nets(kind: str, optimizer: str) -> None:
    state = start(trial(kind))
    if (kind, optimizer) == ("gmmn_ae", "generator"):
        state.epoch = 1  # the second of 2 epochs
    model = state.model.train()
    before = weights(model)
    step(state, only=optimizer)
    nets = model.objectives()[optimizer][1]
    own = {id(parameter) for net in nets for parameter in net.parameters()}
    assert changed(before, model) == {n for n, p in model.named_parameters() if id(p) in own}


@pytest.mark.parametrize(("kind", "encoder", "prior"), COVERING)
def test_train_step_gives_every_parameter_a_gradient(kind: str, encoder: str, prior: str) -> None:
    state = start(trial(kind, encoder, prior))
    state.model.train()
    for state.epoch in (0, 1):  # both halves of gmmn_ae
        step(state)
    for name, parameter in state.model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "gan"])
def test_dropout_is_drawn_only_in_training(kind: str) -> None:
    model = start(trial(kind, dropout=0.5, batch_norm="encoder")).model
    body = model.body if kind == "classifier" else model.encoder.body
    x = pixels(9)
    model.train()
    assert not torch.equal(body(x, stream(1)), body(x, stream(2)))
    model.eval()
    assert torch.equal(body(x, stream(1)), body(x, stream(2)))
    before = weights(model)
    first, second = abilities(model), abilities(model)
    assert all(torch.equal(first[ability], second[ability]) for ability in first)
    assert not changed(before, model)


@pytest.mark.parametrize("kind", [k for k, a in ARCHITECTURES.own.items() if a.adversaries])
def test_discriminator_dropout_is_drawn_from_the_noise_stream_in_training(kind: str) -> None:
    net = NetworkConfig(hidden=(9,), activation="maxout", pieces=2, dropout=0.5, input_dropout=0.3)
    state = start(trial(kind, discriminator=net))
    assert [layer.out_features for layer in state.model.discriminator.layers] == [18, 1]
    batch, streams = first_batch(state), (5, 5, 6)
    costs = []
    for seed in streams:
        state = start(trial(kind, discriminator=net))
        state.model.train()
        state.streams["noise"].manual_seed(seed)
        costs.append(step(state, batch, only="none"))
    for name in (n for n in COSTS[kind] if n.startswith(("disc_", "gen_"))):
        first, again, other = (cost[f"train/{name}"].item() for cost in costs)
        assert first == again
        assert first != other


@pytest.mark.parametrize(("kind", "encoder", "prior"), COVERING)
def test_model_samples_depend_only_on_their_stream(kind: str, encoder: str, prior: str) -> None:
    model = start(trial(kind, encoder, prior)).model.eval()
    if not isinstance(model, Samples):
        assert kind == "classifier"
        return
    first, again, other = (model.sample(6, generator=stream(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("kind", KINDS)
def test_low_precision_rounds_factors_only_in_training(kind: str) -> None:
    full = trial(kind)
    low = replace(full, training=replace(full.training, precision="bfloat16"))
    costs = {config.training.precision: step(start(config)) for config in (full, low)}
    for name, cost in costs["float32"].items():
        rounded = costs["bfloat16"][name]
        assert rounded.dtype == cost.dtype == torch.float32
        assert rounded.item() == pytest.approx(cost.item(), rel=0.02, abs=0.02)
    exact_state, state = start(full), start(low)
    step(exact_state)
    step(state)
    before, moved = start(full).model.state_dict(), state.model.state_dict()
    for name, value in exact_state.model.named_parameters():
        if name.endswith(".weight") and not torch.equal(before[name], value):
            assert not torch.equal(moved[name], value), name
    assert all(value.dtype != torch.bfloat16 for value in state._tensors().values())
    x = pixels(9)
    model, exact = start(low).model.eval(), start(full).model.eval()
    for name in ("encode", "classify"):
        if hasattr(model, name):
            assert torch.equal(getattr(model, name)(x), getattr(exact, name)(x))


@pytest.mark.parametrize("kind", KINDS)
def test_validation_moves_no_weights_and_no_streams(kind: str) -> None:
    """Test weights and streams: a trial that is measured more often is the same trial."""
    state = start(dressed(trial(kind)))
    running = fit(state, images())
    next(running)
    before = {name: s.get_state() for name, s in state.streams.items()}
    model = weights(state.model)
    abilities(state.model)
    assert not changed(model, state.model)
    assert all(torch.equal(before[name], s.get_state()) for name, s in state.streams.items())


GAMES = [
    (kind, phases)
    for kind, architecture in ARCHITECTURES.own.items()
    for phases in ("successive", "joint")
    if "z" in architecture.adversaries or (architecture.adversaries and phases == "successive")
]


def in_the_discriminators(config: TrialConfig, **training: object) -> tuple[list[Tensor], Costs]:
    """Return costs and discriminator inputs of one step: real and fake, the generator's last."""
    state = start(replace(config, training=replace(config.training, **training)))
    seen: list[Tensor] = []
    state.model.discriminator.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    return seen, step(state)


@pytest.mark.parametrize(("kind", "phases"), GAMES)
def test_further_discriminator_steps_use_new_prior_draws(kind: str, phases: str) -> None:
    calls, costs = in_the_discriminators(trial(kind), phases=phases, discriminator_steps=3)
    once, costs_once = in_the_discriminators(trial(kind), phases=phases)
    *games, generated = calls
    assert [game.shape for game in games] == 3 * [once[0].shape]
    assert torch.equal(games[0], once[0])  # the first step is the step of the paper
    fakes = [game.chunk(2)[1] for game in games]
    assert all(torch.equal(fake, fakes[0]) for fake in fakes) == (kind != "gan")
    for one, other in ((0, 1), (1, 2)):
        assert not torch.equal(games[one], games[other])
    assert torch.equal(generated, fakes[0])
    block = "x" if kind == "gan" else "z"
    for cost in (f"train/disc_{block}", f"train/gen_{block}"):  # after further discriminator steps
        assert costs[cost].item() != costs_once[cost].item()


@pytest.mark.parametrize(("kind", "phases"), GAMES)
def test_discriminator_noise_blurs_real_and_fake(kind: str, phases: str) -> None:
    noisy, _ = in_the_discriminators(trial(kind), phases=phases, discriminator_noise=0.5)
    clear, _ = in_the_discriminators(trial(kind), phases=phases)
    blurs = [a - b for a, b in zip(noisy[:1], clear[:1], strict=True)]
    real, fake = blurs[0].chunk(2)
    for blur in (real, fake):
        assert blur.std().item() == pytest.approx(0.5, rel=0.3)
    assert not torch.allclose(real, fake)
    assert not torch.equal(noisy[1], clear[1])


@pytest.mark.parametrize(("kind", "phases"), GAMES)
def test_resumed_equals_uninterrupted_with_discriminator_steps_and_noise(
    kind: str, phases: str, tmp_path: Path
) -> None:
    config = trial(kind)
    departs = {"phases": phases, "discriminator_steps": 2, "discriminator_noise": 0.3}
    config = replace(config, training=replace(config.training, **departs))
    whole, state = start(config), start(config)
    want = [epoch.metrics for epoch in fit(whole, images())]
    next(fit(state, images()))
    state.save(tmp_path / "checkpoint")
    state = TrainState.load(tmp_path / "checkpoint")
    assert [epoch.metrics for epoch in fit(state, images())] == want[1:]
    assert not changed(weights(whole.model), state.model)


@pytest.mark.parametrize("kind", KINDS)
def test_standardised_pixels_are_inverted_in_model_outputs(kind: str) -> None:
    config = trial(kind, output="linear")
    config = TrialConfig(
        type(config.data)(labels=config.data.labels, standardise=True),
        config.model,
        config.training,
    )
    data = images()
    state = start(config, data)
    x = first_batch(state, data).x
    assert abs(x.mean().item()) < 0.3
    assert x.std().item() == pytest.approx(1, abs=0.3)
    train = torch.from_numpy(data.x_train) / 255
    torch.testing.assert_close(
        state.model.pixels(train).mean(0), torch.zeros(16), atol=1e-5, rtol=0
    )
    if isinstance(state.model, Autoencoder):
        mean_image = state.model.pixels.inverse(torch.zeros(1, 16))
        torch.testing.assert_close(mean_image[0], train.mean(0))
    assert all(math.isfinite(v) for epoch in fit(state, data) for v in epoch.metrics.values())
