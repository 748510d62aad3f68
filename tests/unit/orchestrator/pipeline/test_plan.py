"""The plan's estimate from timed trials, on three CPUs that stand in for Ray's."""

import re
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from sweep_command import aae
from sweep_file import make_spec, make_text

from aae_core.config import DataConfig
from aae_core.data import load_training_data
from aae_core.declarations import ARCHITECTURES
from orchestrator.errors import UsageError
from orchestrator.execution import cluster
from orchestrator.pipeline import plan
from orchestrator.pipeline.plan import Timing, estimate, measure
from orchestrator.settings import Settings
from orchestrator.study.study import StageStudy, open_storage

TIMING = Timing(
    epoch=2.0, per_model=5.0, samples_per_second=500.0, checkpoint_bytes=7, blocks=[3.0]
)


PRICE = {"price_per_hour": 3600.0, "currency": "EUR"}


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "connected", lambda _: nullcontext())
    monkeypatch.setattr(cluster, "capacity", lambda: {"cpu": 3.0, "gpu": 0.0})
    monkeypatch.setattr(cluster, "_biggest_node", cluster.capacity)
    monkeypatch.setattr(plan, "_timed", lambda *_: [TIMING])


@pytest.mark.usefixtures("timed")
def test_plan_bounds_the_cost_of_each_stage(settings: Settings) -> None:
    parzen = {"samples": 10_000}
    spec = make_spec(search={"budget": {"hours": 10.0}}, evaluate={"parzen": parzen})
    document = estimate(spec, settings)
    assert document["where"] == "this machine: 3 at once, 1 CPU each"
    assert (document["trials"], document["confirmations"], document["epochs"]) == (3, 4, 14)
    assert (document["parallel"], document["epoch_seconds"]) == (3, TIMING.epoch)
    assert document["seconds"] == (1 + 2) * 2 * 2.0  # three trials at once, then three and one
    assert document["samples_per_second"] == 500
    assert document["disk_bytes"] >= 7 * document["checkpoint_bytes"] > 0
    assert document["disk_bytes"] >= document["disk_bytes_expected"]
    assert document["disk_bytes_expected"] > document["disk_bytes_after_gc"] > 0
    search, confirm, evaluate = (document["stages"][s] for s in ("search", "confirm", "evaluate"))
    assert (search["trials_expected"], search["epochs_expected"]) == (3, 6)  # no pruner
    assert (confirm["trials"], confirm["epochs"]) == (4, 8)
    assert document["seconds"] == search["seconds"] + confirm["seconds"]
    assert evaluate["models"] == 4
    assert evaluate["seconds_expected"] > 2 * 5 + 4 * 3  # three models at once, then one
    [note] = document["notes"]
    assert note.startswith("search.budget: does not cover confirm and evaluate")


@pytest.mark.usefixtures("timed")
def test_plan_counts_the_trials_of_its_warm_start(settings: Settings) -> None:
    space = {"model.prior.std": {"float": [0.5, 4]}}
    first = make_spec("first", search={"space": space})
    study = StageStudy.create(open_storage(settings), first, "search")
    data = load_training_data(first.data, settings.data)
    study.note(name="first", spec=first.resolved(), data_sha256=data.sha256)
    for n in range(3):
        assert study.ask(first) is not None
        study.epoch(n, 1, [1.0], None, trained=True)
        study.end(n, "complete", 1.0, None)
    second = make_spec(search={"space": space, "warm_start": "first"})
    assert estimate(second, settings)["notes"] == [
        f"search.warm_start: the sampler has 3 of the 3 trials of {first.sweep_id}"
    ]
    study.note(data_sha256="0" * 64)
    with pytest.raises(UsageError, match="not another sweep on the same data"):
        estimate(second, settings)


@pytest.mark.usefixtures("timed")
def test_plan_without_a_search_costs_only_its_confirmations(settings: Settings) -> None:
    stages = estimate(make_spec(search=None, confirm={"seeds": 7}), settings)["stages"]
    assert stages["search"]["seconds"] == 0
    assert stages["confirm"]["seconds"] == 3 * 2 * 2.0  # 7 on 3 places


@pytest.mark.usefixtures("timed")
def test_plan_of_packs_counts_their_members_as_trials_at_once(settings: Settings) -> None:
    packs = make_spec(resources={"pack": 2, "cpu": 2})
    assert estimate(packs, settings)["parallel"] == 2  # one place, of two CPUs


@pytest.mark.usefixtures("timed")
@pytest.mark.parametrize("pack", [1, 2])
def test_plan_prices_the_share_of_each_trial_in_its_place(settings: Settings, pack: int) -> None:
    assert estimate(make_spec(), settings)["cost"] is None
    priced = {"price_per_hour": 90.0, "pack": pack, "cpu": pack}
    document = estimate(make_spec(resources=priced), settings)
    hours = document["epochs"] * TIMING.epoch / pack / 3600
    assert document["cost"] == {"amount": pytest.approx(90 * hours), "currency": None}
    assert document["cost_expected"] == document["cost"]  # no pruner


@pytest.mark.usefixtures("timed")
def test_plan_text_shows_each_stage_and_a_too_small_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AAE_HOME", str(tmp_path))
    file = tmp_path / "tiny.yaml"
    file.write_text(
        make_text(search={"trials": 10_000, "budget": {"hours": 1e-4}}, resources=PRICE)
    )
    output = aae("plan", file).out
    assert "10000 trials to search, 4 to confirm" in output
    stages = [line.split()[0] for line in output.splitlines()[3:7]]
    assert stages == ["stage", "search", "confirm", "evaluate"]
    assert "search.budget: ends the search after about " in output
    assert "after aae-sweep gc" in output
    assert re.search(r"training costs about [\d.]+ EUR, at most [\d.]+ EUR", output)


@pytest.mark.parametrize(
    ("kind", "samples", "decades"),
    [
        ("aae", 5_000, 1),
        ("aae", 10_001, 2),
        ("aae", 100_000, 2),
        ("aae", 100_001, 3),
        ("gmmn_ae", 5_000, 1),
        ("gan", 5_000, 1),
        ("classifier", 5_000, 0),
        ("label_regularised", 5_000, 0),
    ],
)
def test_plan_times_a_trial_and_one_parzen_block_of_each_decade(
    settings: Settings, kind: str, samples: int, decades: int
) -> None:
    threads = torch.get_num_threads()
    prior = {"kind": ARCHITECTURES[kind].priors[0]}
    config = make_spec(model={"kind": kind, "prior": prior}).trial_config({}, 0).to_dict()
    data = load_training_data(DataConfig(), settings.data)
    try:
        timing = measure(config, data, threads=1, gpu=False, pack=1, samples=samples)
    finally:
        torch.set_num_threads(threads)
    assert len(timing.blocks) == decades
    assert min(*timing.blocks, timing.epoch, timing.per_model, timing.checkpoint_bytes) > 0
