"""A sweep that minimises the classification error and has no Parzen figure anywhere."""

import subprocess
from pathlib import Path

import pytest
from sweep_command import COMMAND, Bench

SWEEP = """
name: few_labels
data: {name: digits, labels: 100}
model: {kind: semi_supervised, hidden: [32], code_dim: 4, init_std: 0.1, output: linear}
training:
  epochs: 2
  reconstruction: {optimizer: adam, lr: 2e-3}
  adversarial: {optimizer: adam, lr: 1e-3}
search:
  sampler: {kind: random}
  trials: 3
  space:
    training.classification.lr: {float: [1e-3, 0.3], log: true}
confirm: {seeds: 2, baseline: false}
"""
TRAIN = {"train/recon", "train/disc_z", "train/gen_z", "train/disc_y", "train/gen_y", "train/class"}
VAL = {"val/recon", "val/error", "val/latent_mmd", "val/latent_std"}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Return the sweep at its end."""
    bench = Bench(tmp_path_factory.mktemp("few_labels"), SWEEP)
    done = bench.run()
    assert done.returncode == 0, done.stderr
    assert "confirm-0 scored" in done.stderr
    return bench


def test_best_has_the_lowest_classification_error(bench: Bench) -> None:
    status, best = bench.ask("status"), bench.ask("best")
    assert status["objective"] == {"metric": "val/error", "direction": "minimize"}
    assert status["trials"]["complete"] == 5
    search = [t for t in bench.ask("show")["trials"] if t["stage"] == "search"]
    assert search[0]["metrics"].keys() == TRAIN | VAL
    lowest = min(search, key=lambda trial: trial["metrics"]["val/error"])
    assert best["params"] == lowest["params"]
    assert best["metrics"]["test/error"]["mean"] < 90  # per cent, of 10 classes
    assert status["best"]["value"] == best["metrics"]["val/error"]["mean"]


def test_evaluate_reports_only_test_metrics_without_parzen(bench: Bench) -> None:
    models = bench.ask("evaluate")["models"]
    assert [model["metrics"].keys() for model in models] == [{"test/recon", "test/error"}] * 2
    assert not any("log_likelihood" in model for model in models)
    assert [model["metrics"]["test/error"] for model in models] == (
        bench.ask("best")["metrics"]["test/error"]["values"]
    )
    result = _output(bench, "evaluate")
    assert result.splitlines()[0].split() == ["model", "group", "test/error", "test/recon"]


def test_report_shows_errors_instead_of_parzen_figures(bench: Bench) -> None:
    report = Path(bench.ask("report")["report"]).read_text()
    assert "reaches: val/error" in report
    assert 'id="parzen"' not in report
    assert "The data: the paper has no figure for" in report


def test_run_of_a_done_sweep_does_nothing(bench: Bench) -> None:
    before = bench.ask("show")
    again = bench.run()
    assert again.returncode == 0
    assert "done; nothing to run" in again.stderr
    assert bench.ask("show") == before
    summary = _output(bench, "run", str(bench.file))
    assert "test/error" in summary
    assert "Parzen" not in summary


def _output(bench: Bench, *arguments: str) -> str:
    done = subprocess.run(
        [COMMAND, *arguments], env=bench.environment, capture_output=True, text=True, check=True
    )
    return done.stdout
