"""Parzen jobs: the bits of the in-process runner for any number of actors and after any kill."""

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
from torch import Tensor

from aae_core.errors import DataError
from aae_core.evaluation import parzen
from aae_core.evaluation.controls import centroids
from aae_core.evaluation.parzen import (
    BLOCK,
    ArraySource,
    ModelSource,
    ParzenResult,
    SampleSource,
    in_process,
    run_protocol,
)
from orchestrator.errors import EnvironmentUnusable, SweepError, SweepLocked
from orchestrator.execution import hangs
from orchestrator.execution.parzen_pool import (
    ArrayFile,
    CentroidSamples,
    CheckpointSamples,
    SharedArray,
    score_once,
    score_samples,
)

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import tests

N = 4 * BLOCK + 123
DIM = 3


def images(n: int, seed: int) -> Tensor:
    return torch.rand(n, DIM, generator=torch.Generator().manual_seed(seed))


VALID, TEST = images(30, 1), images(40, 2)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> ArrayFile:
    path = tmp_path_factory.mktemp("samples") / "samples.npy"
    np.save(path, images(N, 0).numpy())
    return ArrayFile(path)


@pytest.fixture(scope="module")
def in_process_result(samples: ArrayFile) -> ParzenResult:
    return run_protocol(in_process(samples.open()), N, VALID, TEST, curve=[BLOCK])


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


def same_figures(got: ParzenResult, want: ParzenResult) -> bool:
    differ = {"seconds", "blocks_repeated"}
    documents = [{k: v for k, v in r.to_dict().items() if k not in differ} for r in (got, want)]
    same_points = torch.equal(got.per_point, want.per_point)
    return documents[0] == documents[1] and got.curve == want.curve and same_points


@pytest.mark.parametrize("actors", [1, 2, 3])  # 3 exceeds the number of CPUs
def test_parzen_same_bits_for_any_actor_count(
    actors: int, samples: ArrayFile, in_process_result: ParzenResult
) -> None:
    seen: list[tuple[int, int]] = []
    result = score_samples(
        samples,
        VALID,
        TEST,
        actors=actors,
        curve=[BLOCK],
        progress=lambda done, total: seen.append((done, total)),
    )
    assert same_figures(result, in_process_result)
    assert result.blocks_repeated == 0
    assert seen == [(done, 5) for done in range(1, 6)]


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGSTOP])
def test_parzen_killed_or_stopped_actor_costs_one_block(
    by: int,
    tmp_path: Path,
    samples: ArrayFile,
    in_process_result: ParzenResult,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hangs, "LEAST_PATIENCE", 3.0)
    deadly = Deadly(samples.open(), tmp_path, lives=1, by=by)
    result = score_samples(deadly, VALID, TEST, actors=2, curve=[BLOCK])
    assert result.blocks_repeated == 1
    assert same_figures(result, in_process_result)


def test_parzen_block_that_always_kills_ends_the_job(tmp_path: Path, samples: ArrayFile) -> None:
    deadly = Deadly(samples.open(), tmp_path, lives=99)
    with pytest.raises(SweepError, match="block 2: lost 3 actors in a row"):
        score_samples(deadly, VALID, TEST, actors=2)


def test_parzen_resume_after_driver_kill_computes_no_finished_block(
    tmp_path: Path, samples: ArrayFile, in_process_result: ParzenResult
) -> None:
    """Kill the driver as its third block ends: blocks on disk, two or three, are not read again."""
    np.save(tmp_path / "valid.npy", VALID.numpy())
    np.save(tmp_path / "test.npy", TEST.numpy())
    folder = tmp_path / "unfinished"
    script = DRIVER.format(samples=samples.path, images=tmp_path, folder=folder, curve=BLOCK)
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
    assert same_figures(result, in_process_result)
    assert len(asked) == 5 - finished
    assert result.blocks_repeated == begun - finished <= 2  # blocks that the actors were computing


DRIVER = """
import os, signal
from pathlib import Path
import numpy as np, ray
from orchestrator.execution.parzen_pool import ArrayFile, score_samples

ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
valid, test = (np.load(Path("{images}") / f"{{name}}.npy") for name in ("valid", "test"))

def progress(done, total):
    if done == 2:
        os.kill(os.getpid(), signal.SIGKILL)

score_samples(
    ArrayFile(Path("{samples}")), valid, test,
    actors=2, curve=[{curve}], progress=progress, folder=Path("{folder}"),
)
"""


def test_parzen_damaged_blocks_are_computed_again(
    tmp_path: Path, samples: ArrayFile, in_process_result: ParzenResult
) -> None:
    folder = tmp_path / "unfinished"

    def stop(done: int, _total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_samples(samples, VALID, TEST, actors=1, curve=[BLOCK], progress=stop, folder=folder)
    (folder / "block-000001").write_bytes(b"torn")
    (folder / "block-000002").write_bytes(b"")
    result = score_samples(samples, VALID, TEST, actors=1, curve=[BLOCK], folder=folder)
    assert same_figures(result, in_process_result)
    assert result.blocks_repeated == 2


def test_score_once_returns_a_stored_result_without_scoring(
    tmp_path: Path, samples: ArrayFile
) -> None:
    def score(folder: Path) -> ParzenResult:
        return score_samples(samples, VALID, TEST, actors=1, curve=[BLOCK], folder=folder)

    def never(folder: Path) -> ParzenResult:
        raise AssertionError(folder)

    first, known = score_once(tmp_path, samples.content, score)
    assert not known
    again, known = score_once(tmp_path, samples.content, never)
    assert known
    assert vars(again) | {"per_point": 0} == vars(first) | {"per_point": 0}
    assert torch.equal(again.per_point, first.per_point)


def test_score_once_replaces_a_damaged_result(tmp_path: Path, samples: ArrayFile) -> None:
    def score(folder: Path) -> ParzenResult:
        return score_samples(samples, VALID, TEST, actors=1, sigma=0.2, folder=folder)

    first, _ = score_once(tmp_path, samples.content, score)
    [tensors] = tmp_path.glob("*/tensors.safetensors")
    tensors.write_bytes(b"torn")
    again, known = score_once(tmp_path, samples.content, score)
    assert not known
    assert torch.equal(again.per_point, first.per_point)
    assert not list(tmp_path.glob("parzen/*.unfinished"))


def test_score_once_in_unwritable_home_names_aae_home(tmp_path: Path, samples: ArrayFile) -> None:
    (tmp_path / "home").touch()
    with pytest.raises(EnvironmentUnusable, match="set AAE_HOME"):
        score_once(tmp_path / "home", samples.content, lambda _: pytest.fail("scored"))


def test_parzen_second_reading_counts_no_repeated_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, samples: ArrayFile
) -> None:
    """Force sigma out of its window: blocks of the first reading do not serve the second."""
    want = score_samples(samples, VALID, TEST, actors=1)
    narrow = (parzen.LADDER[-1],)
    monkeypatch.setattr(parzen.Scorer, "window", lambda *_: narrow)
    found = score_samples(samples, VALID, TEST, actors=1, folder=tmp_path / "unfinished")
    assert found.blocks_repeated == 0
    assert (found.sigma, found.sigma_grid) == (want.sigma, want.sigma_grid)
    torch.testing.assert_close(found.per_point, want.per_point, rtol=0, atol=1e-3)
    assert len(list((tmp_path / "unfinished").glob("again-*"))) >= 1


def test_score_once_refuses_samples_that_another_process_scores(
    tmp_path: Path, samples: ArrayFile
) -> None:
    def score(folder: Path) -> ParzenResult:
        with pytest.raises(SweepLocked, match="another process"):
            score_once(tmp_path, samples.content, score)
        return score_samples(samples, VALID, TEST, actors=1, sigma=0.2, folder=folder)

    score_once(tmp_path, samples.content, score)


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
    with parzen.one_thread():
        want = run_protocol(in_process(ArraySource(centroids(x, n))), n, VALID, TEST)
    assert same_figures(score_samples(found, VALID, TEST, actors=actors), want)


def test_parzen_errors_of_samples_reach_the_driver(tmp_path: Path) -> None:
    np.save(tmp_path / "narrow.npy", np.zeros((5, DIM - 1)))
    with pytest.raises(DataError, match="samples: 2 pixels an image"):
        score_samples(ArrayFile(tmp_path / "narrow.npy"), VALID, TEST, actors=1)


def test_sample_sources_pickle_to_under_1000_bytes(samples: ArrayFile) -> None:
    assert isinstance(samples.open(), ArraySource)
    for source in (samples, CheckpointSamples(Path("/somewhere"), seed=1, n_samples=10**7)):
        assert len(ray.cloudpickle.dumps(source)) < 1000
