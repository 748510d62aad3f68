"""Notifications: which events reach which receivers, and what a broken receiver costs."""

import hmac
import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from straw_sweep import Watcher, images, run, sweep, without_ray

from orchestrator.errors import Interrupted
from orchestrator.pipeline import notify
from orchestrator.pipeline.context import SweepContext
from orchestrator.pipeline.notify import SIGNATURE
from orchestrator.settings import Settings
from orchestrator.sweepfile.spec import SweepSpec


class Receiver(ThreadingHTTPServer):
    """A web server that records POSTs; it refuses the first `refusals` of them."""

    def __init__(self, refusals: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.refusals = refusals
        self.posts: list[tuple[dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook/a-secret-path"

    @property
    def events(self) -> list[str]:
        return [json.loads(body)["event"] for _, body in self.posts]


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server: Any = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        refused = server.refusals > 0
        server.refusals -= 1
        if not refused:
            server.posts.append(({k.lower(): v for k, v in self.headers.items()}, body))
        self.send_response(503 if refused else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def settings(tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Settings:
    without_ray(monkeypatch)
    monkeypatch.setattr(notify, "_PAUSES", (0.01, 0.01))
    home = {"AAE_HOME": str(tmp_path / "home"), "AAE_NOTIFY_URL": receiver.url}
    return Settings.from_environment({**home, "AAE_NOTIFY_SECRET": "s3cret"})


@pytest.fixture
def spec(tmp_path: Path) -> SweepSpec:
    return sweep(images(tmp_path / "images.npz", test=True))


def test_done_sweep_posts_its_status_signed(
    settings: Settings, spec: SweepSpec, receiver: Receiver
) -> None:
    reader = run(settings, spec)
    [(headers, body)] = receiver.posts
    document = json.loads(body)
    assert (document["event"], document["id"], document["state"]) == (
        "done",
        spec.sweep_id,
        "done",
    )
    assert document["trials"] == reader.status(spec.sweep_id)["trials"]
    assert document["text"].startswith(f"aae-sweep: {spec.sweep_id}: done after ")
    signed = hmac.new(b"s3cret", body, "sha256").hexdigest()
    assert headers[SIGNATURE.lower()] == f"sha256={signed}"


def test_interrupted_and_failed_sweeps_post_after_their_state_is_recorded(
    settings: Settings, spec: SweepSpec, receiver: Receiver
) -> None:
    draining = threading.Event()
    draining.set()
    with pytest.raises(Interrupted):
        run(settings, spec, draining=draining)
    watcher = Watcher()

    def fail(what: str) -> None:
        if what.startswith("search of"):
            raise RuntimeError("a fault of the driver")

    watcher.act = fail
    with pytest.raises(RuntimeError):
        run(settings, spec, watcher)
    assert receiver.events == ["interrupted", "failed"]
    assert [json.loads(body)["state"] for _, body in receiver.posts] == receiver.events


def test_used_up_budget_is_an_event_of_its_own(
    tmp_path: Path, settings: Settings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours, watcher = [0.0], Watcher()
    monkeypatch.setattr(SweepContext, "elapsed", property(lambda _: 3600 * hours[0]))

    def let_time_pass(what: str) -> None:
        if what == "search 0 complete":
            hours[0] = 2.0

    watcher.act = let_time_pass
    path = images(tmp_path / "images.npz", test=True)
    run(settings, sweep(path, search={"budget": {"hours": 1}}), watcher)
    assert receiver.events == ["budget", "done"]


def test_notifier_sends_only_the_events_that_the_file_names(
    settings: Settings, spec: SweepSpec, receiver: Receiver
) -> None:
    notified = {"url": receiver.url, "events": ["failed"]}
    run(replace(settings, notify_url=None), SweepSpec.of(spec.resolved() | {"notify": notified}))
    assert receiver.events == []


def test_command_gets_the_event_on_its_input_but_not_the_secret(
    tmp_path: Path, settings: Settings, spec: SweepSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AAE_NOTIFY_SECRET", "s3cret")
    out = tmp_path / "a file"
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys\n"
        "with open(sys.argv[1], 'w') as out:\n"
        "    out.write(sys.stdin.read() + str('AAE_NOTIFY_SECRET' in os.environ))\n"
    )
    command = f"'{sys.executable}' '{script}' '{out}'"
    run(replace(settings, notify_command=command, notify_url=None), spec)
    written = out.read_text()
    assert json.loads(written.removesuffix("False"))["event"] == "done"


@pytest.mark.parametrize(("refusals", "delivered"), [(2, True), (3, False)])
def test_receiver_is_tried_three_times_and_its_failure_is_noted(
    refusals: int, delivered: bool, settings: Settings, spec: SweepSpec, receiver: Receiver
) -> None:
    receiver.refusals = refusals
    watcher = Watcher()
    assert run(settings, spec, watcher).status(spec.sweep_id)["state"] == "done"
    assert bool(receiver.posts) == delivered
    remarks = [what for what in watcher.seen if "notification" in what]
    expected = "no notification: 127.0.0.1 failed three times (HTTP 503)"
    assert remarks == ([] if delivered else [expected])


def test_secrets_of_receivers_are_in_no_record(settings: Settings, spec: SweepSpec) -> None:
    run(settings, spec)
    assert "s3cret" not in repr(settings)
    for file in settings.home.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert b"s3cret" not in content, file
            assert b"a-secret-path" not in content, file


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("file:///etc/passwd", "must be an address"),
        ("mailto:me@host", "must be an address"),
        ("https://me:word@host/", "must not have a password"),
    ],
)
def test_notify_url_that_is_invalid_is_refused(url: str, message: str, spec: SweepSpec) -> None:
    with pytest.raises(ValueError, match=message):
        SweepSpec.of(spec.resolved() | {"notify": {"url": url}})


def test_sweep_file_cannot_name_a_notify_command(spec: SweepSpec) -> None:
    with pytest.raises(ValueError, match="command"):
        SweepSpec.of(spec.resolved() | {"notify": {"url": "https://host/", "command": "rm"}})
