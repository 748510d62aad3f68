"""Forecast of a sweep's cost: known answers, bounds, and Optuna's pruners on random trials."""

from typing import Any

import pytest
from sweep_file import make_spec

from orchestrator.pipeline.forecast import (
    NOTHING,
    Pace,
    confirm_cost,
    disk_bytes,
    evaluate_seconds,
    fates,
    parzen_seconds,
    search_cost,
)
from orchestrator.sweepfile.spec import ParzenSpec, SweepSpec

HOUR = 3600.0


def sweep(*, confirm: dict[str, Any] | None = None, **search: Any) -> SweepSpec:
    space = {"model.encoder.kind": {"choice": ["deterministic", "gaussian"]}}
    seeds = confirm or {"seeds": 3, "per": "model.encoder.kind"}
    return make_spec(
        "costs",
        training={"epochs": 81},
        search={"trials": 40, "sampler": {"kind": "tpe"}, "space": space} | search,
        confirm={"baseline": False, **seeds},
    )


def test_search_cost_without_pruner_or_budget_equals_its_bound() -> None:
    cost = search_cost(sweep(), Pace(4, 10.0), 0.0)
    assert cost.trials == cost.trials_expected == 40
    assert cost.epochs == cost.epochs_expected == 40 * 81
    assert cost.seconds == pytest.approx(cost.seconds_expected)
    assert cost.seconds == pytest.approx(10 * 81 * 10.0)


def test_budget_of_hours_ends_the_search_and_spares_running_trials() -> None:
    """Fill two places with trials of 81 · 40 s = 0.9 h: each starts one at 0, 0.9 and 1.8 h."""
    cost = search_cost(sweep(budget={"hours": 2}), Pace(2, 40.0), 0.0)
    assert cost.trials == 40
    assert cost.trials_expected == 6
    assert cost.epochs_expected == 6 * 81
    assert cost.seconds_expected == pytest.approx(2.7 * HOUR)
    assert cost.seconds_expected <= cost.seconds == pytest.approx(2.9 * HOUR)
    assert cost.epochs_expected <= cost.epochs < 40 * 81


def test_budget_of_gpu_hours_counts_the_share_of_all_trials() -> None:
    hours = search_cost(sweep(budget={"hours": 2}), Pace(4, 40.0), 0.5)
    gpu_hours = search_cost(sweep(budget={"gpu_hours": 4}), Pace(4, 40.0), 0.5)
    assert gpu_hours == hours
    without = search_cost(sweep(budget={"gpu_hours": 4}), Pace(4, 40.0), 0.0)
    assert without.trials_expected == 40


PRUNERS = [
    {"kind": "successive_halving", "grace_epochs": 3, "reduction_factor": 3},
    {"kind": "hyperband", "grace_epochs": 3, "reduction_factor": 3},
    {"kind": "median", "grace_epochs": 9, "startup_trials": 5},
]


@pytest.mark.parametrize("pruner", PRUNERS, ids=lambda p: p["kind"])
def test_pruner_saves_epochs_and_never_exceeds_the_bound(pruner: dict[str, Any]) -> None:
    spec = sweep(pruner=pruner, trials=60)
    cost = search_cost(spec, Pace(2, 1.0), 0.0)
    assert 60 * pruner["grace_epochs"] < cost.epochs_expected < 0.8 * cost.epochs
    assert cost.seconds_expected < 0.8 * cost.seconds
    budget = search_cost(sweep(pruner=pruner, trials=60, budget={"hours": 0.2}), Pace(2, 1.0), 0.0)
    assert budget.epochs_expected <= budget.epochs
    assert budget.seconds_expected <= budget.seconds


@pytest.mark.parametrize("pruner", PRUNERS, ids=lambda p: p["kind"])
def test_pruner_of_several_objectives_saves_fewer_epochs(pruner: dict[str, Any]) -> None:
    one = sweep(pruner=pruner)
    three = sweep(pruner=pruner, secondary_objectives=["val/recon", "val/latent_mmd"])
    bound = 40 * 81
    assert sum(fates(one, 40, 0)) < sum(fates(three, 40, 0)) < 0.9 * bound


def test_halving_keeps_one_trial_in_three_at_each_rung() -> None:
    spec = sweep(pruner=PRUNERS[0], trials=300)
    played = [fates(spec, 300, seed) for seed in range(10)]
    first, second = (
        sum(fate > epochs for fates_ in played for fate in fates_) for epochs in (3, 9)
    )
    assert first / 3000 == pytest.approx(1 / 3, abs=0.05)
    assert 1 / 3 - 0.05 < second / first < 0.6  # later trials passed a stricter rung


def test_fates_end_at_rungs_or_at_the_last_epoch() -> None:
    spec = sweep(pruner=PRUNERS[0])
    assert set(fates(spec, 100, 0)) <= {3, 9, 27, 81}
    assert fates(spec, 100, 0) == fates(spec, 100, 0)
    assert fates(spec, 1, 0) == [81]


def test_median_pruner_never_prunes_its_startup_trials() -> None:
    found = fates(sweep(pruner=PRUNERS[2]), 40, 1)
    assert found[:5] == [81] * 5
    assert set(found) == {9, 81}


def test_long_search_cost_is_scaled_from_a_part() -> None:
    short = search_cost(sweep(pruner=PRUNERS[0], trials=300), Pace(2, 1.0), 0.0)
    long = search_cost(sweep(pruner=PRUNERS[0], trials=3000), Pace(2, 1.0), 0.0)
    assert long.trials_expected == 3000
    assert long.epochs_expected == pytest.approx(10 * short.epochs_expected, rel=1e-3)


def test_confirm_cost_covers_every_seed_of_every_group() -> None:
    cost = confirm_cost(sweep(), Pace(4, 10.0))
    assert (cost.trials, cost.epochs) == (6, 6 * 81)
    assert cost.seconds == 2 * 81 * 10.0  # four, then two
    control = sweep(confirm={"seeds": 3, "per": "model.encoder.kind", "baseline": True})
    assert confirm_cost(control, Pace(4, 10.0)).trials == 9


def test_confirm_cost_uses_the_epochs_of_confirm_set() -> None:
    longer = sweep(confirm={"seeds": 2, "set": {"training.epochs": 100}})
    assert confirm_cost(longer, Pace(1, 10.0)).epochs == 2 * 100
    assert search_cost(longer, Pace(4, 10.0), 0.0).epochs == 40 * 81


def test_sweep_without_search_has_no_search_cost() -> None:
    plain = make_spec(search=None)
    assert search_cost(plain, Pace(2, 1.0), 0.0) == NOTHING
    assert confirm_cost(plain, Pace(1, 1.0)).trials == 2


def test_parzen_seconds_divide_the_blocks_of_a_decade_over_actors() -> None:
    seconds = [5.0, 2.0, 1.0]
    assert parzen_seconds(10_000, seconds, 4) == 5
    assert parzen_seconds(10_001, seconds, 4) == 5 + 2
    assert parzen_seconds(100_000, seconds, 4) == 5 + 3 * 2  # nine blocks, four at once
    assert parzen_seconds(1_000_000, seconds, 1) == 5 + 9 * 2 + 90 * 1
    assert parzen_seconds(10_000_000, seconds, 1) == 5 + 9 * 2 + 990 * 1


def test_evaluate_seconds_cover_winners_in_full_and_others_for_screening() -> None:
    parzen = ParzenSpec(samples=1_000_000, models=1, screen_samples=10_000)
    seconds = evaluate_seconds(
        5, parzen, per_model=3.0, at_once=1, block_seconds=[1.0], actors=1, train_images=20_000
    )
    controls = 1 + 2 + 1  # 10,000 and all training images, and few centroids
    assert seconds == 5 * 3.0 + 100 + 4 * 1 + controls
    none = evaluate_seconds(
        5, parzen, per_model=3.0, at_once=2, block_seconds=[], actors=1, train_images=20_000
    )
    assert none == 3 * 3.0  # five models on two places


def test_disk_bytes_hold_two_checkpoints_a_trial_until_garbage_collection() -> None:
    spec = sweep()
    found = disk_bytes(spec, 40, 2, 1_000_000)
    assert found["peak"] == 1_000_000 * (2 * 46 + 6)  # plus each confirmed model's copy in MLflow
    assert found["kept"] == 1_000_000 * (2 + 6 + 6)
    tight = spec.model_copy(
        update={"resources": spec.resources.model_copy(update={"disk_gb": 0.01})}
    )
    assert found["kept"] < disk_bytes(tight, 40, 2, 1_000_000)["peak"] < found["peak"]
