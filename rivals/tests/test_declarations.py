"""Test that the declarations are found, need no torch, and that every shipped sweep fits them."""

import subprocess
import sys
from pathlib import Path

import pytest

from aae_core.declarations import ARCHITECTURES
from orchestrator.sweepfile.loader import load_sweep

RIVALS = ("vat", "ladder", "catgan", "m1", "m2", "m1_m2")
ROOT = Path(__file__).parents[1]
FULL_SIZE = sorted((ROOT / "sweeps").glob("*.yaml"))
TWO_CORES = sorted((ROOT / "sweeps" / "two_cores").glob("*.yaml"))


@pytest.mark.parametrize("kind", RIVALS)
def test_rival_is_declared_by_this_package(kind: str) -> None:
    owner = ARCHITECTURES.owner(kind)
    assert owner is not None
    assert owner.startswith("aae-rivals ")
    assert ARCHITECTURES[kind].objective == "error"


def test_declarations_import_no_torch() -> None:
    lookup = f"[ARCHITECTURES[kind] for kind in {RIVALS}]"
    code = f"import sys; from aae_core.declarations import ARCHITECTURES; {lookup}"
    check = "assert 'aae_rivals' in sys.modules and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", f"{code}; {check}"], check=True)


def test_every_full_size_sweep_has_a_two_core_edition() -> None:
    assert [path.name for path in FULL_SIZE] == [path.name for path in TWO_CORES]
    kinds = {path.stem.split("_mnist_")[0] for path in FULL_SIZE}
    assert kinds == {*RIVALS} - {"m1"}  # whose codes the paper gives to another classifier


@pytest.mark.parametrize("path", FULL_SIZE + TWO_CORES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_shipped_sweep_loads_and_opens_with_its_command(path: Path) -> None:
    spec = load_sweep(path)
    small = path in TWO_CORES
    assert spec.name == (f"{path.stem}_two_cores" if small else path.stem)
    assert not spec.notes
    command = f"# aae-sweep run rivals/{path.relative_to(ROOT)}"
    assert path.read_text().splitlines()[0] == command
    assert spec.confirm.seeds == (3 if small else 10)
