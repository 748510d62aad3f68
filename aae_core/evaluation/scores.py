"""Metrics of a model on a split: validation after every epoch, test once at the end.

`ARCHITECTURES` lists the metrics of each model.  Metrics that need labels are omitted on a split
without labels.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pkgutil import resolve_name

import torch
from torch import Tensor

from aae_core import streams
from aae_core.data import unit_interval
from aae_core.data.resident import Images
from aae_core.data.splits import permutation
from aae_core.declarations import ARCHITECTURES
from aae_core.evaluation import clustering, parzen
from aae_core.evaluation.classification import error, per_cent
from aae_core.evaluation.fidelity import DENSITY_K, fidelity
from aae_core.evaluation.latent import knn_error, mmd2, mode_mmd, nearest_modes, relative_std
from aae_core.evaluation.likelihood import choose, importance_log_likelihood
from aae_core.metrics import DECLARED_METRICS
from aae_core.models import (
    AAE,
    VAE,
    Autoencoder,
    CategoricalAAE,
    Classifies,
    DimensionalityReduction,
    Model,
    Samples,
)
from aae_core.phases import reconstruction_cost
from aae_core.posteriors import Gaussian
from aae_core.priors import DensePrior, LabelledPrior

PARZEN_SAMPLES = 10_000  # as in the published protocol
_LATENT_POINTS = 2_000
_PRIOR_POINTS = 10_000  # prior samples that represent the modes
_FIDELITY_POINTS = 2_000
_IMPORTANCE_DRAWS, _IMPORTANCE_VALID, _IMPORTANCE_TEST = 50, 200, 1_000
_CHUNK = 2_000  # images a forward pass
_LARGEST = 1e30  # pixel value beyond which a linear output has diverged

Metrics = dict[str, float]


@torch.no_grad()
def validation_metrics(
    model: Model, train: Tensor, valid: Images, seed: int, epoch: int, further: Iterable[str] = ()
) -> Metrics:
    """Compute `val/…` after `epoch`; draws depend only on (seed, epoch); NaN once diverged.

    `train` holds the training images (m, D), used only for the decoded codes' Parzen figure.
    `further`: metrics of other packages, beside the architecture's own.
    """
    stream = _stream(seed, epoch, valid)
    found = _common(model, valid, valid, stream)
    if all(math.isfinite(value) for value in found.values()):
        found |= _latent(model, valid, stream)
        found |= _generative(model, valid, None, stream)
        codes = streams.generator(seed, "codes", epoch, device=valid.x.device)
        found |= _prior_gap(model, train, valid, found.get("parzen_ll", math.nan), codes)
        found |= _further(model, valid, valid, "val", further, seed, epoch)
    return {f"val/{name}": value for name, value in found.items()}


@torch.no_grad()
def test_metrics(
    model: Model,
    valid: Images,
    test: Images,
    seed: int,
    epoch: int,
    further: Iterable[str] = (),  # noqa: PT028 - this is no test
) -> Metrics:
    """Compute `test/…`; validation images name clusters and choose σ, as published.

    `further`: metrics of other packages, beside the architecture's own.
    """
    stream = _stream(seed, epoch, test)
    found = _common(model, valid, test, stream) | _generative(model, valid, test, stream)
    found |= _further(model, valid, test, "test", further, seed, epoch)
    return {f"test/{name}": value for name, value in found.items()}


def _stream(seed: int, epoch: int, images: Images) -> torch.Generator:
    return streams.generator(seed, "evaluate", epoch, device=images.x.device)


def _common(model: Model, valid: Images, images: Images, stream: torch.Generator) -> Metrics:
    """Compute the metrics of any split."""
    found: Metrics = {}
    if isinstance(model, Autoencoder) and not (model.kind == "supervised" and images.y is None):
        found["recon"] = _reconstruction(model, images, stream)
    if images.y is not None and valid.y is not None:
        if isinstance(model, CategoricalAAE) and not model.sees_labels:
            logits = _in_chunks(model.logits, images.x)
            of_valid = logits if images is valid else _in_chunks(model.logits, valid.x)
            found |= _clusters(of_valid, valid.y, logits, images.y)
        elif isinstance(model, Classifies):
            found["error"] = error(_in_chunks(model.classify, images.x), images.y)
    if "mode_accuracy" in ARCHITECTURES[model.kind].metrics and images.y is not None:
        found |= _modes(model, images, images.y, stream)
    return found


def _reconstruction(model: Autoencoder, images: Images, stream: torch.Generator) -> float:
    """Mean of ½‖x̂ − x‖² over the images, in the networks' scale of pixels."""
    total = 0.0
    for start in range(0, len(images.x), _CHUNK):
        x = unit_interval(images.x[start : start + _CHUNK])
        y = None if images.y is None else images.y[start : start + _CHUNK]
        x_hat = model.reconstruct(x, y, generator=stream)
        total += float(reconstruction_cost(model.pixels(x_hat), model.pixels(x))) * len(x)
    return total / len(images.x)


def _clusters(valid: Tensor, y_valid: Tensor, logits: Tensor, y: Tensor) -> Metrics:
    """Compute cluster metrics: logits (n, K), classes (n,) of validation split and scored split."""
    named = clustering.representatives(valid, y_valid)
    by_majority = clustering.majorities(valid, y_valid)
    return {
        "cluster_error": clustering.cluster_error(logits, y, named),
        "cluster_error_majority": clustering.cluster_error(logits, y, by_majority),
        "cluster_ties": float(clustering.ties(valid)),
        "empty_clusters": float(clustering.empty_clusters(logits)),
    }


def _modes(model: Model, images: Images, y: Tensor, stream: torch.Generator) -> Metrics:
    assert isinstance(model, Autoencoder)
    assert isinstance(model.prior, LabelledPrior)
    z = _in_chunks(lambda x: model.style(x, generator=stream), images.x)
    modes = torch.arange(_PRIOR_POINTS, device=z.device) % model.prior.modes
    p = model.prior.sample_modes(modes, generator=stream)
    nearest = nearest_modes(z, p, modes)
    return {
        "mode_accuracy": per_cent(nearest == y),
        "mode_mmd": mode_mmd(z, nearest, p, modes),
    }


def _latent(model: Model, valid: Images, stream: torch.Generator) -> Metrics:
    """Compute how well the codes follow the prior and separate the classes."""
    found: Metrics = {}
    wanted = ARCHITECTURES[model.kind].metrics
    valid = _some(valid, _LATENT_POINTS)
    x = valid.x
    if isinstance(model, Autoencoder) and "latent_mmd" in wanted:
        z, scale = _in_chunks(lambda x: model.style(x, generator=stream), x), model.prior.std
        p = model.prior.sample(len(z), generator=stream)
        found["latent_mmd"] = mmd2(z / scale, p / scale)
        found["latent_std"] = relative_std(z, scale)
    if isinstance(model, Autoencoder) and "knn_error" in wanted and valid.y is not None:
        codes = _in_chunks(lambda x: model.encode(x, generator=stream), x)
        found["knn_error"] = knn_error(codes, valid.y)
    if isinstance(model, DimensionalityReduction):
        found["head_distance"] = model.heads.closest()
    return found


def _generative(
    model: Model, valid: Images, test: Images | None, stream: torch.Generator
) -> Metrics:
    """Compute likelihoods and fidelity on test images; without test images, only Parzen's."""
    if "parzen_ll" not in ARCHITECTURES[model.kind].metrics:
        return {}
    assert isinstance(model, Samples)
    chunks = [model.sample(_CHUNK, generator=stream) for _ in range(PARZEN_SAMPLES // _CHUNK)]
    samples = torch.cat(chunks)
    if _has_diverged(samples):
        return {"parzen_ll": math.nan}
    x_valid = unit_interval(valid.x)
    if test is None:
        return parzen.validation_score(samples, x_valid)
    real = unit_interval(_some(test, _FIDELITY_POINTS).x)
    n = len(real)
    return {
        **parzen.test_score(samples, x_valid, unit_interval(test.x)),
        **(asdict(fidelity(real, samples[:n])) if n > DENSITY_K else {}),
        **_importance_weighted(model, valid, test, stream),
    }


def _prior_gap(
    model: Model, train: Tensor, valid: Images, parzen_ll: float, stream: torch.Generator
) -> Metrics:
    """Compute the Parzen figure of decoded draws of q(z), and its excess over that of p(z).

    q(z) is the mean of q(z|x) over training images. The number of draws equals that of the prior,
    each from a different image. If there are fewer images, each is drawn equally often.
    """
    if "prior_gap" not in ARCHITECTURES[model.kind].metrics or math.isnan(parzen_ll):
        return {}
    assert isinstance(model, Autoencoder)
    drawn = train[streams.permutations(len(train), PARZEN_SAMPLES, stream)]
    samples = _in_chunks(lambda x: model.reconstruct(x, generator=stream), drawn)
    if _has_diverged(samples):
        return {"parzen_codes": math.nan}
    score = parzen.validation_score(samples, unit_interval(valid.x))["parzen_ll"]
    return {"parzen_codes": score, "prior_gap": score - parzen_ll}


def _further(
    model: Model,
    valid: Images,
    images: Images,
    split: str,
    names: Iterable[str],
    seed: int,
    epoch: int,
) -> Metrics:
    """Measure metrics of other packages: the architecture's, and `names`."""
    found: Metrics = {}
    for name in dict.fromkeys((*ARCHITECTURES[model.kind].metrics, *names)):
        metric = DECLARED_METRICS.get(name)
        if metric is not None and metric.measure is not None and split in metric.splits:
            stream = streams.generator(seed, f"metric {name}", epoch, device=images.x.device)
            found[name] = float(resolve_name(metric.measure)(model, images, valid, stream))
    return found


def _has_diverged(samples: Tensor) -> bool:
    return not bool((samples.abs() <= _LARGEST).all())


def _importance_weighted(
    model: Model, valid: Images, test: Images, stream: torch.Generator
) -> Metrics:
    """Compute a bound for p(x|z) = N(x̂(z), σ²I) that, unlike Parzen's, rewards no memorising."""
    if not (isinstance(model, AAE | VAE) and isinstance(model.prior, DensePrior)):
        return {}
    decode, log_prior, k = model.decode, model.prior.log_density, _IMPORTANCE_DRAWS
    x = unit_interval(_some(valid, _IMPORTANCE_VALID).x)
    best = choose(x, *_proposal(model, x), decode, log_prior, k=k, generator=stream)
    x = unit_interval(_some(test, _IMPORTANCE_TEST).x)
    bound = importance_log_likelihood(
        x,
        *_proposal(model, x),
        decode,
        log_prior,
        sigma=best.sigma,
        std=best.std,
        k=k,
        generator=stream,
    )
    return {"iw_ll": float(bound.mean()), "iw_sigma": best.sigma, "iw_std": best.std}


def _proposal(model: Autoencoder, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log-variance of a Gaussian proposal.

    If q(z|x) is not Gaussian, the proposal is centred on the code with the prior's std.
    """
    if isinstance(model.encoder, Gaussian):
        _, mean, log_variance = model.encoder.moments(model.pixels(x))
        return mean, log_variance
    return model.style(x), torch.tensor(2 * math.log(model.prior.std), device=x.device)


def _some(images: Images, n: int) -> Images:
    """Select at most n of the images, the same for every model and seed.

    A fixed permutation selects them, since a file's order may go from easy to hard, as in MNIST.
    """
    order = torch.from_numpy(permutation(len(images.x))[:n]).to(images.x.device)
    return Images(images.x[order], None if images.y is None else images.y[order])


def _in_chunks(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return torch.cat([function(unit_interval(chunk)) for chunk in x.split(_CHUNK)])
