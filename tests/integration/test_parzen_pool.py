"""Parzen jobs: the bits of the in-process runner for any number of actors and after any kill.

Any other jobs on actors: the same answers after a kill, and a job's own error as itself.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from parzen_job import DIM, TEST, VALID, N, images, in_process_result, same_figures, saved_samples
from torch import Tensor

from aae_core.errors import DataError
from aae_core.evaluation.controls import centroids
from aae_core.evaluation.parzen import (
    BLOCK,
    ArraySource,
    ModelSource,
    SampleSource,
    in_process,
    one_thread,
    run_protocol,
)
from orchestrator.errors import SweepError
from orchestrator.execution import hangs
from orchestrator.execution.actors import ActorPool
from orchestrator.execution.cluster import TrialResources
from orchestrator.execution.parzen_pool import (
    ArrayFile,
    CentroidSamples,
    SharedArray,
    score_samples,
)

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import tests


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> ArrayFile:
    return saved_samples(tmp_path_factory.mktemp("samples"))


@dataclass
class Deadly:
    """A source that kills or stops the process requesting block 2, `lives` times."""

    source: SampleSource
    folder: Path
    lives: int
    by: int = signal.SIGKILL

    @property
    def n_samples(self) -> int:
        return self.source.n_samples

    def open(self) -> SampleSource:
        return self

    def block(self, index: int) -> Tensor:
        dead = len(list(self.folder.iterdir()))
        if index == 2 and dead < self.lives:
            (self.folder / str(dead)).touch()
            os.kill(os.getpid(), self.by)
        return self.source.block(index)


@pytest.mark.parametrize("actors", [2, 3])  # 3 exceeds the number of CPUs
def test_parzen_same_bits_for_any_actor_count(actors: int, samples: ArrayFile) -> None:
    seen: list[tuple[int, int]] = []
    result = score_samples(
        samples, VALID, TEST, actors=actors, curve=[BLOCK], progress=lambda *at: seen.append(at)
    )
    assert same_figures(result, in_process_result())
    assert result.blocks_repeated == 0
    assert seen == [(done, 5) for done in range(1, 6)]


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGSTOP])
def test_parzen_killed_or_stopped_actor_costs_one_block(
    by: int, tmp_path: Path, samples: ArrayFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hangs, "LEAST_PATIENCE", 3.0)
    deadly = Deadly(samples.open(), tmp_path, lives=1, by=by)
    result = score_samples(deadly, VALID, TEST, actors=2, curve=[BLOCK])
    assert result.blocks_repeated == 1
    assert same_figures(result, in_process_result())


def test_parzen_block_that_always_kills_ends_the_job(tmp_path: Path, samples: ArrayFile) -> None:
    deadly = Deadly(samples.open(), tmp_path, lives=99)
    with pytest.raises(SweepError, match="block 2: lost 3 actors in a row"):
        score_samples(deadly, VALID, TEST, actors=2)


def test_parzen_resume_after_driver_kill_computes_no_finished_block(
    tmp_path: Path, samples: ArrayFile
) -> None:
    """Kill the driver as its third block ends: blocks on disk, two or three, are not read again."""
    np.save(tmp_path / "valid.npy", VALID.numpy())
    np.save(tmp_path / "test.npy", TEST.numpy())
    folder = tmp_path / "unfinished"
    script = DRIVER.format(samples=samples.path, images=tmp_path, folder=folder, curve=BLOCK, n=N)
    driver = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=100)
    assert driver.returncode == -signal.SIGKILL, driver.stderr.decode()
    finished = len(list(folder.glob("block-*"))) + 1  # the total holds the first block
    begun = (folder / "begun").stat().st_size
    assert 2 <= finished <= 3

    asked: list[int] = []

    @dataclass
    class Counted:
        n_samples: int = N

        def open(self) -> SampleSource:
            return self

        def block(self, index: int) -> Tensor:
            asked.append(index)
            return samples.open().block(index)

    result = score_samples(Counted(), VALID, TEST, actors=1, curve=[BLOCK], folder=folder)
    assert same_figures(result, in_process_result())
    assert len(asked) == 5 - finished
    assert result.blocks_repeated == begun - finished <= 2  # blocks that the actors were computing


DRIVER = """
import os, signal, time
from dataclasses import dataclass
from pathlib import Path
import numpy as np, ray
from orchestrator.execution.parzen_pool import ArrayFile, score_samples

@dataclass
class Endless:
    samples: ArrayFile
    n_samples: int = {n}

    def open(self):
        return self

    def block(self, index):  # an actor may be far ahead of another on a busy machine
        if index > 2:
            time.sleep(600)
        return self.samples.open().block(index)

ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
valid, test = (np.load(Path("{images}") / f"{{name}}.npy") for name in ("valid", "test"))

def progress(done, total):
    if done == 2:
        os.kill(os.getpid(), signal.SIGKILL)

score_samples(
    Endless(ArrayFile(Path("{samples}"))), valid, test,
    actors=2, curve=[{curve}], progress=progress, folder=Path("{folder}"),
)
"""


@dataclass
class Decoder:
    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return torch.rand(n, 16, generator=generator) @ torch.full((16, DIM), 1 / 16)


@dataclass
class InMemory:
    n_samples: int = 2 * BLOCK

    def open(self) -> SampleSource:
        return ModelSource(Decoder(), 5, self.n_samples)


def test_parzen_same_bits_for_samples_drawn_in_actors() -> None:
    result = score_samples(InMemory(), None, TEST, sigma=0.1, actors=2)
    want = run_protocol(in_process(InMemory().open()), 2 * BLOCK, None, TEST, sigma=0.1)
    assert same_figures(result, want)


@pytest.mark.parametrize("actors", [1, 2, 3])
def test_parzen_same_bits_for_centroids_computed_in_actors(actors: int) -> None:
    x, n = images(3 * BLOCK, 7).numpy(), BLOCK + 123
    found = CentroidSamples(SharedArray.put(x), n)
    assert len(ray.cloudpickle.dumps(found)) < 1000
    with one_thread():
        want = run_protocol(in_process(ArraySource(centroids(x, n))), n, VALID, TEST)
    assert same_figures(score_samples(found, VALID, TEST, actors=actors), want)


def test_parzen_error_in_an_actor_reaches_the_driver(tmp_path: Path) -> None:
    np.save(tmp_path / "narrow.npy", np.zeros((5, DIM - 1)))
    with pytest.raises(DataError, match="samples: 2 pixels per image"):
        score_samples(ArrayFile(tmp_path / "narrow.npy"), VALID, TEST, actors=2)


# -- other jobs --------------------------------------------------------------------------------


class Fragile:
    """An actor that adds a number to shared ones, but fails or dies at some."""

    def __init__(self, shared: np.ndarray, folder: Path) -> None:
        self._shared, self._folder = shared, folder

    def ready(self) -> None: ...

    def score(self, number: int) -> int:
        if number == 2 and not (died := self._folder / "died").exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 9:
            raise DataError("nine is no number")
        if number == 10:
            raise KeyError("ten")
        return int(self._shared.sum()) + number


def test_actors_answer_every_job_once_although_one_of_them_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, sent = ray.put, list[object]()
    monkeypatch.setattr(ray, "put", lambda value: (sent.append(value), put(value))[1])
    shared = (np.ones(1_000), tmp_path)
    jobs = {f"job {n}": (n,) for n in range(5)}
    with ActorPool[str](Fragile, TrialResources(0.5, 0), "add", shared) as actors:
        answers = list(actors.run(3, jobs))
    assert sorted(answers) == [(f"job {n}", 1_000 + n) for n in range(5)]
    assert (tmp_path / "died").exists()
    assert len(sent) == 2  # neither each actor nor the new one gets a copy of its own


@pytest.mark.parametrize(("number", "error"), [(9, DataError), (10, KeyError)])
def test_error_of_a_job_is_raised_as_itself(
    number: int, error: type[Exception], tmp_path: Path
) -> None:
    shared = (np.ones(1), tmp_path)
    pool = ActorPool[int](Fragile, TrialResources(1, 0), "add", shared)
    with pool as actors, pytest.raises(error) as raised:
        list(actors.run(1, {0: (number,)}))
    assert type(raised.value) is error
