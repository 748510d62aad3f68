"""Test MLflow's own pages of a small sweep: comparison of runs, pictures, registered model."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest
from mlflow.tracking import MlflowClient
from opened_page import Open
from playwright.sync_api import Browser, Page, expect
from sweep_file import make_text
from tracking_server import TrackedBench

SWEEP = make_text(
    training={"epochs": 3},
    search={
        "space": {
            "model.prior.std": {"float": [0.5, 4], "log": True},
            "training.reconstruction.lr": {"float": [1e-3, 1e-2], "log": True},
        }
    },
    confirm={"baseline": False},
    evaluate={"parzen": {"samples": 10_000, "screen_samples": 10_000}},
)


@dataclass(frozen=True)
class ServedSweep:
    """A finished sweep, and the server that has all of its runs."""

    bench: TrackedBench
    client: MlflowClient
    experiment: str
    runs: dict[str, str]  # ids by the end of the key, as in confirm/0

    def address(self, page: str) -> str:
        return f"{self.bench.url}/#/{page}"

    def run(self, name: str, tab: str = "") -> str:
        return self.address(f"experiments/{self.experiment}/runs/{self.runs[name]}{tab}")


@pytest.fixture(scope="module")
def served(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedSweep]:
    bench = TrackedBench(tmp_path_factory.mktemp("pages"), SWEEP)
    with bench.serving() as client:
        done = bench.run()
        assert done.code == 0, done.err
        bench.ask("sync")
        bench.ask("export", "tiny", "--register")
        found = bench.runs(client)
        experiment = found[bench.sweep].info.experiment_id
        runs = {key.removeprefix(f"{bench.sweep}/"): run.info.run_id for key, run in found.items()}
        yield ServedSweep(bench, client, experiment, runs)


def opened(open_page: Open, address: str) -> Page:
    page: Page = open_page(address, viewport={"width": 1400, "height": 1000}).page
    return page


def test_mlflow_compares_runs_by_parameters_and_charts(
    served: ServedSweep, open_page: Open
) -> None:
    runs = [run for name, run in served.runs.items() if name.startswith("search/")]
    chosen = f"runs={quote(json.dumps(runs))}&experiments={quote(json.dumps([served.experiment]))}"
    page = opened(open_page, served.address(f"compare-runs?{chosen}"))
    expect(page.get_by_text("Parallel Coordinates Plot").first).to_be_visible()
    expect(page.locator(".js-plotly-plot .main-svg").first).to_be_visible()
    for what in ("model.prior.std", "training.reconstruction.lr", "search-0002"):
        expect(page.get_by_text(what).first).to_be_attached()


def test_mlflow_run_page_names_its_data_set(served: ServedSweep, open_page: Open) -> None:
    page = opened(open_page, served.run("confirm/0"))
    inputs: Any = served.client.get_run(served.runs["confirm/0"]).inputs
    digest = inputs.dataset_inputs[0].dataset.digest
    expect(page.get_by_text("digits").first).to_be_visible()
    expect(page.get_by_text(digest[:8]).first).to_be_attached()


def test_mlflow_confirmed_run_shows_its_pictures_by_epoch(
    served: ServedSweep, open_page: Open
) -> None:
    page = opened(open_page, served.run("confirm/0", "/model-metrics"))
    expect(page.get_by_text("parzen_sigma").first).to_be_visible()
    page.get_by_text("Model metrics").last.scroll_into_view_if_needed()
    page.mouse.move(700, 500)
    page.mouse.wheel(0, 10_000)  # MLflow draws only visible charts
    for key in ("samples", "latent", "manifold", "walk"):
        expect(page.get_by_role("heading", name=key, exact=True)).to_be_visible()
    slider = page.get_by_role("slider").first
    expect(slider).to_have_attribute("aria-valuemax", "3")
    expect(page.locator("img[src*='step']").first).to_be_attached()
    expect(page.get_by_text("No image logged at this step")).to_have_count(0)


def test_mlflow_run_page_has_system_metrics(served: ServedSweep, open_page: Open) -> None:
    page = opened(open_page, served.run("search/0", "/system-metrics"))
    expect(page.get_by_text("cpu_utilization_percentage").first).to_be_attached()


def test_mlflow_sweep_run_has_figures_and_report(served: ServedSweep, open_page: Open) -> None:
    page = opened(open_page, served.run(served.bench.sweep))
    expect(page.get_by_text("val/parzen_ll").first).to_be_attached()
    page = opened(open_page, served.run(served.bench.sweep, "/artifacts"))
    expect(page.get_by_text("report.html").first).to_be_attached()


def test_mlflow_lists_the_winner_as_a_registered_model(
    served: ServedSweep, open_page: Open
) -> None:
    page = opened(open_page, served.address("models/tiny"))
    expect(page.get_by_text("Version 1").first).to_be_visible()
    expect(page.get_by_text("champion").first).to_be_visible()
