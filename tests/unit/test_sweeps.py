"""Test that every shipped sweep loads, opens with its launch command, and trains in small."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aae_core.declarations import ARCHITECTURES
from aae_core.evaluation import scores
from aae_core.metrics import METRICS
from orchestrator.pipeline import local
from orchestrator.settings import Settings
from orchestrator.sweepfile.loader import load_sweep, sweep_text
from orchestrator.sweepfile.smoke import smoke
from orchestrator.sweepfile.spec import SweepSpec

ROOT = Path(__file__).parents[2]
FULL_SIZE = sorted((ROOT / "sweeps").glob("*.yaml"))
TWO_CORES = sorted((ROOT / "sweeps" / "two_cores").glob("*.yaml"))
SWEEPS = FULL_SIZE + TWO_CORES
EXPERIMENTS = ROOT / "docs" / "experiments.md"
each_sweep = pytest.mark.parametrize("path", SWEEPS, ids=lambda p: name_of(p))


def name_of(path: Path) -> str:
    return f"{path.stem}_two_cores" if path in TWO_CORES else path.stem


def test_full_size_and_two_core_sweeps_were_found() -> None:
    assert FULL_SIZE
    assert TWO_CORES


@each_sweep
def test_shipped_sweep_loads_without_notes_and_with_seeds(path: Path) -> None:
    spec = load_sweep(path)
    assert spec.name == name_of(path)
    assert spec.notes == []
    assert spec.confirm.seeds > 1  # one seed has no error bar
    assert spec.search is None or spec.search.trials > 0


@each_sweep
def test_shipped_sweep_opens_with_its_schema_and_launch_command(path: Path) -> None:
    editor, first, second, *rest = path.read_text().splitlines()
    schema = editor.removeprefix("# yaml-language-server: $schema=")
    assert (path.parent / schema).resolve() == ROOT / "sweeps" / "schema.json"
    assert first == f"# aae-sweep run {path.relative_to(ROOT)}"
    assert second == "#"
    said = next(i for i, line in enumerate(rest) if not line.startswith("# "))
    assert 1 <= said <= 4


@each_sweep
def test_shipped_sweep_has_parzen_settings_only_where_measured(path: Path) -> None:
    spec = load_sweep(path)
    asked = "parzen:" in sweep_text(path)
    assert asked == ("parzen_ll" in ARCHITECTURES[spec.model.kind].metrics)


def test_quickstart_needs_no_download() -> None:
    quickstart = next(path for path in FULL_SIZE if path.stem == "quickstart")
    assert load_sweep(quickstart).data.name == "digits"


@pytest.mark.parametrize("path", TWO_CORES, ids=lambda p: p.stem)
def test_two_core_sweep_extends_the_full_size_one(path: Path) -> None:
    assert f"\nextends: ../{path.name}\n" in path.read_text()
    assert (ROOT / "sweeps" / path.name) in FULL_SIZE


def test_experiments_page_lists_every_full_size_sweep() -> None:
    named = re.findall(r"^\| \[`(\w+)`\]\(\.\./sweeps/(\w+)\.yaml\)", EXPERIMENTS.read_text(), re.M)
    assert all(name == file for name, file in named)
    assert sorted(name for name, _ in named) == [path.stem for path in FULL_SIZE]
    commands = re.findall(r"(?<!rivals/)sweeps/(\w+)\.yaml", EXPERIMENTS.read_text())
    assert set(commands) == {path.stem for path in FULL_SIZE}


Trained = Callable[[Path], tuple[SweepSpec, list[Any]]]


@pytest.fixture(scope="module")
def trained_in_small(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Return a function that trains a sweep in small, and equal configurations once."""
    home = tmp_path_factory.mktemp("home")
    environment = {"AAE_HOME": str(home), "AAE_DATA": str(home / "none")}
    settings = Settings.from_environment(environment)
    known: dict[str, list[Any]] = {}

    def train(path: Path) -> tuple[SweepSpec, list[Any]]:
        spec = smoke(load_sweep(path), settings)
        key = spec.trial_config({}, 0).config_hash
        if key not in known:
            known[key] = list(local.train(spec, 0, settings, threads=1, evaluate=True))
        return spec, known[key]

    return train


@each_sweep
def test_shipped_sweep_trains_with_smoke_sizes(
    path: Path, trained_in_small: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores, "PARZEN_SAMPLES", 2_000)
    monkeypatch.setattr(scores, "_IMPORTANCE_DRAWS", 2)
    spec, events = trained_in_small(path)
    start, end = events[0], events[-1]
    assert [event["event"] for event in events] == ["start", "epoch", "epoch", "end"]
    assert end["state"] == "complete"
    assert_labels_as_asked(spec, start["labelled_indices"])
    metrics: dict[str, float] = end["metrics"]
    assert all(math.isfinite(value) for value in metrics.values()), metrics
    assert metrics.keys() <= METRICS.keys()
    assert measured(metrics, "val") == declared(spec)
    assert measured(metrics, "test") >= {
        name for name in declared(spec) if f"test/{name}" in METRICS
    }
    assert (Path(end["checkpoint"]) / "manifest.json").exists()


def assert_labels_as_asked(spec: SweepSpec, indices: Any) -> None:
    if spec.data.labels is None:
        assert indices is None
    else:
        assert len(set(indices)) == len(indices) == spec.data.labels


def measured(metrics: dict[str, float], split: str) -> set[str]:
    return {name.split("/")[1] for name in metrics if name.startswith(f"{split}/")}


def declared(spec: SweepSpec) -> set[str]:
    """Return the architecture's metrics; without labels, its categories count as clusters."""
    names = set(ARCHITECTURES[spec.model.kind].metrics)
    clustered = {"cluster_error", "cluster_error_majority", "cluster_ties", "empty_clusters"}
    if spec.model.kind == "dimensionality_reduction":
        names -= {"error"} if spec.data.labels == 0 else clustered
    return names


def test_sweeps_of_figure_11_share_one_reconstruction_rate() -> None:
    """Test one rate for all: its reason, the gradient's path through the heads, holds for each."""
    paths = [path for path in FULL_SIZE if path.stem.startswith("dimensionality_reduction")]
    assert len(paths) == 4
    assert {load_sweep(path).training.reconstruction.lr for path in paths} == {0.002}
