"""Test the report as readers use it: drawn, hovered, sorted, paged, on a phone, in dark mode."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from opened_page import Open, Opened
from playwright.sync_api import Locator
from synthetic_sweep import hostile, make_view

from dashboards import write_report

SIZES = [3, 24, 1000]  # search trials
ReportOf = Callable[[int], Path]


@pytest.fixture(scope="module", params=SIZES)
def report(request: pytest.FixtureRequest, report_of: ReportOf) -> Path:
    return report_of(request.param)


@pytest.fixture(scope="module")
def opened(report: Path, open_page: Open) -> Opened:
    found = open_page(report.as_uri())
    found.wait_for_figures()
    return found


def test_report_has_no_console_errors_and_no_requests(opened: Opened, report: Path) -> None:
    assert opened.problems == []
    assert opened.requests == [report.as_uri()]


def test_report_figures_have_all_drawn_data(opened: Opened) -> None:
    plots = opened.page.locator(".plot")
    assert plots.count() >= 5
    for plot in plots.all():
        label = plot.get_attribute("aria-label")
        assert plot.locator(".trace, .bars .point, .scatterlayer path").count() > 0, label
        box = plot.bounding_box()
        assert box is not None, label
        assert box["height"] > 100, label


def test_report_figures_cut_no_text(opened: Opened) -> None:
    """Test labels that plotly places, which a figure's edge may cut."""
    cut = opened.page.evaluate(
        """() => [...document.querySelectorAll('.plot')].flatMap((plot) => {
            const edge = plot.getBoundingClientRect();
            return [...plot.querySelectorAll('.main-svg text')]
              .filter((text) => text.textContent.trim() && text.getBoundingClientRect().width)
              .filter((text) => {
                const box = text.getBoundingClientRect();
                return box.left < edge.left - 1 || box.right > edge.right + 1;
              })
              .map((text) => `${plot.getAttribute('aria-label')}: ${text.textContent}`);
        })"""
    )
    assert cut == []


@pytest.mark.parametrize(
    ("section", "output"),
    [
        ("confirmed", r"[23]\d\d\.\d"),
        ("history", r"trial \d+: [23]\d\d"),
        ("slices", r"trial \d+: [23]\d\d"),
        ("timeline", r"search \d+"),
        ("parzen", r"nats"),
    ],
)
def test_report_figures_show_values_on_hover(opened: Opened, section: str, output: str) -> None:
    figure = opened.page.locator(f"#{section} .plot").first
    figure.scroll_into_view_if_needed()
    area = figure.locator(".nsewdrag").first.bounding_box()
    x, y = next(
        (x, y)
        for x, y in map(_middle, figure.locator(".point").all())
        if area["x"] < x < area["x"] + area["width"] and area["y"] < y < area["y"] + area["height"]
    )
    opened.page.mouse.move(0, 0)
    opened.page.mouse.move(x, y)
    hover = figure.locator(".hoverlayer .hovertext").first
    hover.wait_for(state="attached")
    assert re.search(output, hover.text_content() or "")


def _middle(mark: Locator) -> tuple[float, float]:
    box = mark.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_report_table_column_sorts_both_ways(opened: Opened) -> None:
    head = opened.page.locator("#trials thead button", has_text="val/parzen_ll")
    for expected in ("ascending", "descending"):
        head.press("Enter")  # by keyboard
        assert head.locator("xpath=..").get_attribute("aria-sort") == expected
        values = [float(value) for value in opened.texts("#trials tbody tr td:nth-child(4)")]
        assert values == sorted(values, reverse=expected == "descending")


def test_report_table_pages_hold_every_trial_once(report_of: ReportOf, open_page: Open) -> None:
    opened = open_page(report_of(24).as_uri())
    trials: list[str] = []
    following = opened.page.locator("#trials .pager button", has_text="Next")
    while True:
        rows = opened.page.locator("#trials tbody tr")
        assert rows.count() <= 15
        trials += [" ".join(row.split()[:2]) for row in rows.all_inner_texts()]
        if following.is_disabled():
            break
        following.click()
    assert len(trials) == len(set(trials)) == 24 + 9
    assert opened.texts("#trials .pager [role=status]") == ["31 to 33 of 33"]


@pytest.mark.parametrize("width", [375, 768])
def test_report_on_a_narrow_screen_does_not_overflow(
    report: Path, open_page: Open, width: int
) -> None:
    opened = open_page(report.as_uri(), viewport={"width": width, "height": 700})
    opened.wait_for_figures()
    assert opened.page.evaluate("document.documentElement.scrollWidth") == width
    outside = opened.page.evaluate(
        """(width) => [...document.querySelectorAll('body *')]
            .filter((e) => !e.closest('.scroll, .skip, svg, pre'))
            .filter((e) => e.getBoundingClientRect().right > width + 1)
            .map((e) => e.outerHTML.slice(0, 80))""",
        width,
    )
    assert outside == []


def _lightness(colour: str) -> float:
    """Relative luminance (WCAG 2.2) of `rgb(…)`."""
    channels = [int(c) / 255 for c in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(opened: Opened, selector: str, property: str) -> float:
    read = f"(e) => getComputedStyle(e)['{property}']"
    on = _lightness(opened.page.locator(selector).first.evaluate(read))
    page = _lightness(
        opened.page.locator("body").evaluate("(e) => getComputedStyle(e).backgroundColor")
    )
    light, dark = max(on, page), min(on, page)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_report_is_legible_in_light_and_dark_scheme(
    report_of: ReportOf, open_page: Open, scheme: str
) -> None:
    """Test WCAG's contrast for text, 4.5; colours follow the system's scheme without a reload."""
    opened = open_page(
        report_of(24).as_uri(), color_scheme="dark" if scheme == "light" else "light"
    )
    opened.wait_for_figures()
    opened.page.emulate_media(color_scheme=scheme)
    background = opened.page.locator("body").evaluate("(e) => getComputedStyle(e).backgroundColor")
    assert (_lightness(background) > 0.5) == (scheme == "light")
    for selector in ("p", "figcaption", ".verdict strong", "thead button", "nav a", ".quiet"):
        assert _contrast(opened, selector, "color") >= 4.5, selector
    for selector in (".xtick text", ".ytick text", ".legendtext", ".xtitle"):
        deadline = time.monotonic() + 60  # the page redraws one figure after the other
        while _contrast(opened, f"#history {selector}", "fill") < 4.5:
            assert time.monotonic() < deadline, selector
            opened.page.wait_for_timeout(100)
    assert opened.problems == []


def test_report_keyboard_reaches_the_results_first(report_of: ReportOf, open_page: Open) -> None:
    opened = open_page(report_of(3).as_uri())
    opened.page.keyboard.press("Tab")
    assert opened.page.evaluate("document.activeElement.textContent") == "Skip to the results"
    opened.page.keyboard.press("Enter")
    assert opened.page.url.endswith("#main")


def test_report_without_scripts_shows_whole_tables(report_of: ReportOf, open_page: Open) -> None:
    opened = open_page(report_of(24).as_uri(), java_script_enabled=False)
    rows = opened.page.locator("#trials tbody tr")
    assert rows.count() == 33
    assert rows.nth(32).is_visible()
    assert opened.page.locator(".verdict").is_visible()


def test_report_of_a_hostile_sweep_runs_no_script(tmp_path: Path, open_page: Open) -> None:
    view = hostile(make_view(tmp_path))
    opened = open_page(write_report([view], tmp_path / "report.html").as_uri())
    opened.wait_for_figures()
    assert opened.problems == []
    assert len(opened.requests) == 1
    assert opened.count("img[onerror]") == 0
