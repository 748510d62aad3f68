"""A page in the browser, with its error messages and its network requests."""

from collections.abc import Callable
from dataclasses import dataclass, field

from playwright.sync_api import Page, Request, expect


@dataclass
class Opened:
    page: Page
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", lambda message: self.problems.append(message.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("dialog", lambda dialog: self.problems.append(dialog.message))
        self.page.on("request", self._note)

    def wait_for_figures(self) -> None:
        undrawn = self.page.locator(".plot:not(:has(.main-svg))")
        expect(undrawn).to_have_count(0, timeout=120_000)

    def count(self, selector: str) -> int:
        return self.page.locator(selector).count()

    def texts(self, selector: str) -> list[str]:
        return self.page.locator(selector).all_inner_texts()

    def _note(self, request: Request) -> None:
        if not request.url.startswith(("data:", "blob:")):
            self.requests.append(request.url)


Open = Callable[..., Opened]
