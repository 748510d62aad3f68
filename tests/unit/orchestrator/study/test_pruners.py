"""Pruners for several objectives: Optuna's rules, applied to Pareto fronts."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.samplers import RandomSampler
from optuna.trial import TrialState
from sweep_file import make_spec

from orchestrator.settings import Settings
from orchestrator.study import pruners
from orchestrator.study.samplers import build_pruner
from orchestrator.study.study import StageStudy, open_storage
from orchestrator.sweepfile.spec import SweepSpec

HALVING = {"kind": "successive_halving", "grace_epochs": 1, "reduction_factor": 2}
HYPERBAND = {"kind": "hyperband", "grace_epochs": 1, "reduction_factor": 2}
MEDIAN = {"kind": "median", "grace_epochs": 2, "startup_trials": 2}
PRUNERS = pytest.mark.parametrize("pruner", [HALVING, HYPERBAND, MEDIAN], ids=lambda p: p["kind"])
EPOCHS = 8
Curve = Sequence[Sequence[float]]  # objectives by epoch
VALUES = st.integers(0, 5).map(float)


def curves_of(objectives: int) -> st.SearchStrategy[list[Curve]]:
    curve = st.lists(st.tuples(*[VALUES] * objectives), min_size=EPOCHS, max_size=EPOCHS)
    return st.lists(curve, min_size=1, max_size=8)


def sweep(pruner: dict[str, Any], objectives: int = 2, **search: Any) -> SweepSpec:
    secondary = ["val/latent_mmd", "val/parzen_ll"][: objectives - 1]
    named = {"objective": {"metric": "val/recon"}, "secondary_objectives": secondary}
    search = {"trials": 20, "pruner": pruner, **named, **search}
    return make_spec(training={"epochs": EPOCHS}, search=search)


def started(spec: SweepSpec) -> optuna.Study:
    return optuna.create_study(
        study_name="played",  # names the brackets of hyperband
        directions=list(spec.objectives.values()),
        sampler=RandomSampler(seed=0),
        pruner=build_pruner(spec),
    )


def decisions(study: optuna.Study, curve: Curve, *, asks: bool = True) -> list[bool]:
    """Train one trial; return the pruner's decision after each epoch."""
    trial, found = study.ask(), []
    for epoch, objectives in enumerate(curve, 1):
        pruners.report(trial, objectives, epoch)
        found.append(asks and pruners.should_prune(trial))
        if found[-1]:
            study.tell(trial, state=TrialState.PRUNED)
            return found
    study.tell(trial, list(curve[-1]))
    return found


def test_halving_prunes_the_dominated_and_keeps_the_share_of_its_factor() -> None:
    study = started(sweep(HALVING))

    def epochs(*objectives: float) -> int:
        return len(decisions(study, [objectives] * EPOCHS))

    assert epochs(1, 4) == EPOCHS  # front 0 of one trial
    assert epochs(4, 1) == EPOCHS  # front 0 of two
    assert epochs(5, 5) == 1  # front 1 of three
    assert epochs(0, 0) == EPOCHS  # front 0; the first two trials move to front 1
    assert epochs(1, 4) == EPOCHS  # front 1, where two of five trials are kept: 0, 1, 1, 1, 2
    assert epochs(3, 3) == EPOCHS  # front 1 of six trials, three of them kept
    assert epochs(5, 5) == 1


def test_median_rule_prunes_a_trial_behind_the_median_front_after_the_grace_epochs() -> None:
    study = started(sweep(MEDIAN))
    for objectives in [(1, 4), (4, 1), (5, 5)]:  # fronts 0, 0 and 1
        decisions(study, [objectives] * EPOCHS, asks=False)
    assert decisions(study, [(5, 5)] * EPOCHS) == [False, True]
    assert not any(decisions(study, [(0, 9)] * EPOCHS))


def test_median_rule_judges_a_trial_by_its_best_values_so_far() -> None:
    study = started(sweep(MEDIAN))
    for _ in range(3):
        decisions(study, [(2, 2)] * EPOCHS)
    assert not any(decisions(study, [(2, 9), (9, 2)] + [(9, 9)] * 6))
    assert decisions(study, [(2, 3)] + [(9, 9)] * 7) == [False, True]


@PRUNERS
@given(curves=curves_of(3))
def test_pruner_ends_only_trials_that_another_trial_dominates(
    pruner: dict[str, Any], curves: list[Curve]
) -> None:
    spec = sweep(pruner, objectives=3)
    study = started(spec)
    signs = [1 if direction == "minimize" else -1 for direction in spec.objectives.values()]
    reached: list[Curve] = []
    for curve in curves:
        found = decisions(study, curve)
        if found[-1]:
            own = [sign * value for sign, value in zip(signs, curve[len(found) - 1], strict=True)]
            others = [
                [sign * value for sign, value in zip(signs, other[len(found) - 1], strict=True)]
                for other in reached
                if len(other) >= len(found)
            ]
            assert any(
                other != own and all(a <= b for a, b in zip(other, own, strict=True))
                for other in others
            )
        reached.append(curve[: len(found)])


@pytest.mark.parametrize("pruner", [HALVING, HYPERBAND], ids=lambda p: p["kind"])
@given(curves=curves_of(1))
def test_halving_of_equal_objectives_decides_as_optuna_of_one(
    pruner: dict[str, Any], curves: list[Curve]
) -> None:
    one, two = started(sweep(pruner, objectives=1)), started(sweep(pruner))
    for curve in curves:
        twice = [[value, value] for [value] in curve]
        assert decisions(two, twice) == decisions(one, curve)


@given(curves=curves_of(1))
def test_median_of_equal_objectives_decides_as_optuna_of_one(curves: list[Curve]) -> None:
    """Test the last trial against completed ones, an even number of which has no middle value."""
    one, two = started(sweep(MEDIAN, objectives=1)), started(sweep(MEDIAN))
    *completed, last = curves
    for curve in completed:
        decisions(one, curve, asks=False)
        decisions(two, [[value, value] for [value] in curve], asks=False)
    found = decisions(two, [[value, value] for [value] in last])
    if len(completed) % 2:
        assert found == decisions(one, last)
    elif any(found):
        assert decisions(one, last).index(True) <= found.index(True)


@PRUNERS
def test_pruner_ends_a_trial_without_a_number_and_ignores_it_afterwards(
    pruner: dict[str, Any],
) -> None:
    unhindered, study = started(sweep(pruner)), started(sweep(pruner))
    curves = [[(1.0, 1.0)] * EPOCHS, [(2.0, 2.0)] * EPOCHS, [(3.0, 0.0)] * EPOCHS]
    for curve in curves[:2]:
        decisions(study, curve, asks=False)
        decisions(unhindered, curve, asks=False)
    assert decisions(study, [(math.nan, 0.0)] * EPOCHS)[-1]
    unhindered.ask()
    assert decisions(study, curves[2]) == decisions(unhindered, curves[2])


# -- in a sweep's study ------------------------------------------------------------------------


def searched(settings: Settings, spec: SweepSpec, dies: Callable[[int, int], bool]) -> list[Any]:
    """Search with a driver that dies, where `dies(trial, epoch)`, before the pruner decides."""
    storage = open_storage(settings)
    study = StageStudy.create(storage, spec, "search")
    for n in range(9):
        attempt = study.ask(spec)
        assert attempt is not None
        std = attempt.config.model.prior.std
        for epoch in range(1, EPOCHS + 1):
            objectives = [abs(std - 1) + n % 3, abs(std - 3) * epoch]
            study.epoch(n, epoch, objectives, None, trained=True)
            if dies(n, epoch):  # the next attempt repeats the epoch
                if saved := n % 2 == 0:
                    study.save()
                study = StageStudy.create(open_storage(settings), spec, "search")
                study.epoch(n, epoch, [9.0, 9.0] if saved else objectives, None, trained=True)
            if study.should_prune(n):
                study.end(n, "pruned", None, "behind")
                break
            study.save()
        else:
            study.end(n, "complete", objectives[0], None)
    assert all(r.metrics.keys() == spec.objectives.keys() for r in study.records())
    return [(r.state, r.epochs, r.params, r.metrics) for r in study.records()]


@PRUNERS
def test_pruning_by_drivers_that_die_equals_uninterrupted_pruning(
    pruner: dict[str, Any], new_home: Callable[[str], Settings]
) -> None:
    spec = sweep(pruner, sampler={"kind": "tpe", "startup_trials": 3})
    through = searched(new_home("a"), spec, lambda n, epoch: False)
    assert {state for state, *_ in through} == {"pruned", "complete"}
    assert searched(new_home("b"), spec, lambda n, epoch: epoch == 1 + n % 4) == through


def test_rung_is_decided_once_and_by_its_own_values(settings: Settings) -> None:
    """Test a trial that is overtaken after a rung, and one whose driver died at the rung."""
    spec = sweep(HALVING, trials=9)
    study = StageStudy.create(open_storage(settings), spec, "search")
    for _ in range(2):
        study.ask(spec)
    study.epoch(0, 4, [5.0, 5.0], None, trained=True)
    assert not study.should_prune(0)
    study.epoch(1, 4, [1.0, 1.0], None, trained=True)  # and the driver dies
    study = StageStudy.create(open_storage(settings), spec, "search")
    study.epoch(1, 5, [9.0, 9.0], None, trained=True)
    assert not study.should_prune(1)
    study.epoch(0, 5, [5.0, 5.0], None, trained=True)
    assert not study.should_prune(0)


def test_retry_of_a_trial_repeats_no_decision(settings: Settings) -> None:
    spec = sweep(HALVING)
    study = StageStudy.create(open_storage(settings), spec, "search")
    for objectives in ([5.0, 5.0], [1.0, 1.0]):
        attempt = study.ask(spec)
        assert attempt is not None
        study.epoch(attempt.number, 1, objectives, None, trained=True)
        assert not study.should_prune(attempt.number)
    study.end(0, "failed", None, "an error")
    assert study.retry() == {0: 2}
    assert not study.should_prune(2)
    assert study.records()[-1].metrics == {"val/recon": 5.0, "val/latent_mmd": 5.0}
