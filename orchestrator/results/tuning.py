"""Tuning curves: the best of n independent trials as n grows, with simultaneous confidence bands.

The best of n draws from a distribution function F has the distribution function Fⁿ, so its median
is F's quantile at 2^(−1/n).  A band that holds all of F with 95 % therefore holds all of the median
tuning curve, whatever F is (Lourie, Cho and He 2023, arXiv:2311.09480); a mean would need bounds on
the values.  F at the i-th of N sorted trials is Beta(i, N + 1 − i): each gets the same error, as
large as all of them together allow (Aldor-Noiman et al. 2013, equal local levels).  This band is
exact, and unlike that of Dvoretzky, Kiefer and Wolfowitz narrow where the best trials are.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from orchestrator.records import Direction

_STEPS = 14  # of the search for the level, each of which halves what is not known of it
Ends = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Best:
    """The median of the best of n trials; an end that the trials do not bound is infinite."""

    trials: int
    median: float  # infinite where most of the best would be trials without a result
    low: float
    high: float


def tuning_curve(
    values: Sequence[float], direction: Direction, *, confidence: float = 0.95
) -> list[Best]:
    """The curve for n = 1 to N, and the band that holds all of it with at least that confidence.

    values: of all N trials, NaN for one without a result, which counts as worse than any other.
    They are taken as independent draws from one distribution: by a sampler that does not learn.
    """
    sign = 1.0 if direction == "maximize" else -1.0
    signed = sign * np.asarray(values, float)
    ordered = np.sort(np.where(np.isnan(signed), -np.inf, signed))
    total = len(ordered)
    if not total:
        return []
    least, most = cdf_band(total, confidence)
    curve = []
    for n in range(1, total + 1):
        quantile = 0.5 ** (1 / n)
        middle = ordered[math.ceil(total * quantile - 1e-9) - 1]
        below = int(np.searchsorted(most, quantile))  # so many are surely lower than the median
        above = int(np.searchsorted(least, quantile))
        worst = ordered[below - 1] if below else -math.inf
        best = ordered[above] if above < total else math.inf
        low, high = sorted((sign * float(worst), sign * float(best)))
        curve.append(Best(n, sign * float(middle), low, high))
    return curve


@cache
def cdf_band(n: int, confidence: float) -> Ends:
    """Least and most of F at each of n sorted draws, (n,) and (n,): all hold at once with exactly
    that probability where F is continuous, else with more."""
    strict, loose = math.log((1 - confidence) / n), math.log(1 - confidence)
    for _ in range(_STEPS if n > 1 else 0):
        middle = (strict + loose) / 2
        if _coverage(*_equal_tailed(n, math.exp(middle))) >= confidence:
            strict = middle
        else:
            loose = middle
    least, most = _equal_tailed(n, math.exp(strict))
    return tuple(least.tolist()), tuple(most.tolist())


def _equal_tailed(n: int, error: float) -> tuple[np.ndarray, np.ndarray]:
    """The interval of each order statistic of n uniform draws that misses with that probability."""
    from scipy.special import betaincinv  # slow to import

    i = np.arange(1, n + 1)
    return betaincinv(i, n + 1 - i, error / 2), betaincinv(i, n + 1 - i, 1 - error / 2)


def _coverage(least: np.ndarray, most: np.ndarray) -> float:
    """Probability that all order statistics of uniform draws lie within their intervals.

    The count of draws up to t is a Poisson process, given that it ends at n (Khmaladze and
    Shinjikashvili 2001): it is followed from one end of an interval to the next.
    """
    n = len(least)
    times = np.sort(np.concatenate([least, most, [1.0]]))
    lowest, highest = np.searchsorted(most, times, "right"), np.searchsorted(least, times, "left")
    first, probabilities = 0, np.ones(1)  # of each count from `first` on
    for step, low, high in zip(np.diff(times, prepend=0.0), lowest, highest, strict=True):
        if low > high:
            return 0.0
        moved = np.convolve(probabilities, _poisson(n * step, high - first + 1))
        probabilities, first = moved[low - first : high - first + 1], low
    return float(probabilities[n - first] / _poisson(n, n + 1)[n])


def _poisson(mean: float, n: int) -> np.ndarray:
    """The probabilities of 0 to n − 1."""
    from scipy.special import gammaln, xlogy

    k = np.arange(n)
    probabilities: np.ndarray = np.exp(xlogy(k, mean) - mean - gammaln(k + 1))
    return probabilities
