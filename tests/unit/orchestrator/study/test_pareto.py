"""Pareto fronts: their definition on any points."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.study.pareto import fronts


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=12))
def test_fronts_points_are_beaten_from_the_previous_front_only(
    points: list[tuple[int, int, int]],
) -> None:
    found = fronts(np.array(points, float))

    def beats(a: int, b: int) -> bool:
        as_good = all(x <= y for x, y in zip(points[a], points[b], strict=True))
        return as_good and points[a] != points[b]

    for n, front in enumerate(found):
        assert not any(beats(m, n) for m in np.flatnonzero(found == front))
        if front:
            assert any(beats(m, n) for m in np.flatnonzero(found == front - 1))


def test_fronts_put_nan_on_the_last_front() -> None:
    assert list(fronts(np.array([[math.nan, 1.0], [2.0, 1.0], [1.0, 2.0]]))) == [1, 0, 0]


def test_fronts_of_no_points_are_none() -> None:
    assert fronts(np.empty((0, 2))).size == 0
