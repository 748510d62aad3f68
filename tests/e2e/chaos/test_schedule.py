"""Laws of the schedule: a function of its seed, within its epochs, with every fault."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from schedule import schedule

FAULTS = ("worker", "driver", "server")


@given(seed=st.integers(), strikes=st.integers(3, 30), epochs=st.integers(30, 200))
def test_schedule_depends_only_on_its_seed_and_fits(seed: int, strikes: int, epochs: int) -> None:
    drawn = schedule(seed, FAULTS, strikes, epochs)
    assert drawn == schedule(seed, FAULTS, strikes, epochs)
    assert len(drawn) == strikes
    assert set(Counter(strike.fault for strike in drawn)) == set(FAULTS)
    assert all(strike.after >= 1 for strike in drawn)
    assert sum(strike.after for strike in drawn) <= epochs


def test_schedule_differs_for_another_seed() -> None:
    assert schedule(0, FAULTS, 10, 100) != schedule(1, FAULTS, 10, 100)


@pytest.mark.parametrize(("strikes", "epochs"), [(2, 100), (10, 9)])
def test_schedule_rejects_strikes_that_do_not_fit(strikes: int, epochs: int) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        schedule(0, FAULTS, strikes, epochs)
