"""Output of benchmarks: a table on stdout, all results in benchmarks/results/NAME.json."""

import json
import os
from pathlib import Path
from typing import Any

import torch

from orchestrator.tracking.provenance import provenance

FOLDER = Path(__file__).with_name("results")


def publish(name: str, found: dict[str, Any], table: str) -> None:
    """Print the table and write the JSON file, with the machine and versions."""
    machine = provenance(len(os.sched_getaffinity(0)), gpu=torch.cuda.is_available())
    FOLDER.mkdir(exist_ok=True)
    file = FOLDER / f"{name}.json"
    file.write_text(json.dumps({"machine": machine} | found, indent=2) + "\n")
    print(f"{table}\n{file}")
