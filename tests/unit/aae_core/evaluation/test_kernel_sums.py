"""Log-sums of kernels against brute force: direct differences in extended precision."""

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Normal

from aae_core.errors import DataError
from aae_core.evaluation import kernel_sums
from aae_core.evaluation.kernel_sums import (
    Arithmetic,
    Cloud,
    KernelSums,
    log_likelihood,
    log_sums,
    nearest_bound,
    reach,
)

WIDE = np.longdouble
EPS, WIDE_EPS = float(np.finfo(float).eps), float(np.finfo(WIDE).eps)
SIGMAS = [0.1, 0.17, 0.3, 1.0]


@pytest.fixture(autouse=True, scope="module")
def as_if_many() -> Iterator[None]:
    """Sum few pairs by the same code paths as many pairs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel_sums, "_FEW", 0)
        yield


def brute_force(points: Tensor, samples: Tensor, sigmas: list[float]) -> Tensor:
    return _brute_force(points, samples, tuple(sigmas))


@lru_cache(maxsize=256)
def _brute_force(points: Tensor, samples: Tensor, sigmas: tuple[float, ...]) -> Tensor:
    x, s = (pixels.double().numpy().astype(WIDE) for pixels in (points, samples))
    d2 = np.stack([((row - s) ** 2).sum(1) for row in x])
    exponents = [-d2 / (2 * WIDE(sigma) ** 2) for sigma in sigmas]
    best = [a.max(1) for a in exponents]
    pairs = zip(exponents, best, strict=True)
    sums = [b + np.log(np.exp(a - b[:, None]).sum(1)) for a, b in pairs]
    return torch.from_numpy(np.stack(sums).astype(float))


def rounding(want: Tensor, m: int, dim: int) -> Tensor:
    """Return the rounding error of the brute force and of its conversion to double."""
    exponents = want.abs() + math.log(m) + 1
    return EPS * want.abs() + (2 * dim + 200) * WIDE_EPS * exponents


def assert_bounded(got: KernelSums, points: Tensor, samples: Tensor, sigmas: list[float]) -> Tensor:
    """Assert the bound and return the error, shape (S, n)."""
    want = brute_force(points, samples, sigmas)
    own = rounding(want, *samples.shape)
    error = (got.log_sums - want).abs()
    assert (error <= got.error_bound + own).all()
    assert (got.least <= want + own).all()
    return error


def draw(n: int, dim: int, seed: int = 0) -> Tensor:
    stream = torch.Generator().manual_seed(seed)
    return torch.rand(n, dim, generator=stream, dtype=torch.float64)


def normal(n: int, dim: int, seed: int = 0) -> Tensor:
    stream = torch.Generator().manual_seed(seed)
    return torch.randn(n, dim, generator=stream, dtype=torch.float64)


def images(n: int, seed: int, dim: int = 784) -> Tensor:
    """Return images near a low-dimensional space, in [0, 1], with many pixels at 0 or 1."""
    plane = normal(8, dim, seed=99) * torch.linspace(1.0, 0.2, 8, dtype=torch.float64)[:, None]
    return (0.3 * normal(n, 8, seed) @ plane + 0.02 * normal(n, dim, seed + 50)).clamp(0, 1)


def clouds(points: Tensor, samples: Tensor) -> tuple[Cloud, Cloud]:
    centre = points.double().mean(0)
    cloud = Cloud.of_points(points, centre)
    return cloud, cloud.of_samples(samples)


def near_sums(points: Tensor, samples: Tensor, sigmas: list[float], share: float) -> KernelSums:
    """Return the sums within the reach that the nearest samples give."""
    cloud, others = clouds(points, samples)
    nearest = nearest_bound(cloud, others)
    least = torch.stack([-nearest / (2 * sigma**2) for sigma in sigmas])
    return kernel_sums.kernel_sums(cloud, others, sigmas, reach(least, sigmas, share))


def total_sums(points: Tensor, samples: Tensor, sigmas: list[float], share: float) -> KernelSums:
    """Return the sums; the sums over the first samples give the reach of the later samples."""
    some = math.ceil(len(samples) / 3)
    cloud, others = clouds(points, samples)
    total = near_sums(points, samples[:some], sigmas, share)
    for rows in (slice(some, 2 * some), slice(2 * some, len(samples))):
        if len(others[rows]):
            limit = reach(total.least, sigmas, share)
            total = total + kernel_sums.kernel_sums(cloud, others[rows], sigmas, limit)
    return total


def assert_within(got: Tensor, want: Tensor, nats: float = 1e-6) -> None:
    torch.testing.assert_close(got, want, rtol=0, atol=nats)


# -- bound --------------------------------------------------------------------------------------


def with_outlier(samples: Tensor, value: float) -> Tensor:
    return torch.cat([samples[:3], torch.full_like(samples[:1], value), samples[3:]])


def beside(far: float) -> tuple[Tensor, Tensor]:
    """Return two clusters of points and two of samples, `far` apart."""
    points, samples = draw(10, 3, seed=1), draw(300, 3, seed=2)
    return torch.cat([points, points + far]), torch.cat([samples, samples + far])


def with_constant_pixels(x: Tensor) -> Tensor:
    return torch.cat([x, torch.full((len(x), 40), 0.1, dtype=x.dtype)], 1)


DATA: dict[str, tuple[Tensor, Tensor]] = {
    "isotropic": (normal(40, 20, 1), normal(1500, 20, 2)),
    "isotropic, many pixels": (normal(40, 300, 1), normal(400, 300, 2)),
    "more tiles than one": (draw(501, 2, 1), draw(1003, 2, 2)),
    "images": (images(70, 1), images(300, 2)),
    "images, fewer than any number of components": (images(9, 1), images(300, 2)),
    "images, one": (images(1, 1), images(300, 2)),
    "images, single precision": (images(40, 1).float(), images(300, 2).float()),
    "samples are the points": (images(40, 1), images(40, 1)),
    "samples are nearly the points": (images(40, 1), images(40, 1) + 1e-8 * normal(40, 784, 3)),
    "duplicates": (images(30, 1).repeat(2, 1), images(30, 1).repeat(5, 1)),
    "constant pixels": (
        with_constant_pixels(draw(30, 3, 1)),
        with_constant_pixels(draw(400, 3, 2)),
    ),
    "all points alike": (draw(1, 200, 1).repeat(20, 1), draw(300, 200, 2)),
    "all points and samples alike": (torch.full((20, 200), 0.1), torch.full((300, 200), 0.1)),
    "one point": (draw(1, 5, 1), draw(200, 5, 2)),
    "one sample": (draw(50, 5, 1), draw(1, 5, 2)),
    "one of each": (draw(1, 1, 1), draw(1, 1, 2)),
    "one pixel": (draw(40, 1, 1), draw(2000, 1, 2)),
    "two pixels": (draw(40, 2, 1), draw(2000, 2, 2)),
    "clusters": beside(30.0),
    "clusters far apart": beside(1e5),
    "an outlier of 1e6": (images(20, 1), with_outlier(images(200, 2), 1e6)),
    "an outlier of 1e20": (images(20, 1), with_outlier(images(200, 2), 1e20)),
    "an outlier of 1e30": (images(20, 1), with_outlier(images(200, 2), 1e30)),
    "an outlying point": (with_outlier(draw(30, 5, 1), 1e12), draw(300, 5, 2)),
    "a point at 1e30": (with_outlier(draw(30, 5, 1), 1e30), draw(300, 5, 2)),
    "samples far away": (draw(30, 5, 1), draw(300, 5, 2) + 1e3),
}
MODERATE = [name for name, pair in DATA.items() if all(x.abs().max() < 1e4 for x in pair)]
SINGLE = [n for n in DATA if kernel_sums._single_holds(*clouds(*DATA[n]), SIGMAS)]
WIDTHS = [SIGMAS, [1e-3, 0.1, 1e3], [1e-6], [1e-30], [1e6], [1e30], [1e-30, 1.0, 1e30]]


@pytest.mark.parametrize("sigmas", WIDTHS, ids=str)
@pytest.mark.parametrize("name", DATA)
def test_kernel_sums_error_within_bound_for_any_width(name: str, sigmas: list[float]) -> None:
    points, samples = DATA[name]
    assert_bounded(log_sums(points, samples, sigmas), points, samples, sigmas)


@pytest.mark.parametrize("share", [0.1, 1e-8])
@pytest.mark.parametrize("sums", [near_sums, total_sums])
@pytest.mark.parametrize("name", DATA)
def test_kernel_sums_error_within_bound_for_any_reach(
    name: str, sums: Callable[..., KernelSums], share: float
) -> None:
    points, samples = DATA[name]
    for sigmas in ([0.1, 0.17], [1e-6], [1e6], [1e-30], [1e30]):
        assert_bounded(sums(points, samples, sigmas, share), points, samples, sigmas)


@pytest.mark.parametrize("kind", Arithmetic)
@pytest.mark.parametrize("name", MODERATE)
def test_kernel_sums_error_within_bound_in_every_arithmetic(
    name: str, kind: Arithmetic, monkeypatch: pytest.MonkeyPatch
) -> None:
    points, samples = DATA[name]
    monkeypatch.setattr(kernel_sums, "_arithmetic", lambda *_: kind)
    got = kernel_sums._over_all(*clouds(points, samples), SIGMAS)
    assert_bounded(got, points, samples, SIGMAS)


@pytest.mark.parametrize("few", [0, 10**9])
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, Arithmetic.DOUBLE) for name in MODERATE),
        *((name, Arithmetic.DIFFERENCE) for name in DATA),
    ],
)
def test_kernel_sums_error_within_bound_for_any_component_count(
    name: str, few: int, kind: Arithmetic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Test products (few = 0) and differences, also with all samples within reach."""
    points, samples = DATA[name]
    monkeypatch.setattr(kernel_sums, "_arithmetic", lambda *_: kind)
    monkeypatch.setattr(kernel_sums, "_FEW_NEAR", few)
    numbers = {1, 16, 128} if points.shape[1] > 128 else {1, points.shape[1]}
    sigmas = SIGMAS[1:3]
    for k in numbers & {*range(clouds(points, samples)[0].basis.shape[1] + 1), points.shape[1]}:
        monkeypatch.setattr(kernel_sums, "_components", lambda *_, k=k: k)
        for share in (0.1, 1e-200):
            got = near_sums(points, samples, sigmas, share)
            assert_bounded(got, points, samples, sigmas)


def _cut(x: Tensor) -> Tensor:
    """Cut factors to the ten mantissa bits that a tensor core takes."""
    return (x.view(torch.int32) & ~0x1FFF).view(torch.float32)


@pytest.mark.parametrize("tile", [(3, 7), (4096, 16384)])
@pytest.mark.parametrize("name", SINGLE)
def test_kernel_sums_error_within_bound_on_tensor_cores(
    name: str, tile: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Test tensor-core arithmetic, emulated on a CPU."""

    def product(x: Tensor, s: Tensor, out: Tensor) -> None:
        torch.mm(_cut(x), _cut(s).T, out=out)

    monkeypatch.setattr(kernel_sums, "_on_gpu", lambda _: True)
    monkeypatch.setattr(kernel_sums, "_tensor_core_product", product)
    monkeypatch.setattr(kernel_sums, "_GPU_ROWS", tile[0])
    monkeypatch.setattr(kernel_sums, "_GPU_COLUMNS", tile[1])
    points, samples = DATA[name]
    basis = clouds(points, samples)[0].basis.shape[1]
    for k in {min(16, basis), points.shape[1]}:
        monkeypatch.setattr(kernel_sums, "_components", lambda *_, k=k: k)
        for share in (0.1, 1e-8):
            assert_bounded(
                near_sums(points, samples, SIGMAS[:2], share), points, samples, SIGMAS[:2]
            )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", DATA)
def test_kernel_sums_error_within_bound_on_a_gpu(name: str) -> None:
    points, samples = (pixels.cuda() for pixels in DATA[name])
    for sums in (near_sums, total_sums):
        got = sums(points, samples, SIGMAS, 1e-6)
        on_cpu = KernelSums(got.log_sums.cpu(), got.log_errors.cpu())
        assert_bounded(on_cpu, *DATA[name], SIGMAS)


def test_kernel_sums_choose_every_code_path_on_some_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Test that some data make the code choose each path that the tests above force."""
    taken: set[int | Arithmetic | None] = set()
    choose, arithmetic = kernel_sums._components, kernel_sums._arithmetic

    def components(*args: Any) -> int | None:
        taken.add(k := choose(*args))
        return k

    def kind(*args: Any) -> Arithmetic:
        taken.add(found := arithmetic(*args))
        return found

    monkeypatch.setattr(kernel_sums, "_components", components)
    monkeypatch.setattr(kernel_sums, "_arithmetic", kind)
    near_sums(*DATA["images"], [1e-3], 1e-6)
    near_sums(*DATA["one pixel"], [1e-3], 1e-6)
    log_sums(*DATA["images"], [1.0])
    log_sums(*DATA["clusters far apart"], SIGMAS)
    assert taken >= {None, 1, *Arithmetic}
    assert taken & {16, 32, 48, 64}


@settings(max_examples=100, deadline=None)
@given(
    st.tuples(st.integers(1, 30), st.integers(1, 60), st.integers(1, 90)),
    st.floats(-25, 25),
    st.floats(-3, 3),
    st.floats(-3, 12),
    st.sampled_from([None, 0.1, 1e-6]),
    st.integers(0, 2**32),
)
def test_kernel_sums_error_within_bound_at_any_scale(
    sizes: tuple[int, int, int],
    log_scale: float,
    log_sigma: float,
    log_offset: float,
    share: float | None,
    seed: int,
) -> None:
    """Test with half of the points and samples an offset away from the other half."""
    n, m, dim = sizes
    scale = 10.0**log_scale
    sigma = min(max(scale * 10.0**log_sigma, 1e-30), 1e30)
    points, samples = draw(n, dim, seed), draw(m, dim, seed + 1)
    for pixels in (points, samples):
        pixels[::2] += min(10.0**log_offset, 1e29 / scale)
    points, samples = scale * points, scale * samples
    got = log_sums(points, samples, [sigma])
    if share is not None:
        got = near_sums(points, samples, [sigma], share)
    assert_bounded(got, points, samples, [sigma])


@pytest.mark.parametrize("dim", [1, 3, 784])
@pytest.mark.parametrize("share", [0.1, 0.01])
def test_kernel_sums_bound_includes_samples_beyond_reach(
    dim: int, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Test samples just beyond reach, whose terms are nearly as large as the bound assumes."""
    sigma, n, others = 0.5, 16 if dim == 784 else 1, round(0.5 / share)
    radius = sigma * math.sqrt(-2 * math.log(share)) * 1.001
    points = 2 / 28 * normal(n, dim)
    directions = torch.nn.functional.normalize(normal(others, dim, 3))
    shells = (points[:, None] + radius * directions).flatten(0, 1)
    samples = torch.cat([points, shells])
    monkeypatch.setattr(kernel_sums, "_components", lambda *_: 16 if dim == 784 else dim)
    cloud, cloud_of_samples = clouds(points, samples)
    limit = reach(torch.zeros(1, len(points), dtype=torch.float64), [sigma], share)
    got = kernel_sums.kernel_sums(cloud, cloud_of_samples, [sigma], limit)
    error = assert_bounded(got, points, samples, [sigma])
    assert error.min() > 0.3
    missing = brute_force(points, samples, [sigma]).expm1().log()
    far = (len(samples) - 1) / others  # the bound takes all dropped samples as equally far
    assert (got.log_errors <= missing + math.log(far) + 0.05).all()
    assert (got.log_errors >= missing).all()


def test_kernel_sums_without_samples_within_reach_have_infinite_bound() -> None:
    points, samples = draw(20, 3, 1), draw(2000, 3, 2) + 100
    cloud, others = clouds(points, samples)
    got = kernel_sums.kernel_sums(cloud, others, [0.1], torch.full((20,), 1.0).double())
    assert (got.log_sums == -math.inf).all()
    assert (got.least == -math.inf).all()
    assert (got.error_bound == math.inf).all()
    known = log_sums(points, points, [0.1])
    assert_bounded(known + got, points, torch.cat([points, samples]), [0.1])


def test_kernel_sums_error_within_bound_when_some_tiles_are_beyond_reach() -> None:
    points, samples = draw(600, 3, 1), draw(2500, 3, 2)
    points[500:] += 50
    samples[:1100] += 50
    samples[1500:] += 20
    assert_bounded(near_sums(points, samples, [0.05], 1e-6), points, samples, [0.05])


def test_kernel_sums_of_many_terms_round_within_the_bound() -> None:
    """Test equal terms, whose rounding errors are alike; the probe meets only far samples."""
    points, sigma = torch.zeros(1, 3, dtype=torch.float64), 1.0
    for log_term in torch.linspace(-2.0, -0.01, 12).tolist():
        samples = torch.zeros(40_001, 3, dtype=torch.float64)
        samples[:, 0] = sigma * math.sqrt(-2 * log_term)
        samples[1] = 0
        samples[:: math.ceil(len(samples) / 500)] = 100
        cloud, others = clouds(points, samples)
        limit = torch.full((1,), 100.0, dtype=torch.float64)
        got = kernel_sums.kernel_sums(cloud, others, [sigma], limit)
        assert_bounded(got, points, samples, [sigma])


def test_kernel_sums_least_subtracts_the_error() -> None:
    sums = KernelSums(torch.tensor([[0.0, 3.0, -5.0]]), torch.tensor([[-1.0, 4.0, -math.inf]]))
    assert_within(sums.least, torch.tensor([[math.log1p(-math.exp(-1)), -math.inf, -5.0]]))
    assert_within(sums.error_bound, sums.log_sums - sums.least)


@pytest.mark.parametrize("sigmas", [SIGMAS, [0.17]])
def test_kernel_sums_bound_is_small_for_images(sigmas: list[float]) -> None:
    points, samples = DATA["images"]
    share = 5e-4 / len(samples)
    for got in (log_sums(points, samples, sigmas), near_sums(points, samples, sigmas, share)):
        assert got.error_bound.max() < 1e-3


def test_kernel_sums_bound_ignores_a_far_sample() -> None:
    points, samples = draw(10, 4, seed=1), draw(20, 4, seed=2)
    samples[3] = 1e6
    assert log_sums(points, samples, [0.1]).error_bound.max() < 1e-3


# -- reach --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DATA)
def test_nearest_distance_is_within_its_bound(name: str) -> None:
    points, samples = DATA[name]
    x, s = points.double(), samples.double()
    nearest = torch.stack([(row - s).square().sum(1).min() for row in x])
    assert (nearest <= nearest_bound(*clouds(points, samples))).all()


def test_reach_limits_terms_beyond_it_to_the_given_share() -> None:
    least = torch.tensor([[-300.0, -2.0, 5.0], [-90.0, -1.0, 6.0]], dtype=torch.float64)
    sigmas = [0.1, 0.2]
    beyond = reach(least, sigmas, 1e-3) * (1 + 1e-12)
    shares = torch.stack([-beyond / (2 * sigma**2) for sigma in sigmas]) - least
    assert (shares < math.log(1e-3)).all()
    assert_within(shares.amax(0), torch.full((3,), math.log(1e-3), dtype=torch.float64))


# -- laws ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "m", "dim"), [(1, 1, 1), (1, 7, 3), (5, 1, 2), (501, 1003, 4), (20, 1500, 784)]
)
def test_kernel_sums_agree_with_brute_force(n: int, m: int, dim: int) -> None:
    sigmas = [0.01, 0.1, 0.3, 1.0, 10.0]
    points, samples = draw(n, dim, seed=1), draw(m, dim, seed=2)
    got = log_sums(points, samples, sigmas).log_sums
    assert got.dtype == torch.float64
    assert_within(got, brute_force(points, samples, sigmas), 1e-4)


@pytest.mark.parametrize("name", DATA)
def test_kernel_sums_same_bits_when_repeated(name: str) -> None:
    points, samples = DATA[name]
    runs = [
        (log_sums(points, samples, SIGMAS), total_sums(points, samples, [0.1, 0.17], 1e-6))
        for _ in range(2)
    ]
    for first, again in zip(*runs, strict=True):
        torch.testing.assert_close(vars(again), vars(first), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("share", [0.1, 1e-6])
@pytest.mark.parametrize("name", MODERATE)
def test_kernel_sums_of_parts_add_up_to_the_whole(name: str, share: float) -> None:
    points, samples = DATA[name]
    whole, parts = log_sums(points, samples, SIGMAS), total_sums(points, samples, SIGMAS, share)
    apart = (parts.log_sums - whole.log_sums).abs()
    assert (apart <= whole.error_bound + parts.error_bound).all()


@pytest.mark.parametrize("log2_scale", [-90, -80, -70, -40, 40, 70, 80, 90])
@pytest.mark.parametrize("dim", [2, 200])
def test_kernel_sums_same_at_any_unit_of_length(dim: int, log2_scale: int) -> None:
    points, samples, sigmas = draw(120, dim, 1), draw(600, dim, 2), [0.1, 0.2]
    want = brute_force(points, samples, sigmas)
    scale = 2.0**log2_scale
    scaled = scale * points, scale * samples, [scale * sigma for sigma in sigmas]
    assert_within(log_sums(*scaled).log_sums, want, 1e-3)
    assert_within(near_sums(*scaled, 1e-9).log_sums, want, 1e-3)


def test_kernel_sum_of_one_sample_is_the_gaussian_density() -> None:
    x = torch.tensor([[0.3, -1.2], [4.0, 0.0]], dtype=torch.float64)
    sums = log_sums(x, torch.zeros(1, 2), [0.7]).log_sums
    want = Normal(0.0, 0.7).log_prob(x).sum(-1)
    assert_within(log_likelihood(sums[0], 1, 2, 0.7), want, 1e-4)


@pytest.mark.parametrize("sigma", [0.05, 0.5, 5.0])
def test_kernel_density_integrates_to_one(sigma: float) -> None:
    samples = draw(50, 1)
    x = torch.linspace(-8 * sigma, 1 + 8 * sigma, 5001, dtype=torch.float64)[:, None]
    ll = log_likelihood(log_sums(x, samples, [sigma]).log_sums[0], 50, 1, sigma)
    assert torch.trapezoid(ll.exp(), x[:, 0]).item() == pytest.approx(1, abs=1e-6)


def test_kernel_sums_unchanged_by_translation() -> None:
    points, samples, sigmas = draw(40, 6, seed=1), draw(70, 6, seed=2), [0.05, 1.0]
    here = log_sums(points, samples, sigmas)
    there = log_sums(points + 64, samples + 64, sigmas)
    assert ((there.log_sums - here.log_sums).abs() <= here.error_bound + there.error_bound).all()


def test_kernel_sums_unchanged_by_order_of_points_or_samples() -> None:
    points, samples, sigmas = draw(40, 6, seed=1), draw(1200, 6, seed=2), [0.05, 1.0]
    want = log_sums(points, samples, sigmas).log_sums
    assert_within(log_sums(points, samples.flip(0), sigmas).log_sums, want, 1e-4)
    assert_within(log_sums(points.flip(0), samples, sigmas).log_sums.flip(1), want, 1e-4)


def test_kernel_sums_count_each_duplicate_sample() -> None:
    points = draw(30, 784)
    sums = log_sums(points, points.repeat(3, 1), [0.01, 1e-6]).log_sums
    assert_within(sums, torch.full_like(sums, math.log(3)))


def test_kernel_sums_unchanged_by_constant_pixels() -> None:
    points, samples = draw(20, 3, seed=1), draw(30, 3, seed=2)
    wide = log_sums(with_constant_pixels(points), with_constant_pixels(samples), [0.02])
    assert_within(wide.log_sums, log_sums(points, samples, [0.02]).log_sums, 1e-4)


def test_kernel_sums_of_far_points_stay_finite() -> None:
    points, samples = torch.tensor([[0.0], [1e20]]), torch.tensor([[0.5], [-1e25]])
    sums = log_sums(points.double(), samples.double(), [0.01]).log_sums
    assert sums.isfinite().all()
    assert sums[0, 1].item() == pytest.approx(-0.5 * (1e20 / 0.01) ** 2, rel=1e-6)


@pytest.mark.parametrize(
    ("points", "samples", "sigma", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 4), 1.0, "samples: 4 pixels per image"),
        (torch.zeros(0, 3), torch.zeros(2, 3), 1.0, r"points: shape \(0, 3\)"),
        (torch.zeros(2, 3), torch.zeros(0, 3), 1.0, r"samples: shape \(0, 3\)"),
        (torch.zeros(3), torch.zeros(2, 3), 1.0, r"points: shape \(3,\)"),
        (torch.zeros(2, 1), torch.tensor([[math.nan]]), 1.0, "samples: some pixels are not"),
        (torch.tensor([[math.inf]]), torch.zeros(2, 1), 1.0, "points: some pixels are not"),
        (torch.zeros(2, 1), torch.tensor([[1e31]]), 1.0, "samples: .* larger than 1e\\+30"),
        (torch.zeros(2, 1), torch.zeros(2, 1), 0.0, "sigma: 0.0"),
        (torch.zeros(2, 1), torch.zeros(2, 1), -1.0, "sigma: -1.0"),
        (torch.zeros(2, 1), torch.zeros(2, 1), math.nan, "sigma: nan"),
        (torch.zeros(2, 1), torch.zeros(2, 1), 1e31, "sigma: 1e\\+31"),
    ],
)
def test_kernel_sums_reject_images_or_widths_without_a_score(
    points: Tensor, samples: Tensor, sigma: float, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        log_sums(points, samples, [sigma])
