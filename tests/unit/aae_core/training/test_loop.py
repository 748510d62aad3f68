"""Test fit(): resume, dependence on configuration and seed alone, and divergence."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import aae_core
from aae_core.config import (
    AdversarialConfig,
    EncoderConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
    TrialConfig,
)
from aae_core.data import TrainingData
from aae_core.errors import CheckpointError, TrialDiverged
from aae_core.training import EpochMetrics, TrainState, fit

KINDS = ("deterministic", "gaussian", "universal")


def config(kind: str = "deterministic", optimizer: str = "sgd", **training: object) -> TrialConfig:
    return TrialConfig(
        model=ModelConfig(encoder=EncoderConfig(kind, 3), code_dim=2, hidden=(12,), init_std=0.3),
        training=TrainConfig(
            epochs=4,
            batch_size=20,
            reconstruction=OptimizerConfig(optimizer, 1e-3, 0.9),
            adversarial=AdversarialConfig(optimizer, 1e-3, 0.5),
            schedule=ScheduleConfig("step", (2,), 0.5),
            **training,
        ),
        seed=5,
    )


@pytest.fixture(scope="module")
def data() -> TrainingData:
    pixels = np.random.default_rng(0).integers(0, 256, (90, 16), dtype=np.uint8)
    return TrainingData.of("random", (4, 4), (pixels[:70], None), (pixels[70:], None))


def start(trial: TrialConfig, data: TrainingData) -> TrainState:
    return TrainState.create(trial, data)


def numbers(epochs: list[EpochMetrics]) -> list[tuple[int, dict[str, float]]]:
    return [(epoch.epoch, epoch.metrics) for epoch in epochs]


@pytest.mark.parametrize("phases", ["successive", "joint"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("kind", KINDS)
def test_fit_resumed_equals_uninterrupted(
    kind: str, optimizer: str, phases: str, data: TrainingData, tmp_path: Path
) -> None:
    trial = config(kind, optimizer, phases=phases)
    whole = start(trial, data)
    want = list(fit(whole, data))

    state = start(trial, data)
    running = fit(state, data)
    got = [next(running), next(running)]
    state.save(tmp_path / "checkpoint")
    state = TrainState.load(tmp_path / "checkpoint")
    got += list(fit(state, data))

    assert numbers(got) == numbers(want)
    assert state.history == whole.history
    for name, value in whole.model.state_dict().items():
        assert torch.equal(state.model.state_dict()[name], value), name


def test_fit_depends_only_on_configuration_and_seed(data: TrainingData) -> None:
    first, second = (numbers(list(fit(start(config(), data), data))) for _ in range(2))
    assert first == second
    other = numbers(list(fit(start(replace(config(), seed=6), data), data)))
    assert other != first


def test_fit_learning_rates_follow_the_schedule(data: TrainingData) -> None:
    epochs = list(fit(start(config(), data), data))
    for group in ("reconstruction", "adversarial"):
        assert [epoch.lr[group] for epoch in epochs] == pytest.approx([1e-3, 1e-3, 5e-4, 5e-4])
    assert all(epoch.lr.keys() == {"reconstruction", "adversarial"} for epoch in epochs)


def test_fit_learning_rates_follow_the_schedule_of_their_phase(data: TrainingData) -> None:
    trial = config()
    adversarial = replace(trial.training.adversarial, schedule=ScheduleConfig("cosine", factor=0.1))
    trial = replace(trial, training=replace(trial.training, adversarial=adversarial))
    epochs = list(fit(start(trial, data), data))
    shared, own = ([e.lr[g] for e in epochs] for g in ("reconstruction", "adversarial"))
    assert shared == pytest.approx([1e-3, 1e-3, 5e-4, 5e-4])
    assert own == pytest.approx([1e-3, 7.75e-4, 3.25e-4, 1e-4])


def test_extended_training_follows_the_longer_schedule_from_its_next_epoch_on(
    data: TrainingData,
) -> None:
    trial = config().extended(6)
    trial = replace(
        trial, training=replace(trial.training, schedule=ScheduleConfig("exponential", factor=0.01))
    )
    rates = [epoch.lr["reconstruction"] for epoch in fit(start(trial, data), data)]
    of_four = [0.01 ** (epoch / 3) for epoch in range(4)]
    of_six = [0.01 ** (epoch / 5) for epoch in range(6)]
    assert rates == pytest.approx([1e-3 * factor for factor in of_four + of_six[4:]])


def test_extended_training_equals_one_planned_longer_if_the_schedule_does_not_depend_on_its_end(
    data: TrainingData,
) -> None:
    trial = config()
    planned = replace(trial, training=replace(trial.training, epochs=6))
    extended = trial.extended(5, 6)
    assert extended.lineage == [extended, trial.extended(5), trial]
    want, got = (list(fit(start(each, data), data)) for each in (planned, extended))
    assert numbers(got) == numbers(want)


def test_joint_phases_with_sgd_follow_the_generator_schedule(data: TrainingData) -> None:
    """Test that a tenth of the rate moves the encoder a tenth as far."""

    def moved(factor: float) -> torch.Tensor:
        trial = config(phases="joint")
        early = ScheduleConfig("step", (1,), factor)
        adversarial = replace(trial.training.adversarial, schedule=early)
        off = replace(trial.training.reconstruction, lr=1e-9)
        training = replace(trial.training, epochs=2, adversarial=adversarial, reconstruction=off)
        state = start(replace(trial, training=training), data)
        running = fit(state, data)
        next(running)
        for optimizer in state.optimizers.values():  # momentum of the first epoch
            optimizer.state.clear()
        before = state.model.encoder.body.mlp.layers[0].weight.detach().clone()
        next(running)
        return state.model.encoder.body.mlp.layers[0].weight.detach() - before

    whole, tenth = moved(1.0), moved(0.1)
    assert (tenth.norm() / whole.norm()).item() == pytest.approx(0.1, rel=0.05)


def sparse(**training: object) -> TrialConfig:
    """Return a trial validated at the epochs 3, 6 and 7."""
    return replace(
        config("gaussian"),
        training=replace(config("gaussian").training, epochs=7, validate_every=3, **training),
    )


def test_fit_with_fewer_validations_changes_no_other_metric(data: TrainingData) -> None:
    """Test that draws of validation depend only on seed and epoch."""
    always, seldom = (
        start(replace(sparse(), training=replace(sparse().training, validate_every=1)), data),
        start(sparse(), data),
    )
    want, got = list(fit(always, data)), list(fit(seldom, data, validate_at=(2,)))
    for every, some in zip(want, got, strict=True):
        names = (
            every.metrics
            if some.epoch in (2, 3, 6, 7)
            else {name for name in every.metrics if name.startswith("train/")}
        )
        assert some.metrics == {name: every.metrics[name] for name in names}
    assert [row.keys() for row in seldom.history] == [{"epoch", *e.metrics} for e in got]
    for name, value in always._tensors().items():
        assert torch.equal(seldom._tensors()[name], value), name


def test_fit_resumed_between_validations_equals_uninterrupted(
    data: TrainingData, tmp_path: Path
) -> None:
    whole, state = start(sparse(), data), start(sparse(), data)
    want = numbers(list(fit(whole, data)))
    running = fit(state, data)
    got = numbers([next(running) for _ in range(4)])
    state.save(tmp_path / "checkpoint")
    state = TrainState.load(tmp_path / "checkpoint")
    assert got + numbers(list(fit(state, data))) == want
    assert state.history == whole.history


def test_fit_epoch_has_all_metrics(data: TrainingData) -> None:
    (epoch, *_) = fit(start(config(), data), data)
    assert {"train/recon", "train/disc_z", "train/gen_z", "val/recon"} < set(epoch.metrics)
    assert {"val/parzen_ll", "val/latent_mmd", "val/latent_std"} < set(epoch.metrics)
    assert epoch.samples_per_second > 0
    assert epoch.seconds > 0
    json.dumps(epoch.metrics, allow_nan=False)


def test_fit_reduces_the_reconstruction_cost(data: TrainingData) -> None:
    trial = replace(config("deterministic", "adam"), training=replace(config().training, epochs=30))
    trial = replace(
        trial, training=replace(trial.training, reconstruction=OptimizerConfig("adam", 0.02, 0.9))
    )
    epochs = list(fit(start(trial, data), data))
    assert epochs[-1].metrics["train/recon"] < 0.9 * epochs[0].metrics["train/recon"]


def test_fit_raises_divergence_in_its_epoch(data: TrainingData) -> None:
    training = replace(config().training, reconstruction=OptimizerConfig("sgd", 1e18, 0.9))
    trial = replace(config(), model=replace(config().model, output="linear"), training=training)
    with pytest.raises(TrialDiverged, match="not finite in epoch 1"):
        list(fit(start(trial, data), data))


def test_fit_accepts_a_batch_larger_than_the_data(data: TrainingData) -> None:
    trial = replace(config(), training=replace(config().training, batch_size=1000))
    assert len(list(fit(start(trial, data), data))) == 4


def test_fit_progress_begins_again_with_the_epochs_of_an_extension(data: TrainingData) -> None:
    state = start(config().extended(10), data)
    seen = [state.progress, *(state.progress for _ in fit(state, data))]
    assert seen == [0, 0.25, 0.5, 0.75, *(epoch / 10 for epoch in range(4, 11))]


def test_fit_progress_counts_finished_epochs(data: TrainingData) -> None:
    state = start(config(), data)
    seen = [state.progress, *(state.progress for _ in fit(state, data))]
    assert seen == [0, 0.25, 0.5, 0.75, 1]


def test_checkpoint_of_fit_restores_its_model(data: TrainingData, tmp_path: Path) -> None:
    state = start(config("gaussian"), data)
    list(fit(state, data))
    state.save(tmp_path / "checkpoint")
    model = aae_core.load(tmp_path / "checkpoint")
    assert isinstance(model, aae_core.models.Autoencoder)
    draws = [
        net.sample(5, generator=torch.Generator().manual_seed(0)) for net in (model, state.model)
    ]
    assert torch.equal(*draws)
    x = torch.rand(3, 16, generator=torch.Generator().manual_seed(1))
    assert torch.equal(model.encode(x), state.model.encode(x))
    assert model.decode(model.encode(x)).shape == (3, 16)


def test_checkpoint_of_another_device_resumes_with_new_streams(
    data: TrainingData, tmp_path: Path
) -> None:
    """Test a GPU's checkpoint on a CPU, where a generator's state has another length."""
    from aae_core import checkpoint

    state = start(config("gaussian"), data)
    next(fit(state, data))
    state.save(tmp_path / "here")
    tensors, document = checkpoint.load(tmp_path / "here")
    streams = {n: torch.zeros(16, dtype=torch.uint8) for n in tensors if n.startswith("stream.")}
    checkpoint.save(tmp_path / "gpu", tensors | streams, document | {"device": "cuda"})

    model = aae_core.load(tmp_path / "gpu")
    x = torch.rand(3, 16)
    assert torch.equal(model.encode(x), state.model.encode(x))
    moved = [TrainState.load(tmp_path / "gpu") for _ in range(2)]
    curves = [numbers(list(fit(resumed, data))) for resumed in moved]
    assert curves[0] == curves[1]
    assert [epoch for epoch, _ in curves[0]] == [2, 3, 4]


def test_checkpoint_of_another_version_raises_checkpoint_error(
    data: TrainingData, tmp_path: Path
) -> None:
    from aae_core import checkpoint

    start(config(), data).save(tmp_path / "good")
    tensors, document = checkpoint.load(tmp_path / "good")
    document["config"]["model"]["novelty"] = 1
    checkpoint.save(tmp_path / "other", tensors, document)
    with pytest.raises(CheckpointError, match="another version"):
        aae_core.load(tmp_path / "other")
