"""Ranking with error bars. Pure: records in, verdicts out.

A candidate is one configuration; its value under a metric is the mean over its seeds, and ± is the
standard error over seeds.  A t-test compares candidates, seed by seed where they share seeds.
Candidates that the test cannot distinguish from the best at 5 % are ties.  Holm's correction covers
every pair of candidates, because the best is chosen on the same seeds that are tested.
"""

import math
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations, groupby
from statistics import fmean, stdev, variance
from typing import Any, Literal

import numpy as np

from aae_core.metrics import Direction
from orchestrator.documents import Summary
from orchestrator.records import RunRecord
from orchestrator.study.pareto import fronts

METHODS = {  # Comparison.method -> its description
    "paired": "seed by seed ({seeds})",
    "welch": "all values (Welch)",
    None: "too few seeds",
}
LEVEL = 0.05
_RESAMPLES = 10_000


@dataclass(frozen=True)
class Candidate:
    """One configuration with its confirmations, one per seed."""

    config_hash: str
    params: dict[str, Any]
    runs: tuple[RunRecord, ...]
    sweep: str | None = None  # set if several sweeps are compared
    origin: str | None = None  # configuration hash before its extensions, if it was extended
    diverged: int = 0  # number of seeds that diverged; `runs` lacks them

    @property
    def seeds(self) -> list[int]:
        return [run.seed for run in self.runs]

    def values(self, metric: str) -> dict[int, float]:
        return {run.seed: run.metrics[metric] for run in self.runs if metric in run.metrics}


def best_trials(
    records: Iterable[RunRecord], objectives: Mapping[str, Direction], *, top: int, per: str | None
) -> list[RunRecord]:
    """Return the search's best `top` trials, for each value of `per` if given.

    With several objectives, Pareto fronts come in order, each sorted by the first objective.
    Pruned trials come after complete ones, those with more epochs first.  Trials that violate a
    constraint come after all others.
    """

    def soundness(record: RunRecord) -> tuple[bool, int]:
        return bool(record.violated), -record.epochs if record.state == "pruned" else -sys.maxsize

    known = (r for r in records if r.state in ("complete", "pruned"))
    scored = sorted((r for r in known if objectives.keys() <= r.metrics.keys()), key=soundness)
    alike = (list(group) for _, group in groupby(scored, soundness))
    ordered = [record for group in alike for record in _by_front(group, objectives)]
    groups: dict[Any, list[RunRecord]] = {}
    for record in ordered:
        group = groups.setdefault(record.params.get(per) if per else None, [])
        if all(record.config_hash != other.config_hash for other in group):
            group.append(record)
    return [record for group in groups.values() for record in group[:top]]


def _by_front(records: Sequence[RunRecord], objectives: Mapping[str, Direction]) -> list[RunRecord]:
    signs = [-1 if direction == "maximize" else 1 for direction in objectives.values()]
    costs = np.array([[r.metrics[name] for name in objectives] for r in records]) * signs
    front = fronts(costs) if len(objectives) > 1 else np.zeros(len(costs), int)  # one: no fronts
    return [records[i] for i in np.lexsort((costs[:, 0], front))]


def candidates(records: Iterable[RunRecord]) -> list[Candidate]:
    """Group the finished confirmations by configuration, one run per seed.

    A complete extension stands for the confirmation that it extends.
    """
    records = list(records)
    extended = {r.extends for r in records if r.state == "complete"}
    known = {record.number: record for record in records}
    groups: dict[str, dict[int, RunRecord]] = {}
    diverged: Counter[str] = Counter()
    for record in records:
        if record.state == "complete" and record.number not in extended:
            groups.setdefault(record.config_hash, {}).setdefault(record.seed, record)
        diverged[record.config_hash] += record.state == "diverged"

    def origin(record: RunRecord) -> str | None:
        if record.extends is None:
            return None
        before = known[record.extends]
        return origin(before) or before.config_hash

    return [
        Candidate(
            config_hash,
            next((_settings(run) for run in runs.values() if run.params), _settings(first)),
            tuple(runs.values()),
            origin=origin(first),
            diverged=diverged[config_hash],
        )
        for config_hash, runs in groups.items()
        for first in [next(iter(runs.values()))]
    ]


def _settings(record: RunRecord) -> dict[str, Any]:
    """Return the record's parameters, with its epochs if it is an extension."""
    epochs = {"training.epochs": record.extended_to[-1]} if record.extended_to else {}
    return record.params | epochs


def apart(
    found: Iterable[Candidate], baseline: str | None
) -> tuple[list[Candidate], Candidate | None]:
    """Split the candidates of the search from the control, whose configuration hash is `baseline`.

    The control is not a candidate, so no ranking can make the control the winner.  If the search
    itself has suggested the file's own configuration, that candidate is also the control.
    """
    found = list(found)
    own = [each for each in found if (each.origin or each.config_hash) == baseline]
    control = max(own, key=lambda each: len(each.runs), default=None)
    return [each for each in found if each not in own or each.runs[0].params], control


def rank(
    found: Iterable[Candidate], metric: str, direction: Direction, *, seeds: int | None = None
) -> list[Candidate]:
    """Sort by mean, best first; candidates with fewer seeds (up to `seeds`) follow those with more.

    Otherwise a candidate that diverged on hard seeds would win by its easy seeds.
    """
    sign = -1 if direction == "maximize" else 1

    def place(candidate: Candidate) -> tuple[int, float]:
        values = candidate.values(metric).values()
        mean = sign * fmean(values) if all(map(math.isfinite, values)) else math.inf
        return -min(len(values), seeds or len(values)), mean

    return sorted((c for c in found if c.values(metric)), key=place)


@dataclass(frozen=True)
class Comparison:
    """Difference between the means of two candidates, with its p-value.

    paired: t-test of the differences at shared seeds.  welch: two-sample t-test, if fewer than two
    seeds are shared.  None: no t-test, because of a single seed or non-finite values.
    """

    method: Literal["paired", "welch"] | None
    seeds: int  # that both candidates have
    difference: float | None
    se: float | None = None
    ci95: list[float] | None = None  # of this comparison alone
    p: float | None = None  # two-sided
    p_holm: float | None = None  # corrected for all pairs of candidates
    degrees: float | None = None  # of freedom, of Student's t
    diverged: int = 0  # diverged seeds of both candidates

    @property
    def tied(self) -> bool:
        return not self.is_distinguishable(LEVEL)

    def is_distinguishable(self, level: float) -> bool:
        return self.p_holm is not None and self.p_holm < level


def compare(a: Candidate, b: Candidate, metric: str) -> Comparison:
    """Compare a with b (a − b) under a metric, by all values if fewer than two seeds are shared."""
    return replace(_compared(a, b, metric), diverged=a.diverged + b.diverged)


def _compared(a: Candidate, b: Candidate, metric: str) -> Comparison:
    ours, theirs = a.values(metric), b.values(metric)
    shared = sorted(ours.keys() & theirs.keys())
    if not (ours and theirs) or not all(map(math.isfinite, [*ours.values(), *theirs.values()])):
        return Comparison(None, len(shared), None)
    if len(shared) >= 2:
        by_seed = [ours[seed] - theirs[seed] for seed in shared]
        square = variance(by_seed) / len(shared)
        return _tested("paired", len(shared), fmean(by_seed), square, len(shared) - 1)
    difference = fmean(ours.values()) - fmean(theirs.values())
    if min(len(ours), len(theirs)) < 2:
        return Comparison(None, len(shared), difference)
    squares = [(variance(v.values()) / len(v), len(v) - 1) for v in (ours, theirs)]
    square = sum(each for each, _ in squares)
    satterthwaite = sum(each**2 / degrees for each, degrees in squares)
    degrees = square**2 / satterthwaite if satterthwaite else 1.0
    return _tested("welch", len(shared), difference, square, degrees)


def versus_best(ranked: Sequence[Candidate], metric: str) -> list[Comparison]:
    """Compare every later candidate with the first; p_holm counts every pair of candidates.

    Differences are later minus first.  Counting only pairs with the first would be too few: the
    tested values also choose the first, so any pair may become one with the first.
    """
    pairs = [compare(b, a, metric) for a, b in combinations(ranked, 2)]  # pairs with ranked[0] lead
    adjusted = iter(holm([c.p for c in pairs if c.p is not None]))
    corrected = [c if c.p is None else replace(c, p_holm=next(adjusted)) for c in pairs]
    return corrected[: max(len(ranked) - 1, 0)]


def tied_with_best(ranked: Sequence[Candidate], metric: str) -> list[Candidate]:
    """Return the later candidates that tie with the first."""
    compared = zip(ranked[1:], versus_best(ranked, metric), strict=True)
    return [candidate for candidate, comparison in compared if comparison.tied]


def left_in_race(
    found: Iterable[Candidate], metric: str, direction: Direction, *, per: str | None, looks: int
) -> list[Candidate]:
    """Return the candidates that stay in a race: for each value of `per`, the best and its ties.

    The level is so strict that all `looks` together lose at most 5 % of the best candidates.
    """
    groups: dict[Any, list[Candidate]] = {}
    for candidate in found:
        groups.setdefault(candidate.params.get(per) if per else None, []).append(candidate)
    left: list[Candidate] = []
    for group in groups.values():
        ranked = rank(group, metric, direction)
        compared = zip(ranked[1:], versus_best(ranked, metric), strict=True)
        left += ranked[:1]
        left += [c for c, against in compared if not against.is_distinguishable(LEVEL / looks)]
    return left


def holm(p: Sequence[float]) -> list[float]:
    """Return adjusted p-values (Holm 1979): rejecting all below α has family-wise error α.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p)
    stepped = np.sort(p) * np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1)
    return [float(value) for value in adjusted]


def summarise(values: Sequence[float]) -> Summary:
    """Return the mean over seeds with its errors; unknown figures are None.

    One value gives no errors, two values no bootstrap interval.  Without values, or with a
    non-finite one, all figures are unknown.
    """
    known = [value if math.isfinite(value) else None for value in values]
    mean = fmean(values) if known and None not in known else None
    if mean is None or len(values) < 2:
        return {
            "mean": mean,
            "std": None,
            "se": None,
            "ci95": None,
            "bootstrap95": None,
            "values": known,
        }
    std = stdev(values)
    se = std / math.sqrt(len(values))
    return {
        "mean": mean,
        "std": std,
        "se": se,
        "ci95": _interval(mean, se, len(values) - 1),
        "bootstrap95": _bootstrap95(values),
        "values": known,
    }


def _tested(
    method: Literal["paired", "welch"], seeds: int, difference: float, square: float, degrees: float
) -> Comparison:
    """Return the t-test of a difference; `square` is its squared standard error."""
    from scipy.special import stdtr  # slow to import

    se = math.sqrt(square)
    t = abs(difference) / se if se else math.inf
    p = 2 * float(stdtr(degrees, -t)) if difference else 1.0
    interval = _interval(difference, se, degrees)
    return Comparison(method, seeds, difference, se, interval, p, degrees=degrees)


def _interval(mean: float, se: float, degrees: float) -> list[float]:
    """Return the 95 % confidence interval by Student's t."""
    from scipy.special import stdtrit  # slow to import

    half = float(stdtrit(degrees, 0.975)) * se
    return [mean - half, mean + half]


def _bootstrap95(values: Sequence[float]) -> list[float] | None:
    """Return percentiles of the resampled mean (Efron 1979) in any order of the values, or None.

    At least three values are needed.  The interval assumes no distribution but is too narrow for
    few seeds: it stays within the range of the values.  The range of three values holds the
    expectation in three cases of four.  ci95 is more cautious.
    """
    if len(values) < 3:
        return None
    means = _resamples(len(values)) @ np.sort(values)
    return [float(end) for end in np.quantile(means, [0.025, 0.975])]


@cache
def _resamples(n: int) -> np.ndarray:
    """Return the weights of n values in each resample, (resamples, n); all calls get the same."""
    return np.random.default_rng(n).multinomial(n, np.full(n, 1 / n), _RESAMPLES) / n
