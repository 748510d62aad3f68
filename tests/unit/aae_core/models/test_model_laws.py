"""Laws of each architecture: the paper's figures 1 to 10."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import (
    CLASSES,
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
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import cross_entropy, one_hot

from aae_core.config import HeadsConfig, PriorConfig
from aae_core.data import TrainingData
from aae_core.errors import ConfigError
from aae_core.models.dimensionality_reduction import Heads
from aae_core.models.gmmn_ae import cross_entropy_cost, moment_distance
from aae_core.models.vae import gaussian_divergence
from aae_core.networks import drop
from aae_core.phases import Batch
from aae_core.priors import MixturePrior
from aae_core.testing import N_TRAIN
from aae_core.training import TrainState, fit
from aae_core.training.batches import BatchSource, visible_labels


def inputs_of(net: nn.Module) -> list[Tensor]:
    """Return a list that collects the net's inputs from now on."""
    seen: list[Tensor] = []
    net.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone()))
    return seen


def hidden_labels(kind: str) -> tuple[list[dict[str, float]], TrainState]:
    """Train on data without their unseen labels; return the metrics and the final state."""
    data, config = images(), dressed(trial(kind))
    visible = visible_labels(config, data)
    y = np.full(N_TRAIN, -1)
    y[visible] = data.y_train[visible]
    data = images(y)
    state = start(replace(config, data=replace(config.data, labels=None)), data)
    return [epoch.metrics for epoch in fit(state, data)], state


@pytest.mark.parametrize(
    "kind", ["label_regularised", "supervised", "semi_supervised", "classifier"]
)
def test_hidden_labels_never_influence_training(kind: str) -> None:
    state = start(dressed(trial(kind)))
    metrics = [epoch.metrics for epoch in fit(state, images())]
    without, other = hidden_labels(kind)
    assert metrics == without
    assert not changed(weights(state.model), other.model)


# A1, figure 1


def test_aae_decoder_reads_the_code_and_encoder_the_noisy_image() -> None:
    state = start(dressed(trial("aae")))
    batch = first_batch(state)
    encoder, decoder = inputs_of(state.model.encoder), inputs_of(state.model.decoder)
    step(state, batch)
    assert [x.shape for x in decoder] == [(20, 2)]
    assert len(encoder) == 2
    assert all(torch.equal(x, batch.noisy) for x in encoder)


def test_aae_uses_one_encoder_pass_for_discriminator_and_generator() -> None:
    state = start(trial("aae", "gaussian"))
    seen = inputs_of(state.model.discriminator)
    step(state)
    both, again = seen
    assert torch.equal(both[20:], again)


# A2, figure 3


@pytest.fixture
def petals() -> TrainState:
    """Return a trial whose modes are so narrow and far apart that each sample's mode is certain."""
    config = trial("label_regularised")
    prior = PriorConfig("mixture", modes=3, radius=10, radial_std=0.1, tangential_std=0.1)
    return start(replace(config, model=replace(config.model, prior=prior)))


def test_label_regularised_prior_samples_match_the_modes_of_the_labels(
    petals: TrainState,
) -> None:
    seen = inputs_of(petals.model.discriminator)
    y = torch.tensor([0, 1, 2, -1] * 100)
    x = pixels(400)
    step(petals, Batch(x, x, y))
    both, generated = seen
    real, fake = both.chunk(2)
    want = one_hot(torch.where(y < 0, CLASSES, y), CLASSES + 1).float()
    for given in (real, fake, generated):
        assert given.shape == (400, 2 + CLASSES + 1)
        assert torch.equal(given[:, 2:], want)
    centres = 10 * torch.tensor([[math.cos(a), math.sin(a)] for a in (0, 2.0944, 4.18879)])
    mode = torch.cdist(real[:, :2], centres).argmin(1)
    assert torch.equal(mode[y >= 0], y[y >= 0])
    assert mode[y < 0].bincount(minlength=3).min() > 20


def test_label_regularised_labels_enter_only_the_discriminator() -> None:
    """Test that neither encoder nor decoder has an input for labels."""
    model = start(trial("label_regularised")).model
    assert model.encoder.body.mlp.layers[0].in_features == model.dim
    assert model.decoder.layers[0].in_features == model.code_dim
    assert model.discriminator.layers[0].in_features == model.code_dim + CLASSES + 1


def test_label_regularised_rejects_more_modes_than_classes() -> None:
    config = trial("label_regularised")
    model = replace(config.model, prior=PriorConfig("mixture", modes=10))
    with pytest.raises(ConfigError, match="data have 3 classes") as caught:
        start(replace(config, model=model))
    assert list(caught.value.problems) == ["model.prior.modes"]


# A3, figure 6


def test_supervised_decoder_reads_the_label_and_encoder_does_not() -> None:
    state = start(trial("supervised"))
    batch = first_batch(state)
    encoder, decoder = inputs_of(state.model.encoder), inputs_of(state.model.decoder)
    discriminator = inputs_of(state.model.discriminator)
    step(state, batch)
    assert torch.equal(decoder[0][:, :CLASSES], one_hot(batch.y, CLASSES).float())
    assert all(torch.equal(x, batch.noisy) for x in encoder)
    assert [x.shape[1] for x in discriminator] == [2, 2]


def test_supervised_decoder_gives_another_image_for_another_label() -> None:
    model = start(trial("supervised")).model.eval()
    z = model.encode(pixels(4))
    first, second = (model.decode(z, torch.full((4,), y)) for y in (0, 1))
    assert not torch.isclose(first, second).all(dim=1).any()
    with pytest.raises(TypeError, match="needs the classes"):
        model.decode(z)


@pytest.mark.parametrize("kind", ["supervised", "classifier"])
def test_supervised_models_train_only_on_labelled_images(kind: str) -> None:
    config = replace(trial(kind), data=replace(trial(kind).data, labels=6))
    data = images()
    visible = visible_labels(config, data)
    supply = BatchSource.of(start(config, data), data)
    assert len(visible) == 6
    np.testing.assert_array_equal(supply.x, data.x_train[visible])
    np.testing.assert_array_equal(supply.y, data.y_train[visible])
    assert supply.labelled.numel() == 0


# A4, figure 8


def test_semi_supervised_classification_cost_is_cross_entropy_of_labelled_batch() -> None:
    state = start(trial("semi_supervised"))
    batch = first_batch(state)
    assert batch.labelled is not None
    x, y = batch.labelled
    want = cross_entropy(state.model.encoder(x)[0], y)
    last = state.model.encoder.body.mlp.layers[-1].weight
    before = last.detach().clone()
    costs = step(state, batch, only="classification")
    torch.testing.assert_close(costs["train/class"], want.detach())
    assert torch.equal(last[CLASSES:], before[CLASSES:])  # z's own rows
    assert not torch.equal(last[:CLASSES], before[:CLASSES])


def test_semi_supervised_decoder_reads_softmax_and_discriminators_their_code() -> None:
    state = start(trial("semi_supervised"))
    batch = first_batch(state)
    model = state.model
    logits, z = model.encoder(batch.noisy)
    decoder = inputs_of(model.decoder)
    on_y, on_z = inputs_of(model.discriminator_y), inputs_of(model.discriminator)
    step(state, batch, only="none")
    torch.testing.assert_close(decoder[0], torch.cat([logits.softmax(-1), z], -1).detach())
    (y_p, y_q, y_g), (z_p, z_q, z_g) = ((*both.chunk(2), g) for both, g in (on_y, on_z))
    assert set(y_p.unique().tolist()) == {0, 1}
    assert torch.equal(y_p.sum(-1), torch.ones(20))
    torch.testing.assert_close(y_q, logits.softmax(-1).detach())
    torch.testing.assert_close(z_q, z.detach())
    assert torch.equal(y_q, y_g)
    assert torch.equal(z_q, z_g)
    assert z_p.shape == (20, 2)


def test_semi_supervised_sees_all_labels_without_a_number() -> None:
    config = trial("semi_supervised", labels=None)
    assert len(visible_labels(config, images())) == N_TRAIN


# A5, section 6


def test_clustering_has_no_classification_phase() -> None:
    state = start(trial("clustering"))
    assert "classification" not in state.model.objectives()
    assert "train/class" not in step(state)


# A6, figure 10


def heads_at(*places: tuple[float, ...], distance: float = 4.0) -> Heads:
    config = HeadsConfig("learned", distance)
    heads = Heads(config, len(places), len(places[0]), stream())
    heads.weight.data = torch.tensor(places)
    return heads


def test_heads_far_apart_have_no_crowding_cost() -> None:
    heads = heads_at((0.0, 0.0), (4.0, 0.0), (0.0, 5.0))
    assert heads.crowding().item() == 0
    heads.crowding().backward()
    assert not heads.weight.grad.any()


def test_close_heads_cost_the_missing_distance_of_each_pair() -> None:
    assert heads_at((0.0, 0.0), (1.0, 0.0)).crowding().item() == 3
    heads = heads_at((0.0, 0.0), (1.0, 0.0), (3.0, 0.0), (20.0, 0.0))
    assert heads.crowding().item() == pytest.approx(3 + 1 + 2)
    assert heads.closest() == pytest.approx(1)
    heads.crowding().backward()
    torch.testing.assert_close(heads.weight.grad[:, 0], torch.tensor([2.0, 0.0, -2.0, 0.0]))


def test_crowding_cost_moves_the_heads_apart() -> None:
    config = trial("dimensionality_reduction")
    config = replace(config, model=replace(config.model, heads=HeadsConfig(distance=3.0)))
    state = start(config)
    state.model.heads.weight.data = 1e-2 * torch.eye(3, 2)
    for _ in range(40):
        step(state, only="reconstruction")
    assert state.model.heads.closest() > 2.9


def test_fixed_heads_are_the_scaled_unit_matrix() -> None:
    config = trial("dimensionality_reduction", code_dim=3)
    config = replace(config, model=replace(config.model, heads=HeadsConfig("fixed", scale=10)))
    model = start(config).model
    assert torch.equal(model.heads.weight, 10 * torch.eye(3))
    assert model.penalty() is None
    assert not list(model.heads.parameters())


def test_fixed_heads_need_one_dimension_each() -> None:
    config = trial("dimensionality_reduction", code_dim=2)
    with pytest.raises(ConfigError, match="span 3 dimensions") as caught:
        start(replace(config, model=replace(config.model, heads=HeadsConfig("fixed"))))
    assert list(caught.value.problems) == ["model.code_dim"]


def test_dimensionality_reduction_code_is_head_plus_style() -> None:
    model = start(trial("dimensionality_reduction")).model.eval()
    x = pixels(6)
    want = model.classify(x) @ model.heads.weight + model.style(x)
    torch.testing.assert_close(model.encode(x), want)
    torch.testing.assert_close(model.reconstruct(x), model.output(model.decoder(want)))


# B1, section 2.1


def test_gaussian_divergence_equals_kl_divergence_of_torch() -> None:
    mean, log_variance = torch.randn(9, 5, generator=stream()), torch.linspace(-6, 3, 45)
    log_variance = log_variance.reshape(9, 5)
    want = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 3.0)).sum(-1)
    torch.testing.assert_close(gaussian_divergence(mean, log_variance, 3.0), want)
    at_prior = gaussian_divergence(torch.zeros(1, 5), torch.full((1, 5), 2 * math.log(3)), 3.0)
    torch.testing.assert_close(at_prior, torch.zeros(1), atol=1e-6, rtol=0)


def test_gaussian_divergence_is_the_mean_log_ratio() -> None:
    mean, log_variance = torch.tensor([[0.5, -2.0]]), torch.tensor([[-1.0, 0.3]])
    q, p = Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 2.0)
    z = mean + (0.5 * log_variance).exp() * torch.randn(200_000, 2, generator=stream())
    estimate = (q.log_prob(z) - p.log_prob(z)).sum(-1)
    want = gaussian_divergence(mean, log_variance, 2.0).item()
    assert estimate.mean().item() == pytest.approx(want, abs=0.02)


def test_vae_mixture_divergence_is_estimated_without_bias() -> None:
    """Test the mean cost of 20,000 copies of an image against the integral on a grid."""
    state = start(trial("vae", "gaussian", "mixture"))
    model = state.model
    assert isinstance(model.prior, MixturePrior)
    x = pixels(1)
    with torch.no_grad():
        _, mean, log_variance = model.encoder.moments(x)
    axis = torch.linspace(-12, 12, 1_201, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    q = Normal(mean.double(), (0.5 * log_variance.double()).exp())
    log_q = q.log_prob(grid).sum(-1)
    integrand = log_q.exp() * (log_q - model.prior.log_density(grid))
    want = integrand.sum().item() * (axis[1] - axis[0]).item() ** 2
    many = x.expand(20_000, -1)
    costs = step(state, Batch(many, many, torch.full((20_000,), -1)), only="none")
    assert costs["train/kl"].item() == pytest.approx(want, rel=0.02)


@pytest.mark.parametrize("prior", ["gaussian", "mixture"])
def test_vae_descends_the_sum_of_reconstruction_and_divergence(prior: str) -> None:
    state = start(trial("vae", "gaussian", prior, decoder_std=0.5))
    model, batch = state.model, first_batch(state)
    noise = stream()
    noise.set_state(state.streams["noise"].get_state())
    costs = step(state, batch, only="none")
    got = {name: p.grad.clone() for name, p in model.named_parameters()}

    model.zero_grad()
    _, mean, log_variance = model.encoder.moments(batch.noisy)
    std = (0.5 * log_variance).exp()
    z = mean + std * torch.randn(mean.shape, generator=noise)
    recon = 0.5 * (model.image(z) - batch.x).square().sum(1).mean()
    if prior == "gaussian":
        kl = kl_divergence(Normal(mean, std), Normal(0.0, model.prior.std)).sum(-1).mean()
    else:
        kl = (Normal(mean, std).log_prob(z).sum(-1) - model.prior.log_density(z)).mean()
    (recon + 0.5**2 * kl).backward()
    torch.testing.assert_close(costs["train/recon"], recon.detach())
    torch.testing.assert_close(costs["train/kl"], kl.detach())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(got[name], parameter.grad, atol=1e-5, rtol=1e-3)


# B2, table 1


def test_gan_discriminator_reads_images_and_decoded_prior_draws() -> None:
    state = start(dressed(trial("gan")))
    batch = first_batch(state)
    seen, decoder = inputs_of(state.model.discriminator), inputs_of(state.model.decoder)
    step(state, batch)
    both, again = seen
    real, fake = both.chunk(2)
    assert torch.equal(real, batch.x)
    assert torch.equal(fake, again)
    assert [z.shape for z in decoder] == [(20, 2)]


# B3, table 1


def test_gmmn_ae_trains_the_autoencoder_before_the_matcher() -> None:
    state = start(dressed(trial("gmmn_ae", epochs=5)))
    names, moved = [], []
    running = fit(state, images())
    for _ in range(5):
        before = weights(state.model)
        names.append({n for n in next(running).metrics if n.startswith("train/")})
        moved.append({name.partition(".")[0] for name in changed(before, state.model)})
    assert names == [{"train/recon"}] * 3 + [{"train/gen_z"}] * 2
    assert moved == [{"encoder", "decoder"}] * 3 + [{"matcher"}] * 2  # batch norm's buffers too


def test_gmmn_ae_matches_codes_of_the_encoder_without_noise() -> None:
    state = start(dressed(trial("gmmn_ae")))
    state.epoch = 1
    batch = first_batch(state)
    encoder = inputs_of(state.model.encoder)
    state.model.train()
    z = state.model.eval().encoder(batch.x)[1]
    noise = stream()
    noise.set_state(state.streams["prior"].get_state())
    want = moment_distance(state.model.matcher(state.model.prior.sample(20, generator=noise)), z)
    state.model.train()
    costs = step(state, batch)
    torch.testing.assert_close(costs["train/gen_z"], want.detach())
    assert torch.equal(encoder[-1], batch.x)
    assert state.model.encoder.training


def test_moment_distance_of_identical_batches_is_zero() -> None:
    z = torch.randn(30, 4, generator=stream())
    assert moment_distance(z, z.flip(0)).item() < 2e-3
    assert moment_distance(z, z + 3).item() > 0.5


def test_moment_distance_matches_its_formula() -> None:
    x, y = torch.randn(7, 3, generator=stream()), 1 + 2 * torch.randn(5, 3, generator=stream(1))

    unit = sum(float((u - v).square().sum()) for u in y for v in y) / (5 * 4)

    def mean_kernel(a: Tensor, b: Tensor) -> float:
        return sum(
            math.exp(-float((u - v).square().sum()) / (2 * width * unit))
            for u in a
            for v in b
            for width in (0.01, 0.03, 0.1, 0.3, 1)
        ) / (len(a) * len(b))

    want = math.sqrt(mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y))
    assert moment_distance(x, y).item() == pytest.approx(want, rel=1e-4)


def test_moment_distance_to_repeated_points_is_finite() -> None:
    x = torch.randn(6, 2, generator=stream(), requires_grad=True)
    distance = moment_distance(x, torch.ones(5, 2))
    distance.backward()
    assert distance.isfinite()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("unit", [0.3, 1e3])
def test_moment_distance_unchanged_by_unit_of_length(unit: float) -> None:
    x, y = torch.randn(9, 3, generator=stream()), 1 + torch.randn(9, 3, generator=stream(1))
    torch.testing.assert_close(moment_distance(unit * x, unit * y), moment_distance(x, y))


def test_cross_entropy_cost_has_a_known_value_and_gradient() -> None:
    """Test costs by hand: −ln ½ for an undecided pixel, −ln 0.8 for a pixel correct with 0.8."""
    x_hat, x = torch.full((4, 3), 0.5), torch.tensor([[0.0, 1.0, 0.3]]).expand(4, 3)
    assert cross_entropy_cost(x_hat, x).item() == pytest.approx(3 * math.log(2))
    x_hat, x = torch.tensor([[0.8, 0.2], [0.5, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert cross_entropy_cost(x_hat, x).item() == pytest.approx(-math.log(0.8) - math.log(0.5) / 2)
    logits = torch.randn(5, 3, generator=stream(), requires_grad=True)
    pixel = torch.rand(5, 3, generator=stream(1))
    cross_entropy_cost(logits.sigmoid(), pixel).backward()
    torch.testing.assert_close(logits.grad, (logits.sigmoid() - pixel).detach() / 5)


def authors_gmmn(epoch: int, **autoencoder: object) -> TrainState:
    """Return a trial at `epoch` of 15: two per layer of three, two for all, then the matcher."""
    config = as_published(trial("gmmn_ae", epochs=15))
    settings = replace(config.model.autoencoder, share=8 / 15, **autoencoder)
    state = start(replace(config, model=replace(config.model, autoencoder=settings)))
    state.epoch = epoch
    state.model.train()
    return state


@pytest.mark.parametrize("epoch", range(9))
def test_pretraining_moves_one_encoder_and_decoder_layer_after_another(epoch: int) -> None:
    state = authors_gmmn(epoch)
    before = weights(state.model)
    step(state)
    moved = {name.rpartition(".")[0] for name in changed(before, state.model)}
    encoder, decoder = "encoder.body.mlp.layers.", "decoder.layers."
    if epoch < 6:
        layer = epoch // 2
        assert moved == {f"{encoder}{layer}", f"{decoder}{2 - layer}"}
    elif epoch < 8:
        assert moved == {f"{net}{i}" for net in (encoder, decoder) for i in range(3)}
    else:
        assert moved == {f"matcher.layers.{i}" for i in range(3)}


def test_pretraining_reconstructs_the_output_of_the_layers_below() -> None:
    state = authors_gmmn(2, batch_size=None)
    batch, encoder = first_batch(state), state.model.encoder.body.mlp
    dropout = stream()
    dropout.set_state(state.streams["noise"].get_state())
    below = torch.sigmoid(encoder.layers[0](batch.x)).detach()
    h = torch.sigmoid(encoder.layers[1](drop(below, 0.5, dropout)))
    want = cross_entropy_cost(torch.sigmoid(state.model.decoder.layers[1](h)), below)
    costs = step(state, batch, only="none")
    torch.testing.assert_close(costs["train/recon"], want.detach())


def test_autoencoder_batch_size_splits_a_batch_into_separate_steps() -> None:
    """Test steps on 7, 7 and 6 of 20 images against steps on three separate batches."""
    whole, parts = authors_gmmn(6), authors_gmmn(6)
    batch = first_batch(whole)
    cost = step(whole, batch)["train/recon"]
    costs = [
        step(parts, Batch(x, noisy, batch.y[: len(x)]))["train/recon"]
        for x, noisy in zip(batch.x.split(7), batch.noisy.split(7), strict=True)
    ]
    assert not changed(weights(whole.model), parts.model)
    torch.testing.assert_close(cost, torch.stack(costs).mean())


def test_gmmn_ae_sigmoid_and_matched_codes_lie_in_the_unit_cube() -> None:
    model = authors_gmmn(8).model.eval()
    noise = model.prior.sample(50, generator=stream())
    assert noise.shape == (50, 5)
    for codes in (model.encode(pixels(50)), model.match(noise)):
        assert codes.shape == (50, 2)
        assert 0 < codes.min() < codes.max() < 1
    want = model.decode(model.match(noise))
    assert torch.equal(model.sample(50, generator=stream()), want)


# B4, table 2


def test_classifier_descends_the_cross_entropy() -> None:
    state = start(trial("classifier"))
    batch = first_batch(state)
    assert (batch.y >= 0).all()
    want = cross_entropy(state.model.body(batch.noisy), batch.y).item()
    assert step(state, batch)["train/class"].item() == pytest.approx(want)


def test_classifier_learns_to_classify_in_30_epochs() -> None:
    config = trial("classifier", optimizer="adam", epochs=30)
    config = replace(
        config,
        training=replace(
            config.training, classification=replace(config.training.classification, lr=0.02)
        ),
    )
    *_, last = fit(start(config), images())
    assert last.metrics["val/error"] < 10


@pytest.mark.parametrize(
    "kind",
    [
        "label_regularised",
        "supervised",
        "semi_supervised",
        "dimensionality_reduction",
        "classifier",
    ],
)
def test_models_with_labels_reject_a_single_class(kind: str) -> None:
    data = images()
    y = np.zeros(N_TRAIN, np.int64)
    data = TrainingData.of("one class", (4, 4), (data.x_train, y), (data.x_valid, None))
    with pytest.raises(ConfigError, match="labels of 2 classes; there are 1"):
        start(trial(kind, labels=None), data)
