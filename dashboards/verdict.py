"""State a sweep's result in a sentence with its error, or why there is no result yet."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aae_core.metrics import METRICS
from dashboards.tables import candidate_labels, number
from orchestrator.documents import Best, BestTrial, Summary
from orchestrator.records import TrialState
from orchestrator.results.verdicts import gain_in_words, rivals_in_words
from orchestrator.text import MISSING, count

if TYPE_CHECKING:
    from orchestrator.results.reader import SweepView


@dataclass(frozen=True)
class Headline:
    subject: str  # the winner; empty if there is none
    statement: str  # text after the subject
    remark: str

    def __str__(self) -> str:
        return f"{self.subject} {self.statement}".strip()


def verdict(view: "SweepView") -> Headline:
    metric = view.status["objective"]["metric"]
    if view.best is None:
        return Headline("", *_nothing_yet(view.status["trials"]))
    describe = _confirmed if view.best["confirmed"] else _from_search
    return Headline(winner(view.best), *describe(view.best, metric))


def winner(best: Best) -> str:
    return candidate_labels(best)[best["config_hash"]]


def unit(metric: str) -> str:
    return METRICS[metric].unit if metric in METRICS else ""


def is_test_objective(metric: str) -> bool:
    """Return whether this is a test metric with a better direction, not a diagnostic."""
    diagnosis = metric in METRICS and METRICS[metric].better == "none"
    return metric.startswith("test/") and not diagnosis


def score(summary: Summary) -> str:
    return number(summary["mean"], summary["se"])


def best_trial(best: BestTrial | None) -> str:
    """Describe the best candidate of a status briefly."""
    if best is None:
        return MISSING
    whose = "confirmed" if best["confirmed"] else f"trial {best['trial']}, one seed"
    return f"{best['metric']} {number(best['value'], best['se'])} ({whose})"


def _confirmed(best: Best, metric: str) -> tuple[str, str]:
    seeds = len(best["metrics"][metric]["values"])
    verb = "wins" if len(best["groups"]) > 1 else "reaches"
    statement = f"{verb}: {_mean_text(best, metric)} ({count(seeds, 'seed')})"
    error = "± is the standard error over seeds." if seeds > 1 else "One seed has no error bar."
    gained = gain_in_words(best)
    return (
        f"{statement}{_rivals(best)}.",
        (f"{gained[0].upper()}{gained[1:]}. " if gained else "")
        + f"{error} The winner was fixed on validation before any test image was read.",
    )


def _rivals(best: Best) -> str:
    labels = candidate_labels(best)  # in the order of the ranking
    _, *others = zip(labels.values(), best["groups"], strict=True)
    if words := rivals_in_words(others, best["objective"]["metric"], best["margin"]):
        return f"; {words}"
    if best["tied_with"]:
        rivals = [label for rival, label in labels.items() if rival in best["tied_with"]]
        return f"; not distinguishable from: {', '.join(rivals)}"
    return "; distinguishable from every other candidate" if len(best["groups"]) > 1 else ""


def _from_search(best: Best, metric: str) -> tuple[str, str]:
    return (
        f"leads the search: {_mean_text(best, metric)}, not confirmed yet.",
        "One lucky seed may lead a search: confirm trains the candidates again with fresh seeds.",
    )


def _mean_text(best: Best, metric: str) -> str:
    return f"{metric} {score(best['metrics'][metric])} {unit(metric)}".strip()


def _nothing_yet(trials: Mapping[TrialState, int]) -> tuple[str, str]:
    counts = Counter({state: n for state, n in trials.items() if n})
    if not counts:
        return "No trial has started.", "Results appear here once the first trials finish."
    counted = ", ".join(f"{n} {state}" for state, n in counts.most_common())
    if counts["running"] or counts["waiting"]:
        return "No result yet: trials are still running.", f"So far: {counted}."
    return (
        "No result: no trial finished.",
        f"Trials: {counted}. The table of trials has the reasons.",
    )
