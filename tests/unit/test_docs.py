"""docs/sweep-file.md agrees with the settings' types, the metrics and the architectures."""

import re
from pathlib import Path

import pytest

from aae_core.declarations import ARCHITECTURES
from aae_core.metrics import METRICS
from orchestrator.sweepfile.loader import load_sweep
from orchestrator.sweepfile.messages import keys
from orchestrator.sweepfile.spec import SearchSpec, SweepSpec, objectives_of

PAGE = (Path(__file__).parents[2] / "docs" / "sweep-file.md").read_text()
UNITS = {"pixel": "pixels", "per image": "per image", "nats": "nats", "%": "%", "": "–"}
SETTINGS = sorted(set(keys(SweepSpec)))


def rows(first_header: str) -> list[list[str]]:
    """Return the cells of the table whose first column has this header."""
    table = re.search(rf"^\| {re.escape(first_header)} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE, re.M)
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|\n"))]
        for line in table[1].splitlines()
    ]


def named(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def documented() -> dict[str, str]:
    """Return key -> the text of its rows."""
    texts: dict[str, str] = {}
    for cell, text, _ in rows("key"):
        for name in named(cell):
            texts[name] = f"{texts.get(name, '')} {text}"
    return texts


@pytest.mark.parametrize("key", SETTINGS)
def test_every_setting_is_documented_by_its_key_or_its_group(key: str) -> None:
    texts = documented()
    if key in texts:
        return
    key = re.sub(
        r"^training\.(reconstruction|adversarial|classification)\.schedule\.",
        "training.schedule.",
        key,
    )
    groups = [key.rsplit(".", n)[0] for n in range(1, key.count(".") + 1)]
    inside = key.rsplit(".", 1)[1]
    assert any(f"`{inside}`" in texts.get(group, "") for group in groups), key


def test_every_documented_key_exists() -> None:
    groups = {
        setting.rsplit(".", n)[0] for setting in SETTINGS for n in range(setting.count(".") + 1)
    }
    known = {*SETTINGS, *groups, "extends"}
    assert [name for name in documented() if name not in known] == []
    assert not set(SearchSpec.RENAMED) & {name.removeprefix("search.") for name in documented()}


def test_every_metric_is_documented_with_its_unit() -> None:
    units = {name: row[1] for row in rows("metric") for name in named(row[0])}
    blocks = {"_z", "_y", "_x"}  # the page names one of three
    missing = [m for m in METRICS if m not in units and m[-2:] not in blocks]
    assert missing == []
    for name, listed in units.items():
        if name in METRICS:
            assert UNITS.get(METRICS[name].unit, METRICS[name].unit) in listed.split(", "), name


@pytest.mark.parametrize("kind", ARCHITECTURES.own)
def test_default_objective_of_every_architecture_is_documented(kind: str) -> None:
    [row] = [row for row in rows("`model.kind`") if named(row[0]) == [kind]]
    assert named(row[3])[0] == objectives_of(kind)[0]  # type: ignore[arg-type]


def test_readme_shows_the_quickstarts_current_id() -> None:
    root = Path(__file__).parents[2]
    readme, quickstart = root / "README.md", root / "sweeps" / "quickstart.yaml"
    assert f"\n{load_sweep(quickstart).sweep_id}: done after" in readme.read_text()
