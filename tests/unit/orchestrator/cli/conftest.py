import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.cli import main
from orchestrator.execution.cluster import connected
from orchestrator.settings import Settings

SWEEP = """\
name: tiny
data: {name: digits}
model: {code_dim: 4, prior: {std: 2.0}, hidden: [32], init_std: 0.15}
training:
  epochs: 2
  reconstruction: {optimizer: adam, lr: 5e-3}
  adversarial: {optimizer: adam, lr: 1e-3}
search:
  trials: 3
  sampler: {kind: random}
  space:
    model.prior.std: {float: [0.5, 8], log: true}
confirm: {seeds: 2}
resources: {cpu: 1, gpu: 0}
"""


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


Command = Callable[..., Outcome]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One Ray for every `plan` of a module; without it, each `plan` starts its own."""
    home = tmp_path_factory.mktemp("cluster")
    with connected(Settings.from_environment({"AAE_HOME": str(home)})):
        yield


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that does not exist yet; a command that starts nothing does not create the home."""
    for name in ("AAE_STUDY_URI", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AAE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AAE_DATA", str(tmp_path / "data"))
    return tmp_path / "home"


@pytest.fixture
def aae(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command line, run in this process."""

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["aae-sweep", *map(str, arguments)])
        monkeypatch.setattr(os, "_exit", sys.exit)
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        else:
            code = 0
        out, err = capsys.readouterr()
        return Outcome(code, out, err)

    return run


@pytest.fixture
def sweep_file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(SWEEP)
    return path


@pytest.fixture
def threads() -> Iterator[None]:
    """Restore the thread count of this process, which `train` sets."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
