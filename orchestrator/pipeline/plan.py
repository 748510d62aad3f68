"""Estimate of a sweep's cost on the machine or cluster that would run it.

Ray tasks measure some epochs of the file's own configuration and a few blocks of its Parzen score.
Each task has a trial's resources, and as many tasks run at once on one node as trials would.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import torch

import aae_core
from aae_core.config import TrialConfig
from aae_core.data import TrainingData, load_training_data
from aae_core.declarations import ARCHITECTURES
from aae_core.errors import AAEError, TrialDiverged
from aae_core.evaluation.kernel_sums import KernelSums
from aae_core.evaluation.parzen import (
    BLOCK,
    VALID_POINTS,
    ArraySource,
    ModelSource,
    Scorer,
    SigmaSums,
    Sums,
    Window,
    block_count,
    to_float64,
)
from aae_core.models import Samples
from aae_core.training import TrainState, fit_pack
from aae_core.training.pack import form
from orchestrator.execution import cluster
from orchestrator.execution.worker import CHECKPOINT_SECONDS, SAVING_SHARE
from orchestrator.pipeline import forecast
from orchestrator.pipeline.forecast import Cost, Pace
from orchestrator.pipeline.search import pack_size
from orchestrator.records import Stage
from orchestrator.results import warm_start
from orchestrator.results.figures import draw_figures
from orchestrator.results.reader import cost
from orchestrator.settings import Settings
from orchestrator.sweepfile.checks import data_notes, require_compatible
from orchestrator.sweepfile.spec import SweepSpec

_ENOUGH_SECONDS = 20.0  # of timed epochs, after which no other is timed


@dataclass(frozen=True)
class Timing:
    """Times, in seconds, from one place where trials train."""

    epoch: float  # per pack: training, validation, and a share of saving
    per_model: float  # to validate a model and draw its pictures
    samples_per_second: float
    checkpoint_bytes: int
    blocks: list[float]  # of the Parzen score, in the form of `forecast.parzen_seconds`


def estimate(spec: SweepSpec, settings: Settings) -> dict[str, Any]:
    """Return the document of `aae-sweep plan --json`.

    Raises EnvironmentUnusable without data, a cluster or free resources, and TrialDiverged if the
    file's own configuration diverges in the timed epochs.
    """
    cluster.preflight(settings, spec.resources)
    data = load_training_data(spec.data, settings.data)
    require_compatible(spec, data)
    warm = warm_start.read(spec, settings, data.sha256)
    with cluster.connected(settings):
        resources = cluster.trial_resources(spec.resources)
        slots, actors = cluster.slots(resources), cluster.cpus()
        forms = _forms(spec, data, resources)
        timings = {each: _timed(spec, data, resources, *each) for each in {*forms.values()}}
    paces = {
        stage: Pace(slots * pack, fmean(t.epoch for t in timings[config, pack]))
        for stage, (config, pack) in forms.items()
    }
    searching = forecast.search_cost(spec, paces["search"], resources.gpu)
    confirming = forecast.confirm_cost(spec, paces["confirm"])
    timing = timings[forms["confirm"]]
    blocks = [fmean(each) for each in zip(*(t.blocks for t in timing), strict=True)]
    evaluating = forecast.evaluate_seconds(
        spec.confirmations,
        spec.evaluate.parzen,
        per_model=fmean(t.per_model for t in timing),
        at_once=slots,
        block_seconds=blocks,
        actors=actors,
        train_images=len(data.x_train),
    )
    training = {
        epochs: sum(
            getattr(stage, epochs) * paces[name].epoch_seconds / forms[name][1]
            for name, stage in (("search", searching), ("confirm", confirming))
        )
        for epochs in ("epochs", "epochs_expected")
    }  # seconds of all trials
    first = "search" if spec.search else "confirm"
    checkpoint, at_once = timing[0].checkpoint_bytes, paces[first].at_once
    most = forecast.disk_bytes(spec, searching.trials, at_once, checkpoint)
    expected = forecast.disk_bytes(spec, searching.trials_expected, at_once, checkpoint)
    return {
        "sweep": spec.sweep_id,
        "where": _where(settings, resources, slots),
        "trials": searching.trials,
        "confirmations": confirming.trials,
        "epochs": searching.trials * spec.max_epochs + confirming.epochs,
        "epoch_seconds": paces[first].epoch_seconds,
        "samples_per_second": fmean(t.samples_per_second for t in timings[forms[first]]),
        "parallel": at_once,
        "seconds": searching.seconds + confirming.seconds,
        "cost": cost(training["epochs"], spec.resources.model_dump()),
        "cost_expected": cost(training["epochs_expected"], spec.resources.model_dump()),
        "checkpoint_bytes": checkpoint,
        "disk_bytes": most["peak"],
        "disk_bytes_expected": expected["peak"],
        "disk_bytes_after_gc": expected["kept"],
        "stages": {
            "search": asdict(searching),
            "confirm": asdict(confirming),
            "evaluate": {
                "models": spec.confirmations,
                "seconds": evaluating,
                "seconds_expected": evaluating,
            },
        },
        "notes": [
            *data_notes(spec, data),
            *([warm.summary] if warm else []),
            *_notes(spec, searching, confirming, evaluating),
        ],
    }


def _forms(
    spec: SweepSpec, data: TrainingData, resources: cluster.TrialResources
) -> dict[str, tuple[TrialConfig, int]]:
    """Return the file's own configuration for each stage, and how many such trials form a pack."""
    planned: dict[Stage, int] = {
        "search": spec.search.planned if spec.search else 1,
        "confirm": spec.confirmations,
    }
    found: dict[str, tuple[TrialConfig, int]] = {}
    for stage, trials in planned.items():
        config = spec.stage_config(stage, {}, spec.seed)
        shape = form(config)
        pack = 1 if shape is None else min(trials, pack_size(spec, trials, data, resources)(shape))
        found[stage] = config, pack
    return found


def _timed(
    spec: SweepSpec,
    data: TrainingData,
    resources: cluster.TrialResources,
    config: TrialConfig,
    pack: int,
) -> list[Timing]:
    """Return the timings of all places on one node, measured at the same time."""
    import ray
    from ray.exceptions import RayTaskError

    stages = [spec.confirmations, spec.search.planned if spec.search else 0]
    places = min(cluster.slots_of_a_node(resources), -(-max(stages) // pack))
    task: Any = ray.remote(measure).options(
        num_cpus=resources.cpu, num_gpus=resources.gpu, max_retries=0
    )
    samples = spec.evaluate.parzen.samples
    arguments = (
        config.to_dict(),
        ray.put(data),
        resources.threads,
        resources.gpu > 0,
        pack,
        samples,
    )
    try:
        timings: list[Timing] = ray.get([task.remote(*arguments) for _ in range(places)])
    except RayTaskError as error:
        if isinstance(error.cause, AAEError):
            raise error.cause from None
        raise
    return timings


def measure(
    config: Mapping[str, Any], data: TrainingData, threads: int, gpu: bool, pack: int, samples: int
) -> Timing:
    """Time some epochs of a pack of trials, then saving, drawing and scoring one of the trials.

    The first epoch, which warms the process up, counts only if no other epoch is timed.
    """
    torch.set_num_threads(threads)
    own = TrialConfig.from_dict(dict(config))
    states = [TrainState.create(own, data, "cuda" if gpu else "cpu") for _ in range(pack)]
    seconds, validating, speed = _time_epochs(states, data)
    with TemporaryDirectory() as folder:
        saved = Path(folder) / "epoch-1"
        began = time.perf_counter()
        states[0].save(saved)
        saving = pack * (time.perf_counter() - began)
        size = sum(file.stat().st_size for file in saved.rglob("*") if file.is_file())
        model = aae_core.load(saved)
        began = time.perf_counter()
        draw_figures(model, data, own.seed, Path(folder) / "pictures")
        drawing = time.perf_counter() - began
        blocks = []
        if isinstance(model, Samples) and "parzen_ll" in ARCHITECTURES[model.kind].metrics:
            blocks = _time_blocks(model, own.seed, samples, data)
    pause = max(CHECKPOINT_SECONDS, saving / SAVING_SHARE)
    epoch = seconds + saving * min(1.0, seconds / pause)
    return Timing(epoch, validating + drawing, speed, size, blocks)


def _time_epochs(states: list[TrainState], data: TrainingData) -> tuple[float, float, float]:
    """Return seconds per epoch of the pack, per validation of one model, and images per second.

    Every timed epoch validates; `training.validate_every` epochs share the cost of a validation.
    """
    took: list[float] = []
    training, members = states[0].config.training, dict(enumerate(states))
    began = time.perf_counter()
    for results in fit_pack(members, data, range(training.epochs)):
        took.append(time.perf_counter() - began)
        for result in results.values():
            if isinstance(result, TrialDiverged):
                raise result
        if sum(took) > _ENOUGH_SECONDS:
            break
        began = time.perf_counter()
    last = [result for result in results.values() if not isinstance(result, TrialDiverged)]
    speed = sum(result.samples_per_second for result in last)
    images = len(data.x_train) * len(last)
    seconds = fmean(took[1:] or took)
    validating = max(0.0, seconds - images / speed)
    seconds -= validating * (1 - 1 / training.validate_every)
    return seconds, validating / len(last), speed


def _time_blocks(model: Samples, seed: int, n_samples: int, data: TrainingData) -> list[float]:
    """Return the seconds to draw and score the first block of each decade, by the real engine.

    Training images stand for a trained model's samples: the samples of a barely trained model lie
    so far from the data that every pair counts.  Validation images stand for the test images, which
    stay closed until the winner is fixed.  Multiples of the first block's sums stand for the sums
    of all earlier blocks.
    """
    began = time.perf_counter()
    ModelSource(model, seed, n_samples).block(0)
    drawing = time.perf_counter() - began
    images = ArraySource(data.x_train.take(range(min(2 * BLOCK, n_samples)), 0, mode="wrap"))
    points = to_float64(data.x_valid, "validation images")
    scorer = Scorer(points[:VALID_POINTS], points, n_samples, None)
    took, first, window, index = list[float](), None, Window(), 0
    while index < block_count(n_samples):
        began = time.perf_counter()
        sums = scorer.score(images, min(index, 1), window)
        took.append(drawing + time.perf_counter() - began)
        first, index = first or sums, max(1, 10 * index)
        before = _times(first, index)
        window = Window(scorer.next_window(before, index * BLOCK), before)
    return took


def _times(sums: Sums, blocks: int) -> Sums:
    """Return the sums over `blocks` identical blocks."""
    more = torch.tensor(blocks, dtype=torch.float64).log()

    def times(widths: SigmaSums) -> SigmaSums:
        each = widths.sums
        return SigmaSums(widths.sigmas, KernelSums(each.log_sums + more, each.log_errors + more))

    return Sums(times(sums.valid), times(sums.test))


def _where(settings: Settings, resources: cluster.TrialResources, slots: int) -> str:
    place = f"the cluster at {settings.ray_address}" if settings.ray_address else "this machine"
    each = f"{resources.cpu:g} CPU" + (f" and {resources.gpu:g} GPU" if resources.gpu else "")
    return f"{place}: {slots} at once, {each} each"


def _notes(spec: SweepSpec, searching: Cost, confirming: Cost, evaluating: float) -> list[str]:
    search, found = spec.search, []
    if search is None:
        return []
    if searching.trials_expected < searching.trials:
        found.append(
            f"search.budget: ends the search after about {searching.trials_expected} of its "
            f"{searching.trials} trials"
        )
    if search.budget is not None:
        hours = (confirming.seconds_expected + evaluating) / 3600
        found.append(
            f"search.budget: does not cover confirm and evaluate, about {hours:.2g} h after it"
        )
    if spec.pruner.kind != "none":
        found.append(forecast.ASSUMPTION)
    if "training.epochs" in search.space:
        found.append(f"training.epochs: every trial counts as the longest, {spec.max_epochs}")
    return found
