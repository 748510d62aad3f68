"""The commands stop, retry, extend, logs and `run -d`: their control requests and output."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sweep_command import aae

from orchestrator.cli import control
from orchestrator.cli import run as run_commands
from orchestrator.settings import Settings
from orchestrator.study.lock import held, is_held
from orchestrator.study.study import StageStudy, open_storage
from orchestrator.sweepfile.loader import load_sweep
from orchestrator.sweepfile.parameters import FloatRange
from orchestrator.sweepfile.spec import SweepSpec

RESUME = "aae-sweep run tiny.yaml"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_LOOKING_SECONDS", 0.05)
    monkeypatch.setattr(control, "_LAST_WORDS_SECONDS", 0.3)


@pytest.fixture
def spec(sweep_file: Path) -> SweepSpec:
    return load_sweep(sweep_file)


@pytest.fixture
def study(settings: Settings, spec: SweepSpec) -> StageStudy:
    """The study of a sweep that was interrupted in its search."""
    found = StageStudy.create(open_storage(settings), spec, "search")
    describe(found, spec)
    return found


def describe(study: StageStudy, spec: SweepSpec, **changes: Any) -> None:
    about: dict[str, Any] = {
        "name": spec.name,
        "spec": spec.resolved(),
        "spec_text": "name: tiny",
        "resume": RESUME,
        "planned": {"search": 3, "confirm": 2},
        "stage": "search",
        "state": "interrupted",
        "done": None,
    }
    study.note(**about | changes)


@contextmanager
def driven(
    settings: Settings, spec: SweepSpec, until: Callable[[], object] = lambda: False
) -> Iterator[None]:
    """Hold the sweep's lock in a thread until `until` returns true or the block ends."""
    holding, over = threading.Event(), threading.Event()

    def drive() -> None:
        with held(settings, spec.sweep_id):
            holding.set()
            while not over.is_set() and not until():
                time.sleep(0.05)

    driver = threading.Thread(target=drive)
    driver.start()
    assert holding.wait(20)
    try:
        yield
    finally:
        over.set()
        driver.join()


# -- stop ------------------------------------------------------------------------------------


def test_stop_without_a_driver_returns_at_once(study: StageStudy, spec: SweepSpec) -> None:
    ended = aae("stop", "tiny", "--json")
    assert (ended.code, ended.document["state"]) == (0, "interrupted")
    assert ended.err == f"no driver runs {spec.sweep_id}; there is nothing to stop\n"
    assert study.state.request is None
    assert aae("stop").out == f"{spec.sweep_id} is interrupted. Resume with: {RESUME}\n"


@pytest.mark.parametrize(("options", "control"), [([], "drain"), (["--now"], "now")])
def test_stop_repeats_its_request_until_the_driver_exits(
    settings: Settings, study: StageStudy, spec: SweepSpec, options: list[str], control: str
) -> None:
    requests = []

    def listen() -> bool:
        """Clear the first request, as a starting driver does, and stop at the second."""
        if (said := study.state.request) is None:
            return False
        requests.append(said)
        study.note(request=None)
        study.note(state="stopped")
        return len(requests) == 2

    with driven(settings, spec, listen):
        ended = aae("stop", "latest", *options)
        assert not is_held(settings, spec.sweep_id)
    assert requests == [control, control]
    assert ended.code == 0
    assert ended.out == f"{spec.sweep_id} is stopped. Resume with: {RESUME}\n"


def test_stop_of_a_trial_is_recorded_once_for_the_driver(
    study: StageStudy, spec: SweepSpec
) -> None:
    numbers = [study.ask(spec).number for _ in range(3)]
    study.end(numbers[2], "complete", 1.0, None)
    for _ in range(2):
        assert aae("stop", "tiny", "1").out == (
            "stop of search-1 requested: it ends as pruned after its next epoch\n"
        )
    assert aae("stop", "tiny", "0", "--json").document["trial"] == 0
    assert study.state.stopped == [0, 1]
    for wrong, message in (
        (["2"], "search-2 has ended: complete"),
        (["9"], "no trial `9`"),
        (["1", "--now"], "--now stops a whole sweep"),
    ):
        ended = aae("stop", "tiny", *wrong)
        assert (ended.code, ended.out) == (2, "")
        assert message in ended.err


@pytest.mark.parametrize(("command", "control"), [("pause", "pause"), ("resume", None)])
def test_pause_and_resume_send_requests_to_the_driver(
    settings: Settings, study: StageStudy, spec: SweepSpec, command: str, control: str | None
) -> None:
    study.note(request=None if control else "pause")
    with held(settings, spec.sweep_id):
        assert aae("status", "--json").document["paused"] is (control is None)
        assert ("paused, stage" in aae("status").out) is (control is None)
        asked = aae(command, "tiny", "--json")
        assert (asked.code, asked.document["paused"]) == (0, control is not None)
        assert study.state.request == control
        output = aae(command).out
    assert output.startswith(
        f"{command} of {spec.sweep_id} requested{': the driver finishes' if control else ''}"
    )
    assert ("aae-sweep resume" in output) is (control is not None)


@pytest.mark.parametrize("command", ["pause", "resume"])
def test_pause_and_resume_without_a_driver_are_refused(
    study: StageStudy, spec: SweepSpec, command: str
) -> None:
    asked = aae(command, "tiny")
    assert asked.code == 2
    assert f"no driver runs {spec.sweep_id}. Resume with: {RESUME}" in asked.err
    assert study.state.request is None


def test_stop_reports_a_driver_that_exceeds_the_timeout(
    settings: Settings, study: StageStudy, spec: SweepSpec
) -> None:
    with driven(settings, spec):
        ended = aae("stop", "tiny", "--timeout", "0.3")
    assert (ended.code, ended.out) == (4, "")
    assert f"{spec.sweep_id} still runs after 0.3 s" in ended.err
    assert f"aae-sweep stop {spec.sweep_id} --now" in ended.err
    assert study.state.request == "drain"


# -- retry -----------------------------------------------------------------------------------


def end_all(study: StageStudy, spec: SweepSpec) -> None:
    for state in ("complete", "failed", "diverged"):
        number = study.ask(spec).number
        study.end(number, state, 1.0 if state == "complete" else None, None)  # type: ignore[arg-type]


def test_retry_queues_failed_trials_of_a_complete_sweep(
    settings: Settings, study: StageStudy, spec: SweepSpec
) -> None:
    end_all(study, spec)
    describe(study, spec, done="0123", state="done", stage="evaluate")
    assert aae("status", "--json").document["trials"]["failed"] == 1
    ended = aae("retry", "tiny", "--json")
    assert ended.code == 0
    resume = f"aae-sweep run {spec.sweep_id}"
    retried = [{"stage": "search", "trial": 1, "retried_as": 3}]
    assert ended.document == {"sweep": spec.sweep_id, "retried": retried, "resume": resume}
    status = aae("status", "--json").document
    assert (status["state"], status["stage"]) == ("stopped", "search")
    counts = {state: n for state, n in status["trials"].items() if n}
    assert counts == {"complete": 1, "diverged": 1, "waiting": 1}
    reopened = StageStudy.read(open_storage(settings), spec.sweep_id, "search")
    assert reopened is not None
    assert reopened.unfinished() == [3]


def test_retry_prints_the_queued_trials(study: StageStudy, spec: SweepSpec) -> None:
    end_all(study, spec)
    assert aae("retry").out == (
        f"search-1 is queued again, as search-3\nResume with: aae-sweep run {spec.sweep_id}\n"
    )
    assert aae("retry").out == f"no trial of {spec.sweep_id} has failed\n"


def test_retry_without_failures_leaves_the_sweep_done(study: StageStudy, spec: SweepSpec) -> None:
    describe(study, spec, done="0123", state="done")
    assert aae("retry", "--json").document["retried"] == []
    assert aae("status", "--json").document["state"] == "done"


def test_retry_refuses_a_sweep_that_is_running(
    settings: Settings, study: StageStudy, spec: SweepSpec
) -> None:
    end_all(study, spec)
    with driven(settings, spec):
        ended = aae("retry")
    assert ended.code == 4
    assert f"stop it with: aae-sweep stop {spec.sweep_id}" in ended.err
    assert study.unfinished() == []


# -- extend ----------------------------------------------------------------------------------


@pytest.fixture
def carried_out(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The requests that `run` would have carried out."""
    found: list[Any] = []
    monkeypatch.setattr(run_commands, "carry_out", lambda *request: found.append(request))
    return found


def test_run_resumes_an_extended_sweep_by_name_and_by_file(
    study: StageStudy, spec: SweepSpec, sweep_file: Path, carried_out: list[Any]
) -> None:
    describe(study, spec, done="0123", state="done", stage="evaluate")
    ended = aae("extend", "tiny", "--trials", 5, "--json")
    assert ended.code == 0
    resume = f"aae-sweep run {spec.sweep_id}"
    assert ended.document == {
        "sweep": spec.sweep_id,
        "trials": 5,
        "hours": 0.0,
        "running": False,
        "resume": resume,
    }
    status = aae("status", "--json").document
    assert (status["state"], status["planned"]["search"]) == ("stopped", 5)

    for named in (sweep_file, "tiny", spec.sweep_id, "latest"):
        ended = aae("run", named)
        assert ended.err == (
            f"note: {spec.sweep_id} keeps its extended limits: 5 trials, hours unlimited\n"
        )
    by_file, *by_name = [(found.resolved(), *rest) for found, *rest in carried_out]
    longer = spec.extended(trials=5).resolved()
    assert by_file == (longer, sweep_file.read_text(), f"aae-sweep run {sweep_file}", None)
    assert by_name == [(longer, "name: tiny", resume, None)] * 3

    aae("run", sweep_file, "--set", "search.trials=9")
    assert carried_out[-1][0] == spec.extended(trials=9)


@pytest.mark.parametrize(
    "arguments",
    [[], ["--trials", 2], ["--trials", 3], ["--hours", 5], ["--trials", 5, "--hours", 1]],
)
def test_extend_refuses_to_shorten_a_sweep(
    study: StageStudy, spec: SweepSpec, arguments: list[Any]
) -> None:
    ended = aae("extend", "tiny", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert "3 trials, hours unlimited; --trials and --hours are totals" in ended.err
    assert study.state.extended == {}


def test_extend_adds_to_earlier_extensions(
    settings: Settings, sweep_file: Path, carried_out: list[Any]
) -> None:
    limited = load_sweep(sweep_file, ["search.budget={hours: 2}"])
    describe(StageStudy.create(open_storage(settings), limited, "search"), limited)
    assert "3 trials, hours 4;" in aae("extend", "--hours", 4).out
    assert "8 trials, hours 4;" in aae("extend", "--trials", 8).out
    assert aae("extend", "--hours", 3).code == 2
    aae("run", "tiny")
    assert carried_out[0][0].resolved() == limited.extended(trials=8, hours=4).resolved()


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("search", "the running driver continues to these limits"),
        ("confirm", "after the driver has exited, resume with: aae-sweep run"),
    ],
)
def test_extend_accepts_a_sweep_that_is_running(
    settings: Settings, study: StageStudy, spec: SweepSpec, stage: str, words: str
) -> None:
    describe(study, spec, stage=stage, state="running")
    with driven(settings, spec):
        ended = aae("extend", "--trials", 4)
    assert words in ended.out
    assert study.state.extended == {"trials": 4, "hours": 0.0}
    assert (study.state.state, study.state.stage) == ("running", stage)


def test_extend_refuses_a_sweep_without_a_search(settings: Settings, sweep_file: Path) -> None:
    alone = load_sweep(sweep_file, ["search=null"])
    describe(StageStudy.create(open_storage(settings), alone, "search"), alone)
    ended = aae("extend", "--trials", 9)
    assert ended.code == 2
    assert "has no search; raise confirm.seeds" in ended.err


def confirm_all(settings: Settings, spec: SweepSpec, epochs: int = 2) -> StageStudy:
    """Record two complete confirmations."""
    study = StageStudy.create(open_storage(settings), spec, "confirm")
    study.enqueue({"params": {"model.prior.std": 2.0}, "seed": seed} for seed in (1, 3))
    while (attempt := study.pop(spec)) is not None:
        study.epoch(attempt.number, epochs, [1.0], f"{attempt.number}", trained=True)
        study.end(attempt.number, "complete", 1.0, None)
    return study


def test_extended_confirmations_are_queued_once_and_the_sweep_is_reopened(
    settings: Settings, study: StageStudy, spec: SweepSpec
) -> None:
    describe(study, spec, done="0123", state="done", stage="evaluate")
    confirm_all(settings, spec)
    resume = f"aae-sweep run {spec.sweep_id}"
    assert aae("extend", "tiny", "confirm-1", "--epochs", 30, "--json").document == {
        "sweep": spec.sweep_id,
        "extended": [{"trial": 1, "extended_as": 2, "from": 2, "to": 30}],
        "notes": [],
        "resume": resume,
    }
    assert aae("extend", "tiny", "--epochs", 30).out == (
        f"confirm-0 trains on from epoch 2 to 30, as confirm-3\nResume with: {resume}\n"
    )
    status = aae("status", "--json").document
    assert (status["state"], status["stage"]) == ("stopped", "search")
    confirmations = StageStudy.read(open_storage(settings), spec.sweep_id, "confirm")
    assert confirmations is not None
    assert [r.extends for r in confirmations.records()] == [None, None, 1, 0]
    ended = aae("extend", "tiny", "--epochs", 40)
    assert (ended.code, ended.err) == (
        2,
        f"{spec.sweep_id} has no finished confirmation that is not already being extended. "
        f"Run: {resume}\n",
    )


def test_extend_describes_a_schedule_that_depends_on_the_number_of_epochs(
    settings: Settings, sweep_file: Path
) -> None:
    falling = load_sweep(sweep_file, ["training.schedule={kind: cosine, factor: 0.1}"])
    describe(StageStudy.create(open_storage(settings), falling, "search"), falling)
    confirm_all(settings, falling)
    assert aae("extend", "--epochs", 3, "--json").document["notes"] == [
        "training.schedule: from epoch 3 on, the cosine schedule is that of 3 epochs: "
        "the rates' factor is 0.1 before, 0.1 after"
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", 2], "--epochs is a total; give more than 2"),
        (["--epochs", 3, "--trials", 9], "--epochs extends confirmations"),
        (["confirm-1", "--trials", 9], "leave out the trial"),
        (["7", "--epochs", 9], "no trial `7`"),
    ],
)
def test_extend_refuses_wrong_extensions_of_epochs(
    settings: Settings,
    study: StageStudy,
    spec: SweepSpec,
    arguments: list[Any],
    message: str,
) -> None:
    confirmations = confirm_all(settings, spec)
    ended = aae("extend", "tiny", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err
    assert len(confirmations.records()) == 2


# -- enqueue ---------------------------------------------------------------------------------


def test_enqueued_configuration_is_the_next_trial_of_a_larger_search(
    study: StageStudy, spec: SweepSpec
) -> None:
    describe(study, spec, done="0123", state="done", stage="evaluate")
    assert spec.search is not None
    [path] = [path for path, p in spec.search.space.items() if isinstance(p, FloatRange)][:1]
    low, high = spec.search.space[path].ends
    ended = aae("enqueue", "tiny", "--set", f"{path}={(low + high) / 2}", "--json")
    assert ended.code == 0, ended.err
    document = ended.document
    assert document["enqueued"] == {path: (low + high) / 2}
    assert document["trials"] == spec.search.planned + 1
    status = aae("status", "--json").document
    assert (status["state"], status["planned"]["search"]) == ("stopped", document["trials"])
    longer = spec.extended(trials=document["trials"])
    first, second = study.ask(longer), study.ask(longer)
    assert first is not None
    assert first.params[path] == (low + high) / 2
    assert second is not None
    assert second.params[path] != first.params[path]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "give at least one --set"),
        (["--set", "training.epochs"], "give at least one --set"),
        (["--set", "training.epochs=3"], "is not in the space"),
        (["--set", "model.prior.std=-7"], "is not in its range"),
    ],
)
def test_enqueue_refuses_configurations_that_the_search_cannot_try(
    study: StageStudy, spec: SweepSpec, given: list[str], words: str
) -> None:
    describe(study, spec)
    ended = aae("enqueue", "tiny", *given)
    assert (ended.code, ended.out) == (2, "")
    assert words in ended.err
    assert (study.state.enqueued, study.state.extended) == ([], {})


# -- run, by name or detached ----------------------------------------------------------------


def test_run_refuses_an_unknown_sweep_name(study: StageStudy, sweep_file: Path) -> None:
    ended = aae("run", "tinny")
    assert (ended.code, ended.err) == (
        2,
        f"`tinny` names no sweep: {study.optuna_study.study_name[:-7]}\n",
    )
    assert aae("run", "tiny", "--smoke").code == 2
    assert "need a sweep file" in aae("run", "tiny", "--set", "seed=3").err


DRIVER = """
import sys, time
from orchestrator.settings import Settings
from orchestrator.study.lock import held
print(*sys.argv[1:], flush=True)
if "seed=7" in sys.argv[-1]:
    print("there is no cluster")
    sys.exit(4)
settings = Settings.from_environment()
with held(settings, "%s"):
    while not (settings.home / "enough").exists():
        time.sleep(0.1)
print("done", flush=True)
"""


@pytest.fixture
def _straw_driver(monkeypatch: pytest.MonkeyPatch, spec: SweepSpec) -> None:
    monkeypatch.setattr(run_commands, "_DRIVER", (sys.executable, "-c", DRIVER % spec.sweep_id))


@pytest.mark.usefixtures("_straw_driver")
@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_run_detached_keeps_running_and_logs_follow_it(
    settings: Settings, study: StageStudy, spec: SweepSpec, sweep_file: Path
) -> None:
    ended = aae("run", sweep_file, "-d", "--set", "search.trials=4", "--json")
    assert ended.code == 0
    log = settings.sweep_folder(spec.sweep_id) / "driver.log"
    assert ended.document == {
        "sweep": spec.sweep_id,
        "pid": ended.document["pid"],
        "log": str(log),
    }
    assert is_held(settings, spec.sweep_id)
    arguments = f"run {sweep_file} --set=search.trials=4"
    assert aae("logs", "--json").document["lines"] == [arguments]
    refused = aae("run", sweep_file, "--detach")
    assert refused.code == 4
    assert "is already being run" in refused.err
    (settings.home / "enough").touch()
    assert aae("logs", "tiny", "-f").out == f"{arguments}\ndone\n"
    assert not is_held(settings, spec.sweep_id)


@pytest.mark.usefixtures("_straw_driver")
def test_run_detached_reports_why_the_driver_failed(study: StageStudy, sweep_file: Path) -> None:
    ended = aae("run", sweep_file, "-d", "--set", "seed=7")
    assert (ended.code, ended.out) == (4, "")
    assert ended.err.endswith("there is no cluster\n")


def test_logs_of_a_sweep_never_detached_are_refused(study: StageStudy, spec: SweepSpec) -> None:
    ended = aae("logs")
    assert ended.code == 2
    assert f"{spec.sweep_id} has no log" in ended.err


def test_logs_of_a_trial_show_each_attempt_with_the_cause_of_its_loss(
    settings: Settings, study: StageStudy, spec: SweepSpec
) -> None:
    attempt = study.ask(spec)
    assert attempt is not None
    ended = aae("logs", "tiny", "0")
    assert (ended.code, "no worker of search-0 printed anything" in ended.err) == (2, True)
    study.explain_loss(0, "it hung: no report for 1 min 00 s")
    for number, text in ((1, "one\n"), (2, "two"), (10, "ten\n")):
        folder = settings.attempt_folder(spec.sweep_id, "search", 0, number)
        folder.mkdir(parents=True)
        (folder / f"attempt-{number}.log").write_text(text)
    assert aae("logs", "tiny", "search-0").out == (
        "attempt 1, lost: it hung: no report for 1 min 00 s\none\nattempt 2\ntwo\nattempt 10\nten\n"
    )
    assert aae("logs", "tiny", "0", "--json").document["attempts"][2] == {
        "attempt": 10,
        "lines": ["ten"],
    }
    assert aae("logs", "tiny", "0", "-f").code == 2
    assert "attempt 1 lost" in aae("show", "tiny").out
    assert "it hung" in aae("show", "tiny", "0").out
