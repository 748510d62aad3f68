"""Tuning curves: known answers for the median and the band, and limits of the band."""

import math

import numpy as np
import pytest
from scipy import stats

from orchestrator.results.tuning import _coverage, cdf_band, tuning_curve


def test_median_curve_of_uniform_values_is_the_power_of_one_half() -> None:
    n = 4000
    values = (np.arange(n) + 0.5) / n
    curve = tuning_curve(values.tolist(), "maximize")
    assert [best.trials for best in curve] == list(range(1, n + 1))
    for best in (curve[0], curve[1], curve[9], curve[99]):
        assert best.median == pytest.approx(2 ** (-1 / best.trials), abs=1 / n)


def test_band_of_two_draws_covers_an_exact_area_of_95_percent() -> None:
    """Compute by hand: P(a₁ ≤ U₍₁₎ ≤ b₁, a₂ ≤ U₍₂₎ ≤ b₂) = 2∬ over u ≤ v, here with b₁ ≥ a₂."""
    (a1, a2), (b1, b2) = cdf_band(2, 0.95)
    assert a2 <= b1
    triangle = (b1 - a2) ** 2 / 2
    area = (b2 - a2) * (b1 - a1) - triangle
    assert 2 * area == pytest.approx(0.95, abs=1e-4)


def test_band_of_one_draw_is_the_interval_of_a_uniform_draw() -> None:
    assert cdf_band(1, 0.95) == (pytest.approx((0.025,)), pytest.approx((0.975,)))


def test_coverage_of_one_sided_bounds_is_daniels_known_answer() -> None:
    """P(U₍ᵢ₎ ≥ c·i/n for all i) = 1 − c (Daniels 1945)."""
    for n, c in ((3, 0.4), (40, 0.1), (300, 0.9)):
        least = c * np.arange(1, n + 1) / n
        assert _coverage(least, np.ones(n)) == pytest.approx(1 - c, abs=1e-9)


@pytest.mark.parametrize("n", [1, 2, 7, 60, 400])
def test_band_coverage_equals_the_requested_confidence(n: int) -> None:
    least, most = cdf_band(n, 0.95)
    assert 0.95 - 1e-12 <= _coverage(np.array(least), np.array(most)) < 0.95 + 1e-4


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize("draws", [stats.norm(), stats.expon(), stats.randint(0, 6)])
def test_band_holds_the_whole_curve_in_95_of_100_simulated_searches(
    draws: "stats.rv_frozen", direction: str
) -> None:
    """Test every n at once, with continuous and with tied values."""
    random, searches, total = np.random.default_rng(0), 1000, 30
    quantiles = 0.5 ** (1 / np.arange(1, total + 1))
    truth = draws.ppf(quantiles if direction == "maximize" else np.nextafter(1 - quantiles, 1))
    held = 0
    for _ in range(searches):
        curve = tuning_curve(draws.rvs(total, random_state=random).tolist(), direction)  # type: ignore[arg-type]
        held += all(
            best.low - 1e-9 <= true <= best.high + 1e-9
            for best, true in zip(curve, truth, strict=True)
        )
    assert held / searches >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / searches)


def test_minimised_curve_is_the_mirror_of_the_maximised_one() -> None:
    values = np.random.default_rng(1).normal(size=25)
    up = tuning_curve(values.tolist(), "maximize")
    down = tuning_curve((-values).tolist(), "minimize")
    assert [(-b.median, -b.high, -b.low) for b in down] == [(b.median, b.low, b.high) for b in up]


def test_curve_gets_no_worse_with_trials_and_lies_within_its_band() -> None:
    curve = tuning_curve(np.random.default_rng(2).exponential(size=40).tolist(), "maximize")
    for name in ("median", "low", "high"):
        ends = [getattr(best, name) for best in curve]
        assert ends == sorted(ends)
    assert all(best.low <= best.median <= best.high for best in curve)


def test_band_at_all_trials_has_no_upper_bound() -> None:
    """Test the upper end: without assumptions, no data bound values beyond the best one seen."""
    curve = tuning_curve(list(range(60)), "maximize")
    assert math.isfinite(curve[0].high)
    assert curve[-1].high == math.inf
    assert curve[-1].low > 50


def test_trial_without_a_result_counts_as_the_worst_draw() -> None:
    nothing = [math.nan] * 10
    for direction, worst in (("maximize", -math.inf), ("minimize", math.inf)):
        curve = tuning_curve([*nothing, 1.0, 2.0, 3.0], direction)  # type: ignore[arg-type]
        assert curve[0].median == worst  # most single trials have no result
        assert math.isfinite(curve[-1].median)
    complete = tuning_curve([*range(10), 11.0, 12.0, 13.0], "maximize")
    censored = tuning_curve([*nothing, 11.0, 12.0, 13.0], "maximize")
    assert [b for b in censored if b.median > 10] == [
        c if c.low > 10 else type(c)(c.trials, c.median, -math.inf, c.high)
        for c in complete
        if c.median > 10
    ]


def test_search_without_trials_has_no_curve() -> None:
    assert tuning_curve([], "maximize") == []
