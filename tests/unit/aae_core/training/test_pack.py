"""Test that packed training gives each member the result of training alone."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import KINDS, changed, images, start, trial, weights

from aae_core.config import (
    EncoderConfig,
    LayersConfig,
    NetworkConfig,
    OptimizerConfig,
    PriorConfig,
    ScheduleConfig,
    TrialConfig,
)
from aae_core.declarations import ARCHITECTURES
from aae_core.errors import TrialDiverged
from aae_core.models import Model
from aae_core.training import TrainState, fit
from aae_core.training.batches import BatchSource
from aae_core.training.pack import fit_pack, form, worthwhile

EPOCHS = 17  # epochs of 3 steps
PACKED = [kind for kind in KINDS if form(trial(kind))]
CASES = [(kind, encoder) for kind in PACKED for encoder in ARCHITECTURES[kind].encoders]
SCHEDULES = (ScheduleConfig("cosine"), ScheduleConfig("step", (6,)), ScheduleConfig())


@pytest.fixture(autouse=True)
def unvalidated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip validation, which moves no state and takes longer than the epochs."""
    monkeypatch.setattr("aae_core.training.loop.validation_metrics", lambda *_: {})


def different(config: TrialConfig) -> list[TrialConfig]:
    """Return three trials that share nothing but their form."""

    def member(i: int) -> TrialConfig:
        def rates(settings: OptimizerConfig) -> OptimizerConfig:
            factor, momentum = [(0.5, 0.9), (1, 0.5), (1.5, 0.0)][i]
            own = [None, ScheduleConfig("exponential"), None][i]
            return replace(settings, lr=factor * settings.lr, momentum=momentum, schedule=own)

        model, training = config.model, config.training
        prior = PriorConfig(ARCHITECTURES[model.kind].priors[i], std=1 + i)
        return replace(
            config,
            seed=3 + i,
            model=replace(model, prior=prior, init_std=0.2 + 0.1 * i),
            training=replace(
                training,
                epochs=EPOCHS - 3 * i,
                reconstruction=rates(training.reconstruction),
                adversarial=rates(training.adversarial),
                classification=rates(training.classification),
                schedule=SCHEDULES[i],
                input_noise=0.1 * i,
            ),
        )

    return [member(i) for i in range(3)]


def alone(config: TrialConfig) -> TrainState:
    return to_its_end(start(config))


def to_its_end(state: TrainState) -> TrainState:
    for _ in fit(state, images()):
        pass
    return state


def require_same(got: TrainState, want: TrainState) -> None:
    """Compare whole states: weights, buffers, optimiser states, streams, losses.

    Rounding may switch a unit whose input is almost 0. Rounding may also flip the sign of a
    gradient that is almost 0, and Adam follows that sign. Such a weight differs by a step.
    """
    wanted = want._tensors()
    tensors = {name: tensor for name, tensor in got._tensors().items() if name in wanted}
    torch.testing.assert_close(tensors, wanted, rtol=1e-3, atol=1e-3)
    assert len(got.history) == len(want.history) == got.epoch == want.epoch
    for row, wanted_row in zip(got.history, want.history, strict=True):
        assert row == pytest.approx(wanted_row, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("kind", ["aae", "supervised"])
def test_pack_validates_members_with_their_own_training_images(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []

    def measure(_model: Model, train: torch.Tensor, *_: object) -> dict[str, float]:
        seen.append(train)
        return {}

    monkeypatch.setattr("aae_core.training.loop.validation_metrics", measure)
    states = [start(c) for c in different(trial(kind))]
    next(fit_pack(dict(enumerate(states)), images()))
    assert len(seen) == len(states)
    for train, state in zip(seen, states, strict=True):
        assert torch.equal(train, BatchSource.of(state, images()).x)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize(("kind", "encoder"), CASES)
def test_pack_trains_every_member_as_alone(kind: str, encoder: str, optimizer: str) -> None:
    states = [start(c) for c in different(trial(kind, encoder, optimizer=optimizer))]
    members = dict(enumerate(states))
    yielded = list(fit_pack(members, images()))
    assert [list(results) for results in yielded] == 11 * [[0, 1, 2]] + 3 * [[0, 1]] + 3 * [[0]]
    assert not members
    for number, state in enumerate(states):
        require_same(state, alone(state.config))
        own = [results[number] for results in yielded if number in results]
        assert [{"epoch": e.epoch, **e.metrics} for e in own] == state.history


@pytest.mark.parametrize("kind", PACKED)
def test_pack_batch_norm_is_separate_for_each_member(kind: str) -> None:
    states = [start(c) for c in different(trial(kind, batch_norm="autoencoder"))]
    for _ in fit_pack(dict(enumerate(states)), images()):
        pass
    for state in states:
        require_same(state, alone(state.config))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_pack_with_joint_phases_moves_each_member_as_alone(optimizer: str) -> None:
    def joint(config: TrialConfig) -> TrialConfig:
        training = config.training
        adversarial = replace(training.adversarial, lr=(1 + config.seed) * training.adversarial.lr)
        return replace(config, training=replace(training, adversarial=adversarial, phases="joint"))

    states = [
        start(joint(config)) for config in different(trial("semi_supervised", optimizer=optimizer))
    ]
    for _ in fit_pack(dict(enumerate(states)), images()):
        pass
    for state in states:
        require_same(state, alone(state.config))


@pytest.mark.parametrize("kind", ["aae", "semi_supervised", "gan"])
def test_pack_with_discriminator_steps_and_noise_moves_each_member_as_alone(kind: str) -> None:
    def departs(config: TrialConfig) -> TrialConfig:
        training = replace(config.training, discriminator_steps=2, discriminator_noise=0.3)
        return replace(config, training=training)

    states = [start(departs(config)) for config in different(trial(kind))]
    for _ in fit_pack(dict(enumerate(states)), images()):
        pass
    for state in states:
        require_same(state, alone(state.config))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_pack_member_that_is_removed_trains_on_as_alone(optimizer: str, tmp_path: Path) -> None:
    configs = different(trial("aae", "gaussian", optimizer=optimizer))
    members = {number: start(config) for number, config in enumerate(configs)}
    running = fit_pack(members, images())
    for _ in range(5):
        next(running)
    first, second, third = members.pop(0), members[1], members[2]
    first.save(tmp_path / "left")
    before = weights(first.model)
    for _ in running:
        pass
    assert not changed(before, first.model)  # by the members that train on
    for state in (TrainState.load(tmp_path / "left"), first):
        require_same(to_its_end(state), alone(state.config))
    for state in (second, third):
        require_same(state, alone(state.config))


def test_trials_begun_alone_continue_in_a_pack(tmp_path: Path) -> None:
    states = []
    for epochs, config in enumerate(different(trial("aae"))):
        state = start(config)
        running = fit(state, images())
        for _ in range(2 * epochs):
            next(running)
        state.save(tmp_path / str(epochs))
        states.append(TrainState.load(tmp_path / str(epochs)))
    for _ in fit_pack(dict(enumerate(states)), images()):
        pass
    for state in states:
        require_same(state, alone(state.config))


@pytest.mark.parametrize(
    ("hidden", "size"),
    [((30, 30), 16), ((100, 100), 16), ((200, 200), 4), ((400, 400), 1), ((1000, 1000), 1)],
)
def test_pack_on_a_cpu_is_worthwhile_only_for_small_nets(
    hidden: tuple[int, ...], size: int
) -> None:
    """Test nets that benchmarks/train_step.py --pack trained at least 1.5 times as fast."""
    config = trial("aae", hidden=hidden)
    config = replace(config, training=replace(config.training, batch_size=50))
    assert worthwhile(config, 64, on_gpu=False) == size
    assert worthwhile(config, 64, on_gpu=True) == 16


def test_pack_validates_each_member_at_its_own_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = {"val/recon": 1.0}
    monkeypatch.setattr("aae_core.training.loop.validation_metrics", lambda *_: figures)
    every = {0: (1, 6), 1: (4, 5), 2: (9, 5)}  # by member: validate_every, epochs
    members = {
        number: start(
            replace(
                trial("aae"),
                training=replace(trial("aae").training, validate_every=n, epochs=epochs),
            )
        )
        for number, (n, epochs) in every.items()
    }
    validated: dict[int, list[int]] = {number: [] for number in every}
    for yielded in fit_pack(members, images(), validate_at=(2,)):
        for number, result in yielded.items():
            validated[number] += [result.epoch] if "val/recon" in result.metrics else []
    assert validated == {0: [1, 2, 3, 4, 5, 6], 1: [2, 4, 5], 2: [2, 5]}


def test_pack_with_a_finished_member_yields_no_results() -> None:
    state = alone(trial("aae"))
    assert not list(fit_pack({0: state}, images()))


def test_pack_drops_a_diverged_member_and_trains_the_others() -> None:
    well = trial("aae", output="linear", epochs=4)
    training = replace(well.training, reconstruction=OptimizerConfig("sgd", 1e18))
    ill = replace(well, training=training)
    states = {"well": start(well), "ill": start(ill), "too": start(replace(well, seed=6))}
    yielded = list(fit_pack(dict(states), images()))
    assert isinstance(yielded[0]["ill"], TrialDiverged)
    assert yielded[0]["ill"].epoch == 1
    assert [list(results) for results in yielded[1:]] == 3 * [["well", "too"]]
    for name in ("well", "too"):
        require_same(states[name], alone(states[name].config))


def test_pack_trains_maxout_and_sigmoid_members_as_alone() -> None:
    plain = trial("aae")
    own = {
        "encoder": EncoderConfig(activation="sigmoid"),
        "decoder": LayersConfig(hidden=(7,), activation="sigmoid"),
        "discriminator": NetworkConfig(hidden=(6, 5), activation="maxout", pieces=3),
    }
    config = replace(plain, model=replace(plain.model, **own))
    members = different(config)
    stds = [replace(c.model.discriminator, init_std=0.1 + 0.1 * i) for i, c in enumerate(members)]
    members = [
        replace(c, model=replace(c.model, discriminator=net))
        for c, net in zip(members, stds, strict=True)
    ]
    states = dict(enumerate(map(start, members)))
    for _ in fit_pack(dict(states), images()):
        pass
    for i, state in states.items():
        require_same(state, alone(members[i]))


OTHER: dict[str, Callable[[TrialConfig], TrialConfig]] = {
    "discriminator": lambda c: replace(
        c, model=replace(c.model, discriminator=NetworkConfig(activation="maxout"))
    ),
    "width": lambda c: replace(c, model=replace(c.model, hidden=(12, 9))),
    "code": lambda c: replace(c, model=replace(c.model, code_dim=3)),
    "data": lambda c: replace(c, data=replace(c.data, name="mnist")),
    "batch": lambda c: replace(c, training=replace(c.training, batch_size=7)),
    "optimizer": lambda c: replace(
        c, training=replace(c.training, reconstruction=OptimizerConfig("adam"))
    ),
}


@pytest.mark.parametrize("what", OTHER)
def test_pack_rejects_members_of_another_form(what: str) -> None:
    config = trial("aae")
    other = OTHER[what](config)
    assert form(other) != form(config)
    members = {"one": start(config), "other": start(other)}
    with pytest.raises(ValueError, match="one form"):
        next(fit_pack(members, images()))


@pytest.mark.parametrize("kind", PACKED)
def test_pack_members_may_differ_in_all_but_their_form(kind: str) -> None:
    assert len(set(map(form, different(trial(kind))))) == 1


def test_form_is_none_for_trials_that_no_pack_supports() -> None:
    assert {"aae", "supervised", "semi_supervised", "clustering"} < set(PACKED) < set(KINDS)
    assert form(trial("aae", dropout=0.1)) is None
    for share in ("dropout", "input_dropout"):
        assert form(trial("gan", discriminator=NetworkConfig(**{share: 0.1}))) is None
    assert form(trial("aae", channels=(2,))) is None
    low = replace(trial("aae").training, precision="bfloat16")
    assert form(replace(trial("aae"), training=low)) is None
