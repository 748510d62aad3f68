"""Numbers, durations and addresses as readers see them, in the terminal and in reports."""

import math

import pytest

from orchestrator.text import duration, interval, masked, number, size


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        (None, None, "–"),
        (None, 1.0, "–"),
        (math.nan, None, "–"),
        (math.inf, None, "–"),
        (312.4321, None, "312.4"),
        (312.4321, 1.94, "312.4 ± 1.9"),
        (312.4321, 19.4, "312 ± 19"),
        (1909.2, 66.0, "1909 ± 66"),
        (-0.012341, 0.00067, "-0.01234 ± 0.00067"),
        (325.604, 0.0, "325.6"),
        (325.604, math.nan, "325.6"),
        (5.0, 0.0, "5"),
        (1000, None, "1,000"),
        (0.000123456, None, "0.0001235"),
        (12345.6, None, "12,346"),
    ],
)
def test_number_is_rounded_to_its_error(
    value: float | None, error: float | None, shown: str
) -> None:
    assert number(value, error) == shown


def test_interval_is_rounded_to_the_decimals_of_its_width() -> None:
    assert interval(318.81234, 332.0) == "318.8 to 332.0"
    assert interval(math.nan, math.nan) == "–"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "–"),
        (math.nan, "–"),
        (0.04, "0.0 s"),
        (59.97, "1 min 00 s"),
        (61, "1 min 01 s"),
        (3599.9, "1 h 00 min"),
        (7320, "2 h 02 min"),
    ],
)
def test_duration_has_readable_units(seconds: float | None, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("n_bytes", "shown"), [(0, "0 bytes"), (999_400, "999 kB"), (999_999, "1 MB"), (12e12, "12 TB")]
)
def test_size_has_readable_units(n_bytes: float, shown: str) -> None:
    assert size(n_bytes) == shown


def test_masked_text_has_no_user_password_or_given_secret() -> None:
    message = "postgresql://me:pw@host/db: password=pa55 rejected"
    assert masked(message, "pa55", None) == "postgresql://host/db: password=*** rejected"
