"""Command compare: test the differences between confirmed candidates of one or more sweeps."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import common
from orchestrator.cli.common import AsJson, say
from orchestrator.errors import UsageError
from orchestrator.text import number

if TYPE_CHECKING:
    from orchestrator.documents import Compared, ComparisonDocument, Verdict
    from orchestrator.results.ranking import Candidate, Comparison
    from orchestrator.results.reader import ResultsReader


def compare(
    sweeps: Annotated[list[str], typer.Argument(help="One sweep or several.")] = ["latest"],  # noqa: B006
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric", help="The metric to compare by; by default the sweeps' objective."
        ),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            "--margin",
            help="Differences below the margin, in the metric's unit, do not matter; by default "
            "the sweeps' confirm.margin, if they agree.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Also write an HTML page.")] = None,
    json: AsJson = False,
) -> None:
    """Compare confirmed candidates with the best one, seed by seed where they share seeds.

    The test split chooses nothing: for a test/ metric, validation chooses the best candidate.
    """
    if margin is not None and not 0 < margin < math.inf:
        raise UsageError(f"--margin {margin:g}: must be a number above 0")
    path = None if out is None else common.page(out)
    reader = common.reader()
    names = list(dict.fromkeys(map(reader.resolve, sweeps)))
    document = _document(reader, names, metric, margin)
    if len(set(document["data_sha256"].values())) > 1:
        say("these sweeps used different data, so more than their configurations differs")
    if path is not None:
        from dashboards import build

        views = {name: reader.view(name) for name in names}
        say(f"page  {build.write_page(build.comparison_page(document, views), path)}")
    if json:
        common.emit(document)
        return
    candidates = document["candidates"]
    common.table(
        ("configuration", "seeds", document["metric"], "minus the best", "by", "p", "verdict"),
        [_row(candidate, document["metric"]) for candidate in candidates],
    )
    print()
    common.table(
        ("configuration", "sweep", "settings, where they differ"),
        [
            (candidate["config_hash"], candidate["sweep"], settings)
            for candidate, settings in zip(candidates, _differing(candidates), strict=True)
        ],
    )
    print()
    common.prose(_verdict(document))


COMMANDS = (compare,)


def _document(
    reader: "ResultsReader", names: list[str], wanted: str | None, margin: float | None
) -> "ComparisonDocument":
    from aae_core.metrics import METRICS
    from orchestrator.results import ranking, verdicts

    found = [candidate for name in names for candidate in _confirmed(reader, name)]
    metric = _measured(wanted, found) if wanted else _objective(reader, names)
    judge = metric if _is_objective(metric) else _objective(reader, names)
    direction = METRICS[judge].direction
    seeds = min(reader.spec(name)["confirm"]["seeds"] for name in names)
    ranked = ranking.rank(found, judge, direction, seeds=seeds)
    compared = [None, *ranking.versus_best(ranked, metric)]
    better = METRICS[metric].direction if metric in METRICS else direction
    if margin is None:
        margin = _own_margin(reader, names, metric)
    return {
        "metric": metric,
        "best_by": judge,
        "direction": direction,
        "margin": margin,
        "data_sha256": {name: reader.data_sha256(name) for name in names},
        "candidates": [
            _describe(candidate, metric, versus, verdicts.verdict(versus, better, margin))
            for candidate, versus in zip(ranked, compared, strict=True)
        ],
    }


def _confirmed(reader: "ResultsReader", sweep: str) -> "list[Candidate]":
    found, _ = reader.candidates(sweep)
    if not found:
        raise UsageError(f"{sweep} has no confirmed candidate yet; see: aae-sweep status {sweep}")
    return [replace(candidate, sweep=sweep) for candidate in found]


def _objective(reader: "ResultsReader", names: list[str]) -> str:
    objectives = {name: str(reader.objective(name)["metric"]) for name in names}
    if len(set(objectives.values())) > 1:
        listed = ", ".join(f"{name} for {objective}" for name, objective in objectives.items())
        raise UsageError(
            f"searched for different objectives: {listed}; name a val/ metric by --metric"
        )
    return objectives[names[0]]


def _own_margin(reader: "ResultsReader", names: list[str], metric: str) -> float | None:
    """Return the margin on which the sweep files agree. A margin only holds for the objective."""
    margins = {
        reader.spec(name)["confirm"].get("margin")
        if reader.objective(name)["metric"] == metric
        else None
        for name in names
    }
    return margins.pop() if len(margins) == 1 else None


def _measured(metric: str, found: "list[Candidate]") -> str:
    from orchestrator.sweepfile.messages import nearest

    known = [{name for run in candidate.runs for name in run.metrics} for candidate in found]
    common_to_all = set.intersection(*known)
    if metric not in common_to_all:
        raise UsageError(
            f"not every confirmed candidate has `{metric}`; {nearest(metric, common_to_all)}"
        )
    return metric


def _is_objective(metric: str) -> bool:
    from aae_core.metrics import METRICS

    return metric.startswith("val/") and METRICS[metric].better != "none"


def _describe(
    candidate: "Candidate", metric: str, versus: "Comparison | None", verdict: "Verdict"
) -> "Compared":
    from orchestrator.results.ranking import summarise
    from orchestrator.results.reader import versus_document
    from orchestrator.results.verdicts import difference

    return {
        "sweep": candidate.sweep or "",
        "config_hash": candidate.config_hash,
        "params": candidate.params,
        "seeds": candidate.seeds,
        "metrics": {metric: summarise(list(candidate.values(metric).values()))},
        "versus_best": versus_document(versus),
        "difference": difference(versus),
        "tied_with_best": versus is None or versus.tied,
        "verdict": verdict,
    }


def _row(candidate: "Compared", metric: str) -> tuple[Any, ...]:
    from orchestrator.results.ranking import METHODS
    from orchestrator.results.verdicts import though

    figures, versus = candidate["metrics"][metric], candidate["versus_best"]
    mean = number(figures["mean"], figures["se"])
    about = (candidate["config_hash"], len(figures["values"]), mean)
    if versus is None:
        return (*about, "", "", "", "best")
    return (
        *about,
        number(versus["difference"], versus["se"]),
        METHODS[versus["method"]].format(**versus),
        "" if versus["p_holm"] is None else f"{versus['p_holm']:.2g}",
        f"{candidate['verdict']}{though(candidate)}",
    )


def _differing(candidates: "list[Compared]") -> Iterator[str]:
    """Yield the settings of each candidate that are not the same for all."""
    params = [candidate["params"] for candidate in candidates]
    paths = {path: None for found in params for path in found}
    differing = [p for p in paths if any(f.get(p) != params[0].get(p) for f in params)]
    for found in params:
        shown = (common.setting(path, found[path]) for path in differing if path in found)
        yield ", ".join(shown) or "the file's own"


def _verdict(document: "ComparisonDocument") -> str:
    best, *others = document["candidates"]
    ties = sum(candidate["tied_with_best"] for candidate in others)
    words = f"± is the standard error over seeds. The best is {best['config_hash']}"
    if document["best_by"] != document["metric"]:
        words += f", by {document['best_by']}"
    if not others:
        return f"{words}, the only one."
    words += (
        f"; {ties or 'none'} of {len(others)} not distinguishable from it "
        "(t-tests at 5 %, p by Holm's correction over all pairs)."
    )
    if document["margin"] is None:
        return words
    equivalent = sum(candidate["verdict"] == "equivalent" for candidate in others)
    return (
        f"{words} Equivalent, within {document['margin']:g}: {equivalent} of {len(others)} "
        "(two one-sided t-tests, each candidate at 5 %)."
    )
