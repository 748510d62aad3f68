"""Laws of a sweep's specification: its defaults, its identity and its trials."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sweep_file import make_document, make_spec

from aae_core.config import ScheduleConfig, TrialConfig
from aae_core.declarations import ARCHITECTURES
from aae_core.metrics import METRICS
from orchestrator.sweepfile.messages import problems
from orchestrator.sweepfile.parameters import SETTINGS, contradictions
from orchestrator.sweepfile.spec import HalvingSpec, NoPrunerSpec, SweepSpec, objectives_of


def document(**changes: Any) -> dict[str, Any]:
    """Return a small sweep's document; a change is named by its path, with `__` for dots."""
    kinds = {"choice": ["deterministic", "universal"]}
    noise = {"int": [2, 8], "when": {"model.encoder.kind": "universal"}}
    doc = make_document(
        "small",
        seed=3,
        model={"code_dim": 4, "prior": {"std": 2}},
        training={"epochs": 6},
        search={
            "trials": 5,
            "pruner": {"kind": "successive_halving", "grace_epochs": 2},
            "space": {"model.encoder.kind": kinds, "model.encoder.noise_dim": noise},
        },
    )
    for path, value in changes.items():
        *groups, name = path.split("__")
        node = doc
        for group in groups:
            node = node.setdefault(group, {})
        node[name] = value
    return doc


def sweep(**changes: Any) -> SweepSpec:
    return SweepSpec.of(document(**changes))


def test_spec_with_only_a_name_has_defaults() -> None:
    spec = SweepSpec.model_validate_json('{"name": "plain"}')
    assert spec.search is None
    assert (spec.confirm.top, spec.confirm.seeds) == (1, 3)
    assert spec.evaluate.parzen.samples == 10_000_000
    assert spec.objective.metric == "val/parzen_ll"
    assert spec.pruner == NoPrunerSpec()
    assert spec.trial_config({}, seed=7) == TrialConfig(seed=7)


def test_trial_config_is_the_base_with_its_parameters() -> None:
    params = {"model.encoder.kind": "universal", "model.prior.std": 3, "model.hidden": [7, 5]}
    config = sweep().trial_config(params, seed=11)
    assert config.model.encoder.kind == "universal"
    assert config.model.prior.std == 3.0
    assert config.model.hidden == (7, 5)
    assert (config.model.code_dim, config.training.epochs, config.seed) == (4, 6, 11)
    assert config.to_dict()["model"]["prior"]["std"] == 3.0


@pytest.mark.parametrize("params", [{"model.code_dim": 0}, {"model.cod_dim": 3}, {"nets": 1}])
def test_trial_config_refuses_unknown_and_invalid_settings(params: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        sweep().trial_config(params, seed=0)


@pytest.mark.parametrize(
    ("metric", "direction"), [("val/parzen_ll", "maximize"), ("val/recon", "minimize")]
)
def test_objective_has_the_direction_of_its_metric(metric: str, direction: str) -> None:
    assert sweep(search__objective={"metric": metric}).objective.direction == direction


def minimal(kind: str, labels: int | None = None) -> SweepSpec:
    architecture = ARCHITECTURES[kind]
    model = {
        "kind": kind,
        "encoder": {"kind": architecture.encoders[0]},
        "prior": {"kind": architecture.priors[0]},
    }
    return make_spec(data={"labels": labels}, model=model, search=None)


@pytest.mark.parametrize("kind", ARCHITECTURES.own)
def test_every_architecture_has_its_own_default_objective(kind: str) -> None:
    objective = minimal(kind).objective
    assert objective.metric == f"val/{ARCHITECTURES[kind].objective}" == objectives_of(kind)[0]
    assert objective.direction == METRICS[objective.metric].direction
    assert minimal(kind).has_parzen == ("val/parzen_ll" in objectives_of(kind))


def test_objective_without_labels_is_the_cluster_error() -> None:
    assert minimal("dimensionality_reduction", 0).objective.metric == "val/cluster_error"
    assert minimal("dimensionality_reduction", 10).objective.metric == "val/error"
    assert "val/error" not in objectives_of("dimensionality_reduction", 0)
    assert {"val/parzen_codes", "val/prior_gap"} <= {
        *objectives_of("aae"),
        *objectives_of("gmmn_ae"),
    }
    assert not {"val/parzen_codes", "val/prior_gap"} & {
        *objectives_of("gan"),
        *objectives_of("clustering"),
    }
    assert "val/cluster_error" not in objectives_of("dimensionality_reduction", 10)


def test_objective_must_be_measured_on_every_architecture() -> None:
    with pytest.raises(
        ValidationError, match="is not measured on clustering; choose one of val/cl"
    ):
        sweep(model__kind="clustering", search__objective={"metric": "val/error"})
    space = {"model.kind": {"choice": ["aae", "semi_supervised"]}}
    with pytest.raises(ValidationError, match="choose one of val/recon, val/latent_mmd"):
        sweep(search__space=space)
    spec = sweep(search__space=space, search__objective={"metric": "val/recon"})
    assert spec.has_parzen
    with pytest.raises(ValidationError, match="on gan and classifier; no metric is"):
        sweep(search__space={"model.kind": {"choice": ["gan", "classifier"]}})


def test_compared_is_the_balanced_or_grouping_parameter() -> None:
    assert sweep().compared is None
    assert sweep(search__balance="model.encoder.kind").compared == "model.encoder.kind"
    assert sweep(confirm__per="model.encoder.kind").compared == "model.encoder.kind"


def test_resolved_names_every_setting_and_reads_back() -> None:
    spec = sweep()
    resolved = spec.resolved()
    for path in SETTINGS:
        node: Any = resolved
        for key in path.split("."):
            node = node[key]
            if node is None:  # an optional group
                break
    assert resolved["search"]["objective"] == {"metric": "val/parzen_ll", "direction": "maximize"}
    again = SweepSpec.of(resolved)
    assert again.resolved() == resolved
    assert again.sweep_id == spec.sweep_id


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"seed": 4},
        {"data__name": "mnist"},
        {"model__code_dim": 5},
        {"training__epochs": 7},
        {"search__space": {"model.code_dim": {"int": [1, 2]}}},
        {"search__sampler": {"kind": "tpe"}},
        {"search__pruner": {"kind": "none"}},
        {"search__objective": {"metric": "val/recon"}},
        {"search__balance": "model.encoder.kind"},
        {"search__secondary_objectives": ["val/recon"]},
        {"search__constraints": {"val/latent_std": [0.5, 2.0]}},
        {"search__initial_trials": [{"model.encoder.kind": "universal"}]},
        {"search__warm_start": "another"},
        {"search": None},
    ],
    ids=lambda change: next(iter(change)),
)
def test_config_hash_changes_with_the_experiment(change: dict[str, Any]) -> None:
    assert sweep(**change).config_hash != sweep().config_hash


@pytest.mark.parametrize(
    "change",
    [
        {"search__trials": 500},
        {"search__budget": {"hours": 2}},
        {"search__budget": {"gpu_hours": 2}},
        {"search__secondary_objectives": []},
        {"search__constraints": {}},
        {"search__initial_trials": []},
        {"confirm": {"seeds": 3, "race": 2}},
        {"search__patience": 4},
        {"search__target": 0.5},
        {"confirm__seeds": 9},
        {"confirm": {"seeds": 2, "baseline": False, "margin": 5}},
        {"confirm__per": "model.encoder.kind"},
        {"evaluate__parzen": {"samples": 10}},
        {"resources__gpu": 0.5},
        {"training__batch_size": 100},  # its default, written out
        {"search__objective": {"metric": "val/parzen_ll"}},
        {"model__prior__std": 2.0},
        {"search__space__model.encoder.noise_dim__when": {"model.encoder.kind": ["universal"]}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_sweep_id_stays_when_a_sweep_is_extended(change: dict[str, Any]) -> None:
    assert sweep(**change).sweep_id == sweep().sweep_id


@pytest.mark.parametrize(
    ("seeds", "race", "heats"),
    [(3, None, [3]), (3, 2, [2, 3]), (10, 3, [3, 6, 10]), (8, 2, [2, 4, 8])],
)
def test_race_doubles_its_seeds_in_each_heat(
    seeds: int, race: int | None, heats: list[int]
) -> None:
    assert sweep(confirm={"seeds": seeds, "race": race}).confirm.heats == heats


def test_violation_of_a_constraint_is_the_distance_beyond_bounds() -> None:
    bounds = {"val/latent_std": [0.5, 2], "train/disc_z": [0.25, None], "val/recon": [None, 9]}
    spec = sweep(search__constraints=bounds)
    found = spec.violations({"val/latent_std": 2.5, "train/disc_z": 0.25, "val/recon": math.nan})
    assert found == {"val/latent_std": 0.5, "train/disc_z": 0.0, "val/recon": math.inf}


def test_extended_lengthens_and_never_shortens_a_sweep() -> None:
    spec = sweep(search__budget={"hours": 2})
    longer = spec.extended(trials=9, hours=3.5).search
    assert (longer.span, spec.search.span) == ("9 trials, hours 3.5", "5 trials, hours 2")
    assert spec.extended(trials=4, hours=1) == spec.extended() == spec
    unlimited = sweep()
    assert unlimited.search.span == "5 trials, hours unlimited"
    assert unlimited.extended(hours=1) == unlimited
    alone = sweep(search=None)
    assert alone.extended(trials=9) == alone


@given(order=st.randoms(use_true_random=False))
def test_sweep_id_is_independent_of_key_order(order: Any) -> None:
    def shuffled(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        items = [(key, shuffled(inner)) for key, inner in value.items()]
        order.shuffle(items)
        return dict(items)

    again = SweepSpec.model_validate_json(json.dumps(shuffled(document())))
    assert again.sweep_id == sweep().sweep_id


def test_sweep_id_is_the_name_and_eight_digits() -> None:
    name, _, digits = sweep().sweep_id.rpartition("-")
    assert name == "small"
    assert len(digits) == 8
    assert int(digits, 16) >= 0


def test_grace_period_longer_than_trials_is_clamped_with_a_note() -> None:
    spec = sweep(search__pruner={"kind": "successive_halving", "grace_epochs": 50})
    assert isinstance(spec.pruner, HalvingSpec)
    assert spec.pruner.grace_epochs == 6
    assert spec.notes == [
        "search.pruner.grace_epochs: longer than any trial; "
        "clamped to 6 epochs, so nothing is pruned"
    ]
    assert sweep().notes == []


def test_max_epochs_includes_epochs_in_the_space() -> None:
    spec = sweep(search__space={"training.epochs": {"choice": [10, 80]}})
    assert spec.max_epochs == 80


def test_spec_refuses_a_contradiction_without_the_loader() -> None:
    with pytest.raises(ValidationError, match=r"`model.code_dim` is not in the search space"):
        sweep(search__balance="model.code_dim")


def test_contradictions_count_an_invalid_parameter_as_present() -> None:
    found = contradictions(
        SweepSpec(name="x"), {"model.encoder.kind": None}, balance="model.encoder.kind"
    )
    assert found == {}


def test_spec_refuses_assignment_to_attributes() -> None:
    with pytest.raises(ValidationError):
        sweep().name = "other"


def test_search_space_varies_the_schedule_of_a_phase() -> None:
    own = "training.adversarial.schedule"
    cosine = {"choice": ["constant", "cosine"]}
    factor = {"float": [0.01, 0.5], "when": {f"{own}.kind": "cosine"}}
    spec = sweep(search__space={f"{own}.kind": cosine, f"{own}.factor": factor})
    training = spec.trial_config({f"{own}.kind": "cosine", f"{own}.factor": 0.2}, 1).training
    assert training.adversarial.schedule == ScheduleConfig("cosine", factor=0.2)
    assert training.reconstruction.schedule is None
    base = sweep(training__adversarial={"schedule": {"kind": "step", "drop_epochs": [3]}})
    schedule = base.trial_config({f"{own}.factor": 0.2}, 1).training.adversarial.schedule
    assert schedule == ScheduleConfig("step", (3,), 0.2)


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ({"float": [0.5, 1.5]}, r"must lie in \(0, 1\]"),
        ({"float": [0.1, 1], "when": {"training.adversarial.schedule.kind": "cosine"}}, "never"),
    ],
)
def test_spec_refuses_wrong_schedule_of_a_phase(parameter: dict[str, Any], message: str) -> None:
    own = "training.adversarial.schedule"
    kinds = {"choice": ["constant", "step"]}
    with pytest.raises(ValidationError, match=message):
        sweep(search__space={f"{own}.kind": kinds, f"{own}.factor": parameter})


@pytest.mark.parametrize(
    ("pruner", "epochs", "rungs"),
    [
        ({"kind": "successive_halving", "grace_epochs": 2, "reduction_factor": 3}, 20, [2, 6, 18]),
        ({"kind": "hyperband", "grace_epochs": 5, "reduction_factor": 2}, 40, [5, 10, 20, 40]),
        ({"kind": "successive_halving", "grace_epochs": 9}, 6, [6]),  # the grace is clamped
        ({"kind": "median"}, 20, []),
        ({"kind": "none"}, 20, []),
    ],
)
def test_rungs_are_the_epochs_at_which_halving_compares(
    pruner: dict[str, Any], epochs: int, rungs: list[int]
) -> None:
    assert sweep(search__pruner=pruner, training__epochs=epochs).rungs == rungs


@pytest.mark.usefixtures("example")
def test_settings_of_a_plugin_are_searched_and_recorded() -> None:
    space = {
        "model.settings.projections": {"int": [5, 50]},
        "model.prior.settings.width": {"float": [0.1, 1.0]},
    }
    model = {"kind": "sliced_wasserstein", "code_dim": 2, "prior": {"kind": "ring"}}
    spec = make_spec(model=model, search={"space": space})
    assert spec.objective.metric == "val/parzen_ll"
    assert SweepSpec.of(spec.resolved()).sweep_id == spec.sweep_id
    params = {"model.settings.projections": 7, "model.prior.settings.width": 0.5}
    config = spec.trial_config(params, seed=3)
    assert config.to_dict()["model"]["settings"] == {"projections": 7, "weight": 1.0}
    assert config.to_dict()["model"]["prior"]["settings"] == {"width": 0.5}


@pytest.mark.usefixtures("example")
def test_search_of_a_setting_that_the_plugin_lacks_names_the_nearest() -> None:
    model = {"kind": "sliced_wasserstein", "code_dim": 2, "prior": {"kind": "ring"}}
    with pytest.raises(ValidationError) as caught:
        make_spec(model=model, search={"space": {"model.settings.projection": {"int": [5, 50]}}})
    assert problems(caught.value, SweepSpec) == {
        "search.space.model.settings.projection": "not a setting of a trial; "
        "did you mean `model.settings.projections`?"
    }


@pytest.mark.usefixtures("own_parts")
def test_own_metric_is_an_objective_if_the_file_lists_it() -> None:
    search = {"objective": {"metric": "val/contrast"}}
    spec = make_spec(training={"metrics": ["contrast", "brightness"]}, search=search)
    assert spec.objectives == {"val/contrast": "minimize"}
    assert SweepSpec.of(spec.resolved()).sweep_id == spec.sweep_id != make_spec().sweep_id
    with pytest.raises(ValidationError) as caught:
        make_spec(search=search)
    [(path, message)] = problems(caught.value, SweepSpec).items()
    assert path == "search.objective.metric"
    assert message.startswith("`val/contrast` is not measured on aae; choose one of val/parzen_ll")
    with pytest.raises(ValidationError) as caught:
        make_spec(
            training={"metrics": ["brightness"]}, search={"objective": {"metric": "val/brightness"}}
        )
    assert "is a diagnostic, not an objective" in str(caught.value)


@pytest.mark.usefixtures("own_parts")
def test_own_data_set_has_settings_in_the_file() -> None:
    spec = make_spec(data={"name": "stripes", "settings": {"side": 6}})
    assert spec.trial_config({}, seed=1).to_dict()["data"]["settings"] == {"side": 6}
    assert SweepSpec.of(spec.resolved()).data == spec.data
