"""Tests of the state that a sweep keeps in its study, outside the trials."""

from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.errors import EnvironmentUnusable
from orchestrator.study.state import CONTROL_REQUESTS, VERSION, SweepState


def test_state_of_a_new_study_has_defaults() -> None:
    state = SweepState.of({})
    assert (state.version, state.stage, state.state) == (VERSION, "search", "interrupted")
    assert (state.done, state.request, state.drivers, state.elapsed) == (None, None, 0, 0.0)


def test_state_of_a_later_version_is_refused_with_the_remedy() -> None:
    with pytest.raises(EnvironmentUnusable, match="install that version"):
        SweepState.of({"version": VERSION + 1, "name": "tiny"})


@pytest.mark.parametrize("request_", CONTROL_REQUESTS)
def test_state_accepts_every_control_request(request_: Any) -> None:
    assert SweepState.checked({"request": request_}) == {"request": request_}
    assert SweepState.of({"request": request_}).request == request_


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"requests": "pause"}, KeyError),
        ({"request": "hurry"}, ValidationError),
        ({"drivers": "2"}, ValidationError),
        ({"planned": {"search": 1.5}}, ValidationError),
    ],
)
def test_state_refuses_unknown_fields_and_values(
    changes: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        SweepState.checked(changes)
