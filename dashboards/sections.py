"""Sections of the report in reading order. Each is a function of a sweep that returns HTML.

A section without data returns "" and is left out.
"""

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dashboards import confirmed_sections as confirmed
from dashboards import page, tables
from dashboards import search_sections as search
from dashboards.sweep import Sweep
from dashboards.verdict import score, unit, verdict
from orchestrator.documents import Best, Status
from orchestrator.text import duration, energy, money

if TYPE_CHECKING:
    from orchestrator.results.reader import Picture

PICTURE_BUDGET = 6 * 2**20  # bytes per sweep; base64 adds a third


def hero(sweep: Sweep) -> str:
    found = verdict(sweep.view)
    subject = f"<strong>{page.text(found.subject)}</strong> " if found.subject else ""
    return (
        f'<p class="verdict">{subject}{page.unbroken(found.statement)}</p>'
        + page.paragraph(found.remark, "quiet")
        + _departures(sweep.view.best)
        + _state_notice(sweep.view.status)
        + page.key_numbers(_key_numbers(sweep))
    )


def _departures(best: Best | None) -> str:
    named = best.get("departures", []) if best else []
    return page.paragraph(f"Departs from the paper: {'; '.join(named)}.", "quiet") if named else ""


def pictures(sweep: Sweep) -> str:
    shown, left_out = _within_budget(sweep.view.pictures)
    if not sweep.view.pictures:
        return ""
    grid = "".join(page.picture(p.path, p.title, p.alt) for p in shown)
    statement = [f"{p.title}: too large to embed, see {p.path}." for p in left_out]
    return f'<div class="pictures">{grid}</div>' + "".join(map(page.paragraph, statement))


def reproduce(sweep: Sweep) -> str:
    view = sweep.view
    best = view.best
    facts = {
        "sweep id": view.status["id"],
        "configuration of the sweep": view.status["config_hash"],
    }
    if best is not None:
        facts |= {
            "winning configuration": best["config_hash"],
            "its seeds": ", ".join(map(str, best["seeds"])),
            "data sha256": best["data_sha256"] or "",
            "code version": best["code_version"] or "",
        }
    winning = json.dumps(best["params"], indent=2) if best else ""
    return (
        page.paragraph("The same command resumes the sweep here, or runs it again elsewhere.")
        + page.code(view.status["resume"] or "")
        + _again(sweep)
        + page.facts({name: value for name, value in facts.items() if value})
        + (page.details("Winning parameters", page.code(winning)) if winning else "")
        + page.details("Sweep file as given", page.code(view.spec_text))
        + page.details("Sweep file with every default", page.code(json.dumps(view.spec, indent=2)))
    )


def _again(sweep: Sweep) -> str:
    best = sweep.view.best
    if best is None or not best["trials"]:
        return ""
    stage = "confirm" if best["confirmed"] else "search"
    return page.paragraph(
        "The winner alone, trained again from its record and compared number by number:"
    ) + page.code(f"aae-sweep reproduce {sweep.view.status['id']}/{stage}-{best['trials'][0]}")


SECTIONS: list[tuple[str, str, Callable[[Sweep], str]]] = [
    ("confirmed", "Confirmed results", confirmed.confirmed_candidates),
    ("prior-gap", "Prior or reconstruction", confirmed.prior_gap),
    ("paper", "Beside the paper", confirmed.against_the_paper),
    ("history", "Search history", search.history),
    ("trade-off", "Trade-off", search.trade_off),
    ("importance", "Parameter importance", search.importance),
    ("parallel", "Parallel coordinates", search.parallel),
    ("slices", "Parameter by parameter", search.slices),
    ("curves", "Learning curves", search.learning_curves),
    ("timeline", "Timeline", search.timeline),
    ("pictures", "Pictures", pictures),
    ("parzen", "Parzen log-likelihood", confirmed.parzen),
    ("trials", "All trials", search.all_trials),
    ("reproduce", "Make it again", reproduce),
]


def sections(sweep: Sweep) -> list[page.Section]:
    """Return every section that has content."""
    made = [page.Section(sweep.prefix + id, title, build(sweep)) for id, title, build in SECTIONS]
    return [section for section in made if section.body]


def _state_notice(status: Status) -> str:
    if status["state"] == "done":
        return ""
    statement = {
        "running": "The sweep is still running; these figures will change.",
        "failed": "The sweep failed before its end; its results until then are below.",
        "interrupted": "The sweep was interrupted; the command at the end resumes it.",
        "stopped": "The sweep was stopped; the command at the end resumes it.",
    }[status["state"]]
    return page.paragraph(f"{statement} Stage: {status['stage']}.", "notice")


def _key_numbers(sweep: Sweep) -> list[tuple[str, str, str]]:
    status = sweep.view.status
    summaries = sweep.view.best["metrics"] if sweep.view.best else {}
    test = sweep.objective.metric.replace("val/", "test/", 1)
    cards = [
        (metric, score(summaries[metric]), unit(metric))
        for metric in (sweep.objective.metric, test)
        if metric in summaries
    ]
    counts = status["trials"]
    finished = ", ".join(f"{n} {state}" for state, n in counts.items() if n) or "none started"
    cards.append(("trials", tables.number(sum(counts.values())), finished))
    elapsed, rest = status["elapsed_seconds"], status["eta_seconds"]
    remark = f"about {duration(rest)} to go" if rest else status["state"]
    cards.append(("time", duration(elapsed), remark))
    trained = f"{duration(status['train_seconds'])} of training"
    if status["energy_joules"] is not None:
        cards.append(("energy", energy(status["energy_joules"]), trained))
    if status["cost"]:
        cards.append(("cost", money(**status["cost"]), trained))
    return cards


def _within_budget(pictures: Sequence["Picture"]) -> tuple[list["Picture"], list["Picture"]]:
    shown: list[Picture] = []
    left_out: list[Picture] = []
    room = PICTURE_BUDGET
    for picture in pictures:
        size = picture.path.stat().st_size
        (shown if size <= room else left_out).append(picture)
        room -= size if size <= room else 0
    return shown, left_out
