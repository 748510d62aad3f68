"""Test that the tables of results in the documentation show only figures from `results/`."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from orchestrator.sweepfile.loader import load_sweep

ROOT = Path(__file__).parents[2]


@pytest.fixture
def experiments() -> ModuleType:
    spec = importlib.util.spec_from_file_location("experiments", ROOT / "docs" / "experiments.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def figures(*values: float) -> dict[str, Any]:
    mean = sum(values) / len(values)
    return {"mean": mean, "se": 0.25, "values": list(values)}


@pytest.fixture
def result(experiments: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a finished sweep in a separate `results/` folder."""
    monkeypatch.setattr(experiments, "RESULTS", tmp_path)
    spec = load_sweep(ROOT / "sweeps" / "semi_supervised_mnist_100.yaml", ["training.epochs=50"])
    metrics = {"val/error": figures(2.5, 2.0), "test/error": figures(2.0, 1.0)}
    group = {"params": {}, "metrics": metrics}
    stage = {"trials": 2, "epochs": 100, "epochs_repeated": 1, "resumed": 3, "train_hours": 1.25}
    documents = {
        "best": {**group, "seeds": [1, 2], "groups": [group]},
        "sweep": spec.resolved(),
        "record": {
            "command": "aae-sweep run sweeps/semi_supervised_mnist_100.yaml",
            "machine": ["some processor"],
            "code": ["abc"],
            "versions": {"torch": ["2"]},
            "drivers": 4,
            "elapsed_hours": 2.5,
            "stages": {"search": {**stage, "trials": 0, "train_hours": 0.0}, "confirm": stage},
        },
        "evaluation": {"models": [{}]},
    }
    folder = tmp_path / "semi_supervised_mnist_100"
    folder.mkdir()
    for name, document in documents.items():
        (folder / f"{name}.json").write_text(json.dumps(document))
    return folder


def test_documentation_pages_contain_the_current_results(experiments: ModuleType) -> None:
    for page in experiments.PAGES:
        text = page.read_text()
        assert experiments.rewritten(text) == text, f"{page.name}: run `make experiments`"


def test_every_result_is_shown(experiments: ModuleType) -> None:
    shown = {
        result.folder
        for rows in experiments.PARTS.values()
        for row in rows
        for result in experiments.results(row.sweep)
    }
    assert shown == set(experiments.RESULTS.iterdir())


def test_results_blocks_of_pages_all_have_an_end(experiments: ModuleType) -> None:
    for page in experiments.PAGES:
        text = page.read_text()
        assert text.count("<!-- results:") == text.count("<!-- end -->") > 0


def test_changed_result_changes_the_documentation_pages(
    experiments: ModuleType, result: Path
) -> None:
    page = "<!-- results: readme -->\n<!-- end -->\n<!-- results: runs -->\n<!-- end -->\n"
    page += "<!-- results: interruptions -->\n<!-- end -->\n"
    text = experiments.rewritten(page)
    assert "**1.50 ± 0.25** %; 2 seeds, 50 epochs, 1.2 h of training; some processor" in text
    assert "1.50 ± 0.25 (2, 1)" in text
    assert "4 drivers, 6 resumed trials, 2 epochs repeated" in text
    assert "| `semi_supervised_mnist_100` | 2.5 | 4 | 6 | 200 | 2 |" in text
    assert experiments.rewritten(text) == text
    best = json.loads((result / "best.json").read_text())
    best["metrics"]["test/error"] = figures(3.0, 1.0)
    (result / "best.json").write_text(json.dumps(best))
    assert "**2.00 ± 0.25** %" in experiments.rewritten(text)


@pytest.mark.parametrize(
    ("sweep", "printed"),
    [
        ("likelihood_mnist", "340 ± 2 (10K), 427 (10M)"),
        ("semi_supervised_mnist_100", "1.90 ± 0.10 %"),
        ("semi_supervised_mnist_all", "0.85 ± 0.02 %"),
        ("classifier_mnist_1000", "8.73 %"),
        ("clustering_mnist_30", "4.10 ± 1.13 %"),
        ("dimensionality_reduction_10d_100", "3.90 %"),
        ("dimensionality_reduction_2d_unsupervised", "13.95 %"),
        ("vat_mnist_100", "2.33 %"),
        ("ladder_mnist_100", "1.06 ± 0.37 %"),
        ("catgan_mnist_1000", "1.73 ± 0.18 %"),
        ("m2_mnist_100", "11.97 ± 1.71 %"),
        ("m1_m2_mnist_1000", "2.40 ± 0.02 %"),
    ],
)
def test_published_cell_is_the_figure_of_the_paper(
    experiments: ModuleType, sweep: str, printed: str
) -> None:
    [row] = [row for rows in experiments.PARTS.values() for row in rows if row.sweep == sweep]
    assert row.said.split("; ")[0] == printed


def test_every_rival_stands_beside_its_published_figure(experiments: ModuleType) -> None:
    rows = experiments.PARTS["rivals"]
    assert rows
    assert [row.sweep for row in rows if not row.said] == []
