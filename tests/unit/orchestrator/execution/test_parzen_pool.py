"""Parzen jobs in one process: finished blocks, stored results, and files of samples."""

from pathlib import Path

import pytest
import ray
import torch
from parzen_job import TEST, VALID, in_process_result, same_figures, saved_samples

from aae_core.evaluation import parzen
from aae_core.evaluation.parzen import BLOCK, ArraySource, ParzenResult
from orchestrator.errors import EnvironmentUnusable, SweepLocked
from orchestrator.execution.parzen_pool import (
    ArrayFile,
    CheckpointSamples,
    score_once,
    score_samples,
)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> ArrayFile:
    return saved_samples(tmp_path_factory.mktemp("samples"))


def test_parzen_in_one_process_has_the_in_process_bits(samples: ArrayFile) -> None:
    seen: list[tuple[int, int]] = []
    result = score_samples(
        samples, VALID, TEST, actors=1, curve=[BLOCK], progress=lambda *at: seen.append(at)
    )
    assert same_figures(result, in_process_result())
    assert result.blocks_repeated == 0
    assert seen == [(done, 5) for done in range(1, 6)]


def test_parzen_damaged_blocks_are_computed_again(tmp_path: Path, samples: ArrayFile) -> None:
    folder = tmp_path / "unfinished"

    def stop(done: int, _total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_samples(samples, VALID, TEST, actors=1, curve=[BLOCK], progress=stop, folder=folder)
    (folder / "block-000001").write_bytes(b"torn")
    (folder / "block-000002").write_bytes(b"")
    result = score_samples(samples, VALID, TEST, actors=1, curve=[BLOCK], folder=folder)
    assert same_figures(result, in_process_result())
    assert result.blocks_repeated == 2


def test_parzen_second_reading_counts_no_repeated_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Force sigma out of its window: blocks of the first reading do not serve the second."""
    samples = saved_samples(tmp_path, 2 * BLOCK)
    want = score_samples(samples, VALID, TEST, actors=1)
    narrow = (parzen.LADDER[-1],)
    monkeypatch.setattr(parzen.Scorer, "window", lambda *_: narrow)
    found = score_samples(samples, VALID, TEST, actors=1, folder=tmp_path / "unfinished")
    assert found.blocks_repeated == 0
    assert (found.sigma, found.sigma_grid) == (want.sigma, want.sigma_grid)
    torch.testing.assert_close(found.per_point, want.per_point, rtol=0, atol=1e-3)
    assert len(list((tmp_path / "unfinished").glob("again-*"))) >= 1


# -- stored results ----------------------------------------------------------------------------


def test_score_once_returns_a_stored_result_without_scoring(
    tmp_path: Path, samples: ArrayFile
) -> None:
    def never(folder: Path) -> ParzenResult:
        raise AssertionError(folder)

    first, known = score_once(tmp_path, samples.content, lambda _: in_process_result())
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


def test_score_once_refuses_samples_that_another_process_scores(
    tmp_path: Path, samples: ArrayFile
) -> None:
    def score(folder: Path) -> ParzenResult:
        with pytest.raises(SweepLocked, match="another process"):
            score_once(tmp_path, samples.content, score)
        return in_process_result()

    score_once(tmp_path, samples.content, score)


# -- files of samples --------------------------------------------------------------------------


def test_sample_sources_pickle_to_under_1000_bytes(samples: ArrayFile) -> None:
    assert isinstance(samples.open(), ArraySource)
    for source in (samples, CheckpointSamples(Path("/somewhere"), seed=1, n_samples=10**7)):
        assert len(ray.cloudpickle.dumps(source)) < 1000
