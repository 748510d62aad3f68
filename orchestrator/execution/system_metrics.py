"""What the machine does while a trial trains, under the names of MLflow's own monitor.

It goes the way of all metrics, by report and spool: that monitor is a thread which would write to
the server from the worker, and end with the first call that fails.
"""

from contextlib import suppress

import psutil
import torch

from orchestrator.records import SYSTEM


def system_metrics(*, gpu: bool) -> dict[str, float]:
    """Of the whole machine, the CPUs' since they were last asked for in this process; of the GPU
    that this process sees, which is the first one to it."""
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
    with suppress(pynvml.NVMLError):  # a part of a GPU has no utilisation of its own
        found["gpu_0_utilization_percentage"] = float(torch.cuda.utilization())
    return found
