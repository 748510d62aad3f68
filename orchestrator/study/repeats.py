"""Which suggestions were asked for before: a search trains a configuration once."""

from collections.abc import Iterable

MAX_IN_A_ROW = 20  # then the space is taken for exhausted, or too nearly so to go on


class Repeats:
    """The configurations that a search has asked for, in the order of its trials."""

    def __init__(self, known: Iterable[tuple[int, str]] = ()) -> None:
        """`known`: the number and configuration hash of every trial so far, retries aside."""
        self._first: dict[str, int] = {}
        self._since_new: set[int] = set()
        for number, config_hash in known:
            self.of(number, config_hash)

    def of(self, number: int, config_hash: str) -> int | None:
        """The earlier trial of the same configuration; None if this one is the first."""
        first = self._first.setdefault(config_hash, number)
        if first == number:
            self._since_new.clear()
            return None
        self._since_new.add(number)
        return first

    @property
    def in_a_row(self) -> int:
        """How many there have been since the last new configuration."""
        return len(self._since_new)
