"""System metrics with the names and units of MLflow's own monitor."""

import psutil
import pytest
import torch
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor

from orchestrator.execution.system_metrics import system_metrics


def test_system_metrics_have_names_and_units_of_mlflows_monitor() -> None:
    monitor = CPUMonitor()
    monitor.collect_metrics()
    found, theirs = system_metrics(gpu=False), monitor.aggregate_metrics()
    assert found.keys() == {f"system/{name}" for name in theirs}
    assert 0 <= found["system/cpu_utilization_percentage"] <= 100
    total = psutil.virtual_memory().total
    used = 1e6 * found["system/system_memory_usage_megabytes"]
    assert 100 * used / total == pytest.approx(
        found["system/system_memory_usage_percentage"], abs=0.1
    )


def _gpu_of_one_gigabyte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (750_000_000, 1_000_000_000))


def test_system_metrics_of_a_gpu_hold_memory_and_utilisation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _gpu_of_one_gigabyte(monkeypatch)
    monkeypatch.setattr(torch.cuda, "utilization", lambda: 42)
    found = system_metrics(gpu=True)
    assert {name: value for name, value in found.items() if "gpu" in name} == {
        "system/gpu_0_memory_usage_megabytes": 250.0,
        "system/gpu_0_memory_usage_percentage": 25.0,
        "system/gpu_0_utilization_percentage": 42.0,
    }


def test_system_metrics_of_a_gpu_partition_omit_utilisation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import pynvml

    def refuse() -> int:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    _gpu_of_one_gigabyte(monkeypatch)
    monkeypatch.setattr(torch.cuda, "utilization", refuse)
    found = system_metrics(gpu=True)
    assert found["system/gpu_0_memory_usage_megabytes"] == 250.0
    assert "system/gpu_0_utilization_percentage" not in found
