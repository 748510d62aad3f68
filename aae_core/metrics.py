"""Declarations of all metrics: unit, better direction, meaning, healthy range. Without torch.

A metric's full name begins with its split: `val/error`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from aae_core.plugins import Registry

Direction = Literal["minimize", "maximize"]
Bounds = tuple[float | None, float | None]  # low and high; None: unbounded


@dataclass(frozen=True)
class Metric:
    """Declaration of one metric.

    measure: `package.module:function`, called with a model, the images of a split (`data.resident.
        Images`), those of the validation split and a generator of its own; it returns a float.
        None for the metrics of this package, which `evaluation.scores` and training measure.
    """

    unit: str
    better: Literal["min", "max", "none"]  # "none": a diagnostic, no objective
    meaning: str
    sound: Bounds = (None, None)  # healthy range: a value outside is a warning
    splits: tuple[str, ...] = ("val", "test")
    measure: str | None = None

    @property
    def direction(self) -> Direction:
        return "maximize" if self.better == "max" else "minimize"


_NOT_COLLAPSED: Bounds = (0.1, None)  # 2 log 2 is chance level; at 0 the generator learns nothing
# half a step inside either edge of the grid from which the value is chosen
_WITHIN_THE_GRID: Bounds = (10 ** (-17 / 18), 10 ** (-1 / 18))
_WITHIN_THE_IW_GRID: Bounds = (10 ** (-23 / 16), 10 ** (-1 / 16))
_WITHIN_THE_STDS: Bounds = (2**-4.5, 2**0.5)
_TRAIN, _VAL, _TEST = ("train",), ("val",), ("test",)
_ALL = (*_TRAIN, *_VAL, *_TEST)

_OWN: dict[str, Metric] = {
    "recon": Metric("per image", "min", "half the squared error, mean over images", splits=_ALL),
    "disc_z": Metric("nats", "none", "the code's discriminator", _NOT_COLLAPSED, splits=_TRAIN),
    "gen_z": Metric("nats", "none", "the code's generator", splits=_TRAIN),
    "disc_y": Metric("nats", "none", "the category's discriminator", _NOT_COLLAPSED, splits=_TRAIN),
    "gen_y": Metric("nats", "none", "the category's generator", splits=_TRAIN),
    "disc_x": Metric("nats", "none", "the image's discriminator", _NOT_COLLAPSED, splits=_TRAIN),
    "gen_x": Metric("nats", "none", "the image's generator", splits=_TRAIN),
    "class": Metric("nats", "min", "cross-entropy of the labelled images", splits=_TRAIN),
    "kl": Metric("nats", "none", "divergence of q(z|x) from the prior", splits=_TRAIN),
    "parzen_ll": Metric("nats", "max", "Parzen log-likelihood, sigma from the grid"),
    "parzen_ll_refined": Metric("nats", "max", "Parzen log-likelihood, sigma refined"),
    "parzen_se": Metric("nats", "none", "standard error of parzen_ll over points"),
    "parzen_sigma": Metric(
        "pixel", "none", "the kernel's width, chosen on validation", _WITHIN_THE_GRID
    ),
    "error": Metric("%", "min", "wrongly classified images"),
    "cluster_error": Metric("%", "min", "wrongly classified, clusters named by surest image"),
    "cluster_error_majority": Metric("%", "min", "wrongly classified, clusters named by majority"),
    "cluster_ties": Metric("", "none", "images as sure as the one that names their cluster"),
    "empty_clusters": Metric("", "none", "clusters without an image"),
    "mode_accuracy": Metric("%", "max", "codes nearest to their own class's mode"),
    "mode_mmd": Metric("", "min", "MMD of codes from their mode, relative to a fresh sample"),
    "parzen_codes": Metric(
        "nats", "max", "parzen_ll of decoded codes of training images", splits=_VAL
    ),
    "prior_gap": Metric(
        "nats", "min", "parzen_codes minus parzen_ll, 0 where q(z) = p(z)", splits=_VAL
    ),
    "iw_ll": Metric(
        "nats", "max", "importance-weighted log-likelihood, Gaussian decoder", splits=_TEST
    ),
    "iw_sigma": Metric(
        "pixel",
        "none",
        "the decoder's width in iw_ll, chosen on validation",
        _WITHIN_THE_IW_GRID,
        splits=_TEST,
    ),
    "iw_std": Metric(
        "",
        "none",
        "factor on the proposal's std in iw_ll, chosen on validation",
        _WITHIN_THE_STDS,
        splits=_TEST,
    ),
    "precision": Metric("", "max", "samples among the images (3 neighbours)", splits=_TEST),
    "recall": Metric("", "max", "images among the samples (3 neighbours)", splits=_TEST),
    "density": Metric("", "max", "balls of images that contain a sample, over 5", splits=_TEST),
    "coverage": Metric(
        "", "max", "images with a sample in their ball (5 neighbours)", splits=_TEST
    ),
    "knn_error": Metric("%", "min", "codes whose 10 neighbours are of another class", splits=_VAL),
    "head_distance": Metric("", "none", "distance of the two closest cluster heads", splits=_VAL),
    "latent_mmd": Metric(
        "", "min", "MMD² between codes and prior, 1 at worst", (None, 0.1), splits=_VAL
    ),
    "latent_std": Metric(
        "", "none", "root mean square of the codes over the prior's std", (0.5, 2.0), splits=_VAL
    ),
}

DECLARED_METRICS = Registry("metrics", Metric, _OWN)


class _BySplit(Mapping[str, Metric]):
    """Metrics by their full names; iteration leaves out those of other packages."""

    def __getitem__(self, name: str) -> Metric:
        split, _, bare = name.partition("/")
        metric = DECLARED_METRICS.find(bare)
        if metric is None or split not in metric.splits:
            raise KeyError(name)
        return metric

    def __iter__(self) -> Iterator[str]:
        return (
            f"{split}/{name}"
            for name, metric in DECLARED_METRICS.own.items()
            for split in metric.splits
        )

    def __len__(self) -> int:
        return sum(1 for _ in self)


METRICS = _BySplit()
