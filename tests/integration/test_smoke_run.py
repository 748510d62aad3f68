"""Test `aae-sweep run SWEEP --smoke` on shipped files, from search to report.

The files cover architectures without a Parzen figure and one without an encoder.
"""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from sweep_command import Bench

from aae_core.declarations import ARCHITECTURES
from aae_core.metrics import METRICS
from orchestrator.study.study import confirm_seed
from orchestrator.sweepfile.loader import load_sweep
from orchestrator.sweepfile.smoke import smoke
from orchestrator.sweepfile.spec import SweepSpec

SWEEPS = Path(__file__).parents[2] / "sweeps"
SHIPPED = ("semi_supervised_mnist_100", "clustering_mnist_16", "likelihood_mnist_gan")


@pytest.fixture(scope="module", params=SHIPPED)
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Return the sweep at its end."""
    shipped = SWEEPS / f"{request.param}.yaml"
    bench = Bench(tmp_path_factory.mktemp(request.param), shipped.read_text())
    done = bench.run("--smoke")
    assert done.code == 0, done.err
    assert "note: a smoke run" in done.err
    assert done.document["state"] == "done"
    return bench


@pytest.fixture(scope="module")
def spec(bench: Bench) -> SweepSpec:
    return smoke(load_sweep(bench.file), bench.settings)


def test_smoke_run_is_done_under_its_own_name(bench: Bench, spec: SweepSpec) -> None:
    status = bench.ask("status", spec.name)
    assert (status["sweep"], status["id"]) == (spec.name, spec.sweep_id)
    assert (status["stage"], status["state"]) == ("done", "done")
    trials = spec.confirmations + (spec.search.planned if spec.search else 0)
    if bench.ask("best", spec.name)["config_hash"] == spec.baseline_hash:
        trials -= spec.confirm.seeds  # the winner is its own control
    ended = {"complete": trials, "diverged": 0, "pruned": 0, "failed": 0}
    assert status["trials"] == ended | {"running": 0, "waiting": 0}
    assert status["objective"]["metric"] == spec.objective.metric
    assert status["best"]["metric"] == spec.objective.metric
    assert status["unsynced"] == 0
    assert status["resume"] == f"aae-sweep run {bench.file} --smoke"
    assert "</html>" in Path(status["report"]).read_text()
    assert [sweep["sweep"] for sweep in bench.ask("ls")] == [spec.name]


def test_smoke_best_has_the_metrics_of_its_architecture(bench: Bench, spec: SweepSpec) -> None:
    best = bench.ask("best", spec.name)
    assert best["confirmed"]
    assert best["seeds"] == [confirm_seed(spec.seed, 0), confirm_seed(spec.seed, 1)]
    declared = ARCHITECTURES[spec.model.kind].metrics
    on_test = {f"test/{name}" for name in declared} & METRICS.keys()
    assert on_test
    assert best["metrics"].keys() >= {f"val/{name}" for name in declared} | on_test
    for name in sorted(on_test):
        figures: dict[str, Any] = best["metrics"][name]
        assert len(figures["values"]) == 2
        assert figures["mean"] == pytest.approx(sum(figures["values"]) / 2)
        assert all(math.isfinite(value) for value in figures["values"])


def test_smoke_evaluation_has_parzen_documents_only_where_measured(
    bench: Bench, spec: SweepSpec
) -> None:
    path = bench.settings.sweep_folder(spec.sweep_id) / "evaluation.json"
    models = json.loads(path.read_text())["models"]
    assert len(models) == 2
    measured = "parzen_ll" in ARCHITECTURES[spec.model.kind].metrics
    for model in models:
        assert ("curve" in model) == ("controls" in model) == measured
        assert any(name.startswith("test/") for name in model["metrics"])
