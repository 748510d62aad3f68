"""Warm start: which trials of another sweep a search has, and why it does not have the others."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from sweep_command import aae
from sweep_file import make_spec, make_text

from orchestrator.errors import UsageError
from orchestrator.results.warm_start import WarmStart, read
from orchestrator.settings import Settings
from orchestrator.study.study import StageStudy, open_storage
from orchestrator.sweepfile.spec import SweepSpec

KIND, NOISE, DIM, STD = (
    "model.encoder.kind",
    "model.encoder.noise_dim",
    "model.code_dim",
    "model.prior.std",
)
LR = "training.reconstruction.lr"  # fixed at 0.005
SPACE: dict[str, Any] = {
    KIND: {"choice": ["deterministic", "universal"]},
    NOISE: {"int": [2, 32], "when": {KIND: "universal"}},
    DIM: {"int": [2, 8]},
    STD: {"float": [0.5, 4]},
}
TRIALS: list[dict[str, Any]] = [
    {KIND: "deterministic", DIM: 2, STD: 1.0},
    {KIND: "deterministic", DIM: 5, STD: 2.0},
    {KIND: "universal", NOISE: 4, DIM: 5, STD: 1.0},
    {KIND: "universal", NOISE: 8, DIM: 7, STD: 3.0},
    {KIND: "universal", NOISE: 8, DIM: 8, STD: 1.0},
]


def sweep(space: Mapping[str, Any], *, name: str = "second", **changes: Any) -> SweepSpec:
    warm = {} if name == "first" else {"warm_start": "first"}
    search = {"trials": 5, "space": space, "objective": {"metric": "val/recon"}} | warm
    return make_spec(name, search=search | changes.pop("search", {}), **changes)


def train(settings: Settings, spec: SweepSpec, ends: Mapping[int, str], value: float = 1.0) -> None:
    study = StageStudy.create(open_storage(settings), spec, "search")
    study.note(name=spec.name, spec=spec.resolved(), data_sha256="0" * 64)
    for n in range(len(TRIALS)):
        assert study.ask(spec) is not None
        study.started(n, "here", None)
        study.epoch(n, 1, [value * n], None, trained=True)
        study.end(n, ends.get(n, "complete"), value * n, None)  # type: ignore[arg-type]


@pytest.fixture
def first(settings: Settings) -> SweepSpec:
    """A finished sweep with the trials of TRIALS."""
    spec = sweep(SPACE, name="first", search={"initial_trials": TRIALS})
    train(settings, spec, {})
    return spec


def warmed(settings: Settings, spec: SweepSpec) -> WarmStart:
    found = read(spec, settings, "0" * 64)
    assert found is not None
    return found


def known(found: WarmStart) -> dict[int, dict[str, Any]]:
    return {record.number: record.params for record in found.known}


def test_warm_start_in_the_same_space_has_every_trial(settings: Settings, first: SweepSpec) -> None:
    found = warmed(settings, sweep(SPACE))
    assert known(found) == dict(enumerate(TRIALS))
    assert found.summary == (
        f"search.warm_start: the sampler has 5 of the 5 trials of {first.sweep_id}"
    )


def test_warm_start_in_a_smaller_space_counts_the_trials_outside(
    settings: Settings, first: SweepSpec
) -> None:
    smaller = SPACE | {DIM: {"int": [5, 7]}, STD: {"float": [0.5, 2.5]}}
    found = warmed(settings, sweep(smaller))
    assert known(found) == {1: TRIALS[1], 2: TRIALS[2]}
    assert found.summary == (
        f"search.warm_start: the sampler has 2 of the 5 trials of {first.sweep_id}; "
        "2 have model.code_dim outside of [5, 7]; 1 has model.prior.std outside of [0.5, 2.5]"
    )


def test_warm_start_takes_a_new_parameter_from_the_fixed_setting(
    settings: Settings, first: SweepSpec
) -> None:
    found = warmed(settings, sweep(SPACE | {LR: {"float": [1e-4, 1e-1], "log": True}}))
    assert known(found) == {n: params | {LR: 5e-3} for n, params in enumerate(TRIALS)}
    with pytest.raises(UsageError, match=r"none of the 5 .* 5 have .*lr outside of \[0.01, 0.1\]"):
        warmed(settings, sweep(SPACE | {LR: {"float": [1e-2, 1e-1]}}))


def test_warm_start_has_only_trials_with_the_fixed_values(
    settings: Settings, first: SweepSpec
) -> None:
    fewer = {path: SPACE[path] for path in (KIND, NOISE, STD)}
    found = warmed(settings, sweep(fewer, model={"code_dim": 5}))
    assert known(found) == {
        1: {KIND: "deterministic", STD: 2.0},
        2: {KIND: "universal", NOISE: 4, STD: 1.0},
    }
    assert "3 have model.code_dim other than 5" in found.summary


def test_warm_start_ignores_a_fixed_setting_that_a_trial_does_not_read(
    settings: Settings, first: SweepSpec
) -> None:
    """Test that noise_dim is compared only where the encoder is universal."""
    fewer = {path: SPACE[path] for path in (KIND, DIM, STD)}
    found = warmed(settings, sweep(fewer, model={"encoder": {"noise_dim": 8}}))
    assert [*known(found)] == [0, 1, 3, 4]
    assert found.left_out == {"model.encoder.noise_dim other than 8": 1}


def test_warm_start_reports_choices_that_the_space_lacks(
    settings: Settings, first: SweepSpec
) -> None:
    space = SPACE | {KIND: {"choice": ["universal", "gaussian"]}}
    found = warmed(settings, sweep(space))
    assert known(found) == {n: TRIALS[n] for n in (2, 3, 4)}
    assert found.left_out == {"model.encoder.kind other than 'universal' or 'gaussian'": 2}


def test_warm_start_excludes_trials_with_other_settings(
    settings: Settings, first: SweepSpec
) -> None:
    with pytest.raises(UsageError, match="epochs other than 3") as caught:
        warmed(settings, sweep(SPACE, training={"epochs": 3}))
    assert "Change these settings, or drop search.warm_start" in str(caught.value)


def test_warm_start_leaves_out_trials_without_a_result(settings: Settings) -> None:
    spec = sweep(SPACE, name="first", search={"initial_trials": TRIALS})
    train(settings, spec, {1: "pruned", 2: "diverged", 3: "pruned"})
    found = warmed(settings, sweep(SPACE))
    assert [*known(found)] == [0, 4]
    assert found.left_out == {"the state pruned": 2, "the state diverged": 1}
    with pytest.raises(UsageError, match="2 have no finite val/latent_mmd"):
        warmed(settings, sweep(SPACE, search={"secondary_objectives": ["val/latent_mmd"]}))


def test_warm_start_leaves_out_infinite_objectives(settings: Settings) -> None:
    spec = sweep(SPACE, name="first", search={"initial_trials": TRIALS})
    train(settings, spec, {}, value=1e308)
    found = warmed(settings, sweep(SPACE))
    assert found.left_out == {"no finite val/recon": sum(math.isinf(1e308 * n) for n in range(5))}


def test_warm_start_reports_parameters_that_contradict_this_file(settings: Settings) -> None:
    """Test a batch that leaves one image, but batch norm needs two: 100 = 99 + 1."""
    part = "model.autoencoder.batch_size"
    model = {"kind": "gmmn_ae", "batch_norm": "encoder"}
    space = {part: {"int": [90, 100]}}

    def of(name: str, images: int, **search: Any) -> SweepSpec:
        return sweep(space, name=name, model=model, training={"batch_size": images}, search=search)

    sizes = [{part: size} for size in (99, 98, 97, 96, 95)]
    train(settings, of("first", 90, initial_trials=sizes), {})
    with pytest.raises(UsageError, match=f"1 has a problem with {part}: leaves 1 image") as error:
        warmed(settings, of("second", 100))
    assert "4 have training.batch_size other than 100" in str(error.value)


@pytest.mark.parametrize(
    ("other", "message"),
    [("gone", "search.warm_start: `gone` names no sweep"), ("second", "is not another sweep")],
)
def test_warm_start_without_another_sweep_is_refused(
    other: str, message: str, settings: Settings, first: SweepSpec
) -> None:
    spec = sweep(SPACE, search={"warm_start": other})
    StageStudy.create(open_storage(settings), spec, "search").note(name="second")
    with pytest.raises(UsageError, match=message):
        warmed(settings, spec)


def test_validate_prints_the_trials_of_the_warm_start(
    settings: Settings, first: SweepSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AAE_HOME", str(settings.home))
    objective = {"metric": "val/recon"}
    search = {"space": {**SPACE, DIM: {"int": [5, 7]}}, "objective": objective}
    file = tmp_path / "second.yaml"
    file.write_text(make_text("second", search=search | {"warm_start": "first"}))
    ended = aae("validate", file)
    assert "the sampler has 3 of the 5 trials of first-" in ended.err
    assert "2 have model.code_dim outside of [5, 7]" in ended.err
    file.write_text(make_text("second", search=search | {"warm_start": "gone"}))
    assert "search.warm_start: `gone` names no sweep" in aae("validate", file).err
