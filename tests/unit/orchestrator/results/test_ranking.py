"""Ranking: known answers, and candidates that must not win."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from orchestrator.records import RunRecord
from orchestrator.results.ranking import (
    Candidate,
    Comparison,
    apart,
    best_trials,
    candidates,
    compare,
    holm,
    left_in_race,
    rank,
    summarise,
    tied_with_best,
    versus_best,
)

LL = "val/parzen_ll"


def trial(number: int, value: float | None, **fields: Any) -> RunRecord:
    also = {f"val/{name}": fields.pop(name) for name in ("recon",) if name in fields}
    return RunRecord(
        number=number,
        stage=fields.pop("stage", "search"),
        state=fields.pop("state", "complete"),
        seed=fields.pop("seed", number),
        config_hash=fields.pop("config_hash", f"hash{number}"),
        params=fields.pop("params", {}),
        metrics={} if value is None else {LL: value} | also,
        epochs=fields.pop("epochs", 10),
        **fields,
    )


def confirmed(name: str, values: dict[int, float | None]) -> list[RunRecord]:
    """Return one configuration's confirm trials by seed; a value of None means diverged."""
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


def extended(number: int, extends: RunRecord, **fields: Any) -> RunRecord:
    """Return a confirmation that extends another to 30 epochs."""
    given = {"seed": extends.seed, "params": extends.params, "config_hash": "longer"}
    also = {"stage": "confirm", "extends": extends.number, "extended_to": [30], "epochs": 30}
    return trial(number, 9.0, **(given | also | fields))


def test_complete_extension_stands_for_the_confirmation_that_it_extends() -> None:
    first, second = (
        trial(n, 1.0, config_hash="short", stage="confirm", params={"x": 1}) for n in (0, 1)
    )
    under_way = extended(3, second, state="running")
    found = {c.config_hash: c for c in candidates([first, second, extended(2, first), under_way])}
    assert {name: c.seeds for name, c in found.items()} == {"short": [1], "longer": [0]}
    assert found["longer"].params == {"x": 1, "training.epochs": 30}
    further = extended(4, extended(2, first), config_hash="longest", extended_to=[30, 60])
    (last,) = candidates([first, extended(2, first), further])
    assert (last.config_hash, last.origin) == ("longest", "short")
    assert last.params == {"x": 1, "training.epochs": 60}


def test_extended_control_remains_the_control() -> None:
    shorts = [trial(n, 1.0, config_hash="file", stage="confirm") for n in (0, 1)]
    winner = trial(5, 0.5, config_hash="found", stage="confirm", params={"x": 1})
    longer = [extended(2 + n, short) for n, short in enumerate(shorts)]
    found, control = apart(candidates([*shorts, winner, *longer]), "file")
    assert [each.config_hash for each in found] == ["found"]
    assert control is not None
    assert (control.config_hash, control.seeds) == ("longer", [0, 1])
    found, control = apart(candidates([*shorts, winner, longer[1]]), "file")
    assert [each.config_hash for each in found] == ["found"]
    assert control is not None
    assert control.config_hash == "file"


def test_rank_ignores_seeds_beyond_the_requested_number() -> None:
    old, new = confirmed("old", {1: 5.0, 3: 5.0, 5: 5.0}), confirmed("new", {1: 6.0, 3: 6.0})
    found = candidates([*old, *new])
    assert [c.config_hash for c in rank(found, LL, "maximize", seeds=2)] == ["new", "old"]
    assert [c.config_hash for c in rank(found, LL, "maximize")] == ["old", "new"]


def tied(*groups: list[RunRecord]) -> list[str]:
    found = rank(candidates(record for group in groups for record in group), LL, "maximize")
    return [c.config_hash for c in tied_with_best(found, LL)]


# -- errors ----------------------------------------------------------------------------------


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=12))
def test_summarise_equals_numpy_and_scipy_statistics(values: list[float]) -> None:
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


def test_summarise_three_values_matches_hand_calculation() -> None:
    found = summarise([1.0, 2.0, 3.0])
    assert (found["mean"], found["std"]) == (2.0, 1.0)
    assert found["se"] == pytest.approx(1 / math.sqrt(3))
    half = 4.302652729911275 / math.sqrt(3)  # t with 2 degrees of freedom, from a table
    assert found["ci95"] == pytest.approx([2 - half, 2 + half])


NO_ERRORS = {"std": None, "se": None, "ci95": None, "bootstrap95": None}


def test_summarise_one_value_gives_no_error() -> None:
    assert summarise([7.0]) == {"mean": 7.0, **NO_ERRORS, "values": [7.0]}


def test_summarise_no_values_gives_no_mean() -> None:
    assert summarise([]) == {"mean": None, **NO_ERRORS, "values": []}


@pytest.mark.parametrize("odd", [math.inf, -math.inf, math.nan])
def test_summarise_non_finite_value_gives_no_mean(odd: float) -> None:
    found = summarise([1.0, odd, 2.0])
    assert found == {"mean": None, **NO_ERRORS, "values": [1.0, None, 2.0]}


@pytest.mark.parametrize("n", [3, 5, 10])
def test_bootstrap_interval_equals_scipys_percentile_interval(n: int) -> None:
    values = np.random.default_rng(n).normal(100, 7, n)
    found = summarise(list(values))["bootstrap95"]
    theirs = stats.bootstrap((values,), np.mean, n_resamples=50_000, method="percentile", rng=0)
    assert found == pytest.approx(list(theirs.confidence_interval), abs=0.05 * np.ptp(values))


def test_bootstrap_of_three_values_spans_smallest_to_largest() -> None:
    """Compute by hand: 1 resample in 27 is thrice the smallest, > 2.5 %; likewise the largest."""
    assert summarise([4.0, 1.0, 2.0])["bootstrap95"] == pytest.approx([1.0, 4.0])


def test_bootstrap_of_fewer_than_three_values_is_null() -> None:
    assert summarise([1.0, 2.0])["bootstrap95"] is None
    assert summarise([1.0, 2.0])["ci95"] is not None


@given(st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=10), st.randoms())
def test_bootstrap_depends_only_on_the_values(values: list[float], random: Any) -> None:
    found = summarise(values)
    low, high = found["bootstrap95"]
    slack = 1e-9 * (1 + max(map(abs, values)))
    assert min(values) - slack <= low <= found["mean"] + slack
    assert found["mean"] - slack <= high <= max(values) + slack
    random.shuffle(values)
    assert summarise(values)["bootstrap95"] == [low, high]


# -- candidates ------------------------------------------------------------------------------


@pytest.mark.parametrize(("direction", "best"), [("maximize", [2, 0]), ("minimize", [1, 0])])
def test_search_candidates_are_the_best_trials(direction: Any, best: list[int]) -> None:
    records = [trial(0, 5.0), trial(1, 1.0), trial(2, 9.0)]
    found = best_trials(records, {LL: direction}, top=2, per=None)
    assert [r.number for r in found] == best


def test_search_candidates_exclude_trials_without_a_result() -> None:
    records = [
        trial(0, 99.0, state="diverged"),
        trial(1, 98.0, state="failed"),
        trial(2, 97.0, state="running"),
        trial(3, None),
        trial(4, 1.0),
    ]
    found = best_trials(records, {LL: "maximize"}, top=5, per=None)
    assert [r.number for r in found] == [4]
    assert best_trials(records[:4], {LL: "maximize"}, top=5, per=None) == []


def test_search_candidates_put_pruned_trials_after_complete_ones() -> None:
    records = [
        trial(0, 9.0, state="pruned", epochs=3),
        trial(1, 8.0, state="pruned", epochs=5),
        trial(2, 1.0),
    ]
    found = best_trials(records, {LL: "maximize"}, top=3, per=None)
    assert [r.number for r in found] == [2, 1, 0]


def test_search_candidates_put_constraint_violations_last() -> None:
    records = [
        trial(0, 9.0, violated=["val/latent_std"]),
        trial(1, 1.0),
        trial(2, 2.0, state="pruned", epochs=5),
    ]
    found = best_trials(records, {LL: "maximize"}, top=3, per=None)
    assert [r.number for r in found] == [1, 2, 0]


def test_search_candidates_prefer_a_better_trial_of_fewer_epochs() -> None:
    found = best_trials(
        [trial(0, 1.0, epochs=20), trial(1, 2.0, epochs=10)], {LL: "maximize"}, top=1, per=None
    )
    assert [r.number for r in found] == [1]


def test_search_candidates_of_several_objectives_follow_pareto_fronts() -> None:
    values = [(5.0, 1.0), (9.0, 3.0), (7.0, 4.0), (8.0, 2.0), (4.0, 4.0)]  # (LL, recon)
    records = [trial(n, ll, recon=recon) for n, (ll, recon) in enumerate(values)]
    found = best_trials(records, {LL: "maximize", "val/recon": "minimize"}, top=9, per=None)
    assert [r.number for r in found] == [1, 3, 0, 2, 4]


def test_search_candidates_are_chosen_for_every_group() -> None:
    kinds = ["gaussian", "universal"]
    records = [trial(n, float(n), params={"kind": kinds[n >= 3]}) for n in range(5)]
    found = best_trials(records, {LL: "maximize"}, top=2, per="kind")
    assert sorted(r.number for r in found) == [1, 2, 3, 4]
    top = best_trials(records, {LL: "maximize"}, top=1, per="kind")
    assert {r.params["kind"]: r.number for r in top} == {"gaussian": 2, "universal": 4}


def test_search_candidates_hold_a_configuration_once() -> None:
    records = [trial(n, float(n), config_hash="same") for n in range(3)] + [trial(3, 0.5)]
    found = best_trials(records, {LL: "maximize"}, top=2, per=None)
    assert [r.number for r in found] == [2, 3]


# -- the winner ------------------------------------------------------------------------------


def test_rank_prefers_the_best_mean_to_the_luckiest_seed() -> None:
    lucky = confirmed("lucky", {1: 100.0, 3: 0.0, 5: 0.0})
    steady = confirmed("steady", {1: 50.0, 3: 50.0, 5: 50.0})
    assert ranked(lucky, steady) == ["steady", "lucky"]
    assert ranked(lucky, steady, direction="minimize") == ["lucky", "steady"]


def test_rank_puts_candidates_with_a_diverged_seed_last() -> None:
    easy_seeds = confirmed("easy", {1: 100.0, 3: 100.0, 5: None})
    every_seed = confirmed("every", {1: 1.0, 3: 1.0, 5: 1.0})
    nothing = confirmed("nothing", {1: None, 3: None, 5: None})
    assert ranked(easy_seeds, every_seed, nothing) == ["every", "easy"]
    assert ranked(nothing) == []


def test_ties_are_judged_by_paired_seeds() -> None:
    """Use seeds that differ far more than the candidates: only pairing shows the difference."""
    hardness = {seed: 100.0 * seed for seed in range(6)}
    a = confirmed("a", {s: h + 1.0 + 0.01 * s for s, h in hardness.items()})
    b = confirmed("b", dict(hardness))
    assert ranked(a, b) == ["a", "b"]
    assert tied(a, b) == []
    noise = [3.0, -3.0, 2.9, -2.9, 3.1, -3.0]
    c = confirmed("c", {s: h + 1.0 + noise[s] for s, h in hardness.items()})
    assert tied(a, c) in (["a"], ["c"])


@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=2, max_size=9))
def test_tie_agrees_with_scipys_paired_t_test(pairs: list[tuple[float, float]]) -> None:
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


# -- two candidates, and more --------------------------------------------------------------


def versus(a: dict[int, float | None], b: dict[int, float | None]) -> Comparison:
    [ours], [theirs] = candidates(confirmed("a", a)), candidates(confirmed("b", b))
    return compare(ours, theirs, LL)


@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=2, max_size=9))
def test_paired_comparison_equals_scipys_paired_t_test(pairs: list[tuple[float, float]]) -> None:
    if np.std([x - y for x, y in pairs]) < 1e-3:
        return
    a, b = (dict(enumerate(values)) for values in zip(*pairs, strict=True))
    found = versus(a, b)
    theirs = stats.ttest_rel(list(a.values()), list(b.values()))
    assert (found.method, found.seeds) == ("paired", len(pairs))
    assert found.p == pytest.approx(theirs.pvalue, rel=1e-6)
    assert found.difference == pytest.approx(np.mean([x - y for x, y in pairs]), abs=1e-9)
    assert found.se == pytest.approx(stats.sem([x - y for x, y in pairs]), rel=1e-6)
    assert found.ci95 == pytest.approx(list(theirs.confidence_interval()), rel=1e-6, abs=1e-6)


@given(
    st.lists(st.floats(-50, 50), min_size=2, max_size=6),
    st.lists(st.floats(-50, 50), min_size=2, max_size=6),
)
def test_comparison_without_common_seeds_equals_welchs_t_test(
    ours: list[float], theirs: list[float]
) -> None:
    if min(np.std(ours), np.std(theirs)) < 1e-3:
        return
    found = versus(dict(enumerate(ours)), dict(enumerate(theirs, start=99)))
    expected = stats.ttest_ind(ours, theirs, equal_var=False)
    assert (found.method, found.seeds) == ("welch", 0)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6)
    assert found.difference == pytest.approx(np.mean(ours) - np.mean(theirs), abs=1e-9)
    assert found.ci95 == pytest.approx(list(expected.confidence_interval()), rel=1e-6, abs=1e-6)


def test_paired_comparison_uses_only_common_seeds() -> None:
    found = versus({1: 5.0, 2: 7.0, 3: 99.0}, {1: 1.0, 2: 1.0, 4: -99.0})
    assert (found.method, found.seeds, found.difference, found.se) == ("paired", 2, 5.0, 1.0)
    assert found.p == pytest.approx(0.12566591637800242)  # t = 5, one degree of freedom: arctan


def test_comparison_of_one_seed_has_no_error() -> None:
    found = versus({1: 5.0}, {1: 2.0})
    assert found == Comparison(None, 1, 3.0)
    assert versus({1: 5.0}, {2: 2.0, 3: 4.0}) == Comparison(None, 0, 2.0)
    assert found.tied


def test_comparison_with_a_non_finite_value_has_no_difference() -> None:
    assert versus({1: 5.0, 2: math.inf}, {1: 2.0, 2: 3.0}) == Comparison(None, 2, None)
    lost, found = confirmed("lost", {1: math.inf, 2: 3.0}), confirmed("found", {1: 2.0, 2: 2.0})
    assert ranked(lost, found) == ["found", "lost"]
    assert ranked(lost, found, direction="minimize") == ["found", "lost"]


def test_comparison_without_spread_has_p_zero_or_one() -> None:
    same, higher = (
        versus({1: 2.0, 2: 3.0}, {1: 2.0, 2: 3.0}),
        versus({1: 3.0, 2: 4.0}, {1: 2, 2: 3}),
    )
    assert (same.difference, same.p) == (0.0, 1.0)
    assert (higher.difference, higher.se, higher.p) == (1.0, 0.0, 0.0)
    apart = versus({1: 3.0, 2: 3.0}, {3: 2.0, 4: 2.0})
    assert (apart.method, apart.p) == ("welch", 0.0)


def test_race_keeps_candidates_not_distinguishable_from_the_group_best() -> None:
    best = {1: 10.0, 2: 11.0, 3: 12.1}
    close = {1: 10.2, 2: 10.7, 3: 12.0}
    beaten = {seed: value - 5.0 - seed / 100 for seed, value in best.items()}
    names = {"best": best, "close": close, "beaten": beaten}
    found = [
        Candidate(name, {"kind": kind}, tuple(confirmed(name, values)))
        for kind in "ab"
        for name, values in names.items()
    ]

    def left(per: str | None, looks: int) -> list[str]:
        return [
            c.config_hash + c.params["kind"]
            for c in left_in_race(found, LL, "maximize", per=per, looks=looks)
        ]

    assert left("kind", 1) == ["besta", "closea", "bestb", "closeb"]
    assert left(None, 1) == ["besta", "bestb", "closea", "closeb"]
    assert len(left("kind", 10**6)) == 6  # so many looks distinguish no candidate


def test_holms_correction_matches_hand_calculation() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.4, 0.5]) == [0.8, 0.8]
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8), st.floats(0.01, 0.5))
def test_holms_correction_rejects_step_by_step(p: list[float], level: float) -> None:
    rejected = set[int]()
    for step, index in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        if p[index] * (len(p) - step) >= level:
            break
        rejected.add(index)
    assert {i for i, adjusted in enumerate(holm(p)) if adjusted < level} == rejected


def test_more_candidates_need_a_smaller_p_to_differ() -> None:
    """Test p = 0.03, which distinguishes two candidates but not four."""
    best = confirmed("best", {1: 0.0, 2: 0.0, 3: 0.0})
    shift = stats.t.ppf(1 - 0.015, 2) / math.sqrt(3)
    others = [confirmed(name, {1: -shift - 1, 2: -shift, 3: -shift + 1}) for name in "abc"]
    assert tied(best, others[0]) == []
    assert tied(best, *others) == ["a", "b", "c"]
    found = rank(candidates([r for group in (best, *others) for r in group]), LL, "maximize")
    for comparison in versus_best(found, LL):
        assert comparison.difference == pytest.approx(-shift)
        assert comparison.p == pytest.approx(0.03)
        assert comparison.p_holm == pytest.approx(0.18)  # six pairs, for any best


def test_holms_correction_omits_comparisons_without_a_test() -> None:
    best = confirmed("best", {1: 0.0, 2: 0.0, 3: 0.0})
    near = confirmed("near", {1: -2.0, 2: -3.0, 3: -4.0})
    alone = confirmed("alone", {1: -9.0})
    found = rank(candidates([*best, *near, *alone]), LL, "maximize")
    tested, untested = versus_best(found, LL)
    assert tested.p_holm == tested.p
    assert untested == Comparison(None, 1, -9.0)


def test_too_few_common_seeds_give_a_tie() -> None:
    assert tied(confirmed("a", {1: 9.0, 3: 9.0}), confirmed("b", {3: 1.0})) == ["b"]
    assert tied(confirmed("a", {1: 9.0})) == []
    assert tied_with_best([], LL) == []


def test_candidates_hold_only_complete_confirm_trials() -> None:
    records = confirmed("a", {1: 1.0, 3: None, 5: 2.0})
    [candidate] = candidates(records)
    assert candidate.seeds == [1, 5]
    assert candidate.values(LL) == {1: 1.0, 5: 2.0}
    assert candidate.values("test/parzen_ll") == {}
