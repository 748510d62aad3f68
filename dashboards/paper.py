"""Published figures of Makhzani et al. 2015, arXiv:1511.05644v2, as printed there.

A cell is "mean ± error" or "mean". The table's note defines ±.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from aae_core.declarations import ARCHITECTURES

SOURCE = "Makhzani et al., Adversarial Autoencoders, arXiv:1511.05644v2"


@dataclass(frozen=True)
class Column:
    data: str  # name of the data set, as in a sweep file
    label: str
    samples: int | None = None  # Parzen samples for the column's figures
    labels: int | None = None  # training labels for the figures; None: all


@dataclass(frozen=True)
class PublishedTable:
    title: str
    metric: str  # our metric name without the split
    kinds: tuple[str, ...]  # our architectures that the table covers
    unit: str
    note: str
    columns: tuple[Column, ...]
    rows: dict[str, tuple[str | None, ...]]  # method -> a cell per column
    differences: tuple[str, ...]  # between our protocol and the paper's, for any sweep
    differences_on: Mapping[str, str] = field(default_factory=dict)  # another, by data set
    across: Literal["samples", "labels"] | None = None  # in which the columns of a data set differ

    def only(self, data: str) -> "PublishedTable":
        """Return the table with the columns of one data set and the methods with figures there."""
        kept = [i for i, column in enumerate(self.columns) if column.data == data]
        rows = {method: tuple(cells[i] for i in kept) for method, cells in self.rows.items()}
        return replace(
            self,
            columns=tuple(self.columns[i] for i in kept),
            rows={method: cells for method, cells in rows.items() if any(cells)},
            differences=self.differences + tuple(filter(None, [self.differences_on.get(data)])),
        )

    def covers(self, kind: str) -> bool:
        """Return whether the table may have a row for this architecture.

        It may for another package's architecture whose objective is the table's metric.
        """
        if kind in ARCHITECTURES.own:
            return kind in self.kinds
        declared = ARCHITECTURES.find(kind)
        return declared is not None and declared.objective == self.metric

    def is_of(self, data: str) -> bool:
        return any(column.data == data for column in self.columns)


def value(cell: str) -> float:
    """Return the mean in a cell: 340.0 for "340 ± 2"."""
    return float(cell.split("±")[0])


def published(data: str, kinds: Collection[str], metrics: Collection[str]) -> list[PublishedTable]:
    """Return the tables that have one of these architectures and metrics (`val/parzen_ll`, …).

    A table is cut to this data set, or else to the data set of its first column.
    """
    measured = {metric.split("/", 1)[-1] for metric in metrics}
    return [
        table.only(data)
        if table.is_of(data)
        else replace(table, differences_on={}).only(table.columns[0].data)
        for table in TABLES
        if table.metric in measured and any(map(table.covers, kinds))
    ]


NAMED = ("clusters", "code_dim")  # settings that may be part of a method's name


def method(model: Mapping[str, Any], labels: int | None) -> str:
    """Return the paper's name for a model with these settings and number of labels."""
    clusters, dimensions = f"{model['clusters']} clusters", f"{model['code_dim']}-D"
    match model["kind"]:
        case "clustering":
            return f"AAE ({clusters})"
        case "dimensionality_reduction":
            return f"AAE ({dimensions}, {clusters})" if labels == 0 else f"AAE ({dimensions})"
        case kind if kind in ARCHITECTURES.own:
            return _NAMES.get(kind, "AAE")
        case kind:
            declared = ARCHITECTURES.find(kind)
            return declared.title if declared else kind


# shipped sweeps of a table's architecture, in a setting that the table does not have
_OUTSIDE_THE_TABLES = {
    "clusters_mnist",
    "large_code_gaussian",
    "latent_gaussian_2d_aae",
    "latent_mixture_aae",
}


def printed_figure(sweep: Mapping[str, Any], metric: str) -> str:
    """Return what the paper prints for a resolved sweep and its objective, "" for nothing."""
    model, data, labels = sweep["model"], sweep["data"]["name"], sweep["data"]["labels"]
    if sweep["name"] in _OUTSIDE_THE_TABLES:
        return ""
    found = []
    for table in published(data, [model["kind"]], [metric]):
        cells = table.rows.get(method(model, labels))
        for column, cell in zip(table.columns, cells or (), strict=False):
            if cell and column.data == data and column.labels in (None, labels):
                if column.labels is None and table.across == "labels" and labels is not None:
                    continue
                named = f" ({column.label.split()[-1]})" if table.across == "samples" else ""
                found.append(f"{cell} %" if table.unit.startswith("%") else cell + named)
    return ", ".join(found)


_NAMES = {"vae": "VAE", "gan": "GAN", "gmmn_ae": "GMMN + AE", "classifier": "NN baseline"}


TABLE_1 = PublishedTable(
    title="Table 1: Parzen log-likelihood of test data",
    metric="parzen_ll",
    kinds=("aae", "vae", "gan", "gmmn_ae"),
    across="samples",
    unit="nats, higher is better",
    note="± is the standard error over test points for MNIST, across the folds for TFD.",
    columns=(
        Column("mnist", "MNIST 10K", samples=10_000),
        Column("mnist", "MNIST 10M", samples=10_000_000),
        Column("tfd", "TFD 10K", samples=10_000),
        Column("tfd", "TFD 10M", samples=10_000_000),
    ),
    rows={
        "DBN": ("138 ± 2", None, "1909 ± 66", None),
        "Stacked CAE": ("121 ± 1.6", None, "2110 ± 50", None),
        "Deep GSN": ("214 ± 1.1", None, "1890 ± 29", None),
        "GAN": ("225 ± 2", "386", "2057 ± 26", None),
        "GMMN + AE": ("282 ± 2", None, "2204 ± 20", None),
        "AAE": ("340 ± 2", "427", "2252 ± 16", "2522"),
    },
    differences=(
        "The paper scores one model; its learning rates and the size of its search are not given.",
    ),
    differences_on={
        "mnist": "The paper names no split: here the last 10,000 of the 60,000 training images "
        "validate and are never trained on.",
        "tfd": "Ours is of one of the five folds, its ± over test points and seeds; the published "
        "figure is the mean over the folds.",
    },
)

TABLE_2 = PublishedTable(
    title="Table 2: semi-supervised test error",
    metric="error",
    kinds=("semi_supervised", "classifier"),
    across="labels",
    unit="%, lower is better",
    note="The columns name the number of labels.",
    columns=(
        Column("mnist", "MNIST 100", labels=100),
        Column("mnist", "MNIST 1000", labels=1000),
        Column("mnist", "MNIST all"),
        Column("svhn", "SVHN 1000", labels=1000),
    ),
    rows={
        "NN baseline": ("25.80", "8.73", "1.25", "47.50"),
        "VAE (M1) + TSVM": ("11.82 ± 0.25", "4.24 ± 0.07", None, "55.33 ± 0.11"),
        "VAE (M2)": ("11.97 ± 1.71", "3.60 ± 0.56", None, None),
        "VAE (M1+M2)": ("3.33 ± 0.14", "2.40 ± 0.02", "0.96", "36.02 ± 0.10"),
        "VAT": ("2.33", "1.36", "0.64 ± 0.04", "24.63"),
        "CatGAN": ("1.91 ± 0.1", "1.73 ± 0.18", "0.91", None),
        "Ladder": ("1.06 ± 0.37", "0.84 ± 0.08", "0.57 ± 0.02", None),
        "ADGM": ("0.96 ± 0.02", None, None, "16.61 ± 0.24"),
        "AAE": ("1.90 ± 0.10", "1.60 ± 0.08", "0.85 ± 0.02", "17.70 ± 0.30"),
    },
    differences=(
        "Chosen by 10,000 validation labels, in addition to the column's number of labels; the "
        "paper does not state how it chose.",
    ),
)

TABLE_3 = PublishedTable(
    title="Table 3: clustering error",
    metric="cluster_error",
    kinds=("clustering",),
    unit="%, lower is better",
    note="A cluster takes the label of the validation example that it claims most strongly.",
    columns=(Column("mnist", "MNIST"),),
    rows={
        "CatGAN (20 clusters)": ("9.70",),
        "AAE (16 clusters)": ("9.55 ± 2.05",),
        "AAE (30 clusters)": ("4.10 ± 1.13",),
    },
    differences=(
        "The paper names no split: here validation labels name the clusters, test labels score.",
    ),
)

_FIGURE_11_DIFFERENCES = (
    "The paper names no split: here 10,000 validation images choose, by their labels.",
)

FIGURE_11 = PublishedTable(
    title="Figure 11: dimensionality reduction with labels, test error",
    metric="error",
    kinds=("dimensionality_reduction",),
    across="labels",
    unit="%, lower is better",
    note="The columns name the number of labels.",
    columns=(
        Column("mnist", "MNIST 100", labels=100),
        Column("mnist", "MNIST 1000", labels=1000),
    ),
    rows={"AAE (2-D)": ("6.08", "4.20"), "AAE (10-D)": ("3.90", None)},
    differences=_FIGURE_11_DIFFERENCES,
)

FIGURE_11_UNSUPERVISED = PublishedTable(
    title="Figure 11: dimensionality reduction without labels, clustering error",
    metric="cluster_error",
    kinds=("dimensionality_reduction",),
    unit="%, lower is better",
    note=TABLE_3.note,
    columns=(Column("mnist", "MNIST"),),
    rows={"AAE (2-D, 20 clusters)": ("13.95",)},
    differences=_FIGURE_11_DIFFERENCES,
)

TABLES = (TABLE_1, TABLE_2, TABLE_3, FIGURE_11, FIGURE_11_UNSUPERVISED)
