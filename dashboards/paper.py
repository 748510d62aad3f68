"""Published figures of Makhzani et al. 2015, arXiv:1511.05644v2, Tables 1 to 3, as printed there.

A cell reads "mean ± error" or "mean"; what ± means is said by the table's note.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

SOURCE = "Makhzani et al., Adversarial Autoencoders, arXiv:1511.05644v2"


@dataclass(frozen=True)
class Column:
    data: str  # name of the data set, as in a sweep file
    label: str
    samples: int | None = None  # Parzen samples behind the column's figures


@dataclass(frozen=True)
class PublishedTable:
    title: str
    metric: str  # as in our metric names, the split left out
    unit: str
    note: str
    columns: tuple[Column, ...]
    rows: dict[str, tuple[str | None, ...]]  # method -> one cell a column
    differences: tuple[str, ...]  # of our protocol from the paper's, whatever the sweep

    def only(self, data: str) -> "PublishedTable":
        """The columns of one data set, and the methods that have a figure in them."""
        kept = [i for i, column in enumerate(self.columns) if column.data == data]
        rows = {method: tuple(cells[i] for i in kept) for method, cells in self.rows.items()}
        return replace(
            self,
            columns=tuple(self.columns[i] for i in kept),
            rows={method: cells for method, cells in rows.items() if any(cells)},
        )


def value(cell: str) -> float:
    """The mean in a cell: 340.0 of "340 ± 2"."""
    return float(cell.split("±")[0])


def published(data: str, metrics: Collection[str]) -> list[PublishedTable]:
    """The tables with figures for this data set in one of these metrics (`val/parzen_ll`, …)."""
    measured = {metric.split("/", 1)[-1] for metric in metrics}
    tables = [table.only(data) for table in TABLES if table.metric in measured]
    return [table for table in tables if table.columns]


TABLE_1 = PublishedTable(
    title="Table 1: Parzen log-likelihood of test data",
    metric="parzen_ll",
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
        "The paper names no split: here the last 10,000 of the 60,000 training images validate "
        "and are never trained on.",
        "The paper scores one model; its learning rates and the size of its search are not given.",
    ),
)

TABLE_2 = PublishedTable(
    title="Table 2: semi-supervised test error",
    metric="error",
    unit="%, lower is better",
    note="The columns name the number of labels.",
    columns=(
        Column("mnist", "MNIST 100"),
        Column("mnist", "MNIST 1000"),
        Column("mnist", "MNIST all"),
        Column("svhn", "SVHN 1000"),
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
        "Chosen by 10,000 validation labels, which is more label use than the column's number "
        "says; the paper does not tell how it chose.",
    ),
)

TABLE_3 = PublishedTable(
    title="Table 3: clustering error",
    metric="cluster_error",
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

TABLES = (TABLE_1, TABLE_2, TABLE_3)
