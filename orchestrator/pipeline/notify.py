"""Notifications: a sweep's events, sent to a command or a web address of the user's choice.

Threads deliver them.  A receiver that fails or hangs neither stops nor delays a sweep.
"""

import hmac
import json
import os
import shlex
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from urllib.parse import urlsplit

from orchestrator.errors import DiskFull, Interrupted
from orchestrator.records import EVENTS, Event
from orchestrator.results.reader import ResultsReader
from orchestrator.settings import Settings
from orchestrator.sweepfile.spec import SweepSpec
from orchestrator.text import duration

_PAUSES = (1.0, 4.0)  # seconds between the tries
_TRY_SECONDS = 10.0
_LAST_SECONDS: dict[Event, float] = {"interrupted": 1.0}  # a batch system kills soon
_USUAL_LAST_SECONDS = 10.0  # that the driver's exit waits for deliveries
SIGNATURE = "X-AAE-Signature-256"  # HMAC of the body, keyed by AAE_NOTIFY_SECRET


class Notifier:
    """Sender of a sweep's events.  It sends none before the sweep has begun."""

    def __init__(self, spec: SweepSpec, settings: Settings, note: Callable[[str], None]) -> None:
        self._settings, self._sweep, self._note = settings, spec.sweep_id, note
        self._events = spec.notify.events if spec.notify else EVENTS
        self._url = settings.notify_url or (spec.notify.url if spec.notify else None)
        self._deliveries: list[threading.Thread] = []
        self.began = False

    @contextmanager
    def sending_the_end(self) -> Iterator[None]:
        """Send how the sweep ended, once its state is recorded."""
        event: Event = "failed"
        try:
            yield
            event = "done"
        except (Interrupted, KeyboardInterrupt, DiskFull):
            event = "interrupted"
            raise
        finally:
            self.send(event)
            self._await(_LAST_SECONDS.get(event, _USUAL_LAST_SECONDS))

    def send(self, event: Event) -> None:
        """Start to deliver an event to each receiver."""
        receivers: dict[str, Callable[[bytes], None]] = {}
        if self._settings.notify_command is not None:
            receivers["AAE_NOTIFY_COMMAND"] = self._run
        if self._url is not None:
            receivers[str(urlsplit(self._url).hostname)] = self._post
        if not (receivers and self.began and event in self._events):
            return
        body = json.dumps(self._document(event)).encode()
        for name, deliver in receivers.items():
            arguments = name, partial(deliver, body)
            thread = threading.Thread(target=self._deliver, args=arguments, daemon=True)
            thread.start()
            self._deliveries.append(thread)

    def _document(self, event: Event) -> dict[str, object]:
        try:
            status: dict[str, object] = {**ResultsReader(self._settings).status(self._sweep)}
        except Exception:  # the study's server may be the cause of the event
            status = {"id": self._sweep}
        took = status.get("elapsed_seconds")
        after = f" after {duration(took)}" if isinstance(took, float) else ""
        return {
            "event": event,
            "text": f"aae-sweep: {self._sweep}: {event}{after}",
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            **status,
        }

    def _deliver(self, name: str, deliver: Callable[[], None]) -> None:
        for pause in (*_PAUSES, None):
            try:
                deliver()
            except Exception as error:  # a receiver's failure is never the sweep's
                if pause is None:
                    # the error's text may hold the address, which may be a secret
                    self._note(f"no notification: {name} failed three times ({_kind(error)})")
                    return
                time.sleep(pause)
            else:
                return

    def _run(self, body: bytes) -> None:
        command = shlex.split(self._settings.notify_command or "")
        environment = {k: v for k, v in os.environ.items() if k != "AAE_NOTIFY_SECRET"}
        subprocess.run(
            command,
            input=body,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_TRY_SECONDS,
            check=True,
        )

    def _post(self, body: bytes) -> None:
        headers = {"Content-Type": "application/json"}
        if self._settings.notify_secret is not None:
            key = self._settings.notify_secret.encode()
            headers[SIGNATURE] = "sha256=" + hmac.new(key, body, "sha256").hexdigest()
        request = urllib.request.Request(self._url or "", body, headers)
        urllib.request.urlopen(request, timeout=_TRY_SECONDS).close()

    def _await(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for thread in self._deliveries:
            thread.join(max(0.0, deadline - time.monotonic()))


def _kind(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code}"
    if isinstance(error, subprocess.CalledProcessError):
        return f"exit code {error.returncode}"
    return type(error).__name__
