"""Measure how often "worse", "equivalent" and the gain's interval are wrong on simulated data.

    python benchmarks/verdicts.py [--draws 2000]

A draw is a confirm stage with known true means. A candidate's value at a seed is its mean plus the
seed's effect plus noise. Ranking, tests and verdicts are the product's code, so the winner is
chosen on the tested seeds, as in a sweep. The margin is 5 nats. `std` is the standard deviation of
a value over seeds; the seed's effect explains half of the variance.

A verdict is wrong if the true difference from the draw's winner contradicts the verdict: "worse" at
a true difference of 0, "equivalent" at the margin or more. "Worse" is counted without a margin,
since it is then the only verdict for a significant difference.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from publishing import publish

from orchestrator.records import RunRecord
from orchestrator.results.ranking import Candidate, rank, versus_best
from orchestrator.results.verdicts import gain, verdict

METRIC, MARGIN = "val/parzen_ll", 5.0
DRAWS = 2_000
SEEDS = (3, 5, 10)
STDS = (0.5, 1.5, 4.0)  # nats; 1.5 as in likelihood_mnist's confirmations
CORRELATION = 0.5  # between two candidates at the same seed
_RATES = (
    "worse_at_0_each",
    "worse_at_0_any",
    "equivalent_beyond_each",
    "equivalent_beyond_any",
    "equivalent_at_0",
    "equivalent_at_half",
    "worse_beyond",
)
SCENARIOS = {  # true means minus the best mean
    "0, half the margin, twice the margin": (0.0, 0.0, -MARGIN / 2, -2 * MARGIN),
    "two, a margin apart": (0.0, -MARGIN),
    "three of them a margin behind": (0.0, -MARGIN, -MARGIN, -MARGIN),
    "three that are equal": (0.0,) * 3,
    "ten that are equal": (0.0,) * 10,
}


def drawn(
    means: Sequence[float], seeds: int, std: float, stream: np.random.Generator
) -> list[Candidate]:
    """Draw one confirm stage; the candidate with index i has the true mean means[i]."""
    shared = math.sqrt(CORRELATION) * std * stream.standard_normal(seeds)
    noise = math.sqrt(1 - CORRELATION) * std * stream.standard_normal((len(means), seeds))
    values = np.array(means)[:, None] + shared + noise
    return [_candidate(str(i), row) for i, row in enumerate(values)]


def judged(
    means: Sequence[float], seeds: int, std: float, draws: int, stream: np.random.Generator
) -> Iterator[list[tuple[float, set[str]]]]:
    """Yield for every draw its candidates except the winner.

    A candidate is its true difference from the winner, and its verdicts with and without margin.
    """
    for _ in range(draws):
        winner, *others = rank(drawn(means, seeds, std, stream), METRIC, "maximize")
        best = means[int(winner.config_hash)]
        compared = versus_best([winner, *others], METRIC)
        yield [
            (
                means[int(other.config_hash)] - best,
                {verdict(versus, "maximize", margin) for margin in (MARGIN, None)},
            )
            for other, versus in zip(others, compared, strict=True)
        ]


def error_rates(
    means: Sequence[float], seeds: int, std: float, draws: int = DRAWS, seed: int = 0
) -> dict[str, float | None]:
    """Return the shares of wrong and of right verdicts, None if no draw can have one.

    `…_each`: share of comparisons; `…_any`: share of draws with at least one wrong verdict.
    """
    stream = np.random.default_rng([seed, seeds, round(1_000 * std), len(means)])
    found = list(judged(means, seeds, std, draws, stream))
    every = [each for draw in found for each in draw]

    def share(verdict: str, true: Any) -> float | None:
        concerned = [verdict in said for difference, said in every if true(difference)]
        return sum(concerned) / len(concerned) if concerned else None

    def any_wrong(verdict: str, true: Any) -> float:
        wrong = (any(verdict in said and true(d) for d, said in draw) for draw in found)
        return sum(wrong) / draws

    return {
        "worse_at_0_each": share("worse", _is_none),
        "worse_at_0_any": any_wrong("worse", _is_none),
        "equivalent_beyond_each": share("equivalent", _is_beyond),
        "equivalent_beyond_any": any_wrong("equivalent", _is_beyond),
        "equivalent_at_0": share("equivalent", _is_none),
        "equivalent_at_half": share("equivalent", lambda d: abs(d) == MARGIN / 2),
        "worse_beyond": share("worse", lambda d: d <= -MARGIN),
    }


def gain_coverage(k: int, seeds: int, std: float, draws: int = DRAWS, seed: int = 0) -> float:
    """Return how often the gain's interval contains the true gain, 0.

    The k candidates and the control are equal. The winner is the luckiest of the k candidates.
    """
    stream = np.random.default_rng([seed, seeds, k])
    held = 0
    for _ in range(draws):
        control, *others = drawn((0.0,) * (k + 1), seeds, std, stream)
        winner = rank(others, METRIC, "maximize")[0]
        found = gain(winner, control, METRIC, "maximize")
        assert found is not None
        low, high = found["ci95"]
        held += low <= 0 <= high
    return held / draws


def _is_none(difference: float) -> bool:
    return difference == 0


def _is_beyond(difference: float) -> bool:
    return abs(difference) >= MARGIN


def _candidate(name: str, values: Sequence[float]) -> Candidate:
    runs = (
        RunRecord(seed, "confirm", "complete", seed, name, {}, metrics={METRIC: float(value)})
        for seed, value in enumerate(values)
    )
    return Candidate(name, {}, tuple(runs))


def _percent(rate: float | None) -> str:
    return "–" if rate is None else f"{rate:.1%}"


def _table(rows: Sequence[dict[str, Any]], coverage: Sequence[dict[str, Any]]) -> str:
    lines = [f"{'':>12}worse at 0     equivalent >= M  equivalent        worse"]
    lines.append("seeds   std  each   any     each   any       at 0    at M/2    >= M")
    for truth, means in SCENARIOS.items():
        lines += ["", f"{truth}: {', '.join(f'{mean:g}' for mean in means)} nats"]
        for row in (row for row in rows if row["truth"] == truth):
            cells = [_percent(row[name]) for name in _RATES]
            lines.append(
                f"{row['seeds']:>5}  {row['std']:>4}  "
                + "{:<6} {:<7} {:<6} {:<9} {:<7} {:<9} {}".format(*cells)
            )
    lines += ["", "95 % interval of the gain, all being equal: how often it holds the true gain"]
    lines += [
        f"best of {row['candidates']:>2}, {row['seeds']:>2} seeds: {row['coverage']:.1%}"
        for row in coverage
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=DRAWS)
    draws = parser.parse_args().draws
    rows = [
        {"truth": truth, "seeds": seeds, "std": std, **error_rates(means, seeds, std, draws)}
        for truth, means in SCENARIOS.items()
        for seeds in SEEDS
        for std in STDS
    ]
    coverage = [
        {"candidates": k, "seeds": seeds, "coverage": gain_coverage(k, seeds, 1.5, draws)}
        for k in (1, 3, 10)
        for seeds in SEEDS
    ]
    found = {"margin": MARGIN, "draws": draws, "rates": rows, "gain": coverage}
    publish("verdicts", found, _table(rows, coverage))


if __name__ == "__main__":
    main()
