"""The study: suggestions survive restarts, and no start, epoch or end is lost or counted twice."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import optuna
import pytest
from sweep_file import make_spec

from orchestrator.errors import EnvironmentUnusable
from orchestrator.settings import Settings
from orchestrator.study.repeats import MAX_IN_A_ROW
from orchestrator.study.study import (
    StageStudy,
    TrialAttempt,
    confirm_seed,
    open_storage,
    search_seed,
    sweep_ids,
)
from orchestrator.sweepfile.spec import SweepSpec

KINDS = ["deterministic", "gaussian", "universal"]
SPACE = {
    "model.encoder.kind": {"choice": KINDS},
    "model.encoder.noise_dim": {"int": [2, 64], "when": {"model.encoder.kind": "universal"}},
    "model.prior.std": {"float": [0.5, 20], "log": True},
    "model.code_dim": {"int": [4, 16]},
}
GRID = {"model.encoder.kind": {"choice": KINDS}, "model.code_dim": {"int": [4, 8], "step": 4}}
SAMPLERS: dict[str, dict[str, Any]] = {
    "random": {"kind": "random"},
    "tpe": {"kind": "tpe", "startup_trials": 3},
    "gp": {"kind": "gp", "startup_trials": 2},
    "qmc": {"kind": "qmc"},
    "grid": {"kind": "grid"},
}


def sweep(sampler: str = "random", **search: Any) -> SweepSpec:
    space = GRID if sampler == "grid" else SPACE
    search = {"trials": 6, "space": space, "sampler": SAMPLERS[sampler], **search}
    return make_spec("small", training={"epochs": 9}, search=search)


def opened(settings: Settings, spec: SweepSpec, stage: Any = "search") -> StageStudy:
    """Open the study as a newly started driver does, from the storage alone."""
    return StageStudy.create(open_storage(settings), spec, stage)


def end(study: StageStudy, attempt: TrialAttempt, value: float = 1.0) -> None:
    study.started(attempt.number, "here", None)
    study.epoch(attempt.number, 1, [value], None, trained=True)
    study.end(attempt.number, "complete", value, None)


def value_of(attempt: TrialAttempt) -> float:
    return float(attempt.config.model.code_dim)


def suggestions(settings: Settings, spec: SweepSpec, restart_at: int | None = None) -> list[Any]:
    study = opened(settings, spec)
    for n in range(6):
        if n == restart_at:
            study = opened(settings, spec)
        attempt = study.ask(spec)
        end(study, attempt, value_of(attempt))
    return [(r.params, r.seed) for r in study.records()]


def test_study_suggests_start_configurations_first_and_sampler_completes_them(
    settings: Settings,
) -> None:
    start = [{"model.code_dim": 5, "model.prior.std": 7.0}, {"model.encoder.kind": "universal"}]
    found = suggestions(settings, sweep(initial_trials=start))
    params = [p for p, _ in found]
    assert (params[0]["model.code_dim"], params[0]["model.prior.std"]) == (5, 7.0)
    assert params[0]["model.encoder.kind"] in KINDS
    assert params[1]["model.encoder.kind"] == "universal"


@pytest.mark.parametrize("sampler", ["random", "tpe", "qmc"])
def test_start_configurations_survive_restart_and_change_no_later_suggestion(
    sampler: str, new_home: Callable[[str], Settings]
) -> None:
    start = [{"model.code_dim": 5}, {"model.code_dim": 6}]
    through = suggestions(new_home("a"), sweep(sampler, initial_trials=start))
    for stop in (1, 2):
        assert (
            suggestions(new_home(f"b{stop}"), sweep(sampler, initial_trials=start), stop) == through
        )
    if sampler == "random":
        assert through[2:] == suggestions(new_home("c"), sweep(sampler))[2:]


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_start_configurations_count_as_startup_trials(
    sampler: str, new_home: Callable[[str], Settings]
) -> None:
    """Test that suggestions depend on the start configurations once these are enough."""

    def fourth(home: str, startup: int, dims: tuple[int, int, int]) -> dict[str, Any]:
        search = {
            "trials": 6,
            "space": SPACE,
            "sampler": {"kind": sampler, "startup_trials": startup},
            "initial_trials": [{"model.code_dim": dim} for dim in dims],
        }
        params: dict[str, Any] = suggestions(new_home(home), make_spec(search=search))[3][0]
        return params

    low, high = (4, 5, 6), (14, 15, 16)
    assert fourth("a", 3, low) != fourth("b", 3, high)
    assert fourth("c", 4, low) == fourth("d", 4, high)


def test_start_configuration_without_balanced_parameter_keeps_the_balance(
    settings: Settings,
) -> None:
    spec = sweep(balance="model.encoder.kind", initial_trials=[{"model.code_dim": 5}] * 2)
    found = [p["model.encoder.kind"] for p, _ in suggestions(settings, spec)]
    assert found == KINDS * 2


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_study_with_several_objectives_survives_a_restart(
    sampler: str, new_home: Callable[[str], Settings]
) -> None:
    spec = sweep(sampler, secondary_objectives=["val/recon", "val/latent_mmd"])

    def run(settings: Settings, restart_at: int | None) -> list[Any]:
        study = opened(settings, spec)
        for n in range(6):
            attempt = study.ask(spec)
            assert attempt is not None
            study.started(n, "here", None)
            value = value_of(attempt)
            for epoch in (1, 2):
                study.epoch(n, epoch, [value, -value, float(epoch)], None, trained=True)
                assert not study.should_prune(n)
            if n == restart_at:
                study.save()
                study = opened(settings, spec)
                study.epoch(n, 1, [9.0, 9.0, 9.0], None, trained=True)  # repeated
            study.end(n, "complete", value, None)
            assert study.optuna_study.trials[n].values == [value, -value, 2.0]
        assert all(list(r.metrics) == list(spec.objectives) for r in study.records())
        return [(r.params, r.metrics) for r in study.records()]

    through = run(new_home("a"), None)
    assert len({tuple(params.items()) for params, _ in through}) > 3
    assert run(new_home("b"), 4) == through


def test_study_learned_trials_reach_the_sampler_and_no_count(
    new_home: Callable[[str], Settings],
) -> None:
    spec = sweep("tpe")
    first = new_home("a")
    suggestions(first, spec)
    known = opened(first, spec).records()
    metric = spec.objective.metric
    known = [replace(r, metrics={metric: float(r.params["model.code_dim"])}) for r in known]

    second = opened(new_home("b"), spec)
    assert second.warm_start("first", known, spec) == len(known)
    assert second.warm_start("first", known, spec) == len(known)  # again, after a killed driver
    assert [t.value for t in second.optuna_study.trials] == [r.metrics[metric] for r in known]
    assert (second.asked(), second.records(), second.count_ended()) == (0, [], 0)

    attempt = second.ask(spec)
    assert attempt.number == len(known)
    assert attempt.config.seed == search_seed(spec.seed, 0)
    unaware = opened(new_home("c"), spec).ask(spec)
    assert attempt.config.config_hash != unaware.config.config_hash  # type: ignore[union-attr]
    end(second, attempt)
    assert (second.asked(), second.count_ended(), len(second.records())) == (1, 1, 1)


# -- suggestions -----------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_study_suggestions_after_restart_equal_uninterrupted_suggestions(
    sampler: str, new_home: Callable[[str], Settings]
) -> None:
    spec = sweep(sampler)
    found = suggestions(new_home("undisturbed"), spec)
    assert suggestions(new_home("restarted"), spec, restart_at=4) == found
    assert len({str(params) for params, _ in found}) == 6
    assert len({seed for _, seed in found}) == 6


@pytest.mark.parametrize("sampler", ["random", "qmc", "grid"])
def test_non_adaptive_sampler_ignores_the_order_of_trial_ends(
    sampler: str, new_home: Callable[[str], Settings]
) -> None:
    spec = sweep(sampler)
    all_asked_first = opened(new_home("a"), spec)
    for _ in range(6):
        all_asked_first.ask(spec)
    one_by_one = suggestions(new_home("b"), spec)
    assert [(r.params, r.seed) for r in all_asked_first.records()] == one_by_one


def test_qmc_sampler_covers_every_parameter_evenly(settings: Settings) -> None:
    spec = sweep("qmc", trials=16)
    study = opened(settings, spec)
    params = [study.ask(spec) and study.records()[-1].params for _ in range(16)]
    stds = sorted(p["model.prior.std"] for p in params)
    by_quarter = Counter(sum(std >= 0.5 * 40 ** (k / 4) for k in (1, 2, 3)) for std in stds)
    assert by_quarter == {0: 4, 1: 4, 2: 4, 3: 4}  # Sobol' numbers balance every power of two
    noise = [p["model.encoder.noise_dim"] for p in params if "model.encoder.noise_dim" in p]
    assert len(noise) == len(set(noise)) > 3


def test_samplers_write_nothing_to_stderr(
    settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    for sampler in SAMPLERS:
        suggestions(settings, sweep(sampler))
    assert capfd.readouterr().err == ""


def test_study_with_another_seed_suggests_other_configurations(settings: Settings) -> None:
    other = sweep().model_copy(update={"seed": 1})
    assert suggestions(settings, sweep()) != suggestions(settings, other)


def test_conditional_parameter_is_suggested_only_where_condition_holds(settings: Settings) -> None:
    for params, _ in suggestions(settings, sweep(balance="model.encoder.kind")):
        universal = params["model.encoder.kind"] == "universal"
        assert ("model.encoder.noise_dim" in params) == universal


@pytest.mark.parametrize("sampler", ["random", "tpe", "gp", "qmc"])
def test_balance_suggests_every_choice_equally_often(sampler: str, settings: Settings) -> None:
    found = suggestions(settings, sweep(sampler, balance="model.encoder.kind"), restart_at=2)
    assert [params["model.encoder.kind"] for params, _ in found] == KINDS * 2


def test_grid_visits_every_combination_once_and_plans_no_more(settings: Settings) -> None:
    spec = sweep("grid", trials=50)
    assert spec.search.planned == 6
    assert spec.notes == ["search.trials: the grid ends after its 6 combinations"]
    found = {
        (params["model.encoder.kind"], params["model.code_dim"])
        for params, _ in suggestions(settings, spec, restart_at=5)
    }
    assert found == set(product(KINDS, (4, 8)))
    fewer = sweep("grid", trials=2)
    assert (fewer.search.planned, fewer.notes) == (2, [])


def test_confirm_seeds_never_equal_search_seeds() -> None:
    searched = {search_seed(0, n) for n in range(1000)}
    confirmed = {confirm_seed(0, n) for n in range(1000)}
    assert len(searched) == len(confirmed) == 1000
    assert all(seed % 2 == 0 and 0 <= seed < 2**63 for seed in searched)
    assert all(seed % 2 == 1 and 0 <= seed < 2**63 for seed in confirmed)


# -- loss and resume -------------------------------------------------------------------------


def test_lost_trial_resumes_its_configuration_from_the_last_checkpoint(settings: Settings) -> None:
    spec = sweep()
    driver = opened(settings, spec)
    done, lost = driver.ask(spec), driver.ask(spec)
    driver.started(lost.number, "here", None)
    driver.epoch(lost.number, 1, [0.5], None, trained=True)
    driver.epoch(lost.number, 2, [0.6], "/home/epoch-000002", trained=True)
    driver.epoch(lost.number, 3, [0.7], None, trained=True)
    end(driver, done)

    again = opened(settings, spec)
    assert again.unfinished() == [lost.number]
    attempt = again.next_attempt(lost.number, spec)
    assert (attempt.attempt, attempt.config) == (2, lost.config)
    assert attempt.resume == Path("/home/epoch-000002")
    assert lost.resume is None


def test_study_that_a_driver_has_just_created_reads_as_empty(settings: Settings) -> None:
    spec, storage = sweep(), open_storage(settings)
    optuna.create_study(storage=storage, study_name=f"{spec.sweep_id}/search")
    reader = StageStudy.read(storage, spec.sweep_id, "search")
    assert reader is not None
    assert (reader.records(), reader.objectives) == ([], {})
    opened(settings, spec)
    assert list(reader.objectives) == list(spec.objectives)


def test_lost_trial_of_a_moved_home_resumes_from_the_checkpoint_there(settings: Settings) -> None:
    spec = sweep()
    study = opened(settings, spec)
    number = study.ask(spec).number
    study.started(number, "here", None)
    folder = settings.attempt_folder(spec.sweep_id, "search", number, 1)
    study.epoch(number, 1, [0.5], str(folder / "epoch-000001"), trained=True)
    study.save()

    home = settings.home.rename(settings.home.with_name("moved"))
    settings = Settings.from_environment({"AAE_HOME": str(home)})
    checkpoint = settings.attempt_folder(spec.sweep_id, "search", number, 1) / "epoch-000001"
    moved = opened(settings, spec)
    assert [r.checkpoint for r in moved.records()] == [str(checkpoint)]
    assert moved.next_attempt(number, spec).resume == checkpoint


def test_repeated_epoch_is_counted_and_keeps_its_first_value(settings: Settings) -> None:
    spec = sweep()
    study = opened(settings, spec)
    number = study.ask(spec).number
    study.started(number, "there", None)
    for epoch, value in ((1, 0.1), (2, 0.2)):
        study.epoch(number, epoch, [value], None, trained=True)
    study.next_attempt(number, spec)
    study.started(number, "here", 1)
    for epoch, value in ((2, 9.9), (3, 0.3)):
        study.epoch(number, epoch, [value], None, trained=True)
    study.epoch(number, 3, [0.3], None, trained=False)
    [record] = study.records()
    assert (record.epochs, record.epochs_computed, record.attempts) == (3, 4, 2)
    assert (record.resumed_from, record.node) == ([1], "here")
    assert record.metrics == {"val/parzen_ll": 0.3}
    [trial] = study.optuna_study.get_trials()
    assert trial.intermediate_values == {1: 0.1, 2: 0.2, 3: 0.3}


class Killed(BaseException):
    pass


@contextmanager
def killed_before_it_saves(study: StageStudy, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def killed() -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(study, "save", killed)
        with pytest.raises(Killed):
            yield


@pytest.mark.parametrize("sampler", [*SAMPLERS, "balanced"])
@pytest.mark.parametrize("retries", [False, True], ids=["first", "after_retry"])
def test_suggestion_of_a_killed_driver_is_made_again(
    sampler: str,
    retries: bool,
    new_home: Callable[[str], Settings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = sweep(balance="model.encoder.kind") if sampler == "balanced" else sweep(sampler)

    def begun(home: Settings) -> StageStudy:
        study = opened(home, spec)
        if retries:
            fail(study, study.ask(spec))
            study.retry()
        return study

    undisturbed, home = begun(new_home("undisturbed")), new_home("torn")
    torn = begun(home)
    with killed_before_it_saves(torn, monkeypatch):
        torn.ask(spec)
    again = opened(home, spec)
    for _ in range(2):
        assert again.ask(spec) == undisturbed.ask(spec)
    assert again.asked() == undisturbed.asked() == 2 + retries


@pytest.mark.parametrize("state", ["complete", "pruned", "diverged", "failed"])
def test_end_of_a_killed_driver_is_recorded_whole_or_not_at_all(
    state: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = sweep()
    torn = opened(settings, spec)
    number = torn.ask(spec).number
    torn.epoch(number, 1, [0.25], None, trained=True)
    torn.save()
    with killed_before_it_saves(torn, monkeypatch):
        torn.end(number, state, 0.25, "why")
    again = opened(settings, spec)
    assert again.unfinished() == [number]
    assert [(r.state, r.reason, r.epochs) for r in again.records()] == [("waiting", None, 1)]
    again.end(number, state, 0.25, "why")
    last = opened(settings, spec)
    assert [(r.state, r.reason) for r in last.records()] == [(state, "why")]
    assert last.unfinished() == []
    assert last.count_ended() == 1
    if state == "complete":
        assert last.optuna_study.best_value == 0.25


@pytest.mark.parametrize("state", ["complete", "pruned", "diverged", "failed"])
def test_ended_trial_is_never_attempted_again(state: Any, settings: Settings) -> None:
    spec = sweep()
    study = opened(settings, spec)
    number = study.ask(spec).number
    study.end(number, state, 0.0 if state == "complete" else None, None)
    again = opened(settings, spec)
    assert again.unfinished() == []
    assert again.ask(spec).number == 1


def test_record_holds_state_reason_metrics_and_duration_of_its_trial(settings: Settings) -> None:
    spec = sweep()
    study = opened(settings, spec)
    attempts = [study.ask(spec) for _ in range(6)]
    ends = ("complete", "pruned", "diverged", "failed")
    for state, attempt in zip(ends, attempts, strict=False):
        study.started(attempt.number, "here", None)
        study.epoch(attempt.number, 1, [1.5], None, trained=True)
        reason = None if state == "complete" else f"it {state}"
        study.end(attempt.number, state, 1.5 if state == "complete" else None, reason)  # type: ignore[arg-type]
    study.started(4, "here", None)
    study.save()
    records = opened(settings, spec).records()
    assert [r.state for r in records] == [*ends, "running", "waiting"]
    assert [r.reason for r in records[:4]] == [None, "it pruned", "it diverged", "it failed"]
    assert all(r.metrics == {"val/parzen_ll": 1.5} for r in records[:4])
    assert all(r.seconds is not None and 0 <= r.seconds < 60 for r in records[:5])
    assert records[5].seconds is None
    assert [r.config_hash for r in records] == [a.config.config_hash for a in attempts]


# -- retries ---------------------------------------------------------------------------------


def fail(study: StageStudy, attempt: TrialAttempt) -> None:
    """End a trial as failed after three epochs, with a checkpoint of the second."""
    number = attempt.number
    study.started(number, "here", None)
    for epoch, checkpoint in ((1, None), (2, "/home/epoch-000002"), (3, None)):
        study.epoch(number, epoch, [epoch / 10], checkpoint, trained=True)
    study.end(number, "failed", None, "RuntimeError: no luck")


def test_failed_trial_is_retried_from_its_last_checkpoint(settings: Settings) -> None:
    spec = sweep()
    study = opened(settings, spec)
    ended = [study.ask(spec) for _ in range(4)]
    for state, attempt in zip(("complete", "diverged", "pruned"), ended, strict=False):
        study.end(attempt.number, state, 0.5 if state == "complete" else None, None)  # type: ignore[arg-type]
    fail(study, ended[3])

    again = opened(settings, spec)
    assert again.retry() == {3: 4}
    assert again.retry() == {}
    assert again.unfinished() == [4]
    assert (again.asked(), again.count_ended()) == (4, 3)
    assert [r.state for r in again.records()] == ["complete", "diverged", "pruned", "waiting"]
    attempt = again.next_attempt(4, spec)
    assert (attempt.attempt, attempt.config) == (2, ended[3].config)
    assert attempt.resume == Path("/home/epoch-000002")

    again.started(4, "there", 2)
    for epoch in (3, 4):
        again.epoch(4, epoch, [9.0], None, trained=True)
    again.end(4, "complete", 9.0, None)
    record = again.records()[-1]
    assert (record.number, record.state, record.reason) == (4, "complete", None)
    assert (record.epochs, record.epochs_computed, record.resumed_from) == (4, 5, [2])
    trial = again.optuna_study.get_trials()[4]
    assert trial.intermediate_values == {1: 0.1, 2: 0.2, 3: 0.3, 4: 9.0}
    assert trial.params == again.optuna_study.get_trials()[3].params
    assert (again.asked(), again.count_ended(), again.optuna_study.best_trial.number) == (4, 4, 4)


@pytest.mark.parametrize("reason", ["out of GPU memory: 2 GiB of 1", "out of host memory: 2 TB"])
def test_trial_out_of_memory_is_retried_only_on_request(settings: Settings, reason: str) -> None:
    spec = sweep()
    study = opened(settings, spec)
    for why in ("RuntimeError: no luck", reason, "out of host memory, twice (…): killed"):
        study.end(study.ask(spec).number, "failed", None, why)
    assert study.retry() == {0: 3, 2: 4}
    assert study.retry(out_of_memory=True) == {1: 5}


def test_retry_that_fails_can_be_retried_again(settings: Settings) -> None:
    spec = sweep()
    study = opened(settings, spec)
    fail(study, study.ask(spec))
    for number in (1, 2, 3):
        assert study.retry() == {number - 1: number}
        attempt = study.next_attempt(number, spec)
        assert attempt.attempt == number + 1
        fail(study, attempt)
        assert [(r.number, r.state) for r in study.records()] == [(number, "failed")]
        assert (study.asked(), study.count_ended()) == (1, 1)


def with_retries(settings: Settings, spec: SweepSpec) -> list[Any]:
    """Return the suggestions of six trials, two of which fail and are retried at once."""
    study = opened(settings, spec)
    for n in range(6):
        attempt = study.ask(spec)
        if n in (1, 2):
            fail(study, attempt)
            [retry] = study.retry().values()
            attempt = study.next_attempt(retry, spec)
        end(study, attempt, value_of(attempt))
    assert study.asked() == 6
    return [(r.params, r.seed) for r in study.records()]


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_retries_change_no_later_suggestion(
    sampler: str, new_home: Callable[[str], Settings]
) -> None:
    spec = sweep(sampler, balance="model.encoder.kind")
    undisturbed = suggestions(new_home("undisturbed"), spec)
    assert with_retries(new_home("retried"), spec) == undisturbed


def test_grid_with_retries_visits_every_combination_once(settings: Settings) -> None:
    found = [params for params, _ in with_retries(settings, sweep("grid"))]
    visited = [(params["model.encoder.kind"], params["model.code_dim"]) for params in found]
    assert sorted(visited) == sorted(product(KINDS, (4, 8)))


def test_trials_since_best_are_counted_in_order_of_ends(settings: Settings) -> None:
    spec = sweep(objective={"metric": "val/recon"})
    study = opened(settings, spec)
    assert study.since_best() == 0
    attempts = [study.ask(spec) for _ in range(6)]
    found = []
    for number, value in ((0, 3.0), (2, 2.0), (4, 2.0), (3, 2.5), (1, 1.0)):
        end(study, attempts[number], value)
        found.append(study.since_best())
    study.end(5, "diverged", None, None)
    assert [*found, study.since_best()] == [0, 0, 1, 2, 0, 0]


def test_enqueued_configuration_is_tried_once_though_a_driver_dies_and_its_trial_fails(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = sweep()
    study = opened(settings, spec)
    study.ask(spec)
    study.note(enqueued=[{"model.prior.std": 1.25}, {"model.prior.std": 1.5}])
    with killed_before_it_saves(study, monkeypatch):
        study.ask(spec)
    study = opened(settings, spec)
    first = study.ask(spec)
    assert first is not None
    fail(study, first)
    study.retry()
    later = [study.ask(spec) for _ in range(3)]
    tried = [attempt.params["model.prior.std"] for attempt in (first, *later) if attempt]
    assert tried[:2] == [1.25, 1.5]
    assert not {1.25, 1.5} & set(tried[2:])


# -- confirm ---------------------------------------------------------------------------------


def entries() -> list[dict[str, Any]]:
    return [
        {"params": {"model.code_dim": dim}, "seed": confirm_seed(0, index)}
        for index in range(2)
        for dim in (4, 5)
    ]


def test_confirm_queue_is_first_in_first_out_without_duplicates(settings: Settings) -> None:
    spec = sweep()
    queue = opened(settings, spec, "confirm")
    queue.enqueue(entries())
    queue.enqueue(entries())
    first = queue.pop(spec)
    assert first is not None
    end(queue, first)
    again = opened(settings, spec, "confirm")
    again.enqueue(entries())
    rest = [again.pop(spec) for _ in range(4)]
    assert rest[-1] is None
    popped = [first, *filter(None, rest)]
    assert [{"params": r.params, "seed": r.seed} for r in again.records()] == entries()
    assert [a.config.seed for a in popped] == [entry["seed"] for entry in entries()]
    assert [a.config.model.code_dim for a in popped] == [4, 5, 4, 5]
    again.enqueue([*entries(), {"params": {"model.code_dim": 6}, "seed": 1}])
    assert len(again.records()) == 5


def test_failed_confirm_trial_is_retried_with_its_seed(settings: Settings) -> None:
    spec = sweep()
    queue = opened(settings, spec, "confirm")
    queue.enqueue(entries())
    first = queue.pop(spec)
    fail(queue, first)
    assert queue.retry() == {0: 4}
    queue.enqueue(entries())
    assert len(queue.records()) == 4
    again = queue.next_attempt(4, spec)
    assert (again.config, again.attempt) == (first.config, 2)
    popped = [queue.pop(spec) for _ in range(4)]
    assert popped[-1] is None
    assert {a.config.seed for a in popped if a} == {entry["seed"] for entry in entries()}


def test_extended_confirmation_begins_at_the_checkpoint_of_the_one_it_extends(
    settings: Settings,
) -> None:
    spec = sweep()
    queue = opened(settings, spec, "confirm")
    queue.enqueue(entries()[:1])
    first = queue.pop(spec)
    assert first is not None
    checkpoint = settings.attempt_folder(spec.sweep_id, "confirm", 0, 1) / "epoch-000009"
    queue.epoch(first.number, 9, [1.0], str(checkpoint), trained=True)
    queue.end(first.number, "complete", 1.0, None)
    for _ in range(2):  # the second queues nothing
        queue.extend(queue.records()[:1], 12)
    queue = opened(settings, spec, "confirm")
    longer = queue.pop(spec)
    assert longer is not None
    assert longer.config == first.config.extended(12)
    assert (longer.extends, longer.attempt, longer.resume) == (0, 1, checkpoint)
    assert queue.pop(spec) is None
    record = queue.records()[1]
    assert (record.extends, record.extended_to, record.epochs) == (0, [12], 0)
    fail(queue, longer)
    queue.retry()
    assert queue.next_attempt(2, spec).config == longer.config


# -- pruning ---------------------------------------------------------------------------------


def prunes(settings: Settings, pruner: dict[str, Any]) -> list[bool]:
    """Complete three good trials, then return for each epoch of a bad one whether it is pruned."""
    spec = sweep(pruner=pruner)
    study = opened(settings, spec)
    for _ in range(3):
        number = study.ask(spec).number
        for epoch in range(1, 10):
            study.epoch(number, epoch, [10.0], None, trained=True)
            study.should_prune(number)
        study.end(number, "complete", 10.0, None)
    bad = study.ask(spec).number
    found = []
    for epoch in range(1, 10):
        study.epoch(bad, epoch, [-10.0], None, trained=True)
        found.append(study.should_prune(bad))
    return found


def test_pruner_prunes_bad_trial_only_after_the_grace_epochs(settings: Settings) -> None:
    median = {"kind": "median", "grace_epochs": 4, "startup_trials": 2}
    assert prunes(settings, median).index(True) == 3
    halving = {"kind": "successive_halving", "grace_epochs": 2, "reduction_factor": 2}
    hyperband = {"kind": "hyperband", "grace_epochs": 2, "reduction_factor": 2}
    assert not prunes(settings, hyperband)[0]  # some of its brackets never prune
    assert prunes(settings, halving).index(True) == 1
    assert not any(prunes(settings, {"kind": "none"}))


# -- storage ---------------------------------------------------------------------------------


def test_study_read_before_its_creation_creates_nothing(settings: Settings) -> None:
    spec, storage = sweep(), open_storage(settings)
    assert StageStudy.read(storage, spec.sweep_id, "search") is None
    assert sweep_ids(storage) == []
    opened(settings, spec)
    found = StageStudy.read(storage, spec.sweep_id, "search")
    assert found.records() == []
    assert sweep_ids(storage) == [spec.sweep_id]


def test_unreachable_storage_is_named_without_its_password(tmp_path: Path) -> None:
    uri = "mysql+nothing://somebody:secret@nowhere.invalid/studies"
    settings = Settings.from_environment({"AAE_HOME": str(tmp_path), "AAE_STUDY_URI": uri})
    with pytest.raises(EnvironmentUnusable, match="AAE_STUDY_URI") as caught:
        open_storage(settings)
    assert "secret" not in str(caught.value)
    assert "nowhere.invalid" in str(caught.value)


def test_malformed_storage_address_is_not_repeated_in_the_error(tmp_path: Path) -> None:
    uri = "postgresql+psycopg://somebody:sec/ret@nowhere.invalid:port/x"
    settings = Settings.from_environment({"AAE_HOME": str(tmp_path), "AAE_STUDY_URI": uri})
    with pytest.raises(EnvironmentUnusable, match="URL-encoded") as caught:
        open_storage(settings)
    assert "sec" not in str(caught.value)


# -- repeats -----------------------------------------------------------------------------------


@pytest.mark.parametrize("balance", [None, "model.encoder.kind"])
@pytest.mark.parametrize("sampler", ["random", "tpe", "qmc"])
def test_study_trains_every_configuration_once(
    sampler: str, balance: str | None, settings: Settings
) -> None:
    """Test six configurations in up to fifty trials, with a new driver after each trained one."""
    space = {"model.encoder.kind": {"choice": KINDS}, "model.code_dim": {"choice": [4, 8]}}
    spec = sweep(sampler, space=space, trials=50, balance=balance)
    study, trained = opened(settings, spec), []
    while study.repeats.in_a_row < MAX_IN_A_ROW:
        attempt = study.ask(spec)
        if attempt is not None:
            trained.append(attempt.config.config_hash)
            end(study, attempt, value_of(attempt))
            study = opened(settings, spec)
    assert len(trained) == len(set(trained)) == 6
    assert study.asked() == study.count_ended() == len(study.records()) == 6
    values = {r.config_hash: r.metrics["val/parzen_ll"] for r in study.records()}
    for trial in study.optuna_study.trials:  # a repeat gets the known value
        assert trial.value == values[trial.user_attrs["config_hash"]]


def test_repeat_of_a_killed_driver_is_suggested_and_ended_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = sweep("random", space={"model.code_dim": {"choice": [4]}})
    study = opened(settings, spec)
    end(study, study.ask(spec))
    with killed_before_it_saves(study, monkeypatch):
        study.ask(spec)
    again = opened(settings, spec)
    assert again.ask(spec) is None
    assert again.unfinished() == []
    assert [trial.value for trial in again.optuna_study.trials] == [1.0, 1.0]
    assert again.repeats.in_a_row == 1


def test_attempt_is_synced_to_disk_before_a_worker_receives_it(
    settings: Settings, tmp_path: Path
) -> None:
    spec = sweep()
    study = opened(settings, spec)
    attempt = study.ask(spec)
    after_a_power_cut = Settings.from_environment({"AAE_HOME": str(tmp_path / "after")})
    after_a_power_cut.home.mkdir()
    # Copy the synced database without its write-ahead log, which is not synced.
    shutil.copy(settings.home / "studies.db", after_a_power_cut.home)
    again = opened(after_a_power_cut, spec)
    assert again.unfinished() == [attempt.number]
    assert again.next_attempt(attempt.number, spec).attempt == attempt.attempt + 1


def test_lost_workers_are_counted_since_the_last_epoch_across_drivers(settings: Settings) -> None:
    spec = sweep()
    driver = opened(settings, spec)
    number = driver.ask(spec).number
    assert [driver.lost(number), opened(settings, spec).lost(number)] == [1, 2]
    again = opened(settings, spec)
    again.epoch(number, 1, [0.5], None, trained=True)
    assert [again.lost(number), again.lost(number)] == [1, 2]


def test_kills_for_memory_are_known_to_the_next_driver(settings: Settings) -> None:
    spec = sweep()
    number = opened(settings, spec).ask(spec).number
    assert not opened(settings, spec).killed_for_memory(number)
    assert opened(settings, spec).killed_for_memory(number)


def test_retry_begins_without_losses(settings: Settings) -> None:
    spec = sweep()
    study = opened(settings, spec)
    number = study.ask(spec).number
    assert [study.lost(number), study.lost(number)] == [1, 2]
    study.end(number, "failed", None, "lost")
    [retry] = study.retry().values()
    assert opened(settings, spec).lost(retry) == 1
