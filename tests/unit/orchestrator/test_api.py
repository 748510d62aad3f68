"""The Python interface: its names, and what needs no real sweep."""

import inspect
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import orchestrator
from orchestrator.api import _text
from orchestrator.errors import UsageError
from orchestrator.sweepfile.loader import load_sweep, parse_sweep

SWEEPS = Path(__file__).parents[3] / "sweeps"
DOCS = Path(__file__).parents[3] / "docs" / "python.md"


@pytest.mark.parametrize("name", orchestrator.__all__)
def test_public_name_is_documented(name: str) -> None:
    assert inspect.getdoc(getattr(orchestrator, name))
    assert f"`{name}" in DOCS.read_text()


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'sweep'"):
        orchestrator.sweep  # noqa: B018


def test_import_of_the_package_alone_is_cheap() -> None:
    code = (
        "import orchestrator, sys; print({'torch', 'pandas', 'ray', 'mlflow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("name", ["quickstart", "two_cores/semi_supervised_mnist_100"])
def test_sweep_written_as_text_loads_as_the_same_sweep(name: str) -> None:
    spec = load_sweep(SWEEPS / f"{name}.yaml")
    again = parse_sweep(_text(spec), "again.yaml")
    assert again.resolved() == spec.resolved()
    assert again.sweep_id == spec.sweep_id


def test_run_outside_the_main_thread_is_refused() -> None:
    found: list[UsageError] = []

    def start() -> None:
        with pytest.raises(UsageError, match="main thread") as error:
            orchestrator.run(load_sweep(SWEEPS / "quickstart.yaml"))
        found.append(error.value)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert len(found) == 1
