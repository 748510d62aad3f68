"""Test the shipped sweeps by name, and the commands that list, copy and run them."""

from pathlib import Path

import pytest
from sweep_command import aae
from sweep_file import make_text

from orchestrator.cli.run import _wanted
from orchestrator.errors import SpecError
from orchestrator.settings import Settings
from orchestrator.study.study import StageStudy, open_storage
from orchestrator.sweepfile.loader import load_sweep, parse_sweep, sweep_text
from orchestrator.sweepfile.shipped import shipped

ROOT = Path(__file__).parents[4]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_shipped_file_is_known_by_the_name_of_its_sweep() -> None:
    files = {sweep.file.resolve() for sweep in shipped().values()}
    assert files == set((ROOT / "sweeps").rglob("*.yaml"))
    for name, sweep in shipped().items():
        assert load_sweep(sweep.file).name == name


def test_sweep_name_selects_the_shipped_file() -> None:
    assert load_sweep("quickstart") == load_sweep(ROOT / "sweeps" / "quickstart.yaml")
    extending = parse_sweep("extends: quickstart\nname: x\n", "x.yaml")
    assert extending.search == load_sweep("quickstart").search
    assert sweep_text(Path("quickstart")).startswith("# yaml-language-server")


def test_file_takes_precedence_over_a_shipped_sweep_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "quickstart").write_text(make_text("mine"))
    assert load_sweep("quickstart").name == "mine"


def test_error_for_a_misspelt_name_suggests_the_nearest() -> None:
    with pytest.raises(SpecError, match="did you mean the shipped sweep `quickstart`"):
        load_sweep("quikstart")


def test_listing_names_figure_size_and_purpose() -> None:
    listed = {row["name"]: row for row in aae("sweeps", "--json").document}
    assert listed.keys() == shipped().keys()
    row = listed["semi_supervised_mnist_100"]
    assert (row["published"], row["trials"], row["epochs"]) == ("1.90 ± 0.10 %", 10, 50_000)
    assert row["about"].startswith("Table 2, MNIST with 100 labels")
    assert listed["quickstart"]["published"] is None
    lines = aae("sweeps").out.splitlines()
    assert len(lines) == len(listed) + 1


@pytest.mark.parametrize("name", ["quickstart", "likelihood_mnist_two_cores"])
def test_new_writes_a_copy_that_is_a_sweep_of_the_users_own(name: str) -> None:
    written = aae("new", "My sweep.yaml", "--from", name)
    assert written.code == 0, written.err
    mine, theirs = load_sweep("My sweep.yaml"), load_sweep(name)
    assert mine.name == "my_sweep"
    assert mine.model_copy(update={"name": name}) == theirs
    assert aae("new", "My sweep.yaml").code == 2  # it overwrites nothing


def test_new_names_the_nearest_shipped_sweep() -> None:
    refused = aae("new", "x.yaml", "--from", "quikstart")
    assert (refused.code, "did you mean `quickstart`?" in refused.err) == (2, True)
    assert not Path("x.yaml").exists()


def test_run_takes_a_shipped_name_unless_the_home_has_a_sweep_of_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AAE_HOME", str(settings.home))
    spec, _, resume = _wanted(Path("quickstart"), ["seed=1"], small=False)
    assert spec == load_sweep("quickstart", ["seed=1"])
    assert resume == "aae-sweep run quickstart --set=seed=1"
    mine = parse_sweep(make_text("quickstart"), "mine.yaml")
    study = StageStudy.create(open_storage(settings), mine, "search")
    study.note(name=mine.name, spec=mine.resolved(), spec_text="text", touched="2026-01-01")
    spec, text, _ = _wanted(Path("quickstart"), [], small=False)
    assert (spec.sweep_id, text) == (mine.sweep_id, "text")
