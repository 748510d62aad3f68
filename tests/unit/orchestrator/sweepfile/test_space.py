"""The search space under Optuna: order, conditions, labels."""

import json
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FixedTrial
from pydantic import TypeAdapter
from sweep_file import make_spec

from orchestrator.sweepfile import space
from orchestrator.sweepfile.parameters import Parameter, parents_first

WRITTEN: dict[str, Any] = {
    "training.schedule.factor": {
        "float": [0.05, 0.5],
        "log": True,
        "when": {"training.schedule.kind": ["step", "cosine"]},
    },
    "model.encoder.noise_dim": {"int": [2, 64], "log": True, "when": {"model.encoder.kind": "u"}},
    "model.encoder.kind": {"choice": ["d", "u"]},
    "training.schedule.kind": {"choice": ["constant", "step", "cosine"]},
    "training.schedule.drop_epochs": {
        "choice": [[25], [25, 100]],
        "when": {"training.schedule.kind": "step", "model.encoder.kind": "u"},
    },
    "model.code_dim": {"int": [4, 16], "step": 5},
}


def parameters(written: dict[str, Any] = WRITTEN) -> dict[str, Parameter]:
    adapter: TypeAdapter[Parameter] = TypeAdapter(Parameter)
    return {path: adapter.validate_python(p, strict=False) for path, p in written.items()}


def test_parents_first_order_is_independent_of_file_order() -> None:
    order = parents_first(parameters())
    for path, parameter in parameters().items():
        assert all(order.index(parent) < order.index(path) for parent in parameter.when)
    backwards = dict(reversed(WRITTEN.items()))
    assert parents_first(parameters(backwards)) == order


@given(seed=st.integers(0, 2**32 - 1))
def test_suggest_stays_in_the_space_and_obeys_its_conditions(seed: int) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trial = study.ask()
    params = space.suggest(trial, parameters())
    kind, schedule = params["model.encoder.kind"], params["training.schedule.kind"]
    assert ("model.encoder.noise_dim" in params) == (kind == "u")
    assert ("training.schedule.factor" in params) == (schedule != "constant")
    assert ("training.schedule.drop_epochs" in params) == (schedule == "step" and kind == "u")
    assert params["model.code_dim"] in (4, 9, 14)
    assert params.get("training.schedule.drop_epochs", [25]) in ([25], [25, 100])
    kept = {p: json.dumps(v) if isinstance(v, list | tuple) else v for p, v in params.items()}
    assert trial.params == kept


def test_suggest_omits_a_grandchild_with_its_parent() -> None:
    written = {
        "a": {"choice": [1, 2]},
        "b": {"int": [1, 3], "when": {"a": 2}},
        "c": {"float": [0, 1], "when": {"b": 3}},
    }
    trial = FixedTrial({"a": 1, "b": 3, "c": 0.5})
    assert space.suggest(trial, parameters(written)) == {"a": 1}
    trial = FixedTrial({"a": 2, "b": 3, "c": 0.5})
    assert space.suggest(trial, parameters(written)) == {"a": 2, "b": 3, "c": 0.5}


def test_distributions_declare_every_suggested_distribution() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    declared = space.distributions(parameters())
    for _ in range(20):
        trial = study.ask()
        space.suggest(trial, parameters())
        assert trial.distributions.items() <= declared.items()


def test_suggest_restores_lists_from_a_study_in_a_database() -> None:
    study = optuna.create_study(storage="sqlite://")
    study.enqueue_trial({"model.hidden": "[100, 50]"})
    trial = study.ask()
    params = space.suggest(trial, parameters({"model.hidden": {"choice": [[100, 100], [100, 50]]}}))
    assert params == {"model.hidden": [100, 50]}


def test_grid_holds_every_combination_of_values() -> None:
    written = {"a": {"choice": ["x", [1]]}, "b": {"int": [2, 6], "step": 2}}
    assert space.grid(parameters(written)) == {"a": ["x", "[1]"], "b": [2, 4, 6]}
    study = optuna.create_study(
        sampler=optuna.samplers.GridSampler(space.grid(parameters(written)), seed=0)
    )
    seen = {str(space.suggest(study.ask(), parameters(written))) for _ in range(6)}
    assert len(seen) == 6


def test_grid_refuses_a_float_range() -> None:
    with pytest.raises(ValueError, match="no list of values"):
        space.grid(parameters({"a": {"float": [0, 1]}}))


@given(seed=st.integers(0, 2**32 - 1))
def test_locate_finds_every_configuration_that_the_search_suggests(seed: int) -> None:
    kinds = {"choice": ["deterministic", "universal"]}
    when = {"model.encoder.kind": "universal"}
    spec = make_spec(
        search={
            "space": {
                "model.encoder.kind": kinds,
                "model.encoder.noise_dim": {"int": [2, 64], "log": True, "when": when},
                "model.hidden": {"choice": [[4], [5, 5]]},
                "model.prior.std": {"float": [0.5, 20], "log": True},
                "model.code_dim": {"int": [4, 16], "step": 5},
            }
        }
    )
    assert spec.search is not None
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    params = space.suggest(study.ask(), spec.search.space)
    located, misfits = space.locate(spec.trial_config(params, 1), spec)
    assert (json.dumps(located), misfits) == (json.dumps(params), [])
