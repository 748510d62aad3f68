from collections.abc import Sequence
from typing import Any

import pandas as pd
import pytest

from dashboards import comparison, paper

CONFIRMED = ["label", "group", "metric", "mean", "se", "values"]


@pytest.mark.parametrize("table", paper.TABLES, ids=lambda table: table.title)
def test_published_tables_have_a_cell_per_column_and_a_figure(table: paper.PublishedTable) -> None:
    for method, cells in table.rows.items():
        assert len(cells) == len(table.columns), method
        assert any(cells), method
        assert all(paper.value(cell) > 0 for cell in cells if cell), method


def test_published_tables_contain_known_figures_of_the_paper() -> None:
    assert paper.TABLE_1.rows["AAE"] == ("340 ± 2", "427", "2252 ± 16", "2522")
    assert paper.value("340 ± 2") == 340.0
    assert paper.TABLE_2.only("svhn").rows["AAE"] == ("17.70 ± 0.30",)
    assert "CatGAN" not in paper.TABLE_2.only("svhn").rows
    assert paper.TABLE_3.rows["AAE (30 clusters)"] == ("4.10 ± 1.13",)


def test_published_table_is_found_by_data_set_architecture_and_metric() -> None:
    found = paper.published("mnist", ["aae"], ["val/parzen_ll", "test/parzen_ll"])
    assert [table.title for table in found] == [paper.TABLE_1.title]
    assert [column.label for column in found[0].columns] == ["MNIST 10K", "MNIST 10M"]
    assert paper.published("mnist", ["aae"], ["val/recon"]) == []


@pytest.mark.parametrize(
    ("kind", "metric", "title"),
    [
        ("semi_supervised", "test/error", paper.TABLE_2.title),
        ("classifier", "test/error", paper.TABLE_2.title),
        ("clustering", "test/cluster_error", paper.TABLE_3.title),
        ("dimensionality_reduction", "test/error", paper.FIGURE_11.title),
        ("dimensionality_reduction", "test/cluster_error", paper.FIGURE_11_UNSUPERVISED.title),
    ],
)
def test_published_errors_of_two_architectures_have_separate_tables(
    kind: str, metric: str, title: str
) -> None:
    assert [table.title for table in paper.published("mnist", [kind], [metric])] == [title]


@pytest.mark.parametrize(
    ("kind", "labels", "name"),
    [
        ("aae", None, "AAE"),
        ("gmmn_ae", None, "GMMN + AE"),
        ("classifier", 100, "NN baseline"),
        ("semi_supervised", 100, "AAE"),
        ("clustering", None, "AAE (16 clusters)"),
        ("dimensionality_reduction", 100, "AAE (2-D)"),
        ("dimensionality_reduction", 0, "AAE (2-D, 16 clusters)"),
    ],
)
def test_method_of_a_model_has_the_name_in_the_paper(
    kind: str, labels: int | None, name: str
) -> None:
    assert paper.method({"kind": kind, "clusters": 16, "code_dim": 2}, labels) == name


def ours(
    metric: str = "parzen_ll",
    mean: float | None = None,
    se: float = 1.5,
    points: Sequence[tuple[int, float]] = (),
    labels: int | None = None,
    method: str = "AAE, gaussian",
    data: str = "mnist",
    values: Sequence[float] = (0.0, 0.0, 0.0),
    sweep: str = "",
) -> comparison.Ours:
    row = ("gaussian", "gaussian", f"test/{metric}", mean, se, list(values))
    scores = [("gaussian", 1, float(n), ll) for n, ll in points]
    return comparison.Ours(
        {"gaussian": method},
        data,
        labels,
        pd.DataFrame([] if mean is None else [row], columns=CONFIRMED),
        pd.DataFrame(scores, columns=["group", "seed", "n_samples", "log_likelihood"]),
        sweep=sweep,
    )


def row(frame: pd.DataFrame, method: str) -> dict[str, Any]:
    cells: dict[str, Any] = frame.set_index("method").loc[method].to_dict()
    return cells


def test_paper_table_prefers_all_confirmed_seeds_to_one_scored_model() -> None:
    table = paper.TABLE_1.only("mnist")
    figures = ours(mean=330.0, points=[(10_000, 331.0), (10**7, 420.0)])
    frame = comparison.beside(table, figures)
    cells = row(frame, "AAE, gaussian (this sweep)")
    assert cells == {"MNIST 10K": "330.0 ± 1.5", "MNIST 10M": "420"}
    assert list(frame["method"])[:6] == list(table.rows)


def test_paper_table_adds_a_column_for_another_sample_count() -> None:
    table = paper.TABLE_1.only("mnist")
    figures = ours(points=[(100_000, 360.0), (2_500_000, 400.0)])
    frame = comparison.beside(table, figures)
    assert list(frame.columns) == ["method", "MNIST 10K", "MNIST 10M", "ours, 2.5M"]
    output = comparison.differences(table, figures)
    assert any("Ours stops at 2.5M samples" in line for line in output)


@pytest.mark.parametrize(
    ("labels", "column"),
    [
        (100, "MNIST 100"),
        (1000, "MNIST 1000"),
        (None, "MNIST all"),
        (50, "ours, 50 labels"),
    ],
)
def test_paper_table_puts_an_error_in_the_column_of_its_labels(
    labels: int | None, column: str
) -> None:
    table = paper.TABLE_2.only("mnist")
    figures = ours("error", 2.0, 0.1, labels=labels, method="AAE")
    cells = row(comparison.beside(table, figures), "AAE (this sweep)")
    assert {name: cell for name, cell in cells.items() if cell} == {column: "2.00 ± 0.10"}


def test_paper_table_puts_svhn_with_all_labels_in_a_new_column() -> None:
    frame = comparison.beside(paper.TABLE_2.only("svhn"), ours("error", 9.0, 0.1, data="svhn"))
    assert list(frame.columns) == ["method", "SVHN 1000", "ours, all labels"]


def test_paper_table_adds_columns_for_an_unpublished_data_set() -> None:
    (table,) = paper.published("digits", ["aae"], ["val/parzen_ll"])
    figures = ours(mean=26.0, points=[(10**7, 29.5)], data="digits")
    frame = comparison.beside(table, figures)
    assert list(frame.columns) == [
        *("method", "MNIST 10K", "MNIST 10M", "digits, 10K", "digits, 10M"),
    ]
    found = {name: cell for name, cell in row(frame, "AAE, gaussian (this sweep)").items() if cell}
    assert found == {"digits, 10K": "26.0 ± 1.5", "digits, 10M": "29.5"}
    first, *others = comparison.differences(table, figures)
    assert "no figure for digits" in first
    assert not any("60,000" in line for line in others)


def test_paper_table_includes_clusters_in_the_method_name() -> None:
    table = paper.TABLE_3
    sixteen = ours("cluster_error", 9.0, 0.5, method="AAE (16 clusters)")
    cells = row(comparison.beside(table, sixteen), "AAE (16 clusters) (this sweep)")
    assert cells == {"MNIST": "9.00 ± 0.50"}
    assert not any("no figure for" in line for line in comparison.differences(table, sixteen))
    twenty = ours("cluster_error", 9.0, 0.5, method="AAE (20 clusters)")
    assert any(
        "no figure for AAE (20 clusters)" in t for t in comparison.differences(table, twenty)
    )


def test_paper_table_without_our_figures_has_only_published_rows() -> None:
    table = paper.TABLE_1.only("mnist")
    frame = comparison.beside(table, ours())
    assert list(frame["method"]) == list(table.rows)
    assert frame.set_index("method").loc["DBN", "MNIST 10M"] is None


def test_sweeps_of_one_method_share_its_row_in_the_paper_table() -> None:
    table = paper.TABLE_2.only("mnist")
    sweeps = [
        ours("error", mean, 0.1, labels=labels, method="AAE")
        for mean, labels in ((2.0, 100), (1.6, 1000), (0.9, None))
    ]
    cells = row(comparison.beside(table, *sweeps), "AAE (ours)")
    assert cells == {
        "MNIST 100": "2.00 ± 0.10",
        "MNIST 1000": "1.60 ± 0.10",
        "MNIST all": "0.90 ± 0.10",
    }


def test_second_figure_of_a_method_in_a_column_is_named_by_its_sweep() -> None:
    table = paper.TABLE_2.only("mnist")
    sweeps = [
        ours("error", mean, 0.1, labels=100, method="AAE", sweep=f"sweep-{i}")
        for i, mean in enumerate((2.0, 2.5))
    ]
    frame = comparison.beside(table, *sweeps)
    assert row(frame, "AAE (ours)")["MNIST 100"].startswith("2.00 ± 0.10")
    assert row(frame, "AAE (sweep-1)")["MNIST 100"].startswith("2.50 ± 0.10")


@pytest.mark.parametrize(
    ("values", "tied"), [((2.0, 2.3, 2.1), True), ((9.0, 9.1, 9.2), False), ((2.1,), False)]
)
def test_figure_that_ties_with_the_best_of_its_column_is_marked(
    values: Sequence[float], tied: bool
) -> None:
    table = paper.TABLE_2.only("mnist")
    best = ours("error", 2.0, 0.1, labels=100, method="VAT", values=(1.9, 2.0, 2.1))
    other = ours("error", 2.2, 0.1, labels=100, method="AAE", values=values)
    elsewhere = ours("error", 1.0, 0.1, method="AAE", values=(1.0, 1.1, 0.9))
    frame = comparison.beside(table, other, best, elsewhere)
    assert row(frame, "AAE (ours)") == {
        "MNIST 100": "2.20 ± 0.10" + (comparison.TIE if tied else ""),
        "MNIST 1000": None,
        "MNIST all": "1.00 ± 0.10",
    }
    assert row(frame, "VAT (ours)")["MNIST 100"] == "2.00 ± 0.10"


@pytest.mark.usefixtures("example")
def test_architecture_of_another_package_has_a_row_where_its_objective_is_the_tables() -> None:
    (table,) = paper.published("mnist", ["sliced_wasserstein"], ["test/parzen_ll", "test/error"])
    assert table.title == paper.TABLE_1.title
    model = {"kind": "sliced_wasserstein", "clusters": 16, "code_dim": 2}
    assert paper.method(model, None) == "sliced-Wasserstein autoencoder"
    assert paper.method(model | {"kind": "uninstalled"}, None) == "uninstalled"
