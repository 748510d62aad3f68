"""The evaluate stage: fix the winner on validation, record it, then open the test split."""

import math
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from aae_core.data import TestData, TrainingData, load_test_data
from aae_core.errors import DataError
from orchestrator.documents import Evaluation, ScoredModel
from orchestrator.errors import EnvironmentUnusable, SweepError
from orchestrator.execution import cluster
from orchestrator.execution.parzen_pool import ParzenPool
from orchestrator.pipeline.context import SweepContext, interrupted
from orchestrator.pipeline.scoring import ModelScorer, planned_samples, write_json
from orchestrator.records import BASELINE, RunRecord, conditions, is_baseline
from orchestrator.results import ranking
from orchestrator.results.reader import run_key
from orchestrator.sweepfile.checks import require_known_classes

_LISTENING_SECONDS = 1.0  # between two checks for the end of a pause


def evaluate(sweep: SweepContext, data: TrainingData) -> Evaluation:
    """Fix the winner on validation, record the winner, and only then open the test split."""
    objective = sweep.spec.objective
    confirmed = ranking.candidates(sweep.confirm.records())
    found, control = ranking.apart(confirmed, sweep.spec.baseline_hash)
    ranked = ranking.rank(
        found, objective.metric, objective.direction, seeds=sweep.spec.confirm.seeds
    )
    if not ranked:
        raise SweepError(f"no confirmation has finished; the reasons: aae-sweep show {sweep.id}")
    sweep.confirm.note(winner=ranked[0].config_hash)
    sweep.note(stage="evaluate")
    test = _test_data(sweep, data)
    scored = [*ranked, *(c for c in [control] if c is not None and c not in ranked)]
    planned = list(planned_samples(scored, sweep.spec.evaluate.parzen))
    sweep.observer.stage_began("evaluate", len(planned), ())
    models = _score_all(sweep, data, test, planned)
    _show_in_front(sweep, planned[0][0])
    document: Evaluation = {"sweep": sweep.id, "winner": ranked[0].config_hash, "models": models}
    path = sweep.settings.evaluation(sweep.id)
    write_json(path, document)
    sweep.outbox.attach(sweep.id, path)
    return document


class _OutOfTurn(Exception):
    """The places belong to other sweeps now. Known scores and blocks of samples are kept."""


def _score_all(
    sweep: SweepContext,
    data: TrainingData,
    test: TestData,
    planned: Sequence[tuple[RunRecord, int]],
) -> list[ScoredModel]:
    folder, further = sweep.settings.scores_folder(sweep.id), sweep.spec.training.metrics
    progress, folder_of = partial(_scoring, sweep), partial(_folder, sweep)
    while True:
        _await_turn(sweep)
        actors = cluster.cpus() if sweep.spec.has_parzen else 0
        if sweep.allowed is not None:
            actors = min(actors, max(1, round(sweep.allowed * sweep.spec.resources.cpu)))
        with suppress(_OutOfTurn), ParzenPool(actors) as pool:
            scorer = ModelScorer(data, test, folder, pool, progress, folder_of, further)
            _measure(sweep, scorer, [run for run, _ in planned])
            return [_score(sweep, scorer, run, samples) for run, samples in planned]


def _measure(sweep: SweepContext, scorer: ModelScorer, runs: Sequence[RunRecord]) -> None:
    """Compute the missing test metrics and pictures, as many models at once as trials train.

    This ends before the first Parzen actor starts: such actors keep their CPUs to the end.
    """
    missing = scorer.unmeasured(runs)
    if not missing:
        return
    resources = cluster.trial_resources(sweep.spec.resources)
    at_once = cluster.slots(resources)
    if sweep.allowed is not None:
        at_once = min(at_once, max(1, sweep.allowed))
    scorer.measure(missing, resources, at_once)


def _folder(sweep: SweepContext, run: RunRecord) -> Path:
    return sweep.settings.trial_folder(sweep.id, run.stage, run.number)


def _scoring(sweep: SweepContext, what: str, done: int, total: int) -> None:
    if sweep.allowed == 0:
        raise _OutOfTurn  # its actors leave their places
    _await_turn(sweep)
    sweep.observer.scoring(what, done, total)


def _await_turn(sweep: SweepContext) -> None:
    """Wait while the sweep is paused or has no place. Raises Interrupted once a drain begins."""
    while (sweep.paused.is_set() or sweep.allowed == 0) and not sweep.draining.is_set():
        time.sleep(_LISTENING_SECONDS)
    if sweep.draining.is_set():
        raise interrupted(sweep)


def _test_data(sweep: SweepContext, data: TrainingData) -> TestData:
    try:
        test = load_test_data(sweep.spec.data, sweep.settings.data)
        require_known_classes(sweep.spec, data, test)
    except DataError as error:
        raise EnvironmentUnusable(
            f"{error}\nsearch and confirm are complete and kept; "
            f"once the test files are there, resume with: {sweep.request.resume}"
        ) from error
    return test


def _score(sweep: SweepContext, scorer: ModelScorer, run: RunRecord, samples: int) -> ScoredModel:
    """Score one model; queue its document, pictures and checkpoint for its run in MLflow."""
    document: ScoredModel = {
        "trial": run.number,
        "seed": run.seed,
        "config_hash": run.config_hash,
        "group": _group(sweep, run),
        "checkpoint": run.checkpoint,
        **scorer.score(run, samples),
    }
    key = run_key(sweep.id, run.stage, run.number)
    path = _folder(sweep, run) / "evaluation.json"
    sweep.outbox.log(key, run.epochs, numbers(document["metrics"]))
    sweep.outbox.set_tags(key, {"aae.conditions": "; ".join(conditions(sweep.outbox.last(key)))})
    write_json(path, document)
    for attached in (path, *scorer.pictures(run)):
        sweep.outbox.attach(key, attached)
    assert run.checkpoint is not None  # confirmed models are saved
    sweep.outbox.attach(key, Path(run.checkpoint), "checkpoint")
    return document


def _group(sweep: SweepContext, run: RunRecord) -> Any:
    if is_baseline(run, searched=sweep.spec.search is not None):
        return BASELINE
    return run.params.get(sweep.spec.compared or "")


def numbers(figures: dict[str, float | None]) -> dict[str, float]:
    """Turn null back into NaN: JSON has no non-finite numbers."""
    return {name: math.nan if value is None else value for name, value in figures.items()}


def _show_in_front(sweep: SweepContext, winner: RunRecord) -> None:
    """Copy the pictures of the winner's first model to the sweep's own run."""
    folder = sweep.settings.pictures_folder(sweep.id)
    folder.mkdir(exist_ok=True)
    drawn = _folder(sweep, winner)
    for path in sorted(p for p in drawn.iterdir() if p.suffix in (".png", ".gif", ".html")):
        shutil.copy(path, folder)
        sweep.outbox.attach(sweep.id, folder / path.name)
