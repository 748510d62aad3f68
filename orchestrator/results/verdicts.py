"""Verdicts on candidates beside the winner, and the gain of a search over its control.

"Not distinguishable" is no evidence of equivalence: few seeds distinguish nothing.  A margin, in
the objective's unit, defines the unimportant differences.  Two one-sided t-tests then prove that a
difference is below the margin (Schuirmann 1987, J. Pharmacokinet. Biopharm. 15).  The errors:

- worse: 5 % for all candidates together (Holm's correction over every pair, in `ranking`);
- equivalent: 5 % for each candidate, as is usual for equivalence.  Only a pair's own test declares
  it equivalent, whichever of the two won, so choosing the winner adds no error.

`benchmarks/verdicts.py` counts both errors on simulated seeds.
"""

from collections.abc import Iterable
from functools import cache

from aae_core.metrics import METRICS, Direction
from orchestrator.documents import Best, Compared, Gain, Verdict, WinnerDifference
from orchestrator.results.ranking import LEVEL, Candidate, Comparison, compare
from orchestrator.text import number

_POWER = 0.8


def verdict(versus: Comparison | None, direction: Direction, margin: float | None) -> Verdict:
    """Judge a candidate by its difference from the winner; `versus` is None for the winner.

    Without a margin no candidate is equivalent.  A candidate that diverged at a seed is never
    equivalent: the other seeds are no evidence about that seed.  A significant difference within
    the margin is equivalent, because the margin defines it as unimportant.
    """
    if versus is None:
        return "winner"
    p = None if margin is None or versus.diverged else p_equivalence(versus, margin)
    if p is not None and p < LEVEL:
        return "equivalent"
    behind = versus.difference is not None and _better(versus.difference, direction) < 0
    return "worse" if behind and not versus.tied else "undecided"


def p_equivalence(versus: Comparison, margin: float) -> float | None:
    """Return the larger p-value of two one-sided t-tests; None without a t-test.

    The tests are against a difference of -margin or less, and against one of margin or more.
    """
    from scipy.special import stdtr  # slow to import

    if versus.difference is None or versus.se is None or versus.degrees is None:
        return None
    distance = margin - abs(versus.difference)  # to the nearer bound, which has the larger p-value
    if not versus.se:
        return 0.0 if distance > 0 else 1.0
    return float(stdtr(versus.degrees, -distance / versus.se))


def detectable(versus: Comparison) -> float | None:
    """Return the smallest true difference that these seeds detect with a power of 80 %.

    The test is a two-sided t-test at 5 % with the observed standard error of the difference.
    Without a t-test the result is None.
    """
    if versus.se is None or versus.degrees is None:
        return None
    return versus.se * _detectable_errors(versus.degrees)


@cache
def _detectable_errors(degrees: float) -> float:
    """Solve for the noncentrality at which t exceeds its two-sided 5 % bound in 80 % of cases.

    The other tail is left out: it adds less than 1e-5, and scipy often returns NaN for it.
    """
    from scipy.special import nctdtr, stdtrit  # slow to import

    bound = float(stdtrit(degrees, 1 - LEVEL / 2))

    def power(noncentrality: float) -> float:
        return 1 - float(nctdtr(degrees, noncentrality, bound))

    low, high = 0.0, 1.0
    while power(high) < _POWER:
        low, high = high, 2 * high
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if power(middle) < _POWER else (low, middle)
    return high


def difference(versus: Comparison | None) -> WinnerDifference | None:
    """Describe candidate minus winner for `--json`, in the metric's unit; None without a t-test."""
    if versus is None or versus.ci95 is None:
        return None
    return {"mean": versus.difference, "ci95": versus.ci95, "detectable": detectable(versus)}


def gain(
    winner: Candidate, control: Candidate | None, metric: str, direction: Direction
) -> Gain | None:
    """Describe winner minus control for `--json`; positive is better for either direction.

    The result is None without a control, or if the seeds allow no t-test.
    """
    versus = compare(winner, control, metric) if control is not None else None
    if versus is None or versus.difference is None or versus.ci95 is None:
        return None
    ends = sorted(_better(end, direction) for end in versus.ci95)
    return {"mean": _better(versus.difference, direction), "ci95": ends}


def gain_in_words(best: Best) -> str | None:
    """Describe the search's gain over its control in words, from the document of `best`.

    The result is None if the gain is unknown.
    """
    found, baseline = best["gain"], best["baseline"]
    if found is None or baseline is None:
        return None
    if baseline["config_hash"] == best["config_hash"]:
        return "the search gained nothing: the winner is the file's own configuration"
    mean, ends, metric = found["mean"], found["ci95"], best["objective"]["metric"]
    if mean > 0:
        words = f"the search gained {_amount(mean, metric)} over the file's own configuration"
    else:
        words = (
            "the search gained nothing: the file's own configuration is better than the winner by "
            + _amount(-mean, metric)
        )
        ends = [-end for end in reversed(ends)]
    chance = "; zero is within the interval, so chance alone may explain this"
    interval = f" (95 % interval: {number(ends[0])} to {number(ends[1])})"
    return words + interval + (chance if ends[0] <= 0 <= ends[1] else "")


def rivals_in_words(
    rivals: Iterable[tuple[str, Compared]], metric: str, margin: float | None
) -> str | None:
    """List the other candidates by verdict in words, from their labels and documents.

    The result is None without a margin, or without other candidates.
    """
    if margin is None:
        return None
    named: dict[Verdict, list[str]] = {"equivalent": [], "undecided": [], "worse": []}
    for label, rival in rivals:
        named[rival["verdict"]].append(label + though(rival))
    within = {"equivalent": f" within {_amount(margin, metric)}"}
    parts = (
        f"{each}{within.get(each, '')}: {', '.join(labels)}"
        for each, labels in named.items()
        if labels
    )
    return "; ".join(parts) or None


def though(candidate: Compared) -> str:
    """Qualify an equivalent candidate that is nevertheless distinguishable from the winner."""
    versus = candidate["versus_best"]
    if versus is None or candidate["verdict"] != "equivalent" or candidate["tied_with_best"]:
        return ""
    lower = versus["difference"] is not None and versus["difference"] < 0
    return " (though lower)" if lower else " (though higher)"


def _better(value: float, direction: Direction) -> float:
    return value if direction == "maximize" else 0.0 - value  # avoids printing -0.0


def _amount(value: float, metric: str) -> str:
    unit = METRICS[metric].unit if metric in METRICS else ""
    return f"{number(value)} {unit}".strip()
