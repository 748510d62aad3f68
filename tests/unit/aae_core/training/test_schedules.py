import pytest
from hypothesis import given
from hypothesis import strategies as st

from aae_core.config import ScheduleConfig
from aae_core.training.schedules import multiplier


def over(schedule: ScheduleConfig, epochs: int) -> list[float]:
    return [multiplier(schedule, epoch, epochs) for epoch in range(1, epochs + 1)]


def test_constant_schedule_is_one_at_every_epoch() -> None:
    assert over(ScheduleConfig(), 4) == [1, 1, 1, 1]


def test_step_schedule_drops_after_its_epochs() -> None:
    schedule = ScheduleConfig("step", drop_epochs=(2, 4), factor=0.1)
    assert over(schedule, 5) == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_cosine_schedule_falls_from_one_to_its_factor() -> None:
    got = over(ScheduleConfig("cosine", factor=0.2), 5)
    assert got[0] == 1
    assert got[2] == pytest.approx(0.6)
    assert got[-1] == pytest.approx(0.2)


def test_exponential_schedule_falls_by_a_constant_ratio() -> None:
    got = over(ScheduleConfig("exponential", factor=0.01), 3)
    assert got == pytest.approx([1, 0.1, 0.01])


def test_schedule_warm_up_is_linear() -> None:
    got = over(ScheduleConfig(warmup_epochs=3), 5)
    assert got == pytest.approx([0.25, 0.5, 0.75, 1, 1])


@given(
    st.sampled_from(["constant", "step", "cosine", "exponential"]),
    st.floats(1e-3, 1),
    st.integers(0, 5),
    st.integers(1, 60),
)
def test_schedule_multiplier_is_positive_and_at_most_one(
    kind: str, factor: float, warmup: int, epochs: int
) -> None:
    schedule = ScheduleConfig(kind, (3, 7), factor, warmup)  # type: ignore[arg-type]
    assert all(0 < m <= 1 + 1e-12 for m in over(schedule, epochs))
