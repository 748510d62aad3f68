"""Errors of the platform. The class says who must act; `exit_code` is what the shell sees."""

from collections.abc import Iterator
from dataclasses import dataclass


class SweepError(Exception):
    exit_code = 3


@dataclass(frozen=True)
class Problem:
    """One thing wrong in a sweep file: `path` as model.prior.std, `line` counted from 1."""

    path: str
    line: int | None
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class SpecError(SweepError):
    """The sweep file or the command line is wrong; nothing was started. Its author edits it."""

    exit_code = 2

    def __init__(self, source: str, problems: list[Problem]) -> None:
        self.source = source
        self.problems = problems
        lines = [f"{source}:{p.line or ''}".rstrip(":") + f": {p}" for p in problems]
        super().__init__("\n".join(lines))


class UsageError(SweepError):
    """The command names something that is not there, or makes no sense. Its author edits it."""

    exit_code = 2


class EnvironmentUnusable(SweepError):
    """No data, no tracking server, no cluster, not enough of it; the message says what to do."""

    exit_code = 4


class DiskFull(EnvironmentUnusable):
    """Something could not be written; what was written before is whole. Somebody makes room."""


class LedgerLost(EnvironmentUnusable):
    """The database of the studies went away under a sweep; waiting for it and going on is safe."""


class SweepHeld(SweepError):
    """Another driver runs this sweep; wait for it or stop it."""

    exit_code = 4


class Interrupted(SweepError):
    """Somebody stopped the sweep; the same command carries on."""

    exit_code = 130


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from, and so on to the first."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__
