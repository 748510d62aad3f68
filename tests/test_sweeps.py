"""Every sweep that is shipped loads, says how it is started, and stays within its words."""

from pathlib import Path

import pytest

from orchestrator.loading import load_sweep

SWEEPS = sorted((Path(__file__).parents[1] / "sweeps").rglob("*.yaml"))


def test_sweeps_were_found() -> None:
    assert SWEEPS


@pytest.mark.parametrize("path", SWEEPS, ids=lambda p: p.stem)
def test_shipped_sweep_loads(path: Path) -> None:
    spec = load_sweep(path)
    assert spec.name == path.stem
    assert spec.notes == []
    assert spec.search is not None
    assert spec.search.trials > 0


@pytest.mark.parametrize("path", SWEEPS, ids=lambda p: p.stem)
def test_shipped_sweep_opens_with_its_launch_command(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    assert first == f"# aae-sweep run sweeps/{path.name}"


def test_quickstart_needs_no_download() -> None:
    quickstart = next(path for path in SWEEPS if path.stem == "quickstart")
    assert load_sweep(quickstart).data.name == "digits"
