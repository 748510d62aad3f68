"""Training throughput, images a second: our step against a plain PyTorch loop, side by side.

    python benchmarks/train_step.py [--json]

The network and batch of the likelihood experiments (784-1000-1000-8, batch 100), one thread and
all of them.  The two alternate within one run, since machines are noisy; the ratio is what counts.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn

from aae_core.config import TrialConfig
from aae_core.data import TrainingData
from aae_core.phases import Batch
from aae_core.training import TrainState

_BATCH, _PIXELS, _CODE = 100, 784, 8
_STEPS, _ROUNDS = 40, 7


def ours(images: Tensor) -> Callable[[], None]:
    pixels = images.numpy()
    data = TrainingData.of("random", (28, 28), (pixels, None), (pixels[:2], None))
    state = TrainState.create(TrialConfig(), data)
    order = torch.Generator().manual_seed(0)
    unlabelled = torch.full((_BATCH,), -1)

    def step() -> None:
        indices = torch.randint(len(images), (_BATCH,), generator=order)
        x = images[indices].float() / 255
        state.model.train_step(state, Batch(x, x, unlabelled))

    return step


def plain(images: Tensor) -> Callable[[], None]:
    """As tutorials write it: a DataLoader, stock optimisers, a forward pass for every cost."""

    def net(fan_in: int, fan_out: int, *last: nn.Module) -> nn.Module:
        layers = [nn.Linear(fan_in, 1000), nn.ReLU(), nn.Linear(1000, 1000), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(1000, fan_out), *last)

    encoder, decoder = net(_PIXELS, _CODE), net(_CODE, _PIXELS, nn.Sigmoid())
    critic = net(_CODE, 1, nn.Sigmoid())
    autoencoder = [*encoder.parameters(), *decoder.parameters()]
    moves_autoencoder = torch.optim.SGD(autoencoder, lr=0.01, momentum=0.9)
    moves_critic = torch.optim.SGD(critic.parameters(), lr=0.1, momentum=0.1)
    moves_encoder = torch.optim.SGD(encoder.parameters(), lr=0.1, momentum=0.1)
    cross_entropy = nn.BCELoss()
    real, fake = torch.ones(_BATCH, 1), torch.zeros(_BATCH, 1)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(images.float() / 255),
        batch_size=_BATCH,
        shuffle=True,
        drop_last=True,
    )
    batches = iter(loader)

    def descend(optimizer: torch.optim.Optimizer, cost: Tensor) -> None:
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()

    def step() -> None:
        nonlocal batches
        batch = next(batches, None)
        if batch is None:
            batches = iter(loader)
            batch = next(batches)
        (x,) = batch
        descend(moves_autoencoder, 0.5 * (decoder(encoder(x)) - x).square().sum() / len(x))
        z_p = 5 * torch.randn(_BATCH, _CODE)
        descend(
            moves_critic,
            cross_entropy(critic(z_p), real) + cross_entropy(critic(encoder(x).detach()), fake),
        )
        descend(moves_encoder, cross_entropy(critic(encoder(x)), real))

    return step


def rate(step: Callable[[], None]) -> float:
    began = time.perf_counter()
    for _ in range(_STEPS):
        step()
    return _STEPS * _BATCH / (time.perf_counter() - began)


def measure(threads: int, images: Tensor) -> dict[str, float]:
    torch.set_num_threads(threads)
    steps = {"ours": ours(images), "plain": plain(images)}
    for step in steps.values():  # warm up
        step()
    rounds = [{name: rate(step) for name, step in steps.items()} for _ in range(_ROUNDS)]
    return {
        "threads": threads,
        "ours": median(r["ours"] for r in rounds),
        "plain": median(r["plain"] for r in rounds),
        "ratio": median(r["ours"] / r["plain"] for r in rounds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    images = torch.randint(
        256, (10_000, _PIXELS), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    every = len(os.sched_getaffinity(0))
    results = [measure(threads, images) for threads in sorted({1, every})]
    if as_json:
        print(json.dumps(results))
        return
    print("threads   ours, images/s   plain, images/s   ratio")
    for r in results:
        print(f"{r['threads']:7}   {r['ours']:14,.0f}   {r['plain']:15,.0f}   {r['ratio']:5.2f}")


if __name__ == "__main__":
    main()
