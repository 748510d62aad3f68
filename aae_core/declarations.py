"""Declarations of architectures, priors, data sets and metrics, without torch.

The architectures are from Makhzani et al. 2015 (arXiv:1511.05644): figures 1, 3, 6, 8, 10,
section 6, and the models in the paper's tables.  Other packages may declare more (`plugins`).

A declaration's `settings` is a frozen dataclass of its own settings, or None. Each field is a
number, text, a Literal, or a tuple of these.
"""

from dataclasses import dataclass
from typing import Literal

from aae_core.plugins import Registry

EncoderKind = Literal["deterministic", "gaussian", "universal"]

_ENCODERS: tuple[EncoderKind, ...] = ("deterministic", "gaussian", "universal")
_LATENT = ("latent_mmd", "latent_std")
_CLUSTERS = ("cluster_error", "cluster_error_majority", "cluster_ties", "empty_clusters")
_PARZEN = ("parzen_ll", "parzen_ll_refined", "parzen_se", "parzen_sigma")
_CODES = ("parzen_codes", "prior_gap")  # Parzen figures that need an encoder


@dataclass(frozen=True)
class PriorDeclaration:
    """Declaration of one prior.

    build: `package.module:function`, which takes the PriorConfig and the dimension of the code.
    reads: settings of the PriorConfig that change the prior; None: any may.
    settings: in the file `model.prior.settings`.
    """

    title: str
    build: str
    flat: bool = False  # always of dimension 2
    has_density: bool = False  # in closed form (`priors.DensePrior`)
    has_modes: bool = False  # which may belong to classes (`priors.LabelledPrior`)
    reads: tuple[str, ...] | None = None
    settings: type | None = None


PRIORS = Registry(
    "priors",
    PriorDeclaration,
    {
        "gaussian": PriorDeclaration(
            "Gaussian",
            "aae_core.priors.gaussian:GaussianPrior.of",
            has_density=True,
            reads=("std",),
        ),
        "mixture": PriorDeclaration(
            "mixture of 2-D Gaussians",
            "aae_core.priors.mixture:MixturePrior.of",
            flat=True,
            has_density=True,
            has_modes=True,
            reads=("modes", "radius", "radial_std", "tangential_std"),
        ),
        "swiss_roll": PriorDeclaration(
            "swiss roll",
            "aae_core.priors.swiss_roll:SwissRollPrior.of",
            flat=True,
            has_modes=True,
            reads=("modes", "radius", "turns", "width"),
        ),
        "uniform": PriorDeclaration(
            "uniform", "aae_core.priors.uniform:UniformPrior.of", reads=("std",)
        ),
    },
)


@dataclass(frozen=True)
class Architecture:
    """Declaration of one architecture.  Metric names omit the split.

    model: `package.module:Class` of the `models.Model` that trains. With `fit`, of any torch module
        that takes a `networks.Blueprint`; its `optimizers()` returns its optimisers by name.
    fit: `package.module:function` with the signature of `training.fit`, for training that is not
        a `train_step`. Checkpoints hold the state of the module, its optimisers and the streams.
    unread: settings, or groups of them, that change no number; absent networks need no entry.
    settings: in the file `model.settings`.
    """

    title: str
    model: str
    objective: str  # default objective: metric name
    metrics: tuple[str, ...]  # computed on the validation set after every epoch
    labels: Literal["none", "some", "only"] = "none"  # only: trains just on labelled images
    adversaries: tuple[str, ...] = ("z",)  # variables that discriminators compare
    networks: tuple[str, ...] = ("encoder", "decoder", "discriminator")  # with settings in use
    encoders: tuple[EncoderKind, ...] = _ENCODERS
    prior: Literal["any", "dense", "labelled", "unused"] = "any"  # what the model needs of it
    unread: tuple[str, ...] = ()
    settings: type | None = None
    fit: str | None = None

    @property
    def priors(self) -> tuple[str, ...]:
        """The priors of this package that the architecture accepts, its default first."""
        return tuple(name for name, prior in PRIORS.own.items() if self.accepts(name, prior))

    def accepts(self, name: str, prior: PriorDeclaration) -> bool:
        return {
            "any": True,
            "dense": prior.has_density,
            "labelled": prior.has_modes,
            "unused": name == "gaussian",
        }[self.prior]


_UNLABELLED = ("model.clusters", "model.heads", "model.decoder_std", "training.classification")
_NO_DISCRIMINATOR = ("training.discriminator_steps", "training.discriminator_noise")

_OWN: dict[str, Architecture] = {
    "aae": Architecture(
        "adversarial autoencoder",
        model="aae_core.models.aae:AAE",
        objective="parzen_ll",
        metrics=("recon", *_PARZEN, *_CODES, *_LATENT, "knn_error"),
        unread=_UNLABELLED,
    ),
    "label_regularised": Architecture(
        "adversarial autoencoder, labels in the discriminator",
        model="aae_core.models.label_regularised:LabelRegularised",
        objective="mode_accuracy",
        metrics=("recon", *_LATENT, "knn_error", "mode_accuracy", "mode_mmd"),
        labels="some",
        prior="labelled",
        unread=_UNLABELLED,
    ),
    "supervised": Architecture(
        "supervised adversarial autoencoder",
        model="aae_core.models.supervised:Supervised",
        objective="recon",
        metrics=("recon", *_LATENT, "knn_error"),
        labels="only",
        unread=_UNLABELLED,
    ),
    "semi_supervised": Architecture(
        "semi-supervised adversarial autoencoder",
        model="aae_core.models.semi_supervised:SemiSupervised",
        objective="error",
        metrics=("recon", "error", *_LATENT),
        labels="some",
        adversaries=("y", "z"),
        unread=("model.clusters", "model.heads", "model.decoder_std"),
    ),
    "clustering": Architecture(
        "clustering adversarial autoencoder",
        model="aae_core.models.clustering:Clustering",
        objective="cluster_error",
        metrics=("recon", *_CLUSTERS, *_LATENT),
        adversaries=("y", "z"),
        unread=("model.heads", "model.decoder_std", "training.classification"),
    ),
    "dimensionality_reduction": Architecture(
        "adversarial autoencoder with cluster heads",
        model="aae_core.models.dimensionality_reduction:DimensionalityReduction",
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
        unread=("model.decoder_std",),
    ),
    "vae": Architecture(
        "variational autoencoder",
        model="aae_core.models.vae:VAE",
        objective="parzen_ll",
        metrics=("recon", *_PARZEN, *_CODES, *_LATENT, "knn_error"),
        adversaries=(),
        networks=("encoder", "decoder"),
        encoders=("gaussian",),
        prior="dense",
        unread=(
            "model.clusters",
            "model.heads",
            "training.adversarial",
            "training.classification",
            *_NO_DISCRIMINATOR,
        ),
    ),
    "gan": Architecture(
        "generative adversarial network",
        model="aae_core.models.gan:GAN",
        objective="parzen_ll",
        metrics=_PARZEN,
        adversaries=("x",),
        networks=("decoder", "discriminator"),
        encoders=("deterministic",),
        unread=(*_UNLABELLED, "training.reconstruction"),
    ),
    "gmmn_ae": Architecture(
        "moment-matching network over a dropout autoencoder",
        model="aae_core.models.gmmn_ae:GMMNAE",
        objective="parzen_ll",
        metrics=("recon", *_PARZEN, *_CODES, "knn_error"),
        adversaries=(),
        networks=("encoder", "decoder", "matcher", "autoencoder"),
        unread=(*_UNLABELLED, *_NO_DISCRIMINATOR),
    ),
    "classifier": Architecture(
        "dropout classifier",
        model="aae_core.models.classifier:Classifier",
        objective="error",
        metrics=("error",),
        labels="only",
        adversaries=(),
        networks=("encoder",),
        encoders=("deterministic",),
        prior="unused",
        unread=(
            "model.clusters",
            "model.heads",
            "model.decoder_std",
            "model.code_dim",
            "model.prior",
            "training.reconstruction",
            "training.adversarial",
            *_NO_DISCRIMINATOR,
        ),
    ),
}

ARCHITECTURES = Registry("architectures", Architecture, _OWN)


@dataclass(frozen=True)
class DataSetDeclaration:
    """Declaration of one data set.

    open: `package.module:function`, which takes the DataConfig and the folder of all data sets, and
        returns a `data.DataSet`.
    settings: in the file `data.settings`.
    """

    title: str
    open: str
    settings: type | None = None


ARRAYS = "arrays"  # the user's own file: the data set that needs a path

DATA_SETS = Registry(
    "datasets",
    DataSetDeclaration,
    {
        "digits": DataSetDeclaration("scikit-learn's 8×8 digits", "aae_core.data.digits:Digits.of"),
        "mnist": DataSetDeclaration("MNIST", "aae_core.data.mnist:IdxSet.of"),
        "fashion_mnist": DataSetDeclaration("Fashion-MNIST", "aae_core.data.mnist:IdxSet.of"),
        "svhn": DataSetDeclaration("Street View House Numbers", "aae_core.data.svhn:Svhn.of"),
        "tfd": DataSetDeclaration("Toronto Face Database", "aae_core.data.tfd:Tfd.of"),
        ARRAYS: DataSetDeclaration("an .npz file of yours", "aae_core.data.arrays:Arrays.of"),
    },
)
