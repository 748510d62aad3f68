"""HTML elements that escape their content, and the document. Independent of sweeps.

The document contains all its parts: plotly once, style, script, data, pictures. Its content policy
allows only the two scripts written here, by their hashes, and no network access. A malicious name
could therefore do nothing even if escaping failed.
"""

import base64
import hashlib
import html
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from numbers import Real
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from dashboards.tables import columns, number, records
from orchestrator.text import MISSING

LONG = 36  # characters in a cell before it wraps
ROWS = 15  # rows per page of a long table
STATIC = files("dashboards") / "static"


@dataclass(frozen=True)
class Section:
    id: str
    title: str
    body: str  # HTML


@dataclass(frozen=True)
class Link:
    """A cell with a link."""

    address: str
    words: str

    def __str__(self) -> str:
        return self.words


def text(value: object) -> str:
    return html.escape(str(value))


def unbroken(value: str) -> str:
    """Escape text and allow no line break between a figure and its error."""
    return text(value).replace(" ± ", "&nbsp;±&nbsp;")


def paragraph(content: object, kind: str = "") -> str:
    return f'<p class="{kind}">{text(content)}</p>' if kind else f"<p>{text(content)}</p>"


def bullets(items: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{text(item)}</li>' for item in items)}</ul>"


def code(content: str) -> str:
    return f"<pre><code>{text(content)}</code></pre>"


def details(summary: str, content: str) -> str:
    return f"<details><summary>{text(summary)}</summary>{content}</details>"


def facts(pairs: Mapping[str, object]) -> str:
    """Return names and values, a line for each."""
    rows = (f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in pairs.items())
    return f'<dl class="facts">{"".join(rows)}</dl>'


def key_numbers(entries: Iterable[tuple[str, str, str]]) -> str:
    """Return `(label, figure, remark)` entries as a row of cards."""
    cards = (
        f"<div><dt>{text(label)}</dt><dd>{unbroken(figure)}</dd><dd>{text(remark)}</dd></div>"
        for label, figure, remark in entries
    )
    return f'<dl class="keys">{"".join(cards)}</dl>'


def legend(entries: Iterable[tuple[str, str, str]]) -> str:
    """Return `(colour, glyph, name)` entries as a legend that several figures share."""
    items = (
        f'<li><span aria-hidden="true" style="color:{text(colour)}">{text(glyph)}</span>'
        f"{text(name)}</li>"
        for colour, glyph, name in entries
    )
    return f'<ul class="legend">{"".join(items)}</ul>'


def table(
    frame: pd.DataFrame,
    caption: str,
    *,
    right: Collection[str] = (),
    titles: Mapping[str, str] | None = None,
    marked: Collection[int] = (),
    page_size: int | None = None,
) -> str:
    """Return a table whose first column has the row headers.

    right: text columns aligned right like numbers.  titles: a column's long name, on hover.
    marked: indices of rows to highlight.  page_size: rows per page of a sortable table.
    """
    names = columns(frame)
    numeric = {c for c in names if c in right or _all_numbers(frame[c])}
    head = "".join(_head(c, c in numeric, (titles or {}).get(c)) for c in names)
    rows = [
        f"<tr{' class=marked' if index in marked else ''}>"
        + "".join(_cell(row[c], c in numeric, heads_row=c == names[0]) for c in names)
        + "</tr>"
        for index, row in zip(frame.index, records(frame), strict=True)
    ]
    later = f'<tbody class="later">{"".join(rows[page_size:])}</tbody>' if page_size else ""
    paged = f' data-page="{page_size}"' if page_size else ""
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{text(caption)}">'
        f"<table{paged}><caption><span>{text(caption)}</span></caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows[:page_size])}</tbody>{later}"
        "</table></div>"
    )


def chart(
    figure: go.Figure, label: str, caption: str = "", numbers: str = "", min_width: int = 0
) -> str:
    """Return a figure as JSON, which the page's script draws.

    label: text for screen readers.  numbers: HTML with the figure's data as a table, or a link to
    such a table.  min_width: pixels below which the chart scrolls sideways.
    """
    document = figure.to_json().replace("<", "\\u003c")
    height = f"height:{figure.layout.height}px"
    width = f";min-width:{min_width}px" if min_width else ""
    below = f"<figcaption>{text(caption)}</figcaption>" if caption else ""
    below += f'<div class="numbers">{numbers}</div>' if numbers else ""
    return (
        f'<figure class="chart"><div class="scroll"><div class="plot" role="img"'
        f' aria-label="{text(label)}" style="{height}{width}">'
        f'<script type="application/json">{document}</script></div></div>{below}</figure>'
    )


def link(target: str, words: str) -> str:
    """Return a link to an element of the page, by id."""
    return f'<a href="#{text(target)}">{text(words)}</a>'


def as_table(content: str) -> str:
    """Return a figure's data in a collapsed table, for readers who cannot see the figure."""
    return details("As a table", content)


def tiles(entries: Iterable[tuple[str, str]]) -> str:
    """Return `(title, HTML)` entries as a grid of small charts."""
    items = (f"<div><h4>{text(title)}</h4>{content}</div>" for title, content in entries)
    return f'<div class="tiles">{"".join(items)}</div>'


def picture(path: Path, title: str, description: str) -> str:
    """Return a PNG file, embedded in the page."""
    encoded = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<figure class="picture"><img src="data:image/png;base64,{encoded}" alt="{text(title)}">'
        f"<figcaption><strong>{text(title)}.</strong> {text(description)}</figcaption></figure>"
    )


def contents(sections: Iterable[Section]) -> str:
    links = (f"<li>{link(s.id, s.title)}</li>" for s in sections)
    return f'<nav aria-label="Contents"><ul>{"".join(links)}</ul></nav>'


def section(part: Section, level: int) -> str:
    return (
        f'<section id="{text(part.id)}" aria-labelledby="{text(part.id)}-title">'
        f'<h{level} id="{text(part.id)}-title">{text(part.title)}</h{level}>{part.body}</section>'
    )


def document(title: str, body: str) -> str:
    """Return the whole file; `body` is HTML."""
    scripts = [get_plotlyjs(), _static("report.js")]
    allowed = f"script-src {' '.join(map(_hash, scripts))}; base-uri 'none'; form-action 'none'"
    policy = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY} {allowed}">'
    return _html(title, policy, body, "".join(f"<script>{script}</script>\n" for script in scripts))


def served(title: str, body: str) -> str:
    """Return a page that updates itself. The server sends its scripts and policy separately."""
    scripts = "".join(f'<script src="{path}"></script>\n' for path in SERVED)
    return _html(title, "", f"{body}{_LIVE}", scripts)


_POLICY = "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline';"
POLICY_SERVED = (
    f"{_POLICY} script-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SERVED = {  # in the order of execution
    "/plotly.js": get_plotlyjs,
    "/live.js": lambda: _static("live.js"),
    "/report.js": lambda: _static("report.js"),
}
_LIVE = (
    '<p id="live"><span role="status" aria-live="off">live</span> '
    '<button type="button" aria-pressed="false">Pause</button></p>'
)


def _html(title: str, policy: str, body: str, scripts: str) -> str:
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{policy}\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark">\n'
        f"<title>{text(title)}</title>\n<style>{_static('report.css')}</style>\n</head>\n"
        f'<body>\n<a class="skip" href="#main">Skip to the results</a>\n{body}\n{scripts}'
        "</body>\n</html>\n"
    )


def _static(name: str) -> str:
    return (STATIC / name).read_text("utf-8")


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _head(column: str, numeric: bool, title: str | None) -> str:
    kind = ' class="n"' if numeric else ""
    hint = f' title="{text(title)}"' if title else ""
    return f'<th scope="col"{kind}{hint}>{text(column)}</th>'


def _all_numbers(values: pd.Series) -> bool:
    return all(isinstance(value, Real) or value is None for value in values)


def _cell(value: Any, numeric: bool, heads_row: bool) -> str:
    kind = "n" if numeric else "long" if len(str(value)) > LONG else ""
    key = ""
    if isinstance(value, Real):
        key = "" if math.isnan(value) else f' data-value="{float(value)!r}"'
        value = number(float(value))
    attributes = (f' class="{kind}"' if kind else "") + key
    shown = text(MISSING if value is None else value)
    if isinstance(value, Link):
        shown = f'<a href="{text(value.address)}">{shown}</a>'
    return (
        f'<th scope="row"{attributes}>{shown}</th>'
        if heads_row
        else f"<td{attributes}>{shown}</td>"
    )
