"""Compare training throughput in images per second: ours, pythae and a plain PyTorch loop.

    python benchmarks/train_step.py [--pack]

Network and batch are those of the likelihood experiments (784-1000-1000-8, batch 100), on one
thread and on all threads. Each contestant trains on the same images in its own process, and draws
batches in its own way. The contestants alternate, since machines are noisy. Only ratios matter.
pythae's Adversarial_AE (Chadebec et al. 2022) runs with its own trainer and defaults, if installed
(`pip install pythae`). The plain loop is as in tutorials: a DataLoader, stock optimisers, a forward
pass per loss.

The roofline is the least time that this machine needs for our step: matrix products at the rate of
a large product, then the optimisers' traffic (weight and momentum read and written, gradient read)
at the bandwidth of a long vector sum. Both rates are measured in the same rounds.

Further runs: other architectures, batches and widths; two simultaneous trials of a sweep against
one, and two bare processes against one, which is the machine's limit.

With `--pack`, one trial against packs of trials (`aae_core.training.pack`), in images per second of
all members: on one thread, like a sweep's trials, or on a GPU if there is one.
"""

import argparse
import importlib.util
import io
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from publishing import publish
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from aae_core.config import DataConfig, ModelConfig, TrainConfig, TrialConfig
from aae_core.data import TrainingData
from aae_core.training import TrainState, fit
from aae_core.training.batches import BatchSource
from aae_core.training.pack import Pack
from orchestrator.settings import sqlite_address

SIDE, CODE, CLASSES = 28, 8, 10
PIXELS = SIDE**2
IMAGES = 2000  # per contestant and round
ROUNDS = 15
FLOATS = 1 << 25  # in each summed vector: far larger than any cache
MATRIX = 2048  # rows and columns of the matrices multiplied
EPOCHS = 8  # of simultaneous trials
PACKS = (1, 4, 16)  # members
PACKED_IMAGES = 500  # per member and round
PACKED_WIDTHS = (30, 100, 200, 400)
CORES = len(os.sched_getaffinity(0))

_SWEEP = """\
name: at_once
data: {{name: arrays, path: random.npz}}
model: {{hidden: [1000, 1000], code_dim: 8}}
training: {{epochs: {epochs}}}
search:
  sampler: {{kind: random}}
  trials: {trials}
  space: {{model.prior.std: {{float: [4, 6]}}}}
confirm: {{seeds: 1, baseline: false}}
evaluate: {{parzen: {{samples: 10000, screen_samples: 10000}}}}
"""

Contestant = Callable[[], float]  # trains on IMAGES images; returns images per second


def random_images(n: int = IMAGES, side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=(n, side**2), dtype=np.uint8)


def random_data(n: int = IMAGES, side: int = SIDE) -> TrainingData:
    images, labels = random_images(n, side), np.arange(n) % CLASSES
    return TrainingData.of("random", (side, side), (images, labels), (images[:10], labels[:10]))


def trial(kind: str = "aae", hidden: int = 1000, batch: int = 100, **model: Any) -> TrialConfig:
    """Return the paper's configuration, with practically endless epochs."""
    return TrialConfig(
        DataConfig("arrays", path="random"),
        ModelConfig(kind, **{"code_dim": CODE, "hidden": (hidden, hidden)} | model),  # type: ignore[arg-type]
        TrainConfig(epochs=10**6, batch_size=batch),
    )


def but(config: TrialConfig, **training: Any) -> TrialConfig:
    return replace(config, training=replace(config.training, **training))


def ours(config: TrialConfig) -> Contestant:
    data = random_data()
    epochs = fit(TrainState.create(config, data), data)
    return lambda: next(epochs).samples_per_second


def network(fan_in: int, fan_out: int, *last: nn.Module, hidden: int = 1000) -> nn.Sequential:
    layers = [nn.Linear(fan_in, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden, fan_out), *last)


def plain(batch: int = 100) -> Contestant:
    encoder, decoder = network(PIXELS, CODE), network(CODE, PIXELS, nn.Sigmoid())
    critic = network(CODE, 1, nn.Sigmoid())
    autoencoder = [*encoder.parameters(), *decoder.parameters()]
    moves_autoencoder = torch.optim.SGD(autoencoder, lr=0.01, momentum=0.9)
    moves_critic = torch.optim.SGD(critic.parameters(), lr=0.1, momentum=0.1)
    moves_encoder = torch.optim.SGD(encoder.parameters(), lr=0.1, momentum=0.1)
    cross_entropy = nn.BCELoss()
    real, fake = torch.ones(batch, 1), torch.zeros(batch, 1)
    images = torch.from_numpy(random_images()).float() / 255
    loader = DataLoader(TensorDataset(images), batch_size=batch, shuffle=True, drop_last=True)

    def descend(optimizer: torch.optim.Optimizer, cost: Tensor) -> None:
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()

    def train() -> None:
        for (x,) in loader:
            descend(moves_autoencoder, 0.5 * (decoder(encoder(x)) - x).square().sum() / len(x))
            z_p = 5 * torch.randn(batch, CODE)
            descend(
                moves_critic,
                cross_entropy(critic(z_p), real) + cross_entropy(critic(encoder(x).detach()), fake),
            )
            descend(moves_encoder, cross_entropy(critic(encoder(x)), real))

    return timed(train)


def pythae(batch: int = 100) -> Contestant:
    from pythae.data.datasets import BaseDataset
    from pythae.models import Adversarial_AE, Adversarial_AE_Config
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseDiscriminator, BaseEncoder
    from pythae.trainers import AdversarialTrainer, AdversarialTrainerConfig

    logging.getLogger("pythae").setLevel(logging.ERROR)

    class Encoder(BaseEncoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = network(PIXELS, 2 * CODE)

        def forward(self, x: Tensor) -> ModelOutput:
            mean, log_variance = self.net(x).chunk(2, dim=1)
            return ModelOutput(embedding=mean, log_covariance=log_variance)

    class Decoder(BaseDecoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = network(CODE, PIXELS, nn.Sigmoid())

        def forward(self, z: Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.net(z))

    class Discriminator(BaseDiscriminator):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = network(CODE, 1, nn.Sigmoid())

        def forward(self, z: Tensor) -> ModelOutput:
            return ModelOutput(embedding=self.net(z))

    images = torch.from_numpy(random_images()).float() / 255
    model = Adversarial_AE(
        Adversarial_AE_Config(input_dim=(PIXELS,), latent_dim=CODE, deterministic_posterior=True),
        Encoder(),
        Decoder(),
        Discriminator(),
    )
    trainer = AdversarialTrainer(
        model=model,
        train_dataset=BaseDataset(images, torch.zeros(len(images))),
        training_config=AdversarialTrainerConfig(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=batch,
            no_cuda=True,
        ),
    )
    trainer.prepare_training()

    def train() -> None:
        with redirect_stderr(io.StringIO()):  # its progress bar
            trainer.train_step(1)

    return timed(train)


PAPER = trial()
OURS = {
    "ours": PAPER,
    "ours, joint": but(PAPER, phases="joint"),
    "ours, bfloat16": but(PAPER, precision="bfloat16"),
    "ours, joint, bfloat16": but(PAPER, phases="joint", precision="bfloat16"),
}
OTHERS = {"plain": plain, "pythae": pythae}


def timed(train: Callable[[], object], images: int = IMAGES) -> Contestant:
    def run() -> float:
        began = time.perf_counter()
        train()
        return images / (time.perf_counter() - began)

    return run


def product_rate() -> float:
    """Measure floating-point operations per second."""
    a, b, out = (torch.randn(MATRIX, MATRIX) for _ in range(3))
    began = time.perf_counter()
    for _ in range(4):
        torch.mm(a, b, out=out)
    return 4 * 2 * MATRIX**3 / (time.perf_counter() - began)


def bandwidth() -> float:
    """Measure bytes per second."""
    a, b = torch.ones(FLOATS), torch.ones(FLOATS)
    began = time.perf_counter()
    for _ in range(4):
        a.add_(b)
    return 4 * 3 * a.nbytes / (time.perf_counter() - began)


def needs(config: TrialConfig) -> dict[str, float]:
    """Return a step's floating-point operations, and the bytes that optimisers read and write."""
    data = random_data()
    state = TrainState.create(config, data)
    state.model.train()
    batch = next(BatchSource.of(state, data).batches(state))
    with FlopCounterMode(display=False) as counter:
        state.model.train_step(state, batch)
    slots = {"sgd": 1, "adam": 2}
    moved = 0
    for name, (group, _) in state.model.objectives().items():
        read_and_written = 1 + slots[getattr(config.training, group).optimizer]
        for param_group in state.optimizers[name].param_groups:
            moved += sum(p.nbytes for p in param_group["params"]) * (2 * read_and_written + 1)
    return {"flop": float(counter.get_total_flops()), "bytes": float(moved)}


def race(contestants: Mapping[str, Contestant]) -> dict[str, list[float]]:
    """Run the contestants alternately, after a warm-up round."""
    for contestant in contestants.values():
        contestant()
    rounds = [{name: run() for name, run in contestants.items()} for _ in range(ROUNDS)]
    return {name: [r[name] for r in rounds] for name in contestants}


def over(a: list[float], b: list[float]) -> float:
    return median(x / y for x, y in zip(a, b, strict=True))


def against_others(threads: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    others = [name for name in OTHERS if name != "pythae" or importlib.util.find_spec(name)]
    with ExitStack() as stack:
        contestants: dict[str, Contestant] = {
            name: stack.enter_context(apart(name, threads)) for name in [*OURS, *others]
        }
        measured = race(contestants | {"product": product_rate, "bandwidth": bandwidth})
    rooflines = {name: roofline(OURS[name], measured) for name in ("ours", "ours, joint")}
    return {
        "threads": threads,
        "images_per_second": {name: median(measured[name]) for name in contestants},
        "over": {
            f"{one} / {other}": over(measured[one], measured[other])
            for one in OURS
            for other in others
        },
        "product_gflops": median(measured["product"]) / 1e9,
        "bandwidth_gb": median(measured["bandwidth"]) / 1e9,
        "roofline_images_per_second": {name: median(r) for name, r in rooflines.items()},
        "roofline_over": {
            f"{name} / {other}": over(r, measured[other])
            for name, r in rooflines.items()
            for other in others
        },
        "of_roofline": {name: over(measured[name], r) for name, r in rooflines.items()},
    }


@contextmanager
def apart(name: str, threads: int) -> Iterator[Contestant]:
    """Yield a contestant in its own process, which waits for requests."""
    command = [sys.executable, __file__, "--contestant", name, "--threads", str(threads)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        asked, answers = process.stdin, process.stdout

        def run() -> float:
            print(file=asked, flush=True)
            return float(answers.readline())

        yield run
        asked.close()


def answer(name: str, threads: int) -> None:
    """Serve as a contestant's process: run a round for every line on stdin."""
    torch.set_num_threads(threads)
    with redirect_stdout(sys.stderr):
        contestant = OTHERS[name]() if name in OTHERS else ours(OURS[name])
    for _ in sys.stdin:
        with redirect_stdout(sys.stderr):
            rate = contestant()
        print(rate, flush=True)


def roofline(config: TrialConfig, measured: dict[str, list[float]]) -> list[float]:
    """Return the roofline in images per second for each round."""
    step = needs(config)
    rates = zip(measured["product"], measured["bandwidth"], strict=True)
    return [config.training.batch_size / (step["flop"] / p + step["bytes"] / b) for p, b in rates]


def variations() -> dict[str, float]:
    """Measure images per second on all threads: other architectures, batches and widths."""
    torch.set_num_threads(CORES)
    configs = {
        "aae": trial(),
        "semi_supervised": trial("semi_supervised"),
        "clustering": trial("clustering", clusters=30, batch_norm="encoder"),
        "aae, batch 1000": trial(batch=1000),
        "aae, hidden 3000": trial(hidden=3000),
    }
    measured = race({name: ours(config) for name, config in configs.items()})
    return {name: median(rates) for name, rates in measured.items()}


# -- two at once -----------------------------------------------------------------------------


def probe() -> float:
    """Measure images per second of training and validation alone, on one thread."""
    torch.set_num_threads(1)
    data = random_data()
    epochs = fit(TrainState.create(trial(), data), data)
    next(epochs)
    return IMAGES / median(next(epochs).seconds for _ in range(EPOCHS - 1))


def probes(n: int) -> float:
    """Return the summed images per second of n simultaneous processes."""
    command = [sys.executable, __file__, "--probe"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(n)]
    return sum(float(process.communicate()[0]) for process in running)


def trials(n: int) -> float:
    """Return the same for n simultaneous trials of a sweep, by MLflow's times of their epochs."""
    from mlflow import MlflowClient

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images, labels = random_images(), np.arange(IMAGES) % CLASSES
        split = {"train": IMAGES, "valid": 10, "test": 10}
        np.savez(
            folder / "random.npz",
            **{f"x_{part}": images[:size].reshape(-1, 28, 28) for part, size in split.items()},
            **{f"y_{part}": labels[:size] for part, size in split.items()},
        )
        file = folder / "at_once.yaml"
        file.write_text(_SWEEP.format(epochs=EPOCHS, trials=n))
        store = sqlite_address(folder / "mlflow.db")
        command = [Path(sys.executable).with_name("aae-sweep"), "run", file, "--json"]
        environment = os.environ | {"AAE_HOME": name, "MLFLOW_TRACKING_URI": store}
        subprocess.run(command, env=environment, cwd=name, stdout=subprocess.DEVNULL, check=True)
        client = MlflowClient(store)
        experiments = [e.experiment_id for e in client.search_experiments()]
        runs = client.search_runs(experiments, "tags.`aae.stage` = 'search'")
        histories = [client.get_metric_history(r.info.run_id, "train/recon") for r in runs]
    assert [len(points) for points in histories] == [EPOCHS] * n
    times = [[point.timestamp / 1000 for point in points] for points in histories]
    return sum((EPOCHS - 1) * IMAGES / (max(t) - min(t)) for t in times)


def at_once() -> dict[str, float]:
    rounds = [(probes(2) / probes(1), trials(2) / trials(1)) for _ in range(3)]
    return {
        "probes": median(p for p, _ in rounds),
        "trials": median(t for _, t in rounds),
        "trials_over_probes": median(t / p for p, t in rounds),
    }


# -- packs -----------------------------------------------------------------------------------


def packs() -> dict[str, Any]:
    """Measure networks of each size, alternately alone and in packs of 1, 4 and 16 members."""
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    mnist, digits = random_data(PACKED_IMAGES), random_data(PACKED_IMAGES, 8)
    small = {
        f"64-{width}-{width}-2, batch 50": against_packs(
            trial(hidden=width, batch=50, code_dim=2), digits, device
        )
        for width in PACKED_WIDTHS
    }
    large = {"784-1000-1000-8, batch 100": against_packs(trial(), mnist, device)}
    return {"device": device} | small | large


def against_packs(config: TrialConfig, data: TrainingData, device: str) -> dict[str, Any]:
    def state(seed: int) -> TrainState:
        return TrainState.create(replace(config, seed=seed), data, device)

    def packed(members: int) -> Contestant:
        pack = Pack([state(seed) for seed in range(members)], data)
        return timed(pack.train_epoch, members * len(data.x_train))

    epochs = fit(state(0), data)
    contestants = {f"pack of {n}": packed(n) for n in PACKS}
    measured = race({"alone": lambda: next(epochs).samples_per_second} | contestants)
    return {
        "images_per_second": {name: median(rates) for name, rates in measured.items()},
        "over_alone": {name: over(measured[name], measured["alone"]) for name in contestants},
    }


def report_of_packs(found: dict[str, Any]) -> Iterator[str]:
    yield f"{found['device']}, images/s of all members, over one alone"
    for name, r in found.items():
        if name != "device":
            yield name
            for who, rate in r["images_per_second"].items():
                yield f"  {rate:9,.0f}  {r['over_alone'].get(who, 1):5.2f}  {who}"


def report(found: dict[str, Any]) -> Iterator[str]:
    for r in found["against_others"]:
        rates = r["images_per_second"]
        yield f"{r['threads']} threads, images/s"
        yield from (f"  {rate:7,.0f}  {name}" for name, rate in rates.items())
        yield from (f"  {ratio:7.2f}  {name}" for name, ratio in r["over"].items())
        yield (
            f"roofline, images/s ({r['product_gflops']:.0f} GFLOP/s, {r['bandwidth_gb']:.0f} GB/s)"
        )
        yield from (f"  {rate:7,.0f}  {n}" for n, rate in r["roofline_images_per_second"].items())
        yield from (f"  {ratio:7.2f}  {name}" for name, ratio in r["roofline_over"].items())
        yield from (f"  {ratio:7.2f}  of it, {name}" for name, ratio in r["of_roofline"].items())
    yield f"{CORES} threads, images/s"
    yield from (f"  {rate:7,.0f}  {name}" for name, rate in found["variations"].items())
    yield "two at once, over one"
    yield from (f"  {ratio:.2f}  {name}" for name, ratio in found["at_once"].items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pack", action="store_true", help="packs of trials against one alone")
    parser.add_argument("--probe", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contestant:
        answer(arguments.contestant, arguments.threads)
        return
    if arguments.probe:
        print(probe())
        return
    if arguments.pack:
        found = packs()
        publish("pack", found, "\n".join(report_of_packs(found)))
        return
    found = {
        "against_others": [against_others(threads) for threads in sorted({1, CORES})],
        "variations": variations(),
        "at_once": at_once(),
    }
    publish("train_step", found, "\n".join(report(found)))


if __name__ == "__main__":
    main()
