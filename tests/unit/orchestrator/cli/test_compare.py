"""The command `compare`: the best candidate, the differences from it, and the ties."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from sweep_command import aae
from sweep_file import make_spec

from orchestrator.cli.run import _winner
from orchestrator.results.reader import run_key
from orchestrator.settings import Settings
from orchestrator.study.study import StageStudy, open_storage
from orchestrator.sweepfile.spec import SweepSpec
from orchestrator.tracking.outbox import Outbox

LL = "val/parzen_ll"
Values = Mapping[float, Mapping[int, float]]  # by the prior's std, by seed


pytestmark = pytest.mark.usefixtures("settings")


def confirm(
    name: str,
    found: Values,
    *,
    metric: str = LL,
    test: Values | None = None,
    data: str = "0" * 64,
    margin: float | None = None,
) -> SweepSpec:
    """Create a sweep of this name with these confirm trials, as its driver leaves the sweep."""
    settings = Settings.from_environment()
    seeds = {"seeds": min(map(len, found.values()), default=3), "margin": margin}
    spec = make_spec(name, search={"objective": {"metric": metric}}, confirm=seeds)
    storage = open_storage(settings)
    first = StageStudy.create(storage, spec, "search")
    first.note(name=name, spec=spec.resolved(), data_sha256=data)
    queue = StageStudy.create(storage, spec, "confirm")
    queue.enqueue(
        {"params": {"model.prior.std": std}, "seed": seed}
        for std, values in found.items()
        for seed in values
    )
    with Outbox(settings.outbox) as outbox:
        outbox.open_run(spec.sweep_id, sweep_id=spec.sweep_id, experiment="e", name="n")
        while (work := queue.pop(spec)) is not None:
            std, seed = work.config.model.prior.std, work.config.seed
            value = found[std][seed]
            queue.started(work.number, "here", None)
            queue.epoch(work.number, 1, [value], "/checkpoints/1", trained=True)
            queue.end(work.number, "complete", value, None)
            key = run_key(spec.sweep_id, "confirm", work.number)
            outbox.open_run(key, sweep_id=spec.sweep_id, experiment="e", name="n")
            tests = {} if test is None else {metric.replace("val/", "test/"): test[std][seed]}
            outbox.log(key, 1, {metric: value, **tests})
    return spec


HARD = {seed: -100.0 * seed for seed in range(5)}  # seeds differ by more than candidates do
NOISE = (0.3, -0.2, 0.1, -0.3, 0.1)


def shifted(by: float, noise: float = 1.0) -> dict[int, float]:
    return {seed: hard + by + noise * NOISE[seed] for seed, hard in HARD.items()}


def verdicts_of(document: Mapping[str, Any]) -> list[str]:
    return [candidate["verdict"] for candidate in document["candidates"]]


THREE = {1.0: HARD, 2.0: shifted(-5.0), 4.0: shifted(-0.1)}


def test_compare_tests_the_best_against_every_other_candidate() -> None:
    spec = confirm("one", THREE)
    ended = aae("compare", "one", "--json")
    assert (ended.code, ended.err) == (0, "")
    document = ended.document
    assert (document["metric"], document["best_by"], document["direction"]) == (LL, LL, "maximize")
    assert document["data_sha256"] == {spec.sweep_id: "0" * 64}
    best, near, far = document["candidates"]
    stds = [c["params"]["model.prior.std"] for c in (best, near, far)]
    assert stds == [1.0, 4.0, 2.0]
    assert (best["versus_best"], best["tied_with_best"]) == (None, True)
    assert best["metrics"][LL]["mean"] == -200.0
    assert best["metrics"][LL].keys() >= {"se", "ci95", "bootstrap95"}
    assert [c["tied_with_best"] for c in (near, far)] == [True, False]
    assert far["sweep"] == spec.sweep_id
    versus = far["versus_best"]
    assert (versus["method"], versus["seeds"]) == ("paired", 5)
    assert versus["difference"] == pytest.approx(-5.0)
    assert versus["se"] < 0.2 < best["metrics"][LL]["se"]
    assert versus["p_holm"] == pytest.approx(2 * versus["p"])


def test_compare_prints_a_table_with_verdicts() -> None:
    spec = confirm("one", THREE)
    ended = aae("compare")
    assert (ended.code, ended.err) == (0, "")
    header, best, near, far, _, _, *settings, _, verdict = ended.out.splitlines()
    assert header.split()[:3] == ["configuration", "seeds", LL]
    assert best.split()[-1] == "best"
    assert near.split()[-1] == "undecided"
    assert "-5.00 ± 0.11" in far
    assert "seed by seed (5)" in far
    assert far.split()[-1] == "worse"
    assert all(len(line.rstrip()) <= 100 for line in (header, best, near, far, *settings))
    for line, row, std in zip(settings, (best, near, far), "142", strict=True):
        assert line.split() == [row.split()[0], spec.sweep_id, "prior.std", std]
    assert "1 of 2 not distinguishable from it" in verdict


def test_compare_with_a_margin_proves_equivalence() -> None:
    confirm("one", THREE)
    without = aae("compare", "--json").document
    assert (without["margin"], verdicts_of(without)) == (None, ["winner", "undecided", "worse"])
    document = aae("compare", "--margin", 1, "--json").document
    assert (document["margin"], verdicts_of(document)) == (1.0, ["winner", "equivalent", "worse"])
    best, near, _ = document["candidates"]
    assert best["difference"] is None
    assert near["difference"].keys() == {"mean", "ci95", "detectable"}
    assert near["difference"]["ci95"][0] < near["difference"]["mean"] == pytest.approx(-0.1)
    wide = aae("compare", "--margin", 9)
    assert "equivalent (though lower)" in wide.out
    assert "Equivalent, within 9: 2 of 2" in wide.out


def test_compare_takes_the_margin_of_the_sweeps_objective() -> None:
    spec = confirm("one", THREE, test=THREE, margin=1.0)
    assert aae("compare", "--json").document["margin"] == 1.0
    assert aae("compare", "--metric", "test/parzen_ll", "--json").document["margin"] is None
    groups = aae("best", "--json").document["groups"]
    assert [group["verdict"] for group in groups] == ["winner", "equivalent", "worse"]
    output = aae("best").out
    assert "Equivalent within 1 nats: " in output
    assert spec.confirm.margin == 1.0


def test_run_ends_with_ties_or_verdicts_and_the_gain() -> None:
    """Test the last lines of `run`, which `best` prints too."""
    rival = {"value": "b", "config_hash": "b", "versus_best": {"difference": -1.0}}
    best = {
        "params": {},
        "config_hash": "a",
        "metrics": {},
        "objective": {"metric": LL, "direction": "maximize"},
        "groups": [
            {"value": "a", "config_hash": "a"},
            rival | {"verdict": "equivalent", "tied_with_best": True},
        ],
        "tied_with": ["b"],
        "baseline": {"config_hash": "own"},
        "gain": {"mean": -2.0, "ci95": [-3.0, -1.0]},
    }
    status = {"objective": {"metric": LL}}
    gained = (
        "          the search gained nothing: the file's own configuration is better than the "
        "winner by 2 nats (95 % interval: 1 to 3)"
    )
    ties = "          ties with 1 other candidate (t-tests by seeds, α = 0.05)"
    assert _winner(status, best | {"margin": None}, None)[1:] == [ties, gained]
    equivalent = "          equivalent within 5 nats: b"
    assert _winner(status, best | {"margin": 5.0}, None)[1:] == [equivalent, gained]


@pytest.mark.parametrize("margin", ["0", "-1", "nan", "inf"])
def test_compare_refuses_a_margin_that_is_not_positive(margin: str) -> None:
    confirm("one", THREE)
    ended = aae("compare", "--margin", margin, "--json")
    assert (ended.code, ended.out) == (2, "")
    assert "must be a number above 0" in ended.err


def test_compare_with_out_writes_a_page_too(tmp_path: Path) -> None:
    spec = confirm("one", THREE)
    ended = aae("compare", "--json", "--out", tmp_path / "compared.html")
    assert ended.code == 0
    assert ended.document["candidates"]
    assert ended.err == f"page  {tmp_path / 'compared.html'}\n"
    page = (tmp_path / "compared.html").read_text()
    assert spec.sweep_id in page
    assert "−5.00 ± 0.11" in page


def test_compare_pairs_the_seeds_that_sweeps_share() -> None:
    one, other = confirm("one", {1.0: HARD}), confirm("other", {1.0: shifted(-5.0)})
    best, behind = aae("compare", "one", "other", "--json").document["candidates"]
    assert (best["sweep"], behind["sweep"]) == (one.sweep_id, other.sweep_id)
    assert behind["versus_best"]["method"] == "paired"
    assert not behind["tied_with_best"]


def test_compare_without_common_seeds_uses_all_values() -> None:
    """Test that the differences between seeds stay in the error."""
    confirm("one", {1.0: HARD})
    confirm("other", {1.0: {seed + 10: value for seed, value in shifted(-5.0).items()}})
    _, behind = aae("compare", "one", "other", "--json").document["candidates"]
    assert (behind["versus_best"]["method"], behind["versus_best"]["seeds"]) == ("welch", 0)
    assert behind["tied_with_best"]
    assert "all values (Welch)" in aae("compare", "one", "other").out


def test_compare_gives_no_advantage_for_more_seeds() -> None:
    few, many = {seed: HARD[seed] + 5.0 for seed in range(3)}, HARD
    confirm("many", {1.0: many})
    better = confirm("few", {1.0: few})
    best, _ = aae("compare", "many", "few", "--json").document["candidates"]
    assert best["sweep"] == better.sweep_id


def test_compare_by_test_metric_keeps_the_choice_by_validation() -> None:
    seeds = dict.fromkeys(range(3), 0.0)
    valid = {1.0: {s: 2.0 + s for s in seeds}, 2.0: {s: 1.0 + s for s in seeds}}
    test = {1.0: {s: 5.0 + s for s in seeds}, 2.0: {s: 9.0 + s for s in seeds}}
    confirm("one", valid, test=test)
    document = aae("compare", "one", "--metric", "test/parzen_ll", "--json").document
    best, other = document["candidates"]
    assert (document["metric"], document["best_by"]) == ("test/parzen_ll", LL)
    assert best["params"] == {"model.prior.std": 1.0}
    assert other["versus_best"]["difference"] == 4.0
    assert f", by {LL};" in aae("compare", "one", "--metric", "test/parzen_ll").out


def test_compare_of_one_candidate_has_no_rival() -> None:
    confirm("one", {1.0: {1: 3.0}})
    ended = aae("compare")
    assert ended.code == 0
    assert ended.out.endswith(", the only one.\n")


def test_compare_warns_of_sweeps_on_different_data() -> None:
    confirm("one", {1.0: HARD})
    confirm("other", {1.0: HARD}, data="f" * 64)
    ended = aae("compare", "one", "other", "--json")
    assert ended.code == 0
    assert ended.err.startswith("these sweeps used different data")
    assert set(ended.document["data_sha256"].values()) == {"0" * 64, "f" * 64}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none"], "has no confirmed candidate yet; see: aae-sweep status none-"),
        (["gone"], "`gone` names no sweep"),
        (["one", "error"], "name a val/ metric by --metric"),
        (["one", "--metric", "val/parzenll"], "did you mean `val/parzen_ll`?"),
    ],
)
def test_compare_of_incomparable_sweeps_is_wrong_input(arguments: list[str], words: str) -> None:
    confirm("one", {1.0: {1: 0.0}})
    confirm("none", {})
    confirm("error", {1.0: {1: 0.0}}, metric="val/recon")
    ended = aae("compare", *arguments, "--json")
    assert (ended.code, ended.out) == (2, "")
    assert words in ended.err


def test_compare_in_an_empty_home_creates_nothing(home: Path) -> None:
    shutil.rmtree(home)
    ended = aae("compare", "--json")
    assert (ended.code, ended.out) == (2, "")
    assert "no sweep has been run" in ended.err
    assert not home.exists()


@pytest.mark.parametrize("command", ["compare", "report"])
def test_page_overwrites_only_html_pages(home: Path, tmp_path: Path, command: str) -> None:
    confirm("one", {1.0: {1: 0.0}})
    database, link = home / "studies.db", tmp_path / "page.html"
    link.symlink_to(database)
    before = database.read_bytes()
    for out in (database, link, home):
        ended = aae(command, "one", "--out", out)
        assert (ended.code, ended.out) == (2, "")
        assert ended.err == f"{out} exists and is not an HTML page; name another file with --out\n"
        assert database.read_bytes() == before


def test_export_into_the_winners_checkpoint_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    confirm("one", {1.0: {1: 0.0}})
    checkpoint = Path(aae("best", "one", "--json").document["checkpoints"][0])
    written: list[object] = []
    monkeypatch.setattr("orchestrator.results.export.export", lambda *a, **_: written.append(a))
    ended = aae("export", "one", "--out", checkpoint / "new")
    assert (ended.code, ended.out, written) == (2, "", [])
    assert ended.err.endswith(f"would overwrite the input {checkpoint}; name another output\n")
