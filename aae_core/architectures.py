"""Descriptions of the paper's architectures, without torch: settings, objective and metrics.

A1 … A6 and B1 … B4 are from Makhzani et al. 2015 (arXiv:1511.05644): figures 1, 3, 6, 8, 10,
section 6, and the models in the paper's tables.  The classes are in `aae_core.models`.
"""

from dataclasses import dataclass
from typing import Literal

EncoderKind = Literal["deterministic", "gaussian", "universal"]
PriorKind = Literal["gaussian", "mixture", "swiss_roll", "uniform"]
Kind = Literal[
    "aae",
    "label_regularised",
    "supervised",
    "semi_supervised",
    "clustering",
    "dimensionality_reduction",
    "vae",
    "gan",
    "gmmn_ae",
    "classifier",
]

_ENCODERS: tuple[EncoderKind, ...] = ("deterministic", "gaussian", "universal")
_PRIORS: tuple[PriorKind, ...] = ("gaussian", "mixture", "swiss_roll", "uniform")
_LATENT = ("latent_mmd", "latent_std")
_CLUSTERS = ("cluster_error", "cluster_error_majority", "cluster_ties", "empty_clusters")
_PARZEN = ("parzen_ll", "parzen_ll_refined", "parzen_se", "parzen_sigma")
_CODES = ("parzen_codes", "prior_gap")  # Parzen figures that need an encoder


@dataclass(frozen=True)
class Architecture:
    """Description of one architecture.  Metric names omit the split."""

    title: str
    objective: str  # default objective: metric name
    metrics: tuple[str, ...]  # computed on the validation set after every epoch
    labels: Literal["none", "some", "only"] = "none"  # only: trains just on labelled images
    adversaries: tuple[str, ...] = ("z",)  # variables that discriminators compare
    networks: tuple[str, ...] = ("encoder", "decoder", "discriminator")  # with settings in use
    encoders: tuple[EncoderKind, ...] = _ENCODERS
    priors: tuple[PriorKind, ...] = _PRIORS


ARCHITECTURES: dict[Kind, Architecture] = {
    "aae": Architecture(
        "adversarial autoencoder",
        objective="parzen_ll",
        metrics=("recon", *_PARZEN, *_CODES, *_LATENT, "knn_error"),
    ),
    "label_regularised": Architecture(
        "adversarial autoencoder, labels in the discriminator",
        objective="mode_accuracy",
        metrics=("recon", *_LATENT, "knn_error", "mode_accuracy", "mode_mmd"),
        labels="some",
        priors=("mixture", "swiss_roll"),
    ),
    "supervised": Architecture(
        "supervised adversarial autoencoder",
        objective="recon",
        metrics=("recon", *_LATENT, "knn_error"),
        labels="only",
    ),
    "semi_supervised": Architecture(
        "semi-supervised adversarial autoencoder",
        objective="error",
        metrics=("recon", "error", *_LATENT),
        labels="some",
        adversaries=("y", "z"),
    ),
    "clustering": Architecture(
        "clustering adversarial autoencoder",
        objective="cluster_error",
        metrics=("recon", *_CLUSTERS, *_LATENT),
        adversaries=("y", "z"),
    ),
    "dimensionality_reduction": Architecture(
        "adversarial autoencoder with cluster heads",
        objective="error",
        metrics=(
            "recon",
            "error",
            *_CLUSTERS,
            "head_distance",
            *_LATENT,
            "knn_error",
        ),
        labels="some",
        adversaries=("y", "z"),
    ),
    "vae": Architecture(
        "variational autoencoder",
        objective="parzen_ll",
        metrics=("recon", *_PARZEN, *_CODES, *_LATENT, "knn_error"),
        adversaries=(),
        networks=("encoder", "decoder"),
        encoders=("gaussian",),
        priors=("gaussian", "mixture"),
    ),
    "gan": Architecture(
        "generative adversarial network",
        objective="parzen_ll",
        metrics=_PARZEN,
        adversaries=("x",),
        networks=("decoder", "discriminator"),
        encoders=("deterministic",),
    ),
    "gmmn_ae": Architecture(
        "moment-matching network over a dropout autoencoder",
        objective="parzen_ll",
        metrics=("recon", *_PARZEN, *_CODES, "knn_error"),
        adversaries=(),
        networks=("encoder", "decoder", "matcher", "autoencoder"),
    ),
    "classifier": Architecture(
        "dropout classifier",
        objective="error",
        metrics=("error",),
        labels="only",
        adversaries=(),
        networks=("encoder",),
        encoders=("deterministic",),
        priors=("gaussian",),
    ),
}
