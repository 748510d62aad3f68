"""Repeated configurations: each one is trained once, and an exhausted space is detected."""

from itertools import product

import optuna
import pytest
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from orchestrator.study.repeats import MAX_IN_A_ROW, Repeats


def test_repeats_of_known_configuration_returns_its_first_trial() -> None:
    repeats = Repeats()
    found = [repeats.of(n, name) for n, name in enumerate("abacaab")]
    assert found == [None, None, 0, None, 0, 0, 1]
    assert repeats.in_a_row == 3
    assert repeats.of(7, "d") is None
    assert repeats.in_a_row == 0


def test_repeats_asked_twice_about_a_trial_count_it_once() -> None:
    repeats = Repeats()
    for _ in range(2):
        assert repeats.of(0, "a") is None
        assert repeats.of(1, "a") == 0
        assert repeats.in_a_row == 1


def test_repeats_rebuilt_after_restart_equal_uninterrupted_repeats() -> None:
    asked = list(enumerate("abcabb"))
    undisturbed, again = Repeats(asked), Repeats(asked[:4])
    for number, name in asked[4:]:
        again.of(number, name)
    assert again.in_a_row == undisturbed.in_a_row == 3
    assert again.of(6, "c") == undisturbed.of(6, "c") == 2


@pytest.mark.parametrize("sampler", [RandomSampler(seed=0), TPESampler(seed=0, n_startup_trials=3)])
def test_sampler_trains_every_point_of_a_small_space_once(sampler: BaseSampler) -> None:
    study, repeats = optuna.create_study(sampler=sampler), Repeats()
    trained = []
    while repeats.in_a_row < MAX_IN_A_ROW:
        trial = study.ask()
        choice = (trial.suggest_categorical("a", [1, 2, 3]), trial.suggest_categorical("b", [4, 5]))
        first = repeats.of(trial.number, str(choice))
        if first is None:
            trained.append(choice)
            study.tell(trial, float(sum(choice)))
        else:
            study.tell(trial, study.trials[first].value)
    assert sorted(trained) == list(product([1, 2, 3], [4, 5]))
