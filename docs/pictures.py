"""The pictures of README and docs, taken of the latest finished sweep: the report, MLflow's pages.

    make quickstart pictures

Needs Chromium (on Debian: apt-get install chromium).
"""

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from dashboards import write_report
from orchestrator.results.reader import ResultsReader
from orchestrator.settings import Settings
from orchestrator.tracking.mlflow_writer import ui_command, ui_url

IMAGES = Path(__file__).parent / "images"
COMPARED = 12  # runs on MLflow's compare page
PATIENCE = 300  # seconds for a server to answer, a page to open


def main() -> None:
    path = shutil.which("chromium")
    if path is None:
        sys.exit("there is no chromium; on Debian: apt-get install chromium")
    settings = Settings.from_environment()
    reader = ResultsReader(settings)
    sweep = reader.resolve("latest")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        with tempfile.TemporaryDirectory() as folder:
            page = write_report([reader.view(sweep)], Path(folder) / "report.html")
            of_report(browser, page.as_uri())
        with mlflow(settings) as address:
            of_mlflow(browser, address, reader, sweep)


def of_report(browser: Browser, address: str) -> None:
    page = opened(browser, 1120, 1000)
    page.goto(address)
    page.locator(".plot:not(:has(.main-svg))").first.wait_for(state="detached")
    keep(page.screenshot(), "report")
    keep(page.locator("#slices").screenshot(), "report-slices")
    page.emulate_media(color_scheme="dark")
    keep(page.locator("#parallel").screenshot(), "report-parallel")
    keep(page.locator("#timeline").screenshot(), "report-timeline")
    page.close()


def of_mlflow(browser: Browser, address: str, reader: ResultsReader, sweep: str) -> None:
    experiment = reader.status(sweep)["mlflow"]["experiment_id"]
    confirmed = [t.run_id for t in reader.trials(sweep, "confirm")]
    searched = [t.run_id for t in reader.trials(sweep, "search") if t.state == "complete"]
    runs = [run for run in confirmed + searched if run is not None][:COMPARED]
    page = opened(browser, 1400, 900)
    page.goto(f"{address}/#/experiments/{experiment}/runs")
    reconcile(page, "matching runs")
    page.get_by_role("button", name="Close", exact=True).click()  # the assistant's panel
    page.locator("[data-component-id*=runnamecellrenderer]").first.click()  # the sweep's trials
    reconcile(page, "confirm-0000")
    keep(page.screenshot(), "mlflow-runs")
    chosen = f"runs={quote(json.dumps(runs))}&experiments={quote(json.dumps([experiment]))}"
    page.goto(f"{address}/#/compare-runs?{chosen}")
    reconcile(page, "Run details")
    keep(page.screenshot(), "mlflow-compare")
    page.close()


def opened(browser: Browser, width: int, height: int) -> Page:
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(1000 * PATIENCE)
    return page


def reconcile(page: Page, words: str) -> None:
    page.get_by_text(words).first.wait_for()
    page.wait_for_timeout(5_000)  # what MLflow still draws


def keep(png: bytes, name: str) -> None:
    """Reduce a picture to 256 colours, a third of the size."""
    path = IMAGES / f"{name}.png"
    Image.open(io.BytesIO(png)).convert("RGB").quantize(256).save(path, optimize=True)
    print(f"{path}  {path.stat().st_size / 1000:.0f} kB")


@contextmanager
def mlflow(settings: Settings) -> Iterator[str]:
    """A server's address, of its own where the home has but a database."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command, environment = ui_command(settings, port)
    address = ui_url(settings, port)
    own = not settings.tracking_uri.startswith("http")
    server = subprocess.Popen(command, env=os.environ | environment) if own else None
    try:
        answers(address, server)
        yield address
    finally:
        if server is not None:
            server.terminate()
            server.wait()


def answers(address: str, server: subprocess.Popen[bytes] | None) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            urllib.request.urlopen(f"{address}/health", timeout=5).close()
        except OSError:
            if (server and server.poll() is not None) or time.monotonic() > deadline:
                sys.exit(f"MLflow does not answer at {address}")
            time.sleep(0.5)
        else:
            return


if __name__ == "__main__":
    main()
