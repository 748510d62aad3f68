"""Tuning curves: the best of n independent trials as n grows, with simultaneous confidence bands.

The best of n draws from a distribution function F has the distribution function Fⁿ, so its median
is F's quantile at 2^(−1/n).  A band that covers all of F with 95 % thus covers all of the median
tuning curve, for any F (Lourie, Cho and He 2023, arXiv:2311.09480).  A mean would need bounds on
the values.  F at the i-th of N sorted trials is Beta(i, N + 1 − i).  Each trial gets the same
error, the largest that the joint confidence allows (Aldor-Noiman et al. 2013, equal local levels).
This band is exact.  Unlike the band of Dvoretzky, Kiefer and Wolfowitz, it is narrow at the best
trials.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from aae_core.metrics import Direction

_STEPS = 14  # of the bisection for the level
Ends = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Best:
    """Median and band of the best of n trials; an end that the trials do not bound is infinite."""

    trials: int
    median: float  # infinite if the median is a trial without a result
    low: float
    high: float


def tuning_curve(
    values: Sequence[float], direction: Direction, *, confidence: float = 0.95
) -> list[Best]:
    """Return the curve for n = 1 to N, with a band that covers all of it.

    values: of all N trials; NaN is a trial without a result and ranks below all results.  Trials
    count as independent draws from one distribution, by a sampler that does not learn.  The band
    covers the curve with at least `confidence`.
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
        below = int(np.searchsorted(most, quantile))  # trials surely below the median
        above = int(np.searchsorted(least, quantile))
        worst = ordered[below - 1] if below else -math.inf
        best = ordered[above] if above < total else math.inf
        low, high = sorted((sign * float(worst), sign * float(best)))
        curve.append(Best(n, sign * float(middle), low, high))
    return curve


@cache
def cdf_band(n: int, confidence: float) -> Ends:
    """Return lower and upper bounds of F at each of n sorted draws, (n,) and (n,).

    All bounds hold at once with probability `confidence`: exactly if F is continuous, else more.
    """
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
    """Return the ends of an interval for each order statistic of n uniform draws, (n,) and (n,).

    Each interval misses with probability `error`.
    """
    from scipy.special import betaincinv  # slow to import

    i = np.arange(1, n + 1)
    return betaincinv(i, n + 1 - i, error / 2), betaincinv(i, n + 1 - i, 1 - error / 2)


def _coverage(least: np.ndarray, most: np.ndarray) -> float:
    """Return the probability that all order statistics of uniform draws lie in their intervals.

    The count of draws up to t is a Poisson process, given that it ends at n (Khmaladze and
    Shinjikashvili 2001).  The loop steps the process from one end of an interval to the next.
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
    """Return the Poisson probabilities of 0 to n − 1, (n,)."""
    from scipy.special import gammaln, xlogy

    k = np.arange(n)
    probabilities: np.ndarray = np.exp(xlogy(k, mean) - mean - gammaln(k + 1))
    return probabilities
