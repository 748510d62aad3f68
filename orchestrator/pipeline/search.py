"""The stages search and confirm: choose and train trials until there are enough.

Both stages receive TrainingData, which has no test member, so neither can reach the test split.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

from aae_core.config import TrialConfig
from aae_core.data import TrainingData
from aae_core.training.pack import worthwhile
from orchestrator.errors import DiskFull, SweepError
from orchestrator.execution import cluster
from orchestrator.execution.tune_driver import StageDriver, run_stage
from orchestrator.pipeline.context import Recorder, SweepContext, interrupted
from orchestrator.records import RunRecord, Stage
from orchestrator.results import ranking
from orchestrator.study.repeats import MAX_IN_A_ROW
from orchestrator.study.study import TrialAttempt, confirm_seed
from orchestrator.sweepfile.spec import SweepSpec

_GENERATIONS = 4  # of packs, at least: a sampler learns from one generation to the next


def search(sweep: SweepContext, data: TrainingData, resources: cluster.TrialResources) -> None:
    if sweep.spec.search is None:
        return

    def next_trial() -> TrialAttempt | None:
        attempt = None
        while attempt is None:
            if _enough(sweep):
                _extend(sweep)
                if _enough(sweep):
                    return None
            attempt = sweep.search.ask(sweep.spec)
        return attempt

    _train(sweep, "search", sweep.spec.search.planned, data, resources, next_trial)
    asked = sweep.search.asked()
    if asked < sweep.spec.search.planned:
        if _used_up(sweep):
            sweep.notifier.send("budget")
        _plan(sweep, asked)
        sweep.observer.note(f"search: ended after {asked} trials: {_enough(sweep)}")


def _enough(sweep: SweepContext) -> str | None:
    """Return why the search starts no further trial; None if the search continues."""
    search = sweep.spec.search
    assert search is not None
    if sweep.search.asked() >= search.planned:
        return f"all {search.planned} trials have been suggested"
    if used_up := _used_up(sweep):
        return used_up
    if search.patience is not None and sweep.search.since_best() >= search.patience:
        return f"the best value has not improved for {search.patience} trials"
    if search.target is not None and _reached(sweep, search.target):
        return f"the objective has reached {search.target:g}"
    if sweep.search.repeats.in_a_row >= MAX_IN_A_ROW:
        return f"the last {MAX_IN_A_ROW} suggestions had all been tried before"
    return None


def _reached(sweep: SweepContext, target: float) -> bool:
    maximized = sweep.spec.objective.direction == "maximize"
    values = sweep.search.completed_values()
    return any(value >= target if maximized else value <= target for value in values)


def _used_up(sweep: SweepContext) -> str | None:
    """Return which budget of the search is used up, else None."""
    budget = sweep.spec.search.budget if sweep.spec.search else None
    if budget and budget.hours and sweep.elapsed >= 3600 * budget.hours:
        return f"its {budget.hours:g} h are used up"
    if budget and budget.gpu_hours and sweep.search.gpu_hours() >= budget.gpu_hours:
        return f"its {budget.gpu_hours:g} GPU-hours are used up"
    return None


def _extend(sweep: SweepContext) -> None:
    """Apply an extension that `aae-sweep extend` has requested meanwhile."""
    spec = sweep.spec.extended(**sweep.search.state.extended)
    if spec != sweep.spec and spec.search is not None:
        sweep.request = replace(sweep.request, spec=spec)
        sweep.note(spec=spec.resolved())
        _plan(sweep, spec.search.planned)
        sweep.observer.note(f"search: extended, now {spec.search.span}")


def _plan(sweep: SweepContext, trials: int) -> None:
    sweep.note(planned=sweep.search.state.planned | {"search": trials})


def confirm(sweep: SweepContext, data: TrainingData, resources: cluster.TrialResources) -> None:
    """Train the search's candidates again, with seeds that the search has never used.

    The file's own configuration is the control.  The control gets every seed that any candidate
    gets and takes part in no race.  A candidate with the control's configuration trains once.
    """
    spec = sweep.spec
    seeds = [confirm_seed(spec.seed, index) for index in range(spec.confirm.seeds)]
    chosen = [record.params for record in _best_trials(sweep)] if spec.search else [{}]
    if not chosen:
        raise SweepError(
            "no trial of the search has a result to confirm; the reasons: "
            f"aae-sweep show {sweep.id}"
        )
    sweep.confirm.note(baseline=spec.baseline_hash)
    control = _control(spec, chosen)
    for before, now in pairwise([0, *spec.confirm.heats]):
        if before:
            chosen = _left_in_race(sweep, chosen, seeds[:before])
        for trained in (chosen, control):
            sweep.confirm.enqueue({"params": p, "seed": s} for s in seeds[:now] for p in trained)
        planned = len(sweep.confirm.records())
        sweep.note(planned=sweep.search.state.planned | {"confirm": planned})
        _train(sweep, "confirm", planned, data, resources, lambda: sweep.confirm.pop(spec))


def _control(spec: SweepSpec, chosen: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the control's parameters: those of a candidate with its configuration, or else {}.

    The list is empty without a search, or if the control is switched off.
    """
    if spec.search is None or not spec.confirm.baseline:
        return []
    own = (
        p
        for p in chosen
        if spec.stage_config("confirm", p, spec.seed).config_hash == spec.baseline_hash
    )
    return [next(own, {})]


def _left_in_race(
    sweep: SweepContext, racing: list[dict[str, Any]], seeds: list[int]
) -> list[dict[str, Any]]:
    """Return the parameters of the candidates that enter the next heat.

    Only the seeds of the heats so far count, and no extension, so a restart makes the same choice.
    """
    objective, confirm = sweep.spec.objective, sweep.spec.confirm
    records = (
        r
        for r in sweep.confirm.records()
        if r.seed in seeds and r.params in racing and r.extends is None
    )
    left = ranking.left_in_race(
        ranking.candidates(records),
        objective.metric,
        objective.direction,
        per=confirm.per,
        looks=len(confirm.heats) - 1,
    )
    sweep.observer.note(f"confirm: {len(left)} of {len(racing)} get more seeds")
    return [candidate.params for candidate in left]


def _best_trials(sweep: SweepContext) -> list[RunRecord]:
    return ranking.best_trials(
        sweep.search.records(),
        sweep.spec.objectives,
        top=sweep.spec.confirm.top,
        per=sweep.spec.confirm.per,
    )


def _train(
    sweep: SweepContext,
    stage: Stage,
    planned: int,
    data: TrainingData,
    resources: cluster.TrialResources,
    next_attempt: Callable[[], TrialAttempt | None],
) -> None:
    study = sweep.study(stage)
    sweep.note(stage=stage)
    sweep.observer.stage_began(stage, planned, study.records())
    if study.count_ended() >= planned and not study.unfinished():
        return
    driver = StageDriver(
        sweep.spec,
        study,
        sweep.folder_of,
        resources,
        Recorder(sweep),
        next_attempt,
        pack_size(sweep.spec, planned, data, resources),
        sweep.draining,
        sweep.paused,
        sweep.stopped,
        lambda: sweep.allowed,
    )
    scratch = sweep.settings.sweep_folder(sweep.id) / ".tune"
    sweep.is_training = lambda: not driver.is_drained
    try:
        run_stage(driver, data, resources, scratch)
    finally:
        sweep.is_training = lambda: False
    if driver.full is not None:
        raise DiskFull(driver.full)
    if sweep.draining.is_set():
        raise interrupted(sweep)


def pack_size(
    spec: SweepSpec, planned: int, data: TrainingData, resources: cluster.TrialResources
) -> Callable[[TrialConfig], int]:
    """Return a function that gives the largest number of trials of a form per pack."""
    pack = spec.resources.pack
    if pack != "auto":
        return lambda _: pack
    most = max(1, planned // (_GENERATIONS * cluster.slots(resources)))
    dim, on_gpu = data.x_train.shape[1], resources.gpu > 0
    return lambda form: min(most, worthwhile(form, dim, on_gpu=on_gpu))
