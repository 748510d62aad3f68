"""The driver's storage: after a save, the database has what is in memory, and nothing before."""

import math
import shutil
from itertools import count
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import RandomSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sweep_file import make_spec

from orchestrator.settings import Settings
from orchestrator.study.database import StudyStorage
from orchestrator.study.samplers import build_pruner, build_sampler
from orchestrator.study.study import open_storage
from orchestrator.study.write_behind import WriteBehindStorage
from orchestrator.sweepfile import space

_NUMBERS = count()
SPACE: dict[str, BaseDistribution] = {
    "std": FloatDistribution(0.5, 20, log=True),
    "dim": IntDistribution(2, 8),
    "kind": CategoricalDistribution(["gaussian", "universal"]),
}
NUMBERS = st.floats(allow_nan=True) | st.integers(-3, 3).map(float)
ATTRIBUTES = st.dictionaries(
    st.sampled_from(["progress", "params", "lost"]),
    st.lists(st.integers()) | st.dictionaries(st.text(), st.floats(allow_nan=False)),
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "enqueue", "add", "epoch", "note", "tell", "save", "reopen"]),
        st.integers(0, 5),
        NUMBERS,
        ATTRIBUTES,
    ),
    max_size=25,
)
PRUNERS = [
    {"kind": "successive_halving", "grace_epochs": 1, "reduction_factor": 2},
    {"kind": "hyperband", "grace_epochs": 1, "reduction_factor": 2},
    {"kind": "median", "grace_epochs": 2, "startup_trials": 2},
    {"kind": "none"},
]
CURVES = st.lists(
    st.lists(st.integers(0, 5).map(float), min_size=8, max_size=8), min_size=1, max_size=8
)


@pytest.fixture(scope="module")
def databases(
    empty_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[StudyStorage, StudyStorage]:
    def make(name: str) -> StudyStorage:
        home = Settings.from_environment({"AAE_HOME": str(tmp_path_factory.mktemp(name))})
        shutil.copy(empty_database, home.home)
        return open_storage(home)

    return make("a"), make("b")


def new_study(*databases: StudyStorage) -> str:
    """Create a study of one name in each database; return the name."""
    name = f"sweep-{next(_NUMBERS)}/search"
    for database in databases:
        optuna.create_study(storage=database, study_name=name)
    return name


def opened(storage: BaseStorage, name: str, **rest: Any) -> optuna.Study:
    return optuna.load_study(
        study_name=name, storage=storage, **{"sampler": RandomSampler(seed=0), **rest}
    )


def fields(trials: list[FrozenTrial]) -> list[str]:
    """Return all fields of each trial but its id, which belongs to one storage; NaN equals NaN."""
    known = [{k: v for k, v in vars(trial).items() if k != "_trial_id"} for trial in trials]
    return [
        repr({k: sorted(v.items()) if isinstance(v, dict) else v for k, v in trial.items()})
        for trial in known
    ]


@given(steps=STEPS)
@settings(max_examples=200)
def test_database_has_the_trials_of_the_last_save(
    steps: list[tuple[str, int, float, dict[str, Any]]],
    databases: tuple[StudyStorage, StudyStorage],
) -> None:
    database, _ = databases
    name, saved = new_study(database), list[FrozenTrial]()
    memory = WriteBehindStorage(database, name)
    study = opened(memory, name)
    for what, pick, number, attributes in steps:
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        picked = running[pick % len(running)] if running else None
        trial = Trial(study, picked._trial_id) if picked else None
        match what:
            case "ask":
                study.ask(SPACE)
            case "enqueue":
                study.enqueue_trial({"dim": 3}, user_attrs=attributes)
            case "add":
                study.add_trial(optuna.create_trial(value=float(pick), user_attrs=attributes))
            case "epoch" if trial and pick not in picked.intermediate_values:
                trial.report(number, pick)
            case "note" if trial:
                for key, value in attributes.items():
                    trial.set_user_attr(key, value)
            case "tell" if trial and not math.isnan(number):
                study.tell(trial, number)
            case "save":
                memory.save()
                saved = study.get_trials()
            case "reopen":  # a killed driver's successor
                memory = WriteBehindStorage(database, name)
                study = opened(memory, name)
                assert fields(study.get_trials()) == fields(saved)
        assert fields(opened(database, name).get_trials()) == fields(saved)


@pytest.mark.parametrize("pruner", PRUNERS, ids=lambda pruner: pruner["kind"])
@given(curves=CURVES)
@settings(max_examples=25)
def test_pruners_decide_on_memory_as_on_the_database(
    pruner: dict[str, Any],
    curves: list[list[float]],
    databases: tuple[StudyStorage, StudyStorage],
) -> None:
    spec = make_spec(training={"epochs": 8}, search={"trials": 9, "pruner": pruner})
    name = new_study(*databases)
    storages = (databases[0], WriteBehindStorage(databases[1], name))
    studies = [opened(storage, name, pruner=build_pruner(spec)) for storage in storages]
    for curve in curves:
        trials = [study.ask() for study in studies]
        for epoch, value in enumerate(curve, 1):
            for trial in trials:
                trial.report(value, epoch)
            verdicts = {bool(trial.should_prune()) for trial in trials}
            assert len(verdicts) == 1
            if verdicts == {True}:
                break
        state = TrialState.PRUNED if verdicts == {True} else TrialState.COMPLETE
        for study, trial in zip(studies, trials, strict=True):
            study.tell(trial, None if verdicts == {True} else curve[-1], state=state)


@pytest.mark.parametrize("kind", ["tpe", "gp", "qmc", "grid", "random"])
def test_samplers_suggest_from_memory_as_from_the_database(
    kind: str, databases: tuple[StudyStorage, StudyStorage]
) -> None:
    sampler = {"kind": kind, **({"startup_trials": 3} if kind in ("tpe", "gp") else {})}
    swept = {"model.code_dim": {"int": [2, 8]}}
    if kind != "grid":
        swept["model.prior.std"] = {"float": [0.5, 20], "log": True}
    spec = make_spec(search={"trials": 7, "sampler": sampler, "space": swept})
    assert spec.search is not None
    name, found = new_study(*databases), []
    for storage in (databases[0], WriteBehindStorage(databases[1], name)):
        study = opened(storage, name)
        for number in range(6):
            study.sampler = build_sampler(spec, number)
            trial = study.ask(space.distributions(spec.search.space))
            study.sampler = RandomSampler(seed=0)
            study.tell(trial, float(trial.params["model.code_dim"]))
        found.append([trial.params for trial in study.trials])
    assert found[0] == found[1]


def test_attributes_of_the_study_are_shared_with_other_processes(
    databases: tuple[StudyStorage, StudyStorage],
) -> None:
    name = new_study(databases[0])
    driver = opened(WriteBehindStorage(databases[0], name), name)
    other = opened(databases[0], name)
    for value in ({"stage": "search"}, {"stage": "confirm"}):
        driver.set_user_attr("state", value)
        assert other.user_attrs == {"state": value}
    other.set_user_attr("request", "pause")
    assert driver.user_attrs == {"state": {"stage": "confirm"}, "request": "pause"}
