"""Verdicts: known answers, and error rates on simulated truth."""

import importlib.util
import math
from pathlib import Path
from types import ModuleType
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
    candidates,
    compare,
    versus_best,
)
from orchestrator.results.verdicts import (
    detectable,
    difference,
    gain,
    gain_in_words,
    p_equivalence,
    rivals_in_words,
    verdict,
)

LL, ERROR = "val/parzen_ll", "val/error"
VALUES = st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=2, max_size=9)


def candidate(name: str, values: dict[int, float], metric: str = LL, **fields: Any) -> Candidate:
    params = fields.pop("params", {"x": 1})
    runs = (
        RunRecord(seed, "confirm", "complete", seed, name, params, metrics={metric: value})
        for seed, value in values.items()
    )
    return Candidate(name, params, tuple(runs), **fields)


def versus(ours: list[float], theirs: list[float], start: int = 0, **fields: Any) -> Comparison:
    a = candidate("a", dict(enumerate(ours)), **fields)
    return compare(a, candidate("b", dict(enumerate(theirs, start))), LL)


# -- equivalence -----------------------------------------------------------------------------


@given(VALUES, st.floats(0.1, 40))
def test_p_equivalence_of_pairs_is_scipys_larger_one_sided_p(
    pairs: list[tuple[float, float]], margin: float
) -> None:
    if np.std([x - y for x, y in pairs]) < 1e-3:
        return
    ours, theirs = map(np.array, zip(*pairs, strict=True))
    above = stats.ttest_rel(ours + margin, theirs, alternative="greater").pvalue
    below = stats.ttest_rel(ours - margin, theirs, alternative="less").pvalue
    found = p_equivalence(versus(list(ours), list(theirs)), margin)
    assert found == pytest.approx(max(above, below), rel=1e-6, abs=1e-12)


def test_p_equivalence_without_shared_seeds_is_welchs() -> None:
    ours, theirs, margin = [1.0, 2.0, 4.0], [1.5, 2.5, 2.0, 3.0], 3.0
    above, below = (
        stats.ttest_ind(np.array(ours) + by, theirs, equal_var=False, alternative=side).pvalue
        for by, side in ((margin, "greater"), (-margin, "less"))
    )
    found = p_equivalence(versus(ours, theirs, start=10), margin)
    assert found == pytest.approx(max(above, below), rel=1e-9)


def test_equivalence_bound_matches_hand_calculation() -> None:
    """Differences -1, 0, 1: t = margin / (1 / √3), 2 degrees of freedom, 5 % at 2.91999."""
    found = versus([-1.0, 0.0, 1.0], [0.0, 0.0, 0.0])
    bound = 2.919985580355516 / math.sqrt(3)
    assert verdict(found, "maximize", bound + 1e-6) == "equivalent"
    assert verdict(found, "maximize", bound - 1e-6) == "undecided"


def test_equivalence_without_spread_depends_only_on_the_margin() -> None:
    found = versus([3.0, 4.0], [2.0, 3.0])
    assert (p_equivalence(found, 1.5), p_equivalence(found, 1.0)) == (0.0, 1.0)


def test_equivalence_needs_a_margin_a_test_and_every_seed() -> None:
    near = [0.1, -0.1, 0.0]
    assert verdict(versus(near, [0.0] * 3), "maximize", 5.0) == "equivalent"
    assert verdict(versus(near, [0.0] * 3), "maximize", None) == "undecided"
    assert verdict(versus(near, [0.0] * 3, diverged=1), "maximize", 5.0) == "undecided"
    assert verdict(versus([0.1], [0.0]), "maximize", 5.0) == "undecided"


def test_candidates_count_their_diverged_seeds() -> None:
    runs = [
        RunRecord(n, "confirm", state, n, "a", {"x": 1}, metrics={LL: 1.0})
        for n, state in enumerate(["complete", "diverged", "failed", "complete"])
    ]
    [found] = candidates(runs)
    assert (found.seeds, found.diverged) == ([0, 3], 1)
    assert compare(found, candidate("b", {0: 1.0, 3: 2.0}), LL).diverged == 1


# -- worse -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("direction", "sign"), [("maximize", -1), ("minimize", 1)])
def test_verdict_calls_a_candidate_worse_in_the_objectives_direction(
    direction: Any, sign: int
) -> None:
    ours = [sign * (10 + noise) for noise in (0.0, 0.1, 0.2)]
    best = candidate("best", dict(enumerate([0.0] * 3)))
    [behind] = versus_best([best, candidate("behind", dict(enumerate(ours)))], LL)
    assert verdict(behind, direction, None) == "worse"
    assert verdict(behind, direction, 5.0) == "worse"
    assert verdict(behind, direction, 50.0) == "equivalent"  # significant but unimportant
    other: Any = {"maximize": "minimize", "minimize": "maximize"}[direction]
    assert verdict(behind, other, None) == "undecided"  # ahead, ranked lower for lack of seeds
    assert verdict(None, direction, None) == "winner"


# -- detectable difference -------------------------------------------------------------------


@pytest.mark.parametrize("n", [3, 5, 10, 30])  # for n = 2 scipy's tail is NaN
def test_detectable_difference_has_80_percent_power_by_scipys_noncentral_t(n: int) -> None:
    found = versus(list(np.random.default_rng(n).normal(size=n)), [0.0] * n)
    assert found.se is not None
    least = detectable(found)
    assert least is not None
    bound = stats.t.ppf(0.975, n - 1)
    law = stats.nct(n - 1, least / found.se)
    assert law.sf(bound) + law.cdf(-bound) == pytest.approx(0.8, abs=2e-5)


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_detectable_difference_is_found_in_80_percent_of_simulated_studies(n: int) -> None:
    stream = np.random.default_rng(n)
    root = math.sqrt(n)
    of_unit_error = Comparison("paired", n, 0.0, se=1 / root, degrees=n - 1)
    least = detectable(of_unit_error)
    assert least is not None
    studies = stream.normal(least, 1.0, (20_000, n))
    shown = stats.ttest_1samp(studies, 0.0, axis=1).pvalue < 0.05
    assert shown.mean() == pytest.approx(0.8, abs=0.01)  # 3.5 standard errors


def test_difference_is_null_where_nothing_can_be_tested() -> None:
    assert difference(None) is None
    assert difference(versus([1.0], [2.0])) is None
    assert detectable(versus([1.0], [2.0])) is None
    assert difference(versus([math.inf, 1.0], [2.0, 2.0])) is None
    found = difference(versus([2.0, 3.0], [2.0, 3.0]))
    assert found == {"mean": 0.0, "ci95": [0.0, 0.0], "detectable": 0.0}


# -- gain ------------------------------------------------------------------------------------


def test_gain_matches_hand_calculation() -> None:
    """Differences 1, 2, 3: mean 2, standard error 1 / √3, 2 degrees of freedom."""
    winner = candidate("winner", {1: 11.0, 3: 22.0, 5: 33.0})
    control = candidate("own", {1: 10.0, 3: 20.0, 5: 30.0})
    half = 4.302652729911275 / math.sqrt(3)
    found = gain(winner, control, LL, "maximize")
    assert found["mean"] == 2.0
    assert found["ci95"] == pytest.approx([2 - half, 2 + half])


@given(VALUES)
def test_gain_is_positive_for_better_in_either_direction(pairs: list[tuple[float, float]]) -> None:
    a, b = (dict(enumerate(values)) for values in zip(*pairs, strict=True))
    more = gain(candidate("a", a), candidate("b", b), LL, "maximize")
    less = gain(candidate("a", a, ERROR), candidate("b", b, ERROR), ERROR, "minimize")
    assert less["mean"] == pytest.approx(-more["mean"])
    assert less["ci95"] == pytest.approx([-end for end in reversed(more["ci95"])])
    assert less["ci95"][0] <= less["mean"] <= less["ci95"][1]


def test_gain_is_null_without_a_control_or_a_test() -> None:
    winner = candidate("winner", {1: 1.0, 3: 2.0})
    assert gain(winner, None, LL, "maximize") is None
    assert gain(winner, candidate("own", {1: 0.0}), LL, "maximize") is None


def test_gain_of_the_control_over_itself_is_zero() -> None:
    own = candidate("own", {1: 1.0, 3: 2.0})
    assert gain(own, own, LL, "minimize") == {"mean": 0.0, "ci95": [0.0, 0.0]}


def document(mean: float, low: float, high: float, **changes: Any) -> dict[str, Any]:
    return {
        "config_hash": "winner",
        "objective": {"metric": LL, "direction": "maximize"},
        "baseline": {"config_hash": "own"},
        "gain": {"mean": mean, "ci95": [low, high]},
        **changes,
    }


def test_gain_in_words_names_the_better_configuration() -> None:
    assert gain_in_words(document(2.0, 1.0, 3.0)) == (
        "the search gained 2 nats over the file's own configuration (95 % interval: 1 to 3)"
    )
    assert str(gain_in_words(document(2.0, -1.0, 5.0))).endswith(
        "(95 % interval: -1 to 5); zero is within the interval, so chance alone may explain this"
    )
    assert gain_in_words(document(-2.0, -3.0, -1.0)) == (
        "the search gained nothing: the file's own configuration is better than the winner by "
        "2 nats (95 % interval: 1 to 3)"
    )
    same = document(0.0, 0.0, 0.0, baseline={"config_hash": "winner"})
    assert gain_in_words(same) == (
        "the search gained nothing: the winner is the file's own configuration"
    )
    assert gain_in_words(document(1.0, 0.0, 2.0, gain=None)) is None


def test_rivals_in_words_are_named_by_their_verdicts() -> None:
    def rival(output: str, tied: bool, by: float) -> dict[str, Any]:
        return {"verdict": output, "tied_with_best": tied, "versus_best": {"difference": by}}

    rivals = [
        ("a", rival("equivalent", True, -0.1)),
        ("b", rival("equivalent", False, -1.0)),
        ("c", rival("worse", False, -9.0)),
    ]
    output = "equivalent within 5 nats: a, b (though lower); worse: c"
    assert rivals_in_words(rivals, LL, 5.0) == output
    assert rivals_in_words(rivals, LL, None) is None
    assert rivals_in_words([], LL, 5.0) is None


# -- the control -----------------------------------------------------------------------------


def test_apart_keeps_the_control_a_candidate_only_when_searched() -> None:
    best, own = candidate("best", {1: 1.0}), candidate("own", {1: 9.0}, params={})
    assert apart([own, best], "own") == ([best], own)
    assert apart([own, best], None) == ([own, best], None)
    suggested = candidate("own", {1: 9.0}, params={"x": 2})
    assert apart([suggested, best], "own") == ([suggested, best], suggested)


# -- simulated truth -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    folder = Path(__file__).parents[4] / "benchmarks"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        spec = importlib.util.spec_from_file_location("verdicts", folder / "verdicts.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


DRAWS = 400
MOST = 0.05 + 3 * math.sqrt(0.05 * 0.95 / DRAWS)  # 5 % and three standard errors


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_verdict_worse_for_equal_candidates_in_at_most_5_percent(
    benchmark: ModuleType, seeds: int
) -> None:
    rates = benchmark.error_rates((0.0,) * 5, seeds, 1.5, DRAWS)
    assert rates["worse_at_0_any"] <= MOST


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("behind", [1.0, 2.0])
def test_verdict_equivalent_beyond_the_margin_in_at_most_5_percent(
    benchmark: ModuleType, seeds: int, behind: float
) -> None:
    means = (0.0, -behind * benchmark.MARGIN, -behind * benchmark.MARGIN)
    rates = benchmark.error_rates(means, seeds, 1.5, DRAWS)
    assert rates["equivalent_beyond_each"] <= MOST
    if seeds == 10:
        assert rates["worse_beyond"] > 0.9
