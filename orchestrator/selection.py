"""Ranking with error bars. Pure: records in, verdicts out.

A candidate is one configuration; its value under a metric is the mean over its seeds, and ± is the
standard error over seeds.  Two candidates are tied where a paired t-test by seed, at 5 %, cannot
tell them apart.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from orchestrator.records import Direction, RunRecord


@dataclass(frozen=True)
class Candidate:
    """The confirmations of one configuration, by seed."""

    config_hash: str
    params: dict[str, Any]
    runs: tuple[RunRecord, ...]

    @property
    def seeds(self) -> list[int]:
        return [run.seed for run in self.runs]

    def values(self, metric: str) -> dict[int, float]:
        return {run.seed: run.metrics[metric] for run in self.runs if metric in run.metrics}


def contenders(
    records: Iterable[RunRecord], metric: str, direction: Direction, *, top: int, per: str | None
) -> list[RunRecord]:
    """The search's best `top` trials, of each value of `per` where given.

    A trial that was pruned comes after every complete one, those that got further first.
    """
    scored = [r for r in records if r.state in ("complete", "pruned") and metric in r.metrics]
    sign = -1 if direction == "maximize" else 1
    scored.sort(key=lambda r: (r.state != "complete", -r.epochs, sign * r.metrics[metric]))
    groups: dict[Any, list[RunRecord]] = {}
    for record in scored:
        group = groups.setdefault(record.params.get(per) if per else None, [])
        if all(record.config_hash != other.config_hash for other in group):
            group.append(record)
    return [record for group in groups.values() for record in group[:top]]


def candidates(records: Iterable[RunRecord]) -> list[Candidate]:
    """The finished confirmations, by configuration."""
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        if record.state == "complete":
            groups.setdefault(record.config_hash, []).append(record)
    return [Candidate(h, runs[0].params, tuple(runs)) for h, runs in groups.items()]


def rank(
    found: Iterable[Candidate], metric: str, direction: Direction, *, seeds: int | None = None
) -> list[Candidate]:
    """Best mean first; a candidate with fewer seeds (up to `seeds`) comes after those with more.

    Else one that diverged on its hard seeds would win by the easy ones.
    """
    sign = -1 if direction == "maximize" else 1

    def place(candidate: Candidate) -> tuple[int, float]:
        values = candidate.values(metric).values()
        return -min(len(values), seeds or len(values)), sign * fmean(values)

    return sorted((c for c in found if c.values(metric)), key=place)


def tied_with_best(ranked: Sequence[Candidate], metric: str) -> list[Candidate]:
    """Those behind the first that its seeds cannot be told from."""
    if not ranked:
        return []
    best, *others = ranked
    return [other for other in others if not _differ(best.values(metric), other.values(metric))]


def summarise(values: Sequence[float]) -> dict[str, Any]:
    """Mean over seeds with its error; what is unknown is null: of one value the errors, and all
    where a value is not finite."""
    known = [value if math.isfinite(value) else None for value in values]
    mean = None if None in known else fmean(values)
    if mean is None or len(values) < 2:
        return {"mean": mean, "std": None, "se": None, "ci95": None, "values": known}
    std = stdev(values)
    se = std / math.sqrt(len(values))
    half = _t_quantile(len(values) - 1) * se
    ci95 = [mean - half, mean + half]
    return {"mean": mean, "std": std, "se": se, "ci95": ci95, "values": known}


def _differ(a: dict[int, float], b: dict[int, float]) -> bool:
    differences = [a[seed] - b[seed] for seed in a.keys() & b.keys()]
    if len(differences) < 2:
        return False
    se = stdev(differences) / math.sqrt(len(differences))
    return abs(fmean(differences)) > _t_quantile(len(differences) - 1) * se


def _t_quantile(degrees: int) -> float:
    from scipy.stats import t  # slow to import

    return float(t.ppf(0.975, degrees))
