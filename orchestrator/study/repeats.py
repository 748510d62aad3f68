"""Repeated suggestions: a search trains each configuration once."""

from collections.abc import Iterable

MAX_IN_A_ROW = 20  # then the space counts as exhausted, or nearly exhausted


class Repeats:
    """The configurations suggested in a search, in the order of its trials."""

    def __init__(self, known: Iterable[tuple[int, str]] = ()) -> None:
        """Start with `known`: number and configuration hash of every trial except retries."""
        self._first: dict[str, int] = {}
        self._since_new: set[int] = set()
        for number, config_hash in known:
            self.of(number, config_hash)

    def of(self, number: int, config_hash: str) -> int | None:
        """Return the earlier trial of the same configuration; None if this trial is the first."""
        first = self._first.setdefault(config_hash, number)
        if first == number:
            self._since_new.clear()
            return None
        self._since_new.add(number)
        return first

    @property
    def in_a_row(self) -> int:
        """Number of repeats since the last new configuration."""
        return len(self._since_new)
