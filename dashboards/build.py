"""Build a self-contained HTML file from one sweep or several."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from aae_core.files import replacing
from dashboards import candidates, page
from dashboards.confirmed_sections import together_against_the_paper
from dashboards.sections import hero, sections
from dashboards.sweep import Sweep
from dashboards.verdict import best_trial, verdict
from orchestrator.documents import ComparisonDocument, Status
from orchestrator.text import duration

if TYPE_CHECKING:
    from orchestrator.results.reader import SweepView


def build_report(views: Sequence["SweepView"]) -> str:
    """Return the report as HTML. Raises ValueError if `views` is empty."""
    if not views:
        raise ValueError("a report needs at least one sweep; name one, or `latest`")
    if len(views) == 1:
        sweep = Sweep(views[0])
        return page.document(f"{_name(sweep)} · sweep report", _single(sweep))
    sweeps = [Sweep(view, f"sweep{i}-") for i, view in enumerate(views, 1)]
    return page.document(f"{len(sweeps)} sweeps compared", _several(sweeps))


def live_report(view: "SweepView") -> str:
    """Return the report of one sweep as a page that is served while the sweep runs."""
    sweep = Sweep(view)
    return page.served(f"{_name(sweep)} · {view.status['state']}", _single(sweep))


def overview(statuses: Sequence[Status], address: Callable[[str], str]) -> str:
    """Return a page that lists the sweeps of a home, latest first, with links to their pages."""
    rows = [
        (
            page.Link(address(status["id"]), status["id"]),
            status["state"],
            status["stage"],
            f"{sum(status['trials'].values())} of {sum(status['planned'].values())}",
            best_trial(status["best"]),
            duration(status["elapsed_seconds"]),
        )
        for status in reversed(statuses)
    ]
    frame = pd.DataFrame(rows, columns=["sweep", "state", "stage", "trials", "best", "time"])
    caption = (
        "The sweeps of this home, the latest first." if rows else "No sweep has been run here yet."
    )
    return page.served(
        "Sweeps",
        f"<header>{_over('aae-sweep')}<h1>Sweeps</h1></header>"
        f'<main id="main">{page.table(frame, caption, right=["trials", "time"])}</main>',
    )


def comparison_page(document: ComparisonDocument, views: "Mapping[str, SweepView]") -> str:
    """Return the document of `aae-sweep compare --json` as a page."""
    found = candidates.ComparedCandidates(document, views)
    parts = candidates.sections(found)
    return page.document(
        "Comparison",
        f"<header>{_over('Comparison')}<h1>{page.text(', '.join(views))}</h1>"
        f"{candidates.hero(found)}</header>{page.contents(parts)}"
        f'<main id="main">{"".join(page.section(part, 2) for part in parts)}</main>',
    )


def write_report(views: Sequence["SweepView"], path: Path) -> Path:
    return write_page(build_report(views), path)


def write_page(content: str, path: Path) -> Path:
    """Write the page atomically, so that no reader finds an incomplete file."""
    with replacing(path) as part, part.open("w", encoding="utf-8", newline="\n") as file:
        file.write(content)
    return path


def _single(sweep: Sweep) -> str:
    parts = sections(sweep)
    return (
        f"<header>{_over('Sweep report')}<h1>{page.text(_name(sweep))}</h1>{hero(sweep)}</header>"
        + page.contents(parts)
        + f'<main id="main">{"".join(page.section(part, 2) for part in parts)}</main>'
    )


def _several(sweeps: Sequence[Sweep]) -> str:
    articles = "".join(map(_article, sweeps))
    return (
        f"<header>{_over('Sweep report')}<h1>{len(sweeps)} sweeps, side by side</h1></header>"
        + f'<main id="main">{_overview(sweeps)}{_published(sweeps)}{articles}</main>'
    )


def _article(sweep: Sweep) -> str:
    parts, id = sections(sweep), sweep.prefix.rstrip("-")
    return (
        f'<article id="{id}" aria-labelledby="{id}-title">'
        f'<h2 id="{id}-title">{page.text(_name(sweep))}</h2>{hero(sweep)}'
        + page.contents(parts)
        + "".join(page.section(part, 3) for part in parts)
        + "</article>"
    )


def _overview(sweeps: Sequence[Sweep]) -> str:
    frame = pd.DataFrame(
        {
            "sweep": sweep.view.status["id"],
            "data": sweep.view.spec["data"]["name"],
            "verdict": str(verdict(sweep.view)),
            "trials": sum(sweep.view.status["trials"].values()),
            "time": duration(sweep.view.status["elapsed_seconds"]),
            "state": sweep.view.status["state"],
        }
        for sweep in sweeps
    )
    links = page.contents(
        page.Section(f"sweep{i}", sweep.view.status["id"], "") for i, sweep in enumerate(sweeps, 1)
    )
    return page.table(frame, "The result of each sweep.", right=["time"]) + links


def _published(sweeps: Sequence[Sweep]) -> str:
    tables = together_against_the_paper(sweeps)
    part = page.Section("published", "Beside the published figures", tables)
    return page.section(part, 2) if tables else ""


def _over(words: str) -> str:
    return page.paragraph(words, "over")


def _name(sweep: Sweep) -> str:
    return str(sweep.view.status["sweep"])
