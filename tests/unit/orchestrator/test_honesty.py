"""The test split is unreachable from search, by its imports and at run time."""

import ast
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from straw_sweep import Watcher, run, sweep, without_ray

import orchestrator
from aae_core.data import TestData
from aae_core.data.arrays import Arrays
from orchestrator.errors import EnvironmentUnusable
from orchestrator.results.reader import ResultsReader
from orchestrator.settings import Settings
from orchestrator.study.study import StageStudy, open_storage

ROOT = Path(orchestrator.__file__).parents[1]
OURS = ("aae_core", "orchestrator", "dashboards")
SEARCH = [
    "aae_core.training",
    "orchestrator.study.samplers",
    "orchestrator.pipeline.search",
    "orchestrator.sweepfile.space",
    "orchestrator.study.study",
    "orchestrator.execution.worker",
    "orchestrator.execution.tune_driver",
]
HARMLESS = {  # names in aae_core.data that only hold, cut or scale given images
    "Images",
    "Pixels",
    "TrainingData",
    "holds_pixels",
    "labelled",
    "permutation",
    "resident",
    "unit_interval",
}
INTERFACE = "orchestrator"  # its names load everything, but only once a script asks for one
FORBIDDEN = re.compile(r"load_test_data|TestData|open_data_set|\.test\(|import_module|__import__")


def source(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    found = (path / "__init__.py", path.with_suffix(".py"))
    return next((file for file in found if file.is_file()), None)


def imports(module: str) -> Iterator[tuple[str, str | None]]:
    """Yield (module, name) of every import in the file; a whole module has the name None."""
    file = source(module)
    assert file is not None, module
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"{module}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                whole = node.module.split(".")[0] in OURS and source(inner) is not None
                yield (inner, None) if whole else (node.module, alias.name)


@cache
def reachable(module: str) -> frozenset[str]:
    """Return our modules that importing this one can load, including their parent packages."""
    found: set[str] = set()
    ahead = [module]
    while ahead:
        name = ahead.pop()
        if name != INTERFACE and name.split(".")[0] in OURS and name not in found:
            found.add(name)
            ahead += [name.rpartition(".")[0] or name, *(other for other, _ in imports(name))]
    return frozenset(found)


def is_data(module: str) -> bool:
    return f"{module}.".startswith("aae_core.data.")


def offences(module: str) -> set[str]:
    """Return every place reachable from the module that names the test split or can open it."""
    found = set()
    for name in reachable(module):
        if is_data(name):
            continue
        found |= {
            f"{name} imports {part or 'all'} of {data}"
            for data, part in imports(name)
            if (is_data(data) and part not in HARMLESS) or data == INTERFACE
        }
        file = source(name)
        found |= {f"{name} says {word}" for word in FORBIDDEN.findall(file.read_text())}
    return found


@pytest.mark.parametrize("module", SEARCH)
def test_search_reaches_no_import_that_names_the_test_split(module: str) -> None:
    assert module in reachable(module)
    assert offences(module) == set()


def test_imports_of_a_worker_are_followed_to_the_core() -> None:
    """Check that `reachable` follows imports; otherwise the test above proves nothing."""
    assert {"aae_core.training.loop", "aae_core.models.base"} <= reachable(
        "orchestrator.execution.tune_driver"
    )
    assert "orchestrator.pipeline.evaluate" not in reachable("orchestrator.pipeline.search")


def test_offences_of_evaluate_are_found() -> None:
    found = offences("orchestrator.pipeline.evaluate")
    assert "orchestrator.pipeline.evaluate imports load_test_data of aae_core.data" in found
    assert "orchestrator.pipeline.scoring says TestData" in found


class Mine:
    """An object that makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("opened",)


@pytest.fixture
def poisoned(tmp_path: Path) -> Path:
    """Images whose test split holds pickled traps instead of images."""
    path = tmp_path / "poisoned.npz"
    x = np.random.default_rng(0).random((60, 9), dtype=np.float32)
    np.savez(path, x_train=x, x_test=np.array([Mine()]), y_test=np.array([Mine()]))
    return path


def test_poisoned_test_split_is_opened_only_after_the_winner_is_fixed(
    poisoned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_ray(monkeypatch)
    monkeypatch.chdir(tmp_path)
    settings = Settings.from_environment({"AAE_HOME": str(tmp_path / "home")})
    spec, watcher, opened = sweep(poisoned), Watcher(), list[str]()
    test = Arrays.test

    def spy(self: Arrays) -> TestData:
        confirm = StageStudy.read(open_storage(settings), spec.sweep_id, "confirm")
        opened.append(confirm.state.winner)
        return test(self)

    monkeypatch.setattr(Arrays, "test", spy)
    with pytest.raises(EnvironmentUnusable, match="search and confirm are complete and kept"):
        run(settings, spec, watcher)
    best = ResultsReader(settings).best(spec.sweep_id)
    assert {"search 2 complete", "confirm 1 complete"} <= set(watcher.seen)
    assert opened == [best["config_hash"]]
    assert not (tmp_path / "opened").exists()
