"""`confirm.set`: confirm trains the chosen configurations with some settings of its own."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from sweep_file import make_document

from orchestrator.settings import Settings
from orchestrator.study.study import StageStudy, open_storage
from orchestrator.sweepfile.messages import problems
from orchestrator.sweepfile.spec import SweepSpec


def document(**overrides: Any) -> dict[str, Any]:
    space = {
        "model.code_dim": {"int": [2, 8]},
        "model.prior.kind": {"choice": ["gaussian", "uniform"]},
    }
    confirm = {"set": overrides}
    return make_document(training={"epochs": 9}, search={"space": space}, confirm=confirm)


def refused(**overrides: Any) -> dict[str, str]:
    with pytest.raises(ValidationError) as caught:
        SweepSpec.of(document(**overrides))
    return problems(caught.value, SweepSpec)


WIDER = {"model.hidden": [100, 100], "training.epochs": 20}


def test_confirm_set_changes_only_the_confirm_stage() -> None:
    spec = SweepSpec.of(document(**WIDER))
    params = {"model.code_dim": 5}
    searched, confirmed = (spec.stage_config(stage, params, 1) for stage in ("search", "confirm"))
    assert searched == spec.trial_config(params, 1)
    assert confirmed == spec.trial_config({**params, **WIDER}, 1)
    assert (spec.max_epochs, spec.confirm_epochs) == (9, 20)


def test_confirm_set_reaches_the_queued_trials(tmp_path: Path) -> None:
    spec = SweepSpec.of(document(**WIDER))
    storage = open_storage(Settings.from_environment({"AAE_HOME": str(tmp_path)}))
    confirm = StageStudy.create(storage, spec, "confirm")
    confirm.enqueue([{"params": {"model.code_dim": 5}, "seed": 3}])
    task = confirm.pop(spec)
    assert task.config.model.hidden == (100, 100)
    assert task.config.training.epochs == 20
    assert task.config.model.code_dim == 5
    (record,) = confirm.records()
    assert record.params == {"model.code_dim": 5}
    assert record.config_hash == task.config.config_hash


def test_confirm_set_changes_the_sweep_id_only_when_given() -> None:
    without = document()
    del without["confirm"]["set"]
    assert SweepSpec.of(document()).sweep_id == SweepSpec.of(without).sweep_id
    assert SweepSpec.of(document(**WIDER)).sweep_id != SweepSpec.of(without).sweep_id


@pytest.mark.parametrize(
    ("overrides", "path", "message"),
    [
        ({"model.hiden": [1]}, "confirm.set.model.hiden", "did you mean `model.hidden`"),
        ({"model.code_dim": 4}, "confirm.set.model.code_dim", "is searched"),
        ({"training.epochs": 0}, "confirm.set.training.epochs", "must be at least 1"),
        (
            {"model.kind": "vae", "model.encoder.kind": "gaussian"},
            "confirm.set",
            "contradicts search.space.model.prior.kind",
        ),
        ({"data.labels": 10}, "confirm.set.data.labels", "not a setting of a trial"),
    ],
)
def test_confirm_set_refuses_settings_that_confirm_cannot_train(
    overrides: dict[str, Any], path: str, message: str
) -> None:
    assert message in refused(**overrides)[path]


def test_confirm_set_needs_a_search() -> None:
    alone = document(**WIDER)
    del alone["search"]
    with pytest.raises(ValidationError) as caught:
        SweepSpec.of(alone)
    assert "confirm.set" in problems(caught.value, SweepSpec)
