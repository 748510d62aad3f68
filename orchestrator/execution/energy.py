"""Energy that this process uses, where the machine counts energy.

The counters are those of Linux' powercap for the CPU packages and their memory (RAPL), and NVML's
of the GPU. A counter that cannot be read is left out: many systems show powercap to root alone,
and virtual machines have none.
"""

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

POWERCAP = Path("/sys/class/powercap")


class EnergyMeter:
    """Energy of this process between two calls of `joules`.

    A package counts for all processes of the machine. This process gets the share that its CPU time
    has of the CPU time of all processes, so that trials which run at once share the energy of their
    machine. Trials that share a GPU share its energy by the part of the GPU that each reserves.
    """

    def __init__(self, *, gpu: float, powercap: Path = POWERCAP) -> None:
        self._gpu = min(gpu, 1.0)  # a trial trains on one GPU
        self._zones = list(_zones(powercap))
        self._before = self._read()

    def joules(self) -> float | None:
        """Return the energy since the last call, or None if the machine does not count it."""
        before, self._before = self._before, self._read()
        parts: list[float] = []
        if self._zones:
            used = sum(
                _difference(zone, old, new)
                for zone, old, new in zip(
                    self._zones, before.zones, self._before.zones, strict=True
                )
            )
            own, all_ = self._before.own - before.own, self._before.all - before.all
            parts.append(used * min(1.0, own / all_) if all_ > 0 else 0.0)
        if before.gpu is not None and self._before.gpu is not None:
            parts.append(self._gpu * (self._before.gpu - before.gpu))
        return sum(parts) if parts else None

    def _read(self) -> "_Reading":
        return _Reading(
            zones=[zone.joules() for zone in self._zones],
            own=time.process_time(),
            all=_busy_seconds(),
            gpu=_gpu_joules() if self._gpu else None,
        )


@dataclass(frozen=True)
class _Reading:
    zones: list[float]  # joules
    own: float  # CPU seconds of this process
    all: float  # CPU seconds of all processes of the machine
    gpu: float | None  # joules


@dataclass(frozen=True)
class _Zone:
    """A counter of powercap, which starts again from zero after `range_` joules."""

    file: Path
    range_: float

    def joules(self) -> float:
        return int(self.file.read_text()) / 1e6


def _zones(powercap: Path) -> Iterator[_Zone]:
    """Yield the packages and their memory; the zones `core`, `uncore` and `psys` repeat parts."""
    for folder in sorted(powercap.glob("intel-rapl:*")):
        with suppress(OSError, ValueError):
            name = (folder / "name").read_text().strip()
            if name == "dram" or name.startswith("package"):
                range_ = int((folder / "max_energy_range_uj").read_text()) / 1e6
                zone = _Zone(folder / "energy_uj", range_)
                zone.joules()  # raises PermissionError where only root may read the counter
                yield zone


def _difference(zone: _Zone, before: float, now: float) -> float:
    return now - before if now >= before else now - before + zone.range_


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq)


def _gpu_joules() -> float | None:
    """Return the energy of the first visible GPU since its driver was loaded."""
    import pynvml

    with suppress(pynvml.NVMLError):  # a part of a GPU, or one before Volta, has no counter
        pynvml.nvmlInit()
        uuid = f"GPU-{torch.cuda.get_device_properties(0).uuid}"
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
    return None
