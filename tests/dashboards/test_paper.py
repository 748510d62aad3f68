import pandas as pd
import pytest

from dashboards import comparison, paper

NO_CONFIRMED = pd.DataFrame(columns=["label", "group", "metric", "mean", "se", "values"])
NO_SCORES = pd.DataFrame(columns=["group", "seed", "n_samples", "log_likelihood"])


@pytest.mark.parametrize("table", paper.TABLES, ids=lambda table: table.title)
def test_every_row_has_a_cell_a_column_and_a_figure(table: paper.PublishedTable) -> None:
    for method, cells in table.rows.items():
        assert len(cells) == len(table.columns), method
        assert any(cells), method
        assert all(paper.value(cell) > 0 for cell in cells if cell), method


def test_known_figures() -> None:
    assert paper.TABLE_1.rows["AAE"] == ("340 ± 2", "427", "2252 ± 16", "2522")
    assert paper.value("340 ± 2") == 340.0
    assert paper.TABLE_2.only("svhn").rows["AAE"] == ("17.70 ± 0.30",)
    assert "CatGAN" not in paper.TABLE_2.only("svhn").rows
    assert paper.TABLE_3.rows["AAE (30 clusters)"] == ("4.10 ± 1.13",)


def test_a_table_is_found_by_data_set_and_metric() -> None:
    found = paper.published("mnist", ["val/parzen_ll", "test/parzen_ll"])
    assert [table.title for table in found] == [paper.TABLE_1.title]
    assert [column.label for column in found[0].columns] == ["MNIST 10K", "MNIST 10M"]
    assert paper.published("digits", ["val/parzen_ll"]) == []
    assert paper.published("mnist", ["val/recon"]) == []


def confirmed(mean: float, se: float) -> pd.DataFrame:
    row = ("gaussian", "gaussian", "test/parzen_ll", mean, se, [0.0, 0.0, 0.0])
    return pd.DataFrame([row], columns=NO_CONFIRMED.columns)


def scores(*points: tuple[int, float]) -> pd.DataFrame:
    rows = [("gaussian", 1, float(n), ll) for n, ll in points]
    return pd.DataFrame(rows, columns=NO_SCORES.columns)


def test_all_confirmed_seeds_come_before_the_scored_model() -> None:
    table = paper.TABLE_1.only("mnist")
    frame = comparison.beside(table, confirmed(330.0, 1.5), scores((10_000, 331.0), (10**7, 420.0)))
    ours = frame.set_index("method").loc["AAE, gaussian (this sweep)"]
    assert ours.to_dict() == {"MNIST 10K": "330.0 ± 1.5", "MNIST 10M": "420"}
    assert list(frame["method"])[:6] == list(table.rows)


def test_another_number_of_samples_gets_a_column_of_its_own() -> None:
    table = paper.TABLE_1.only("mnist")
    frame = comparison.beside(table, NO_CONFIRMED, scores((100_000, 360.0), (2_500_000, 400.0)))
    assert list(frame.columns) == ["method", "MNIST 10K", "MNIST 10M", "ours at 2.5M"]
    told = comparison.differences(table, NO_CONFIRMED, scores((2_500_000, 400.0)))
    assert any("Ours stops at 2.5M samples" in line for line in told)


def test_without_figures_of_ours_the_published_ones_stand_alone() -> None:
    table = paper.TABLE_1.only("mnist")
    frame = comparison.beside(table, NO_CONFIRMED, NO_SCORES)
    assert list(frame["method"]) == list(table.rows)
    assert frame.set_index("method").loc["DBN", "MNIST 10M"] is None
