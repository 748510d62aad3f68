"""Errors of the platform. The class names who must act; `exit_code` is the exit status."""

from collections.abc import Iterator
from dataclasses import dataclass


class SweepError(Exception):
    exit_code = 3


@dataclass(frozen=True)
class Problem:
    """One mistake in a sweep file: `path` like model.prior.std, `line` counted from 1."""

    path: str
    line: int | None
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class SpecError(SweepError):
    """The sweep file or command is wrong; nothing was started. The author corrects the input."""

    exit_code = 2

    def __init__(self, source: str, problems: list[Problem]) -> None:
        self.source = source
        self.problems = problems
        lines = [f"{source}:{p.line or ''}".rstrip(":") + f": {p}" for p in problems]
        super().__init__("\n".join(lines))


class UsageError(SweepError):
    """The command is meaningless or names something missing. The user corrects the command."""

    exit_code = 2


class EnvironmentUnusable(SweepError):
    """Data, tracking server, cluster or resources are missing. The message gives the remedy."""

    exit_code = 4


class OutputUnusable(EnvironmentUnusable):
    """Standard output cannot be written. The user sends the output elsewhere."""


class OutputUnread(SweepError):
    """The reader of standard output has closed it, as `head` does once it has its lines."""

    exit_code = 0


class DiskFull(EnvironmentUnusable):
    """A file could not be written; earlier files are intact. The user frees disk space."""


class StudyLost(EnvironmentUnusable):
    """The database of the studies went away during a sweep. Waiting and resuming is safe."""


class SweepLocked(SweepError):
    """Another driver runs this sweep. The user waits for that driver or stops it."""

    exit_code = 4


class Interrupted(SweepError):
    """A user stopped the sweep. The same command resumes the sweep."""

    exit_code = 130


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error, then the chain of errors that caused it, the first cause last."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__
