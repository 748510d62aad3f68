"""Output of a running sweep, on a terminal and elsewhere."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.cli import panel
from orchestrator.cli.common import setting
from orchestrator.cli.panel import Lines, Panel, StageProgress, sparkline, watching
from orchestrator.execution.worker import Report
from orchestrator.records import RunRecord, Stage
from orchestrator.study.study import TrialAttempt
from orchestrator.sweepfile.loader import load_sweep
from orchestrator.sweepfile.spec import SweepSpec

METRIC = "val/parzen_ll"


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(panel, "time", clock)
    return clock


@pytest.fixture
def spec(sweep_file: Path) -> SweepSpec:
    return load_sweep(sweep_file, ["training.epochs=10"])


@pytest.fixture
def standing(clock: Clock) -> StageProgress:
    return StageProgress(METRIC, "maximize")


@pytest.fixture
def start(spec: SweepSpec) -> Callable[..., TrialAttempt]:
    """Attempts that share a configuration where `std` is the same."""

    def start(
        number: int, seed: int = 0, std: float = 1.0, stage: Stage = "search"
    ) -> TrialAttempt:
        return TrialAttempt(
            stage, number, 1, spec.trial_config({"model.prior.std": std}, seed), None
        )

    return start


def report(number: int, epoch: int, value: float) -> Report:
    return Report(number, 1, "node", epoch, {METRIC: value}, samples_per_second=12_345.6)


def console(*, terminal: bool = False) -> Console:
    return Console(file=StringIO(), force_terminal=terminal, width=100, no_color=True)


def printed(console: Console) -> list[str]:
    assert isinstance(console.file, StringIO)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())
    return [line.rstrip() for line in plain.splitlines()]


def drawn(panel: Panel) -> list[str]:
    sheet = console(terminal=True)
    sheet.print(panel)
    return printed(sheet)


def test_lines_print_each_end_as_one_aligned_line(
    standing: StageProgress, clock: Clock, start: Callable[..., TrialAttempt]
) -> None:
    out = console()
    lines = Lines(standing, out)
    lines.stage_began("search", 10, ())
    for number_, value in ((0, -20.0), (1, -10.0), (2, -30.0)):
        lines.trial_started(start(number_, std=1.0 + number_))
        lines.trial_epoch("search", report(number_, 1, value))
        clock.now += 9
        lines.trial_epoch("search", report(number_, 10, value))
    lines.trial_ended("search", 1, "complete", None)
    lines.trial_ended("search", 0, "pruned", "behind its peers")
    lines.trial_ended("search", 2, "diverged", None)
    lines.note("MLflow is slow")
    assert printed(out) == [
        "search: 10 trials",
        "search  1/10  trial 1   complete  val/parzen_ll      -10  best -10 (trial 1)  "
        "left 1 min 05 s",
        "search  2/10  trial 0   pruned    val/parzen_ll      -20  best -10 (trial 1)  "
        "left 1 min 05 s  behind its peers",
        "search  3/10  trial 2   diverged  val/parzen_ll      -30  best -10 (trial 1)  "
        "left 1 min 05 s",
        "MLflow is slow",
    ]


def test_standing_best_of_confirm_is_a_mean_with_error(
    standing: StageProgress, start: Callable[..., TrialAttempt]
) -> None:
    """Test against the luckiest seed, which must not be the best."""
    lines = Lines(standing, console())
    lines.stage_began("confirm", 5, ())
    runs = [(0, 7, 1.0, 10.0), (1, 9, 1.0, 14.0), (2, 7, 5.0, 11.0), (3, 9, 5.0, 11.5)]
    for number_, seed, std, value in runs:
        lines.trial_started(start(number_, seed, std, "confirm"))
        lines.trial_epoch("confirm", report(number_, 10, value))
        lines.trial_ended("confirm", number_, "complete", None)
    assert standing.best == "12.0 ± 2.0 (2 seeds)"


def test_standing_best_of_a_minimised_objective_is_the_lowest(
    clock: Clock, start: Callable[..., TrialAttempt]
) -> None:
    lines = Lines(StageProgress("val/recon", "minimize"), console())
    lines.stage_began("search", 2, ())
    for number_, value in ((0, 3.0), (1, 2.0)):
        lines.trial_started(start(number_, std=1.0 + number_))
        epoch = replace(report(number_, 10, 0.0), metrics={"val/recon": value})
        lines.trial_epoch("search", epoch)
        lines.trial_ended("search", number_, "complete", None)
    assert lines.standing.best == "2 (trial 1)"


def test_standing_of_a_resumed_stage_counts_done_trials(standing: StageProgress) -> None:
    def known(number: int, state: str, value: float) -> RunRecord:
        return RunRecord(number, "search", state, 0, f"h{number}", {}, metrics={METRIC: value})  # type: ignore[arg-type]

    out = console()
    lines = Lines(standing, out)
    records = [known(0, "complete", 1.0), known(1, "complete", 2.0), known(2, "running", 9.0)]
    lines.stage_began("search", 3, records)
    assert printed(out) == ["search: 3 trials, 2 done already"]
    assert standing.best == "2 (trial 1)"
    assert standing.left is None


def test_standing_time_left_counts_epochs_of_running_trials(
    standing: StageProgress, clock: Clock, start: Callable[..., TrialAttempt]
) -> None:
    standing.stage_began("search", 2, ())
    clock.now += 60  # Ray starts
    standing.trial_started(start(0))
    standing.trial_epoch(report(0, 1, 0.0))
    assert standing.left is None
    clock.now += 4
    standing.trial_epoch(report(0, 5, 0.0))
    assert standing.left == pytest.approx(15)  # one second an epoch, 5 + 10 to go


def test_panel_keeps_the_last_validated_value_through_epochs_without_one(
    standing: StageProgress, start: Callable[..., TrialAttempt]
) -> None:
    screen = console(terminal=True)
    shown = Panel(standing, screen, "digits-1")
    shown.stage_began("search", 1, [])
    shown.trial_started(start(0))
    shown.trial_epoch("search", report(0, 3, 24.5))
    costs = {"train/recon": 2.0}
    shown.trial_epoch("search", replace(report(0, 4, 0.0), metrics=costs))
    screen.print(shown)
    [row] = [line for line in printed(screen) if "4/10" in line]
    assert "24.5" in row


def test_panel_shows_progress_best_and_running_trials(
    standing: StageProgress, clock: Clock, start: Callable[..., TrialAttempt]
) -> None:
    live = Panel(standing, console(), "tiny-1234")
    assert drawn(live) == ["tiny-1234  starting Ray …"]
    live.stage_began("search", 4, ())
    for number_ in range(3):
        live.trial_started(start(number_, std=2.0))
    live.trial_epoch("search", report(0, 10, -8.25))
    live.trial_ended("search", 0, "complete", None)
    live.trial_epoch("search", report(1, 5, -9.5))
    clock.now += 30
    head, best, time, _, header, first, second = drawn(live)
    assert head.startswith("tiny-1234 search  ━")
    assert head.endswith("1/4 trials")
    assert best.split() == [METRIC, "best", "-8.25", "(trial", "0)", "1", "complete"]
    assert time.split("  ")[-1] == "30.0 s, left about 2 min 30 s"
    assert header.split() == ["trial", "epoch", METRIC, "images/s"]
    assert first.split()[:4] == ["1", "5/10", "-9.5", "12,346"]
    assert first.endswith("deterministic, code 4, std 2")
    assert second.split()[:3] == ["2", "–/10", "waiting"]


@pytest.mark.parametrize(
    ("values", "drawn"),
    [
        ([], ""),
        ([3.0], "▁"),
        ([0.0, 7.0, 3.0], "▁█▄"),
        ([-5.0, math.nan, -4.0], "▁ █"),
        ([math.inf], " "),
        (list(range(100)), "▁▁▂▂▂▃▃▄▄▄▅▅▅▆▆▇▇▇██"),
    ],
)
def test_sparkline_spans_the_range_of_its_values(values: list[float], drawn: str) -> None:
    assert sparkline(values) == drawn


def test_panel_shows_progress_of_the_evaluation(standing: StageProgress, clock: Clock) -> None:
    out = console()
    live = Panel(standing, out, "tiny-1234")
    live.stage_began("evaluate", 1, ())
    assert drawn(live)[0].endswith("1 model")
    live.scoring("confirm-0: 1,000 samples", 0, 4)
    clock.now += 10
    live.scoring("confirm-0: 1,000 samples", 1, 4)
    head, what, time = drawn(live)
    assert head.endswith("1/4 done")
    assert "confirm-0: 1,000 samples" in what
    assert "10.0 s, left about 30.0 s" in time
    for _ in range(2):
        live.scoring("confirm-0: 1,000 samples", 4, 4)
    assert printed(out) == ["evaluate: 1 model", "evaluate  confirm-0: 1,000 samples scored"]


def scored(observer: Lines, clock: Clock, seconds: float, total: int) -> None:
    """Score all blocks, each in the same time."""
    observer.stage_began("evaluate", 1, ())
    for done in range(total + 1):
        observer.scoring("confirm-0", done, total)
        clock.now += seconds


@pytest.mark.parametrize(("seconds", "lines"), [(0.5, 0), (2, 3), (60, 9)])
def test_lines_of_a_scoring_come_after_a_minute_and_a_tenth_of_the_work(
    standing: StageProgress, clock: Clock, seconds: float, lines: int
) -> None:
    out = console()
    scored(Lines(standing, out), clock, seconds, 100)
    assert len(printed(out)) == 2 + lines


def test_line_of_a_scoring_has_share_time_and_time_left(
    standing: StageProgress, clock: Clock
) -> None:
    out = console()
    scored(Lines(standing, out), clock, 12.0, 10)
    assert printed(out)[:2] == [
        "evaluate: 1 model",
        "evaluate  confirm-0  5/10 done, 1 min 00 s, left about 1 min 00 s",
    ]


def test_time_left_of_a_resumed_scoring_is_at_the_pace_of_its_new_blocks(
    standing: StageProgress, clock: Clock
) -> None:
    out = console()
    lines = Lines(standing, out)
    for done in range(500):  # read from disk
        lines.scoring("confirm-0", done, 1000)
    for done in range(500, 520):
        clock.now += 4
        lines.scoring("confirm-0", done, 1000)
    [line] = printed(out)
    assert line.endswith("514/1000 done, 1 min 00 s, left about 32 min 24 s")


def test_panel_prints_no_lines_of_a_scoring(standing: StageProgress, clock: Clock) -> None:
    out = console()
    scored(Panel(standing, out, "tiny-1234"), clock, 60.0, 100)
    assert printed(out) == ["evaluate: 1 model", "evaluate  confirm-0 scored"]


def test_scoring_of_a_command_without_a_terminal_prints_the_same_lines(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with panel.scoring("parzen", "10,000 samples") as advance:
        for done in range(11):
            advance(done, 10)
            clock.now += 12
    assert capsys.readouterr() == (
        "",
        "parzen  10,000 samples  5/10 done, 1 min 00 s, left about 1 min 00 s\n",
    )


def test_panel_leaves_the_lines_above_intact(
    standing: StageProgress, start: Callable[..., TrialAttempt], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(panel, "_TICK_SECONDS", 0.001)
    out = console(terminal=True)
    live = Panel(standing, out, "tiny-1234")
    with live.drawn():
        live.stage_began("search", 50, ())
        for number_ in range(50):
            live.trial_started(start(number_, std=2.0))
            live.trial_ended("search", number_, "failed", "no reason [bold]")
    shown = printed(out)
    assert sum(line.endswith("no reason [bold]") for line in shown) == 50


def test_watching_without_a_terminal_prints_lines(
    spec: SweepSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    with watching(spec) as observer:
        assert type(observer) is Lines
        observer.note("hello")
    assert capsys.readouterr() == ("", "hello\n")


def test_settings_are_printed_in_short_form() -> None:
    assert setting("model.prior.std", 2.1534) == "prior.std 2.15"
    assert setting("training.schedule.kind", "step") == "schedule.kind step"


def test_standing_control_is_never_the_best(standing: StageProgress, spec: SweepSpec) -> None:
    standing.baseline = spec.baseline_hash
    standing.stage_began("confirm", 2, ())
    control = TrialAttempt("confirm", 0, 1, spec.trial_config({}, 1), None)
    params = {"model.prior.std": 1.0}
    winner = TrialAttempt("confirm", 1, 1, spec.trial_config(params, 1), None, params)
    for attempt, value in ((control, 99.0), (winner, 10.0)):
        standing.trial_started(attempt)
        standing.trial_epoch(report(attempt.number, 1, value))
        standing.trial_ended("confirm", attempt.number, "complete", None)
    assert standing.best == "10 (trial 1)"
