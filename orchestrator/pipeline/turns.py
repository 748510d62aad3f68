"""Take turns with the other queued sweeps: keep `SweepContext.allowed` at this sweep's share."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import takewhile

from optuna.exceptions import StorageInternalError

from orchestrator.errors import EnvironmentUnusable
from orchestrator.execution import cluster
from orchestrator.pipeline.context import SweepContext
from orchestrator.study.queue import queued, shares
from orchestrator.study.state import QueuePlace
from orchestrator.study.study import open_storage
from orchestrator.text import count

_SECONDS = 1.0  # between two looks at the queue


@contextmanager
def taking_turns(sweep: SweepContext, resources: cluster.TrialResources) -> Iterator[None]:
    """Limit a queued sweep to its share of the cluster during a `with`."""
    if sweep.request.priority is None:
        yield
        return
    storage, over = open_storage(sweep.settings), threading.Event()
    since = datetime.now(UTC).isoformat()

    def look() -> None:
        slots = cluster.slots(resources)
        own: QueuePlace = {
            "priority": sweep.request.priority or 0,
            "since": since,
            "slots": slots,
            "wants": min(slots, _wanted(sweep, slots)),
        }
        if sweep.search.state.queue != own:
            sweep.note(queue=own)
        places = queued(sweep.settings, storage)
        allowed = shares(places).get(sweep.id, slots)
        if allowed != sweep.allowed:
            sweep.allowed = allowed
            before = list(takewhile(lambda other: other != sweep.id, places))
            waits = f"; waits for {', '.join(before)}" if before and not allowed else ""
            sweep.observer.note(f"queue: {allowed} of {count(slots, 'place')}{waits}")

    def keep_looking() -> None:
        while not over.wait(_SECONDS):
            with suppress(StorageInternalError, EnvironmentUnusable):  # server briefly away
                look()

    look()  # before the first trial
    looking = threading.Thread(target=keep_looking, daemon=True)
    looking.start()
    try:
        yield
    finally:
        over.set()
        looking.join()
        sweep.allowed = None


def _wanted(sweep: SweepContext, slots: int) -> int:
    """Return the number of trials that the sweep could train at once; scoring takes all places."""
    if sweep.paused.is_set():
        return 0
    state = sweep.search.state
    if state.stage == "evaluate":
        return slots
    left = state.planned[state.stage] - sweep.study(state.stage).count_ended()
    return max(1, left)  # the next stage follows
