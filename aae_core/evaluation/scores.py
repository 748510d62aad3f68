"""The metrics of a model on a split: validation after every epoch, test once at the end."""

import math

import torch
from torch import Tensor

from aae_core import streams
from aae_core.data import unit_interval
from aae_core.evaluation import parzen
from aae_core.evaluation.latent import mmd2, relative_std
from aae_core.models import AAE
from aae_core.phases import reconstruction_cost

PARZEN_SAMPLES = 10_000  # of the published protocol
_LATENT_POINTS = 2_000
_CHUNK = 2_000  # images a forward pass
_LARGEST = 1e30  # of a pixel, beyond which a linear output has diverged


@torch.no_grad()
def validation_metrics(model: AAE, x_valid: Tensor, seed: int, epoch: int) -> dict[str, float]:
    """`val/…` after `epoch`, whose draws depend on (seed, epoch) alone; NaN once diverged."""
    stream = _stream(seed, epoch, x_valid)
    recon, codes = _encode_decode(model, x_valid, stream)
    prior = model.prior.sample(min(len(codes), _LATENT_POINTS), generator=stream)
    scale = model.prior.std
    samples = _samples(model, stream)
    diverged = not bool((samples.abs() <= _LARGEST).all())
    scores = (
        {"parzen_ll": math.nan}
        if diverged
        else parzen.validation_score(samples, unit_interval(x_valid))
    )
    return {
        "val/recon": recon,
        "val/latent_mmd": mmd2(codes[:_LATENT_POINTS] / scale, prior / scale),
        "val/latent_std": relative_std(codes, scale),
        **{f"val/{name}": value for name, value in scores.items()},
    }


@torch.no_grad()
def test_metrics(
    model: AAE, x_valid: Tensor, x_test: Tensor, seed: int, epoch: int
) -> dict[str, float]:
    """`test/…`: the kernel's width is chosen on validation images, as published."""
    stream = _stream(seed, epoch, x_test)
    recon, _ = _encode_decode(model, x_test, stream)
    scores = parzen.test_score(
        _samples(model, stream), unit_interval(x_valid), unit_interval(x_test)
    )
    return {"test/recon": recon, **{f"test/{name}": value for name, value in scores.items()}}


def _stream(seed: int, epoch: int, x: Tensor) -> torch.Generator:
    return streams.generator(seed, "evaluate", epoch, device=x.device)


def _samples(model: AAE, stream: torch.Generator) -> Tensor:
    chunks = [model.sample(_CHUNK, generator=stream) for _ in range(PARZEN_SAMPLES // _CHUNK)]
    return torch.cat(chunks)


def _encode_decode(model: AAE, x: Tensor, stream: torch.Generator) -> tuple[float, Tensor]:
    """Mean of ½‖x̂ − x‖² over the images, and their codes."""
    total, codes = 0.0, []
    for chunk in x.split(_CHUNK):
        pixels = unit_interval(chunk)
        z = model.encode(pixels, generator=stream)
        total += float(reconstruction_cost(model.decode(z), pixels)) * len(chunk)
        codes.append(z)
    return total / len(x), torch.cat(codes)
