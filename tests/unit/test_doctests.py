"""The examples in docstrings hold."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in ("aae_core", "orchestrator", "dashboards")
    for path in (ROOT / package).rglob("*.py")
    if ">>> " in (source := path.read_text()) and "# doctest: +SKIP" not in source
)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_of_a_module_pass(name: str) -> None:
    failed, tried = doctest.testmod(import_module(name))
    assert (failed, tried > 0) == (0, True)
