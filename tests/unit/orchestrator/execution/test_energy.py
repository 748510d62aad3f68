"""Energy by the machine's counters, with a stand-in for powercap."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.execution import energy
from orchestrator.execution.energy import EnergyMeter


class Machine:
    """A powercap folder, and the CPU times of this process and of all processes."""

    def __init__(self, powercap: Path) -> None:
        self.powercap = powercap
        self.own = self.all = 100.0

    def zone(self, folder: str, name: str, joules: float, range_: float = 1000.0) -> None:
        path = self.powercap / folder
        path.mkdir(parents=True, exist_ok=True)
        (path / "name").write_text(f"{name}\n")
        (path / "max_energy_range_uj").write_text(f"{range_ * 1e6:.0f}\n")
        (path / "energy_uj").write_text(f"{joules * 1e6:.0f}\n")

    def work(self, own: float, others: float = 0.0) -> None:
        self.own += own
        self.all += own + others


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(tmp_path / "powercap")
    monkeypatch.setattr(energy, "time", SimpleNamespace(process_time=lambda: machine.own))
    monkeypatch.setattr(energy, "_busy_seconds", lambda: machine.all)
    return machine


def meter(machine: Machine, gpu: float = 0.0) -> EnergyMeter:
    return EnergyMeter(gpu=gpu, powercap=machine.powercap)


def test_energy_is_none_where_the_machine_counts_none(machine: Machine) -> None:
    assert meter(machine).joules() is None


def test_energy_is_none_where_the_counter_is_unreadable(machine: Machine) -> None:
    machine.zone("intel-rapl:0", "package-0", 0)
    counter = machine.powercap / "intel-rapl:0" / "energy_uj"
    counter.unlink()
    counter.mkdir()  # even root cannot read a folder as a file
    assert meter(machine).joules() is None


def test_energy_is_divided_by_shares_of_the_cpu_time(machine: Machine) -> None:
    machine.zone("intel-rapl:0", "package-0", 10)
    found = meter(machine)
    machine.zone("intel-rapl:0", "package-0", 50)
    machine.work(own=3, others=1)
    assert found.joules() == pytest.approx(30)
    assert found.joules() == 0  # nothing since


def test_energy_counts_packages_and_memory_but_no_zone_twice(machine: Machine) -> None:
    names = ("package-0", "core", "dram", "package-1", "psys")
    folders = ("intel-rapl:0", "intel-rapl:0:0", "intel-rapl:0:1", "intel-rapl:1", "intel-rapl:2")
    for folder, name in zip(folders, names, strict=True):
        machine.zone(folder, name, 0)
    machine.zone("intel-rapl-mmio:0", "package-0", 0)
    found = meter(machine)
    for joules, (folder, name) in enumerate(zip(folders, names, strict=True)):
        machine.zone(folder, name, 10**joules)
    machine.work(own=1)
    assert found.joules() == pytest.approx(1 + 100 + 1000)


def test_energy_is_right_after_its_counter_restarts_from_zero(machine: Machine) -> None:
    machine.zone("intel-rapl:0", "package-0", 990)
    found = meter(machine)
    machine.zone("intel-rapl:0", "package-0", 5)
    machine.work(own=1)
    assert found.joules() == pytest.approx(15)


def test_energy_of_a_shared_gpu_is_the_reserved_part(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = iter([100.0, 140.0, None])
    monkeypatch.setattr(energy, "_gpu_joules", lambda: next(readings))
    found = meter(machine, gpu=0.25)
    assert found.joules() == pytest.approx(10)
    assert found.joules() is None
