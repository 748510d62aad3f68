"""A real browser: the system's Chromium, driven by Playwright."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opened_page import Open, Opened
from playwright.sync_api import Browser, BrowserContext, sync_playwright
from synthetic_sweep import make_view

from dashboards import write_report


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("there is no chromium; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def open_page(chromium: Browser) -> Iterator[Open]:
    """Yield a function that opens an address in a new context; its keywords are Playwright's."""
    contexts: list[BrowserContext] = []

    def opened(url: str, **options: Any) -> Opened:
        while len(contexts) > 1:  # a module's tests share the first context
            contexts.pop().close()
        options.setdefault("viewport", {"width": 1280, "height": 900})
        contexts.append(chromium.new_context(**options))
        contexts[-1].set_default_timeout(120_000)  # for a busy machine
        page = Opened(contexts[-1].new_page())
        page.page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def report_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Return a function that builds the report of a synthetic sweep of `n_search` trials once."""
    made: dict[int, Path] = {}

    def report(n_search: int) -> Path:
        if n_search not in made:
            folder = tmp_path_factory.mktemp(f"report{n_search}")
            view = make_view(folder, n_search=n_search, epochs=50)
            made[n_search] = write_report([view], folder / "report.html")
        return made[n_search]

    return report
