"""Tables and sentences on stdout, by the width of the terminal."""

import pytest

from orchestrator.cli import common

HEADERS = ("trial", *(f"setting-{place}" for place in range(12)))
ROWS = [[f"search-{row}", *(f"value-{row}-{place}" for place in range(12))] for row in range(3)]


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("width", [40, 80, 100])
def test_table_continues_below_with_the_columns_that_do_not_fit(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    common.table(HEADERS, ROWS)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= width
    blocks = [[line.split() for line in block.splitlines()] for block in out.strip().split("\n\n")]
    assert len(blocks) > 1
    for place, row in enumerate([HEADERS, *ROWS]):
        assert {block[place][0] for block in blocks} == {row[0]}
        assert [cell for block in blocks for cell in block[place][1:]] == list(row[1:])


def test_table_wraps_long_cells_between_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    common.table(("trial", "remarks"), [("search-0", "behind its peers after epoch 8")])
    assert printed(capsys) == [
        "trial     remarks",
        "search-0  behind its peers after epoch 8",
    ]
    monkeypatch.setenv("COLUMNS", "32")
    common.table(("trial", "remarks"), [("search-0", "behind its peers after epoch 8")])
    assert printed(capsys) == [
        "trial     remarks",
        "search-0  behind its peers after",
        "          epoch 8",
    ]


def test_table_in_a_pipe_keeps_each_row_on_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    common.table(HEADERS, ROWS)
    assert [line.split() for line in printed(capsys)] == [list(HEADERS), *ROWS]


def test_prose_wraps_between_words_and_breaks_no_path(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    path = f"/{'home' * 9}"
    common.prose(f"The driver writes the report to {path}\nonce.")
    assert printed(capsys) == ["The driver writes", "the report to", path, "once."]
