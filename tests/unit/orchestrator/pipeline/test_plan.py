"""The plan's estimate, measured on Ray's machines with trials as they train there."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import ray
import torch

from aae_core.config import DataConfig
from aae_core.data import load_training_data
from aae_core.errors import TrialDiverged
from orchestrator.pipeline.plan import estimate, measure
from orchestrator.settings import Settings
from orchestrator.sweepfile.spec import SweepSpec

PLACES = 3  # more than this machine may have CPUs


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(num_cpus=PLACES, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def sweep(rate: float = 0.01, **resources: Any) -> SweepSpec:
    document = {
        "name": "planned",
        "data": {"name": "digits"},
        "model": {"code_dim": 2, "hidden": [16], "init_std": 0.1},
        "training": {"epochs": 3, "reconstruction": {"lr": rate}},
        "confirm": {"seeds": 7},
        "evaluate": {"parzen": {"samples": 100_000}},
        "resources": resources,
    }
    return SweepSpec.model_validate_json(json.dumps(document))


@pytest.mark.usefixtures("cluster")
def test_plan_counts_places_of_the_cluster_and_leaves_this_process_alone(
    settings: Settings,
) -> None:
    threads = torch.get_num_threads()
    document = estimate(sweep(), settings)
    assert document["parallel"] == PLACES
    assert document["where"].endswith(f"{PLACES} at once, 1 CPU each")
    assert document["stages"]["search"]["seconds"] == 0
    confirm = document["stages"]["confirm"]
    assert confirm["seconds"] == pytest.approx(3 * 3 * document["epoch_seconds"])  # 7 on 3 places
    assert torch.get_num_threads() == threads


@pytest.mark.usefixtures("cluster")
def test_plan_of_packs_counts_their_members_as_trials_at_once(settings: Settings) -> None:
    document = estimate(sweep(pack=2, cpu=2), settings)
    assert document["parallel"] == 2  # one place, of two CPUs


@pytest.mark.usefixtures("cluster")
def test_plan_raises_the_error_that_ends_its_timed_trial(settings: Settings) -> None:
    with pytest.raises(TrialDiverged):
        estimate(sweep(rate=1e38), settings)


@pytest.mark.parametrize(
    ("samples", "decades"), [(5_000, 1), (10_001, 2), (100_000, 2), (100_001, 3)]
)
def test_plan_times_one_parzen_block_of_each_decade(
    settings: Settings, samples: int, decades: int
) -> None:
    threads = torch.get_num_threads()
    data = load_training_data(DataConfig(name="digits"), settings.data)
    config = sweep().trial_config({}, 0).to_dict()
    try:
        timing = measure(config, data, threads=1, gpu=False, pack=1, samples=samples)
    finally:
        torch.set_num_threads(threads)
    assert len(timing.blocks) == decades
    assert min(*timing.blocks, timing.epoch, timing.per_model, timing.checkpoint_bytes) > 0
