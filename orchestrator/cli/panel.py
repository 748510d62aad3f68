"""Progress of a running sweep in the terminal: a live panel or plain lines."""

import math
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from aae_core.metrics import Direction
from orchestrator.cli import on_host
from orchestrator.cli.common import say, setting
from orchestrator.execution.worker import Report
from orchestrator.records import RunRecord, Stage, TrialState
from orchestrator.results import ranking
from orchestrator.results.ranking import Candidate
from orchestrator.study.study import TrialAttempt
from orchestrator.sweepfile.spec import SweepSpec
from orchestrator.text import count, duration, number

_TICK_SECONDS = 0.25
_BARS = "▁▂▃▄▅▆▇█"
_CURVE_WIDTH = 20  # epochs
_PACE_SECONDS = 30.0  # a scoring's pace is recent: a resumed one only reads its first blocks
_LINE_SECONDS, _LINE_SHARE = 60.0, 0.1  # of a scoring: the least between two plain lines


@dataclass
class StageProgress:
    """Current state of a stage, updated by the driver's events."""

    metric: str
    direction: Direction
    baseline: str | None = None  # hash of the control's configuration; never the best candidate
    stage: str = ""
    planned: int = 0
    ended: dict[int, RunRecord] = field(default_factory=dict)
    live: dict[int, tuple[TrialAttempt, Report | None]] = field(default_factory=dict)
    curves: dict[int, list[float]] = field(default_factory=dict)  # live trials, validated epochs
    best_candidate: Candidate | None = None  # best in `ranking`, by the mean over seeds
    began: float = 0.0
    paced: tuple[float, float] | None = None  # time of the first epoch, and work by then

    def stage_began(self, stage: str, planned: int, known: Iterable[RunRecord]) -> None:
        self.stage, self.planned, self.live, self.curves = stage, planned, {}, {}
        self.ended = {r.number: r for r in known if r.state not in ("running", "waiting")}
        self.began, self.paced = time.monotonic(), None
        self._rank()

    def trial_started(self, attempt: TrialAttempt) -> None:
        self.live[attempt.number] = (attempt, None)
        self.curves[attempt.number] = []

    def trial_epoch(self, report: Report) -> None:
        attempt, _ = self.live[report.number]
        self.live[report.number] = (attempt, report)
        if self.metric in report.metrics:
            self.curves[report.number].append(report.metrics[self.metric])
        if self.paced is None:
            self.paced = (time.monotonic(), self.work)

    def trial_ended(
        self, stage: Stage, number: int, state: TrialState, reason: str | None
    ) -> RunRecord:
        attempt, report = self.live.pop(number)
        del self.curves[number]
        record = RunRecord(
            number=number,
            stage=stage,
            state=state,
            seed=attempt.config.seed,
            config_hash=attempt.config.config_hash,
            params=dict(attempt.params),
            extends=attempt.extends,
            reason=reason,
            metrics=report.metrics if report else {},
        )
        self.ended[number] = record
        if state in ("complete", "diverged"):  # others are in no ranking
            self._rank()
        return record

    def newest(self, number: int) -> float | None:
        """Return the metric of a live trial at its last validated epoch, if any."""
        curve = self.curves.get(number)
        return curve[-1] if curve else None

    @property
    def work(self) -> float:
        """Number of trials done. Running trials count by their share of epochs."""
        under_way = [
            report.epoch / attempt.config.training.epochs
            for attempt, report in self.live.copy().values()
            if report is not None
        ]
        return len(self.ended) + sum(under_way)

    @property
    def under_way(self) -> str | None:
        """Name what a drain finishes; None before the first trial, and between stages."""
        if self.stage == "evaluate":
            return "the current scores"
        return "the current epochs" if self.live else None

    @property
    def left(self) -> float | None:
        """Seconds to the end of the stage, at the pace since the first epoch."""
        if self.paced is None or self.work <= self.paced[1]:
            return None
        then, work = self.paced
        pace = (time.monotonic() - then) / (self.work - work)
        return pace * max(self.planned - self.work, 0)

    @property
    def best(self) -> str:
        """The best candidate's value, with its error over seeds if there are several."""
        if self.best_candidate is None:
            return "none yet"
        figures = ranking.summarise(list(self.best_candidate.values(self.metric).values()))
        seeds = len(self.best_candidate.runs)
        whose = f"trial {self.best_candidate.runs[0].number}" if seeds == 1 else f"{seeds} seeds"
        return f"{number(figures['mean'], figures['se'])} ({whose})"

    def _rank(self) -> None:
        found, _ = ranking.apart(ranking.candidates(self.ended.values()), self.baseline)
        ranked = ranking.rank(found, self.metric, self.direction)
        self.best_candidate = ranked[0] if ranked else None


class Scoring:
    """Progress of one scoring, with the time left at its recent pace."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.done = self.total = 0  # blocks, or models
        self.began = time.monotonic()
        self._recent = deque([(self.began, 0)])
        self._line = (self.began, 0)  # time of the last plain line, and what was done then

    def advance(self, done: int, total: int) -> str | None:
        """Record what is done; return a plain line if one is due."""
        now = time.monotonic()
        self.done, self.total = done, total
        self._recent.append((now, done))
        while now - self._recent[1][0] >= _PACE_SECONDS:
            self._recent.popleft()
        then, before = self._line
        if done == total or now - then < _LINE_SECONDS or done - before < total * _LINE_SHARE:
            return None
        self._line = (now, done)
        return f"{self.what}  {self._share}, {self._time}"

    def drawn(self, title: str) -> Table:
        head = _bar(title, self.done, self.total or None, self._share)
        head.add_row("scoring", self.what, "")
        head.add_row("time", self._time, "")
        return head

    @property
    def _share(self) -> str:
        return f"{self.done}/{self.total} done"

    @property
    def _time(self) -> str:
        (then, before), (now, done) = self._recent[0], self._recent[-1]
        left = (now - then) / (done - before) * (self.total - done) if done > before else None
        return f"{duration(time.monotonic() - self.began)}, left {_about(left)}"


class Lines:
    """One line per event, for logs and pipes."""

    def __init__(self, standing: StageProgress, console: Console) -> None:
        self.standing = standing
        self.console = console
        self._scoring = Scoring("")

    def stage_began(self, stage: str, planned: int, known: Iterable[RunRecord]) -> None:
        self.standing.stage_began(stage, planned, known)
        what = count(planned, "model" if stage == "evaluate" else "trial")
        done = len(self.standing.ended)
        already = f", {done} done already" if done else ""
        self._print(f"{stage}: {what}{already}")

    def trial_started(self, attempt: TrialAttempt) -> None:
        self.standing.trial_started(attempt)

    def trial_begun(self, stage: Stage, report: Report) -> None:
        """Show nothing: `trial_started` has named the trial."""

    def trial_epoch(self, stage: Stage, report: Report) -> None:
        self.standing.trial_epoch(report)

    def trial_ended(self, stage: Stage, number: int, state: TrialState, reason: str | None) -> None:
        record = self.standing.trial_ended(stage, number, state, reason)
        self._print(self._ending(record), self._style(record))

    def scoring(self, what: str, done: int, total: int) -> None:
        if what != self._scoring.what:
            self._scoring = Scoring(what)
        before = self._scoring.done
        if line := self._scoring.advance(done, total):
            self._under_way(f"evaluate  {line}")
        if before < done == total:
            self._print(f"evaluate  {what} scored")

    def note(self, message: str) -> None:
        self._print(on_host.commands(message))

    def _under_way(self, line: str) -> None:
        self._print(line)

    def _ending(self, record: RunRecord) -> str:
        standing = self.standing
        ahead = f"  best {standing.best}  left {duration(standing.left)}"
        return self._outcome(record, ahead)

    def _outcome(self, record: RunRecord, ahead: str = "") -> str:
        width = len(str(self.standing.planned))
        done = f"{len(self.standing.ended):>{width}}/{self.standing.planned}"
        value = number(record.metrics.get(self.standing.metric))
        why = f"  {record.reason}" if record.reason else ""
        return (
            f"{record.stage} {done}  trial {record.number:<{width}}  {record.state:<8}  "
            f"{self.standing.metric} {value:>8}{ahead}{why}"
        )

    def _style(self, record: RunRecord) -> str:
        leads = (
            self.standing.best_candidate is not None and record in self.standing.best_candidate.runs
        )
        return {"complete": "bold" if leads else "", "pruned": "dim"}.get(record.state, "red")

    def _print(self, line: str, style: str = "") -> None:
        self.console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)


class Panel(Lines):
    """Lines, with the stage's state and the running trials drawn below them."""

    def __init__(self, standing: StageProgress, console: Console, sweep_id: str) -> None:
        super().__init__(standing, console)
        self._sweep_id = sweep_id
        self._drawing = threading.Lock()

    def __rich__(self) -> RenderableType:
        """Return the panel. The ticker's thread calls this method, too."""
        match self.standing.stage:
            case "":
                return Text(f"{self._sweep_id}  starting Ray …", style="dim")
            case "evaluate":
                return self._evaluation()
            case _:
                return Group(self._head(), "", self._running())

    @contextmanager
    def drawn(self) -> Iterator[None]:
        """Show the panel and refresh it regularly.

        Rich's own refresh may draw while a line is being printed, and so erase another line.
        """
        ended = threading.Event()
        with Live(self, console=self.console, auto_refresh=False, transient=True) as live:

            def tick() -> None:
                while not ended.wait(_TICK_SECONDS):
                    with self._drawing:
                        live.refresh()

            ticker = threading.Thread(target=tick, daemon=True)
            ticker.start()
            try:
                yield
            finally:
                ended.set()
                ticker.join()

    def _print(self, line: str, style: str = "") -> None:
        with self._drawing:
            super()._print(line, style)

    def _under_way(self, line: str) -> None:
        """Print nothing: the panel shows the progress of the scoring."""

    def _ending(self, record: RunRecord) -> str:
        return self._outcome(record)  # the panel shows best and time left

    def _head(self) -> Table:
        standing = self.standing
        done, gone = len(standing.ended), time.monotonic() - standing.began
        counts = Counter(record.state for record in standing.ended.copy().values())
        trials = f"{done}/{standing.planned} trials"
        head = _bar(self._title, standing.work, standing.planned, trials)
        head.add_row(
            standing.metric,
            Text(f"best {standing.best}", style="bold" if standing.best_candidate else "dim"),
            ", ".join(f"{n} {state}" for state, n in counts.items()),
        )
        head.add_row("time", f"{duration(gone)}, left {_about(standing.left)}", "")
        return head

    def _running(self) -> Table:
        running = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
        for header in ("trial", "epoch", self.standing.metric, "images/s"):
            running.add_column(header, justify="right")
        running.add_column("", no_wrap=True)  # the curve
        running.add_column("", style="dim", no_wrap=True)
        for trial, (attempt, report) in sorted(self.standing.live.copy().items()):
            epochs = attempt.config.training.epochs
            model = _model(attempt)
            if report is None:
                running.add_row(str(trial), f"–/{epochs}", "waiting", "", "", model, style="dim")
                continue
            running.add_row(
                str(trial),
                f"{report.epoch}/{epochs}",
                number(self.standing.newest(trial)),
                f"{report.samples_per_second:,.0f}",
                sparkline(self.standing.curves.get(trial, [])),
                model,
            )
        return running

    def _evaluation(self) -> RenderableType:
        if not self._scoring.total:
            return _bar(self._title, 0, None, count(self.standing.planned, "model"))
        return self._scoring.drawn(self._title)

    @property
    def _title(self) -> str:
        return f"{self._sweep_id} {self.standing.stage}"


def sparkline(values: Sequence[float]) -> str:
    """Draw the last values as bars from minimum to maximum. A non-finite value leaves a gap."""
    shown = values[-_CURVE_WIDTH:]
    known = [value for value in shown if math.isfinite(value)]
    low, high = min(known, default=0.0), max(known, default=0.0)
    steps = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(
        _BARS[round((value - low) * steps)] if math.isfinite(value) else " " for value in shown
    )


def _bar(title: str, done: float, total: int | None, rest: str) -> Table:
    head = Table.grid(padding=(0, 2))
    for _ in range(3):
        head.add_column(no_wrap=True)
    bar = ProgressBar(total, done, width=40, pulse=total is None)
    head.add_row(Text(title, style="bold"), bar, rest)
    return head


def _about(seconds: float | None) -> str:
    return "unknown yet" if seconds is None else f"about {duration(seconds)}"


def _model(attempt: TrialAttempt) -> str:
    """Describe the model briefly. The kind is left out for a basic AAE."""
    model = attempt.config.model
    if model.kind == "classifier":
        return model.kind
    shape = model.prior.kind in ("mixture", "swiss_roll")
    prior = model.prior.kind if shape else setting("std", model.prior.std)
    clusters = [f"{model.clusters} clusters"] if model.kind == "clustering" else []
    kind = [] if model.kind in ("aae", "clustering") else [model.kind]
    return ", ".join([*kind, model.encoder.kind, f"code {model.code_dim}", prior, *clusters])


@contextmanager
def watching(spec: SweepSpec) -> Iterator[Lines]:
    """Yield a panel if stderr is a terminal, else plain lines."""
    console = Console(file=sys.stderr, force_jupyter=False)  # plain lines in a notebook
    standing = StageProgress(spec.objective.metric, spec.objective.direction, spec.baseline_hash)
    if not console.is_terminal:
        yield Lines(standing, console)
        return
    panel = Panel(standing, console, spec.sweep_id)
    with panel.drawn():
        yield panel


@contextmanager
def scoring(title: str, what: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function that shows the blocks done: drawn on a terminal, else in lines."""
    console, progress = Console(file=sys.stderr), Scoring(what)

    def advance(done: int, total: int) -> None:
        line = progress.advance(done, total)
        if line and not console.is_terminal:
            say(f"{title}  {line}")

    with Live(
        get_renderable=lambda: progress.drawn(title),
        console=console,
        auto_refresh=console.is_terminal,
        transient=True,
    ):
        yield advance
