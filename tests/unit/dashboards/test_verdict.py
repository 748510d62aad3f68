from dataclasses import replace
from typing import Any

import pytest
from synthetic_sweep import METRIC, with_control, without_results

from dashboards.verdict import verdict
from orchestrator.results.reader import SweepView

VERDICTS = ("winner", "equivalent", "worse")


def best_of(view: SweepView, **changes: Any) -> SweepView:
    metrics = {METRIC: {"mean": 123.4349, "se": 1.234, "ci95": None, "values": [1.0, 2.0, 3.0]}}
    return replace(view, best={**view.best, "metrics": metrics, **changes})


def test_verdict_names_the_winner_its_error_bar_and_ties(view: SweepView) -> None:
    assert str(verdict(best_of(view))) == (
        "gaussian wins: val/parzen_ll 123.4 ± 1.2 nats (3 seeds); "
        "not distinguishable from: universal."
    )


def test_verdict_with_a_margin_names_the_others_by_their_verdicts(view: SweepView) -> None:
    verdicts = dict(zip(("gaussian", "universal", "deterministic"), VERDICTS, strict=True))
    groups = [group | {"verdict": verdicts[group["value"]]} for group in view.best["groups"]]
    output = str(verdict(best_of(view, groups=groups, margin=5.0)))
    assert output.endswith("(3 seeds); equivalent within 5 nats: universal; worse: deterministic.")


@pytest.mark.parametrize(
    ("level", "words"),
    [(300.0, "The search gained"), (345.0, "The search gained nothing: the file's own")],
)
def test_verdict_with_a_control_states_the_gain_of_the_search(
    view: SweepView, level: float, words: str
) -> None:
    assert words in verdict(with_control(view, level, 5.0)).remark


def test_verdict_names_ties_in_the_order_of_the_ranking(view: SweepView) -> None:
    _, second, third = (group["config_hash"] for group in view.best["groups"])
    output = str(verdict(best_of(view, tied_with=[third, second])))
    assert output.endswith("not distinguishable from: universal, deterministic.")


def test_verdict_without_ties_names_a_clear_winner(view: SweepView) -> None:
    output = str(verdict(best_of(view, tied_with=[])))
    assert output.endswith("(3 seeds); distinguishable from every other candidate.")


def test_verdict_of_a_single_candidate_compares_with_no_other(view: SweepView) -> None:
    alone = {**view.best["groups"][0], "value": None}
    output = verdict(best_of(view, groups=[alone], tied_with=[]))
    assert str(output) == f"Configuration {alone['config_hash']} reaches: " + (
        "val/parzen_ll 123.4 ± 1.2 nats (3 seeds)."
    )


def test_verdict_of_one_seed_has_no_error_bar(view: SweepView) -> None:
    metrics = {METRIC: {"mean": 123.4349, "se": None, "ci95": None, "values": [123.4349]}}
    output = verdict(best_of(view, metrics=metrics))
    assert "wins: val/parzen_ll 123.4 nats (1 seed)" in output.statement
    assert output.remark.startswith("One seed has no error bar.")


def test_verdict_before_confirm_names_the_best_trial_and_no_winner(view: SweepView) -> None:
    output = str(verdict(best_of(view, confirmed=False)))
    assert output == "gaussian leads the search: val/parzen_ll 123.4 ± 1.2 nats, not confirmed yet."


@pytest.mark.parametrize(
    ("counts", "statement", "remark"),
    [
        ({"complete": 0}, "No trial has started.", "once the first trials finish"),
        ({"running": 2, "diverged": 1}, "still running", "2 running, 1 diverged"),
        ({"diverged": 4, "failed": 1}, "no trial finished", "4 diverged, 1 failed"),
    ],
)
def test_verdict_without_a_result_gives_the_reason(
    view: SweepView, counts: dict[str, int], statement: str, remark: str
) -> None:
    output = verdict(without_results(view, status={**view.status, "trials": counts}))
    assert output.subject == ""
    assert statement in output.statement
    assert remark in output.remark
