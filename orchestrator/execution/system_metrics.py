"""System metrics while a trial trains, under the names of MLflow's own monitor.

System metrics reach MLflow as all metrics do, by report and outbox. MLflow's monitor
is a thread that would write to the server from the worker and end at the first failed call.
"""

from contextlib import suppress

import psutil
import torch

from orchestrator.records import SYSTEM


def system_metrics(*, gpu: bool) -> dict[str, float]:
    """Return machine-wide CPU and memory use, and the use of the first visible GPU.

    CPU use counts from the last call in this process.
    """
    memory = psutil.virtual_memory()
    found = {
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "system_memory_usage_megabytes": memory.used / 1e6,
        "system_memory_usage_percentage": 100 * memory.used / memory.total,
    }
    if gpu:
        found |= _of_gpu()
    return {f"{SYSTEM}{name}": round(value, 1) for name, value in found.items()}


def _of_gpu() -> dict[str, float]:
    import pynvml

    free, total = torch.cuda.mem_get_info()
    found = {
        "gpu_0_memory_usage_megabytes": (total - free) / 1e6,
        "gpu_0_memory_usage_percentage": 100 * (total - free) / total,
    }
    with suppress(pynvml.NVMLError):  # NVML reports no utilisation for a part of a GPU
        found["gpu_0_utilization_percentage"] = float(torch.cuda.utilization())
    return found
