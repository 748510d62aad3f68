"""Laws of the schedule: it is its seed's, it fits, and no fault is left out."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from schedule import schedule

FAULTS = ("worker", "driver", "server")


@given(seed=st.integers(), strikes=st.integers(3, 30), epochs=st.integers(30, 200))
def test_it_is_a_function_of_its_seed_and_fits(seed: int, strikes: int, epochs: int) -> None:
    drawn = schedule(seed, FAULTS, strikes, epochs)
    assert drawn == schedule(seed, FAULTS, strikes, epochs)
    assert len(drawn) == strikes
    assert set(Counter(strike.fault for strike in drawn)) == set(FAULTS)
    assert all(strike.after >= 1 for strike in drawn)
    assert sum(strike.after for strike in drawn) <= epochs


def test_another_seed_is_another_schedule() -> None:
    assert schedule(0, FAULTS, 10, 100) != schedule(1, FAULTS, 10, 100)


@pytest.mark.parametrize(("strikes", "epochs"), [(2, 100), (10, 9)])
def test_what_does_not_fit_is_refused(strikes: int, epochs: int) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        schedule(0, FAULTS, strikes, epochs)
