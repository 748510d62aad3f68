"""What the person at the terminal sees of a running sweep: a live panel, or plain lines."""

import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from orchestrator.cli.common import duration, number
from orchestrator.records import Direction, Stage, TrialState
from orchestrator.spec import SweepSpec
from orchestrator.study import Assignment
from orchestrator.trainable import Report


@dataclass
class Standing:
    """The state of a stage, kept up to date by what the driver tells."""

    metric: str
    direction: Direction
    stage: str = ""
    planned: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    live: dict[tuple[str, int], tuple[Assignment, Report | None]] = field(default_factory=dict)
    best: float | None = None
    best_trial: str = ""
    began: float = field(default_factory=time.monotonic)
    ended_before: int = 0

    def stage_began(self, stage: str, planned: int, ended: int) -> None:
        self.stage, self.planned, self.ended_before = stage, planned, ended
        self.ended, self.live, self.began = Counter(), {}, time.monotonic()
        self.best, self.best_trial = None, ""

    def trial_started(self, assignment: Assignment) -> None:
        self.live[assignment.stage, assignment.number] = (assignment, None)

    def trial_epoch(self, stage: Stage, report: Report) -> None:
        assignment, _ = self.live[stage, report.number]
        self.live[stage, report.number] = (assignment, report)

    def trial_ended(self, stage: Stage, number: int, state: TrialState) -> float | None:
        """The trial's last value of the objective."""
        _, report = self.live.pop((stage, number))
        self.ended[state] += 1
        value = report.metrics.get(self.metric) if report else None
        if value is not None and state == "complete" and self._better(value):
            self.best, self.best_trial = value, f"{stage}-{number}"
        return value

    @property
    def done(self) -> int:
        return self.ended_before + self.ended.total()

    @property
    def left(self) -> float | None:
        """Seconds, at the pace so far."""
        if not self.ended:
            return None
        pace = (time.monotonic() - self.began) / self.ended.total()
        return pace * max(self.planned - self.done, 0)

    def _better(self, value: float) -> bool:
        if self.best is None:
            return True
        return value > self.best if self.direction == "maximize" else value < self.best


class Lines:
    """One line per event, for logs and pipes."""

    def __init__(self, standing: Standing, console: Console) -> None:
        self.standing = standing
        self.console = console
        self._scored = ""

    def stage_began(self, stage: str, planned: int, ended: int) -> None:
        self.standing.stage_began(stage, planned, ended)
        already = f", {ended} done already" if ended else ""
        self._print(f"{stage}: {planned} {'models' if stage == 'evaluate' else 'trials'}{already}")

    def trial_started(self, assignment: Assignment) -> None:
        self.standing.trial_started(assignment)

    def trial_epoch(self, stage: Stage, report: Report) -> None:
        self.standing.trial_epoch(stage, report)

    def trial_ended(
        self, stage: Stage, number_: int, state: TrialState, reason: str | None
    ) -> None:
        standing = self.standing
        value = standing.trial_ended(stage, number_, state)
        why = f": {reason}" if reason else ""
        self._print(
            f"{stage} {standing.done}/{standing.planned}  trial {number_} {state}{why}  "
            f"{standing.metric} {number(value)}  best {number(standing.best)}  "
            f"left {duration(standing.left)}"
        )

    def scoring(self, what: str, done: int, total: int) -> None:
        if done == total and what != self._scored:
            self._scored = what
            self._print(f"evaluate: {what}")

    def note(self, message: str) -> None:
        self._print(message)

    def _print(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)


class Panel(Lines):
    """The same, with what runs now drawn below the lines."""

    def __init__(self, standing: Standing, console: Console, live: Live) -> None:
        super().__init__(standing, console)
        self._live = live
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[rest]}"),
            console=console,
        )
        self._task = self._bar.add_task("starting", total=None, rest="")

    def stage_began(self, stage: str, planned: int, ended: int) -> None:
        super().stage_began(stage, planned, ended)
        self._bar.update(self._task, description=stage, total=planned, completed=ended, rest="")
        self._draw()

    def trial_started(self, assignment: Assignment) -> None:
        super().trial_started(assignment)
        self._draw()

    def trial_epoch(self, stage: Stage, report: Report) -> None:
        super().trial_epoch(stage, report)
        self._draw()

    def trial_ended(
        self, stage: Stage, number_: int, state: TrialState, reason: str | None
    ) -> None:
        super().trial_ended(stage, number_, state, reason)
        self._draw()

    def scoring(self, what: str, done: int, total: int) -> None:
        self._bar.update(self._task, description="evaluate", total=total, completed=done, rest=what)
        self._live.update(self._bar)

    def _draw(self) -> None:
        standing = self.standing
        best = f"best {number(standing.best)} ({standing.best_trial})" if standing.best else ""
        counts = ", ".join(f"{n} {state}" for state, n in standing.ended.items())
        rest = "  ".join(part for part in (counts, best, f"left {duration(standing.left)}") if part)
        self._bar.update(self._task, completed=standing.done, rest=rest)
        running = Table(box=None, pad_edge=False)
        for header in ("trial", "epoch", standing.metric, "images/s"):
            running.add_column(header, header_style="dim")
        for (_, trial), (assignment, report) in list(standing.live.items()):
            if report is not None:
                running.add_row(
                    str(trial),
                    f"{report.epoch}/{assignment.config.training.epochs}",
                    number(report.metrics.get(standing.metric)),
                    f"{report.samples_per_second:,.0f}",
                )
        self._live.update(Group(self._bar, running))


@contextmanager
def watching(spec: SweepSpec) -> Iterator[Lines]:
    """A panel on a terminal's stderr, lines elsewhere."""
    console = Console(file=sys.stderr)
    standing = Standing(spec.objective.metric, spec.objective.direction)
    if not console.is_terminal:
        yield Lines(standing, console)
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield Panel(standing, console, live)
