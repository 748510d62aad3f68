"""Compare the speed of our Parzen likelihood with brute force and other libraries.

    python benchmarks/parzen.py [CHECKPOINT] [--samples 1000000] [--rivals] [--growth] [--actors]

Samples come from a checkpoint, points are MNIST's test images. Without a checkpoint, a random
decoder with MNIST's shape and spectrum generates both. Engine and brute force get the same arrays
and alternate block by block, since machines are noisy. Only the ratio matters. Drawing is not
timed. The engine uses one thread; `--threads` applies to brute force and the matrix product.
"""

import argparse
import importlib
import importlib.util
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from timeit import repeat
from typing import Any

import numpy as np
import torch
from publishing import publish
from torch import Tensor

import aae_core
from aae_core.config import DataConfig
from aae_core.data import load_test_data, unit_interval
from aae_core.evaluation import parzen
from aae_core.models import Samples
from orchestrator.execution import cluster
from orchestrator.settings import Settings

_SIZES = (10_000, 100_000, 1_000_000)
_BRUTE = 20  # blocks at most for brute force
_TILES = ((250, 500), (500, 1_000), (1_000, 1_000), (1_000, 2_000), (2_000, 2_000))
_LEAST = -80.0  # exponent; smaller terms add nothing, and denormal numbers are slow
_CHECKED = 300  # points compared with double precision
_SECONDS = 5.0  # of matrix products for --actors
_ROUNDS = 2  # of one and of two processes, alternating; the best of each counts

Report = dict[str, Any]


class Surrogate:
    """A decoder with MNIST's shape and roughly its spectrum: variances i^−1.2, 52.7 in total.

    A coordinate is a wave of the code, √2 cos(z·w_i + b_i), z ~ N(0, I) in 8 dimensions. A sample
    uses the first 64 coordinates. A point has noise along the others, since data leave a manifold.
    """

    pixels, rank = 784, 64

    def __init__(self) -> None:
        stream = torch.Generator().manual_seed(0)
        variances = torch.arange(1.0, self.pixels + 1) ** -1.2
        lengths = (variances * 52.7 / variances.sum()).sqrt()
        axes = torch.linalg.qr(torch.randn(self.pixels, self.pixels, generator=stream)).Q
        self.along, self.off = (lengths[:, None] * axes).tensor_split([self.rank])
        self.waves = torch.randn(8, self.rank, generator=stream) / 2
        self.phases = 2 * math.pi * torch.rand(self.rank, generator=stream)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        z = torch.randn(n, len(self.waves), generator=generator)
        waves = torch.cos(z @ self.waves + self.phases)
        return torch.addmm(torch.tensor(0.5), waves, self.along, alpha=math.sqrt(2))

    def points(self, n: int) -> Tensor:
        stream = torch.Generator().manual_seed(1)
        noise = torch.randn(n, len(self.off), generator=stream)
        return torch.addmm(self.sample(n, generator=stream), noise, self.off)


@dataclass(frozen=True)
class Draws:
    """A recipe for N samples of a checkpoint or the surrogate, small enough to send to actors."""

    checkpoint: Path | None
    n_samples: int

    def open(self) -> parzen.SampleSource:
        model = Surrogate() if self.checkpoint is None else aae_core.load(self.checkpoint)
        if not isinstance(model, Surrogate | Samples):
            raise SystemExit(f"{self.checkpoint}: a {model.kind} draws no images")
        return parzen.ModelSource(model, 0, self.n_samples)


def points_for(checkpoint: Path | None, n: int) -> Tensor:
    if checkpoint is None:
        return Surrogate().points(n)
    test = load_test_data(DataConfig("mnist"), Settings.from_environment().data)
    return torch.from_numpy(unit_interval(test.x[:n]))


# -- log Σ_j exp(−‖x − s_j‖² / 2σ²), (n, D), (m, D) -> (n,) ---------------------------------------


def brute_force(x: Tensor, samples: Tensor, sigma: float, tile: tuple[int, int]) -> Tensor:
    """Return the log-sums over all pairs in single precision."""
    rate, columns = 0.5 / sigma**2, samples.split(tile[1])
    halves = [-rate * s.square().sum(1) for s in columns]

    def part(rows: Tensor, s: Tensor, half: Tensor) -> Tensor:
        scores = torch.addmm(half, rows, s.T, alpha=2 * rate)
        best = scores.amax(1)  # torch.logsumexp is ten times slower if most terms vanish
        return scores.sub_(best[:, None]).clamp_(min=_LEAST).exp_().sum(1).log_().add_(best)

    def over(rows: Tensor) -> Tensor:
        parts = [part(rows, s, half) for s, half in zip(columns, halves, strict=True)]
        return torch.stack(parts).logsumexp(0)

    return torch.cat([over(rows) for rows in x.split(tile[0])]) - rate * x.square().sum(1)


def fastest_tile(x: Tensor, samples: Tensor, sigma: float) -> tuple[int, int]:
    x, samples = x[: _TILES[-1][0]], samples[: _TILES[-1][1]]

    def seconds(tile: tuple[int, int]) -> float:
        return min(repeat(lambda: brute_force(x, samples, sigma, tile), number=1, repeat=3))

    return min(_TILES, key=seconds)


def product(x: Tensor, samples: Tensor) -> None:
    """Compute only the matrix product over all pairs."""
    out = torch.empty(1_000, 1_000)
    for rows in x.split(1_000):
        for s in samples.split(1_000):
            torch.mm(rows, s.T, out=out[: len(rows), : len(s)])


def direct(points: Tensor, samples: Tensor, sigma: float) -> Tensor:
    """Return the log-sums from differences in double precision."""
    x, parts = points.double(), []
    for s in samples.double().split(1_000):
        distances = torch.cdist(x, s, compute_mode="donot_use_mm_for_euclid_dist")
        parts.append((-0.5 * (distances / sigma).square()).logsumexp(1))
    return torch.stack(parts).logsumexp(0)


def log_constant(n_samples: int, pixels: int, sigma: float) -> float:
    """Return log-sum minus log-likelihood."""
    return math.log(n_samples) + pixels * math.log(sigma * math.sqrt(2 * math.pi))


def apart(x: Tensor, y: Tensor) -> float:
    return float((x - y).abs().max())


# -- engine and brute force ---------------------------------------------------------------------


def compare(draws: Draws, points: Tensor, sigma: float, threads: int, rss: float) -> Report:
    source, n, pixels = draws.open(), draws.n_samples, points.shape[1]
    blocks = parzen.block_count(n)
    every = math.ceil(blocks / _BRUTE)
    checked = torch.arange(0, len(points), math.ceil(len(points) / _CHECKED))
    seconds: defaultdict[str, float] = defaultdict(float)
    exact, rough = [], []

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        seconds[name] += time.perf_counter() - began

    def run(scorer: parzen.Scorer, window: parzen.Window, todo: range) -> Iterator[parzen.Sums]:
        for index in todo:
            with timed("drawing"):
                samples = source.block(index)
            with timed("checking"):
                exact.append(direct(points[checked], samples, sigma))
            sums = scorer.score(parzen.ArraySource(samples), 0, window)
            torch.set_num_threads(threads)
            if index % every == 0:
                with timed("brute force"):
                    rough.append(brute_force(points, samples, sigma, tile)[checked])
                with timed("product"):
                    product(points, samples)
            yield sums

    torch.set_num_threads(threads)
    tile = fastest_tile(points, source.block(0), sigma)
    result = parzen.run_protocol(run, n, None, points, sigma=sigma)
    engine = result.seconds - sum(seconds.values())  # includes the rest of the protocol
    scale = blocks / len(rough)
    brute, alone = seconds["brute force"] * scale, seconds["product"] * scale
    log_sums = result.per_point[checked] + log_constant(n, pixels, sigma)
    rough_sums = torch.stack(rough).double().logsumexp(0)
    return {
        "samples": n,
        "points": len(points),
        "sigma": sigma,
        "engine_s": engine,
        "brute_force_s": brute,
        "ratio": engine / brute,
        "engine_pairs_per_s": n * len(points) / engine,
        "engine_s_per_million": engine / n * 1e6,
        "engine_error": apart(log_sums, torch.stack(exact).logsumexp(0)),
        "engine_error_bound": result.max_abs_error_bound,
        "brute_force_error": apart(rough_sums, torch.stack(exact[::every]).logsumexp(0)),
        "brute_force_ran_on": "all blocks" if every == 1 else f"1 block in {every}, extrapolated",
        "brute_force_tile": list(tile),
        "brute_force_threads": threads,
        "product_gflops": 2e-9 * n * len(points) * pixels / alone,
        "brute_force_share_of_product": alone / brute,
        "drawing_s": seconds["drawing"],
        "peak_memory_growth_mib": resident("VmHWM") - rss,  # of the whole process
    }


def resident(kind: str) -> float:
    """Return this process's memory in MiB: VmRSS is current, VmHWM the peak."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{kind}:")[2].split()[0]) / 1024


# -- other libraries ----------------------------------------------------------------------------


def rivals(x: Tensor, samples: Tensor, sigma: float, engine_s: float) -> Report:
    """Return seconds, ratio to ours and largest error in nats per library, or why it cannot run."""
    from sklearn.neighbors import KernelDensity

    exact = direct(x[:_CHECKED], samples, sigma)
    constant = log_constant(len(samples), x.shape[1], sigma)
    found: Report = {"SciPy gaussian_kde": why_no_gaussian_kde(samples, sigma)}

    def measure(name: str, log_sums: Callable[[], Tensor]) -> None:
        began = time.perf_counter()
        error = apart(log_sums()[:_CHECKED], exact)
        took = time.perf_counter() - began
        found[name] = {"seconds": took, "times_ours": took / engine_s, "error": error}

    # one leaf: in so many dimensions, bounds over smaller leaves are wrong by many nats
    density = KernelDensity(bandwidth=sigma, metric="euclidean", leaf_size=len(samples))
    density.fit(samples.double().numpy())
    measure(
        "scikit-learn KernelDensity",
        lambda: torch.from_numpy(density.score_samples(x.double().numpy())) + constant,
    )
    if importlib.util.find_spec("pykeops") is not None:
        lazy = importlib.import_module("pykeops.torch").LazyTensor
        log_terms = (-0.5 / sigma**2) * lazy(x[:, None]).sqdist(lazy(samples[None]))
        for _ in range(2):  # the first call compiles
            measure("KeOps", lambda: log_terms.logsumexp(dim=1)[:, 0])
    return found


def why_no_gaussian_kde(samples: Tensor, sigma: float) -> str:
    from scipy.stats import gaussian_kde

    try:
        gaussian_kde(samples.double().numpy().T, bw_method=sigma)
    except np.linalg.LinAlgError as error:
        return f"fails: {str(error).partition('. ')[0]}"
    return "no rival: its kernels have the samples' covariance, not σ²I"


# -- two processes ------------------------------------------------------------------------------


def actors(draws: Draws, points: Tensor, sigma: float) -> Report:
    """Return the gain of two processes over one, for the engine with drawing and for products."""
    with cluster.connected(Settings.from_environment()):
        import ray

        from orchestrator.execution.parzen_pool import ParzenPool

        def engine(processes: int) -> float:
            with ParzenPool(processes) as pool:
                for n in (10 * parzen.BLOCK, draws.n_samples):  # the first while actors start
                    some = Draws(draws.checkpoint, n)
                    result = pool.score(some, None, points.numpy(), sigma=sigma)
                return result.seconds

        def products(processes: int) -> float:
            at_work = ray.remote(num_cpus=1)(product_rate)
            for seconds in (0.1, _SECONDS):  # the first run covers the workers' start
                rates = ray.get([at_work.remote(seconds) for _ in range(processes)])
            return sum(rates)

        runs = [[(engine(n), products(n)) for n in (1, 2)] for _ in range(_ROUNDS)]
        (one, slow), (two, fast) = [
            (min(seconds), max(rates))
            for seconds, rates in (zip(*turns, strict=True) for turns in zip(*runs, strict=True))
        ]
    return {
        "engine_s": [one, two],
        "product_gflops": [slow, fast],
        "engine_gain": one / two,
        "product_gain": fast / slow,
        "ratio": one / two / (fast / slow),
    }


def product_rate(seconds: float) -> float:
    """Return the matrix product's GFLOP/s on one thread."""
    torch.set_num_threads(1)
    x, done, began = torch.rand(1_000, 784), 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        product(x, x)
        done += 1
    return 2e-9 * done * len(x) * x.numel() / (time.perf_counter() - began)


# -- the command --------------------------------------------------------------------------------


def in_words(found: Report) -> str:
    """Return a column per number of samples, and a line per library and for two processes."""

    def text(value: Any) -> str:
        if isinstance(value, dict):
            return ", ".join(f"{name} {text(part)}" for name, part in value.items())
        if isinstance(value, list):
            return " and ".join(map(text, value))
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    runs = found["comparisons"]
    lines = [f"{name:30}" + "".join(f"{text(r[name]):>30}" for r in runs) for name in runs[0]]
    others = found.get("rivals", {}) | {"two processes": found.get("actors")}
    return "\n".join([*lines, *(f"{name}: {text(o)}" for name, o in others.items() if o)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkpoint", type=Path, nargs="?", metavar="CHECKPOINT")
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--sigma", type=float, help="0.1292 for 1,000,000 samples, 0.1668 for less")
    parser.add_argument("--threads", type=int, default=1, help="of brute force")
    parser.add_argument("--rivals", action="store_true", help="other libraries, 10,000 samples")
    parser.add_argument("--growth", action="store_true", help="10,000 and 100,000 samples, too")
    parser.add_argument("--actors", action="store_true", help="two processes against one")
    options = parser.parse_args()
    checkpoint = options.checkpoint and options.checkpoint.resolve()
    settings = Settings.from_environment()
    if options.actors and settings.ray_address is None and cluster.usable_cpus() < 2:
        parser.error("--actors needs two CPUs")
    cluster.prepare(settings)  # before anything imports Ray
    torch.set_grad_enabled(False)
    points, rss = points_for(checkpoint, options.points), resident("VmRSS")

    sizes = {options.samples, *_SIZES[: options.rivals]}
    if options.growth:
        sizes |= {n for n in _SIZES if n < options.samples}

    def setting(n: int) -> tuple[Draws, Tensor, float]:
        # the grid's best for MNIST decoders: more samples need narrower kernels
        sigma = options.sigma or parzen.SIGMA_GRID[1 if n >= _SIZES[-1] else 2]
        return Draws(checkpoint, n), points, sigma

    runs = {n: compare(*setting(n), options.threads, rss) for n in sorted(sizes)}
    found: Report = {"comparisons": list(runs.values())}
    if options.rivals:
        draws, _, sigma = setting(_SIZES[0])
        samples, engine_s = draws.open().block(0), runs[_SIZES[0]]["engine_s"]
        found["rivals"] = rivals(points, samples, sigma, engine_s)
    if options.actors:
        found["actors"] = actors(*setting(options.samples))
    publish("parzen", found, in_words(found))


if __name__ == "__main__":
    main()
