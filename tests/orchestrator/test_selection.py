"""Ranking: known answers, and what may not win."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from orchestrator.records import RunRecord
from orchestrator.selection import candidates, contenders, rank, summarise, tied_with_best

LL = "val/parzen_ll"


def trial(number: int, value: float | None, **fields: Any) -> RunRecord:
    return RunRecord(
        number=number,
        stage=fields.pop("stage", "search"),
        state=fields.pop("state", "complete"),
        seed=fields.pop("seed", number),
        config_hash=fields.pop("config_hash", f"hash{number}"),
        params=fields.pop("params", {}),
        metrics={} if value is None else {LL: value},
        epochs=fields.pop("epochs", 10),
        **fields,
    )


def confirmed(name: str, values: dict[int, float | None]) -> list[RunRecord]:
    """One configuration's confirmations by seed; None diverged."""
    return [
        trial(
            seed,
            value,
            config_hash=name,
            seed=seed,
            stage="confirm",
            state="complete" if value is not None else "diverged",
        )
        for seed, value in values.items()
    ]


def ranked(*groups: list[RunRecord], direction: Any = "maximize") -> list[str]:
    found = candidates(record for group in groups for record in group)
    return [c.config_hash for c in rank(found, LL, direction)]


def test_seeds_beyond_those_asked_for_are_no_merit() -> None:
    old, new = confirmed("old", {1: 5.0, 3: 5.0, 5: 5.0}), confirmed("new", {1: 6.0, 3: 6.0})
    found = candidates([*old, *new])
    assert [c.config_hash for c in rank(found, LL, "maximize", seeds=2)] == ["new", "old"]
    assert [c.config_hash for c in rank(found, LL, "maximize")] == ["old", "new"]


def tied(*groups: list[RunRecord]) -> list[str]:
    found = rank(candidates(record for group in groups for record in group), LL, "maximize")
    return [c.config_hash for c in tied_with_best(found, LL)]


# -- errors ----------------------------------------------------------------------------------


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=12))
def test_a_summary_is_scipys(values: list[float]) -> None:
    found = summarise(values)
    assert found["mean"] == pytest.approx(np.mean(values), rel=1e-9, abs=1e-6)
    assert found["std"] == pytest.approx(np.std(values, ddof=1), rel=1e-6, abs=1e-6)
    assert found["se"] == pytest.approx(stats.sem(values), rel=1e-6, abs=1e-6)
    assert found["values"] == values
    if found["se"] > 1e-3:
        interval = stats.t.interval(
            0.95, len(values) - 1, loc=found["mean"], scale=stats.sem(values)
        )
        assert found["ci95"] == pytest.approx(list(interval), rel=1e-6)


def test_a_summary_by_hand() -> None:
    found = summarise([1.0, 2.0, 3.0])
    assert (found["mean"], found["std"]) == (2.0, 1.0)
    assert found["se"] == pytest.approx(1 / math.sqrt(3))
    half = 4.302652729911275 / math.sqrt(3)  # t with 2 degrees of freedom, from a table
    assert found["ci95"] == pytest.approx([2 - half, 2 + half])


def test_one_value_has_no_error() -> None:
    assert summarise([7.0]) == {"mean": 7.0, "std": None, "se": None, "ci95": None, "values": [7.0]}


def test_a_value_that_is_not_finite_leaves_no_mean() -> None:
    found = summarise([1.0, math.inf])
    assert found == {"mean": None, "std": None, "se": None, "ci95": None, "values": [1.0, None]}


# -- contenders ------------------------------------------------------------------------------


@pytest.mark.parametrize(("direction", "best"), [("maximize", [2, 0]), ("minimize", [1, 0])])
def test_the_best_trials_contend(direction: Any, best: list[int]) -> None:
    records = [trial(0, 5.0), trial(1, 1.0), trial(2, 9.0)]
    found = contenders(records, LL, direction, top=2, per=None)
    assert [r.number for r in found] == best


def test_what_has_no_result_does_not_contend() -> None:
    records = [
        trial(0, 99.0, state="diverged"),
        trial(1, 98.0, state="failed"),
        trial(2, 97.0, state="running"),
        trial(3, None),
        trial(4, 1.0),
    ]
    found = contenders(records, LL, "maximize", top=5, per=None)
    assert [r.number for r in found] == [4]
    assert contenders(records[:4], LL, "maximize", top=5, per=None) == []


def test_a_pruned_trial_comes_after_every_complete_one() -> None:
    records = [
        trial(0, 9.0, state="pruned", epochs=3),
        trial(1, 8.0, state="pruned", epochs=5),
        trial(2, 1.0),
    ]
    found = contenders(records, LL, "maximize", top=3, per=None)
    assert [r.number for r in found] == [2, 1, 0]


def test_every_group_has_its_contenders() -> None:
    kinds = ["gaussian", "universal"]
    records = [trial(n, float(n), params={"kind": kinds[n >= 3]}) for n in range(5)]
    found = contenders(records, LL, "maximize", top=2, per="kind")
    assert sorted(r.number for r in found) == [1, 2, 3, 4]
    top = contenders(records, LL, "maximize", top=1, per="kind")
    assert {r.params["kind"]: r.number for r in top} == {"gaussian": 2, "universal": 4}


def test_a_configuration_contends_once() -> None:
    records = [trial(n, float(n), config_hash="same") for n in range(3)] + [trial(3, 0.5)]
    found = contenders(records, LL, "maximize", top=2, per=None)
    assert [r.number for r in found] == [2, 3]


# -- the winner ------------------------------------------------------------------------------


def test_the_best_mean_wins_not_the_luckiest_run() -> None:
    lucky = confirmed("lucky", {1: 100.0, 3: 0.0, 5: 0.0})
    steady = confirmed("steady", {1: 50.0, 3: 50.0, 5: 50.0})
    assert ranked(lucky, steady) == ["steady", "lucky"]
    assert ranked(lucky, steady, direction="minimize") == ["lucky", "steady"]


def test_who_diverged_on_a_seed_is_behind_who_did_not() -> None:
    easy_seeds = confirmed("easy", {1: 100.0, 3: 100.0, 5: None})
    every_seed = confirmed("every", {1: 1.0, 3: 1.0, 5: 1.0})
    nothing = confirmed("nothing", {1: None, 3: None, 5: None})
    assert ranked(easy_seeds, every_seed, nothing) == ["every", "easy"]
    assert ranked(nothing) == []


def test_ties_are_judged_seed_by_seed() -> None:
    """Seeds differ by far more than the candidates do; only pairing sees the difference."""
    hardness = {seed: 100.0 * seed for seed in range(6)}
    a = confirmed("a", {s: h + 1.0 + 0.01 * s for s, h in hardness.items()})
    b = confirmed("b", dict(hardness))
    assert ranked(a, b) == ["a", "b"]
    assert tied(a, b) == []
    noise = [3.0, -3.0, 2.9, -2.9, 3.1, -3.0]
    c = confirmed("c", {s: h + 1.0 + noise[s] for s, h in hardness.items()})
    assert tied(a, c) in (["a"], ["c"])


@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=2, max_size=9))
def test_a_tie_is_scipys_paired_t_test(pairs: list[tuple[float, float]]) -> None:
    differences = np.array([x - y for x, y in pairs])
    spread = differences.std(ddof=1)
    if spread < 1e-3:
        return
    p = stats.ttest_rel(*zip(*pairs, strict=True)).pvalue
    if abs(p - 0.05) < 1e-6:
        return
    a = confirmed("a", {seed: x for seed, (x, _) in enumerate(pairs)})
    b = confirmed("b", {seed: y for seed, (_, y) in enumerate(pairs)})
    assert bool(tied(a, b)) == (p >= 0.05)


def test_too_few_common_seeds_tell_nobody_apart() -> None:
    assert tied(confirmed("a", {1: 9.0, 3: 9.0}), confirmed("b", {3: 1.0})) == ["b"]
    assert tied(confirmed("a", {1: 9.0})) == []
    assert tied_with_best([], LL) == []


def test_candidates_are_the_finished_confirmations() -> None:
    records = confirmed("a", {1: 1.0, 3: None, 5: 2.0})
    [candidate] = candidates(records)
    assert candidate.seeds == [1, 5]
    assert candidate.values(LL) == {1: 1.0, 5: 2.0}
    assert candidate.values("test/parzen_ll") == {}
