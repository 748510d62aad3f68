"""Test that the live page of a running sweep updates and keeps its reader's settings."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from opened_page import Open, Opened
from playwright.sync_api import expect
from synthetic_sweep import ResultsReader, make_view

from dashboards import live


@pytest.fixture
def reader(tmp_path: Path) -> ResultsReader:
    """Return a sweep that has begun and has no confirmed trial."""
    view = make_view(tmp_path)
    reader = ResultsReader(view)
    reader.show(view.trials[:16], best=None, evaluation=None, pictures=[])
    return reader


@pytest.fixture
def opened(
    reader: ResultsReader, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Opened]:
    monkeypatch.setattr(live, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(live, "SHARE", 0)
    server = live.server(live.Pages(lambda: reader), "127.0.0.1", 0, None)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield open_page(f"http://127.0.0.1:{server.server_port}/sweep/latest")
    server.shutdown()
    thread.join()
    server.server_close()


def test_live_page_follows_the_sweep_and_keeps_settings(
    opened: Opened, reader: ResultsReader
) -> None:
    page = opened.page
    opened.wait_for_figures()
    page.locator("#trials thead button", has_text="epochs").click()
    page.locator("#trials h2").click()  # the page does not replace a focused element
    page.locator("body").evaluate("document.activeElement.blur()")
    page.locator("#importance summary").click()
    page.locator("body").evaluate("document.activeElement.blur()")
    assert opened.count("#confirmed") == 0

    whole = reader.whole
    reader.show(whole.trials, best=whole.best, evaluation=whole.evaluation)
    expect(page.locator("#confirmed")).to_be_visible(timeout=60_000)
    expect(page.locator(".verdict")).to_contain_text("wins: val/parzen_ll")
    expect(page.locator("#trials .pager [role=status]")).to_have_text("1 to 15 of 33")
    opened.wait_for_figures()
    titles = opened.texts("section > h2")
    assert titles.index("Confirmed results") == 0
    assert titles[-1] == "Make it again"
    assert page.locator("main > section").count() == len(titles)
    head = page.locator("#trials th[aria-sort]")
    assert head.inner_text().startswith("epochs")
    assert page.locator("#importance details").first.get_attribute("open") is not None
    assert opened.problems == []
    assert {url.split("/")[2].split(":")[0] for url in opened.requests} == {"127.0.0.1"}


def test_live_page_can_be_paused_and_continued(opened: Opened, reader: ResultsReader) -> None:
    page = opened.page
    page.locator("#live button").click()
    reader.show(reader.whole.trials, best=reader.whole.best)
    page.wait_for_timeout(4000)
    assert opened.count("#confirmed") == 0
    page.locator("#live button").click()
    expect(page.locator("#confirmed")).to_be_visible(timeout=60_000)


def test_live_page_reports_an_unreachable_server(opened: Opened, reader: ResultsReader) -> None:
    opened.page.route("**/*", lambda route: route.abort())
    expect(opened.page.locator("#live [role=status]")).to_contain_text("no answer", timeout=60_000)
    opened.page.unroute("**/*")
    expect(opened.page.locator("#live [role=status]")).to_contain_text("as of", timeout=60_000)
