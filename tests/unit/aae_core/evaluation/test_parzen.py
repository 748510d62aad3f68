import json
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from torch import Tensor

from aae_core.errors import DataError
from aae_core.evaluation import parzen
from aae_core.evaluation.parzen import (
    BLOCK,
    LADDER,
    SIGMA_GRID,
    STEPS,
    ArraySource,
    ModelSource,
    ParzenResult,
    in_process,
    run_protocol,
)

STEP = SIGMA_GRID[1] / SIGMA_GRID[0]
BOUND = 1e-3  # nats


def normal(n: int, dim: int, seed: int) -> Tensor:
    """Return points around ½, spread widely enough for the best σ to lie within the grid."""
    stream = torch.Generator().manual_seed(seed)
    return 0.5 + 0.7 * torch.randn(n, dim, generator=stream, dtype=torch.float64)


def score(samples: Tensor, x_valid: Tensor | None, x_test: Tensor, **options) -> ParzenResult:
    runner = in_process(ArraySource(samples))
    return run_protocol(runner, len(samples), x_valid, x_test, **options)


def brute_force(samples: Tensor, points: Tensor, sigma: float) -> np.ndarray:
    x, s = points.numpy(), samples.numpy()
    d2 = np.stack([((row - s) ** 2).sum(1) for row in x])
    n, dim = s.shape
    sums = logsumexp(-d2 / (2 * sigma**2), axis=1)
    return sums - np.log(n) - dim * np.log(sigma * np.sqrt(2 * np.pi))


@pytest.fixture(scope="module")
def small() -> tuple[Tensor, Tensor, Tensor]:
    return normal(2 * BLOCK + 77, 5, seed=1), normal(60, 5, seed=2), normal(40, 5, seed=3)


@pytest.fixture(scope="module")
def result(small: tuple[Tensor, Tensor, Tensor]) -> ParzenResult:
    return score(*small, curve=[BLOCK, 2 * BLOCK + 77])


def test_parzen_sigma_grid_is_the_published_one() -> None:
    np.testing.assert_allclose(SIGMA_GRID, np.logspace(-1, 0, 10))


def test_parzen_result_agrees_with_brute_force(small, result: ParzenResult) -> None:
    samples, valid, test = small
    want = [brute_force(samples, valid, sigma).mean() for sigma in SIGMA_GRID]
    np.testing.assert_allclose(result.valid_ll, want, rtol=0, atol=BOUND)
    assert result.sigma_grid == SIGMA_GRID[int(np.argmax(want))]
    ll = brute_force(samples, test, result.sigma)
    np.testing.assert_allclose(result.per_point, ll, rtol=0, atol=BOUND)
    assert result.log_likelihood == pytest.approx(ll.mean(), abs=BOUND)
    assert result.standard_error == pytest.approx(ll.std(ddof=1) / math.sqrt(40), abs=BOUND)
    ll = brute_force(samples, test, result.sigma_grid)
    assert result.log_likelihood_grid == pytest.approx(ll.mean(), abs=BOUND)
    assert result.standard_error_grid == pytest.approx(ll.std(ddof=1) / math.sqrt(40), abs=BOUND)


def test_parzen_refined_sigma_is_better_on_validation(small, result: ParzenResult) -> None:
    samples, valid, _ = small
    assert result.sigma != result.sigma_grid
    refined = brute_force(samples, valid, result.sigma).mean()
    assert refined > brute_force(samples, valid, result.sigma_grid).mean()
    assert result.sigma_grid / STEP < result.sigma < result.sigma_grid * STEP


def test_parzen_result_survives_a_json_round_trip(result: ParzenResult) -> None:
    document = result.to_dict()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    again = ParzenResult.from_dict(document, result.per_point)
    assert vars(again) == vars(result)
    assert set(document) == {
        *("n_samples", "n_valid", "n_test", "dim", "blocks", "blocks_repeated", "pairs_scored"),
        *("sigma", "sigma_grid", "sigma_at_edge", "sigmas", "valid_ll"),
        *("log_likelihood", "standard_error", "log_likelihood_grid", "standard_error_grid"),
        *("seconds", "max_abs_error_bound", "curve"),
    }
    assert document["blocks"] == 3
    assert document["pairs_scored"] == (60 + 40) * (2 * BLOCK + 77)
    assert 0 < document["max_abs_error_bound"] < BOUND


def test_parzen_curve_point_equals_a_score_of_its_prefix(small, result: ParzenResult) -> None:
    samples, valid, test = small
    first, last = result.curve
    alone = score(samples[:BLOCK], valid, test)
    assert (first.n_samples, first.sigma) == (BLOCK, pytest.approx(alone.sigma, rel=1e-9))
    assert first.log_likelihood == pytest.approx(alone.log_likelihood, abs=BOUND)
    assert first.standard_error == pytest.approx(alone.standard_error, abs=BOUND)
    assert (last.n_samples, last.sigma) == (result.n_samples, result.sigma)
    assert last.log_likelihood == result.log_likelihood
    for point, want in ((first, alone), (last, result)):
        assert point.sigma_grid == want.sigma_grid
        assert point.log_likelihood_grid == pytest.approx(want.log_likelihood_grid, abs=BOUND)
        assert point.standard_error_grid == pytest.approx(want.standard_error_grid, abs=BOUND)


def test_parzen_result_reads_curves_without_grid_figures(
    result: ParzenResult,
) -> None:
    document = result.to_dict()
    for point in document["curve"]:
        for name in ("log_likelihood_grid", "standard_error_grid", "sigma_grid"):
            del point[name]
    again = ParzenResult.from_dict(document, result.per_point)
    assert [point.log_likelihood_grid for point in again.curve] == [None, None]
    assert [point.sigma for point in again.curve] == [point.sigma for point in result.curve]


def test_parzen_curve_leaves_the_result_unchanged(small, result: ParzenResult) -> None:
    assert score(*small).log_likelihood == pytest.approx(result.log_likelihood, abs=BOUND)


def test_parzen_protocol_reads_each_sample_block_once(small) -> None:
    samples, valid, test = small
    asked: list[int] = []

    class Counted(ArraySource):
        def block(self, index: int) -> Tensor:
            asked.append(index)
            return super().block(index)

    run_protocol(in_process(Counted(samples)), len(samples), valid, test, curve=[BLOCK])
    assert asked == [0, 1, 2]


def test_parzen_finds_a_sigma_that_leaves_its_window() -> None:
    """Test noise in the first block and near points in the second: σ falls below its window."""
    points = normal(30, 4, seed=2)
    near = points.repeat(400, 1)[:BLOCK] + 0.05 * normal(BLOCK, 4, seed=5)
    samples = torch.cat([3 * normal(BLOCK, 4, seed=1), near])
    first = score(samples[:BLOCK], points, points)
    result = score(samples, points, points, curve=[BLOCK])
    want = [brute_force(samples, points, sigma).mean() for sigma in SIGMA_GRID]
    assert result.sigma_grid == SIGMA_GRID[int(np.argmax(want))]
    assert result.sigma_grid < first.sigma_grid / STEP**3
    np.testing.assert_allclose(result.valid_ll, want, atol=BOUND)
    ll = brute_force(samples, points, result.sigma)
    np.testing.assert_allclose(result.per_point, ll, atol=BOUND)
    assert result.curve[0].log_likelihood == pytest.approx(first.log_likelihood, abs=BOUND)


@pytest.mark.parametrize("dim", [1, 5, 200])
@pytest.mark.parametrize("sigma", [1e-3, 0.1, 3.0])
def test_parzen_error_is_within_the_stated_bound(dim: int, sigma: float) -> None:
    samples, test = normal(BLOCK + 500, dim, seed=1), normal(50, dim, seed=3)
    result = score(samples, None, test, sigma=sigma)
    ll = brute_force(samples, test, sigma)
    error = np.abs(result.per_point.numpy() - ll).max()
    rounding = 1e-12 * (1 + np.abs(ll).max())  # rounding of the brute force
    assert error <= result.max_abs_error_bound + rounding
    assert result.max_abs_error_bound < BOUND


def test_parzen_with_given_sigma_skips_the_choice(small) -> None:
    samples, _, test = small
    given = score(samples, None, test, sigma=0.2, curve=[BLOCK])
    assert (given.sigma, given.sigma_grid, given.sigma_at_edge) == (0.2, 0.2, False)
    assert (given.sigmas, given.valid_ll, given.n_valid) == ([], [], 0)
    assert given.log_likelihood == given.log_likelihood_grid
    assert given.pairs_scored == len(samples) * len(test)
    assert given.curve[0].sigma == 0.2
    np.testing.assert_allclose(given.per_point, brute_force(samples, test, 0.2), atol=BOUND)


def test_parzen_of_one_test_point_has_no_standard_error(small) -> None:
    samples, valid, test = small
    assert score(samples, valid, test[:1]).standard_error is None


def test_parzen_chooses_sigma_by_the_first_1000_validation_points() -> None:
    samples, valid, test = normal(50, 2, 1), normal(1200, 2, 2), normal(5, 2, 3)
    both = score(samples, valid, test), score(samples, valid[:1000], test)
    assert both[0].n_valid == both[1].n_valid == 1000
    assert both[0].valid_ll == both[1].valid_ll


@pytest.mark.parametrize(("spread", "edge"), [(0.0, SIGMA_GRID[0]), (30.0, SIGMA_GRID[-1])])
def test_parzen_flags_and_keeps_a_sigma_at_the_grid_edge(spread: float, edge: float) -> None:
    samples, points = spread * normal(20, 2, seed=1), spread * normal(30, 2, seed=2)
    result = score(samples, points[:10], points[10:])
    assert result.sigma_at_edge
    assert result.sigma == result.sigma_grid == edge


def test_parzen_ladder_contains_the_grid() -> None:
    assert LADDER[::STEPS] == SIGMA_GRID
    assert np.allclose(np.diff(np.log(LADDER)), np.log(STEP) / STEPS)


def test_parzen_scales_bytes_and_floats_alike() -> None:
    pixels = torch.randint(0, 256, (300, 6), generator=torch.Generator().manual_seed(0))
    images = pixels.to(torch.uint8).numpy()
    scaled = images / 255
    valid, test = normal(20, 6, 2), normal(20, 6, 3)
    want = score(torch.from_numpy(scaled), valid, test).log_likelihood
    for array, nats in [(images, 1e-12), (scaled.astype(np.float32), 1e-4)]:
        got = run_protocol(in_process(ArraySource(array)), 300, valid, test)
        assert got.log_likelihood == pytest.approx(want, abs=nats)


@dataclass
class Noise:
    dim: int = 3

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return torch.rand(n, self.dim, generator=generator)


def test_model_source_blocks_have_independent_streams() -> None:
    source = ModelSource(Noise(), seed=7, n_samples=2 * BLOCK + 5)
    blocks = [source.block(i) for i in (2, 0, 1)]
    assert [b.shape for b in blocks] == [(5, 3), (BLOCK, 3), (BLOCK, 3)]
    assert torch.equal(source.block(0), blocks[1])
    assert not torch.equal(blocks[1], blocks[2])
    other = ModelSource(Noise(), seed=8, n_samples=BLOCK)
    assert not torch.equal(other.block(0), blocks[1])


def test_parzen_restores_thread_count_and_gives_same_bits(small) -> None:
    samples, valid, test = small
    before = torch.get_num_threads()
    figures = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            figures.append(score(samples[:2000], valid, test).per_point)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*figures)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x_valid": None}, "no validation images"),
        ({"x_valid": torch.zeros(3, 4)}, "validation images: 4 pixels per image"),
        ({"x_valid": torch.zeros(0, 2)}, "validation images: shape"),
        ({"x_test": torch.zeros(3, 2, dtype=torch.int64)}, "test images: type torch.int64"),
        ({"x_test": torch.full((3, 2), math.nan)}, "test images: some pixels are not finite"),
        ({"samples": torch.zeros(3, 4)}, "samples: 4 pixels per image"),
        ({"samples": torch.zeros(0, 2)}, "samples: none"),
        ({"sigma": -0.1}, "sigma: -0.1"),
        ({"curve": [5]}, "curve: 5 samples"),
        ({"curve": [BLOCK]}, f"curve: {BLOCK} samples"),
    ],
)
def test_parzen_rejects_images_sigmas_and_curves_without_a_score(
    options: dict, message: str
) -> None:
    images = {"samples": torch.zeros(9, 2), "x_valid": torch.ones(3, 2), "x_test": torch.ones(3, 2)}
    with pytest.raises(DataError, match=message):
        score(**(images | options))


def test_validation_score_chooses_and_scores_on_different_halves() -> None:
    samples, valid = normal(500, 4, 1), normal(80, 4, 2)
    metrics = parzen.validation_score(samples, valid)
    want = score(samples, valid[:40], valid[40:])
    assert metrics == {
        "parzen_ll": want.log_likelihood_grid,
        "parzen_ll_refined": want.log_likelihood,
        "parzen_se": want.standard_error_grid,
        "parzen_sigma": want.sigma_grid,
    }
    assert parzen.test_score(samples, valid[:40], valid[40:]) == metrics


def test_validation_score_of_two_images_has_no_standard_error() -> None:
    metrics = parzen.validation_score(normal(50, 4, 1), normal(2, 4, 2))
    assert set(metrics) == {"parzen_ll", "parzen_ll_refined", "parzen_sigma"}
