"""Numbers, durations, sizes and addresses as text, for the terminal and for reports."""

import math
import re

MISSING = "–"
_LONGEST_LINE = 300  # characters of an error's text


def number(value: float | None, error: float | None = None) -> str:
    """Format with four significant digits, or with an error to the error's second digit.

    >>> number(312.4321), number(12345.6), number(None)
    ('312.4', '12,346', '–')
    >>> number(312.4321, 1.94)
    '312.4 ± 1.9'
    """
    if value is None or not math.isfinite(value):
        return MISSING
    if error and math.isfinite(error):
        decimals = _decimals(error)
        return f"{value:.{decimals}f} ± {error:.{decimals}f}"
    grouped = float(value).is_integer() or 1e4 <= abs(value) < 1e9
    return f"{value:,.0f}" if grouped else f"{value:.4g}"


def interval(low: float, high: float) -> str:
    """Format both ends with decimals that suit their distance.

    >>> interval(121.04, 126.13)
    '121.0 to 126.1'
    """
    if not math.isfinite(low) or not high > low:
        return MISSING
    decimals = _decimals((high - low) / 4)  # about one standard error
    return f"{low:.{decimals}f} to {high:.{decimals}f}"


def count(n: int, what: str) -> str:
    """Format a number of things.

    >>> count(1, "trial"), count(10000, "epoch")
    ('1 trial', '10,000 epochs')
    """
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def duration(seconds: float | None) -> str:
    """Format a duration.

    >>> duration(12.34), duration(234), duration(7320)
    ('12.3 s', '3 min 54 s', '2 h 02 min')
    """
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


def size(n_bytes: float) -> str:
    """Format a size with powers of 1000.

    >>> size(12_345_678)
    '12.3 MB'
    """
    unit = "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if n_bytes < 999.5:
            break
        n_bytes, unit = n_bytes / 1000, larger
    return f"{n_bytes:.3g} {unit}"


def energy(joules: float) -> str:
    """Format an energy.

    >>> energy(1_234), energy(7_654_321)
    ('0.343 Wh', '2.13 kWh')
    """
    hours = joules / 3600
    return f"{hours / 1000:.3g} kWh" if hours >= 999.5 else f"{hours:.3g} Wh"


def money(amount: float, currency: str | None) -> str:
    """Format an amount of money.

    >>> money(1234.5, "EUR"), money(0.0712, None)
    ('1,234.50 EUR', '0.07')
    """
    return f"{amount:,.2f} {currency or ''}".rstrip()


def one_line(error: BaseException) -> str:
    """Return an error's type and the first line of its text, without the stack that may follow.

    >>> one_line(RuntimeError("no memory\\nframe #0: c10::Error"))
    'RuntimeError: no memory'
    """
    said = next((line for line in map(str.strip, str(error).splitlines()) if line), "")
    said = said if len(said) <= _LONGEST_LINE else f"{said[:_LONGEST_LINE]}…"
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def masked(text: str, *secrets: str | None) -> str:
    """Remove users and passwords from the addresses in a text, and the given secrets anywhere.

    >>> masked("cannot reach https://me:secret@host/")
    'cannot reach https://host/'
    """
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
    return re.sub(r"//[^/@\s]*@", "//", text)


def _decimals(error: float) -> int:
    return max(0, 1 - math.floor(math.log10(error)))
