"""The queue: shares of the cluster, and which sweeps are queued."""

from contextlib import ExitStack
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st
from sweep_file import make_spec

from orchestrator.settings import Settings
from orchestrator.study.lock import held
from orchestrator.study.queue import queued, shares
from orchestrator.study.state import QueuePlace
from orchestrator.study.study import StageStudy, open_storage


def place(priority: int, slots: int, wants: int, since: str = "") -> QueuePlace:
    return {"priority": priority, "since": since, "slots": slots, "wants": min(slots, wants)}


def in_order(places: list[QueuePlace]) -> dict[str, QueuePlace]:
    places.sort(key=lambda each: -each["priority"])
    return {str(n): each for n, each in enumerate(places)}


PLACES = st.builds(place, st.integers(0, 2), st.integers(1, 9), st.integers(0, 9))
QUEUES = st.lists(PLACES).map(in_order)


def test_sweeps_of_one_priority_divide_the_places_evenly() -> None:
    assert shares({name: place(0, 4, 4) for name in "ab"}) == {"a": 2, "b": 2}
    assert shares({name: place(0, 4, 4) for name in "abc"}) == {"a": 2, "b": 1, "c": 1}
    assert shares({"a": place(0, 4, 1), "b": place(0, 4, 4)}) == {"a": 1, "b": 3}
    assert shares({"small": place(0, 8, 8), "large": place(0, 2, 2)}) == {"small": 4, "large": 1}


def test_higher_priority_is_served_first_and_leaves_what_it_does_not_want() -> None:
    assert shares({"a": place(5, 4, 4), "b": place(0, 4, 4)}) == {"a": 4, "b": 0}
    assert shares({"a": place(5, 4, 1), "b": place(0, 4, 4)}) == {"a": 1, "b": 3}


@given(QUEUES)
def test_shares_fit_the_cluster_and_waste_no_place(queue: dict[str, QueuePlace]) -> None:
    parts = shares(queue)
    free = 1 - sum(Fraction(parts[sweep], place["slots"]) for sweep, place in queue.items())
    assert free >= 0
    for sweep, place in queue.items():
        assert 0 <= parts[sweep] <= place["wants"]
        assert parts[sweep] == place["wants"] or Fraction(1, place["slots"]) > free


@given(QUEUES, st.integers(1, 9), st.integers(0, 9))
def test_lower_priority_changes_no_share_above_it(
    queue: dict[str, QueuePlace], slots: int, wants: int
) -> None:
    parts = shares(queue | {"lower": place(-1, slots, wants)})
    del parts["lower"]
    assert parts == shares(queue)


@given(st.integers(1, 9), st.integers(2, 4))
def test_shares_of_equal_sweeps_differ_by_one_place_at_most(slots: int, sweeps: int) -> None:
    parts = shares({str(n): place(0, slots, slots) for n in range(sweeps)})
    assert max(parts.values()) - min(parts.values()) <= 1


def test_only_sweeps_with_a_running_driver_are_queued_and_the_first_is_served_first(
    settings: Settings,
) -> None:
    storage, ids = open_storage(settings), dict[str, str]()
    for name in ("late", "early", "urgent", "dead", "done", "plain"):
        spec = make_spec(name)
        study = StageStudy.create(storage, spec, "search")
        StageStudy.create(storage, spec, "confirm")
        since = "2026-01-02" if name == "late" else "2026-01-01"
        queue = None if name == "plain" else place(3 if name == "urgent" else 0, 4, 4, since)
        study.note(queue=queue, state="done" if name == "done" else "running")
        ids[name] = spec.sweep_id
    with ExitStack() as stack:
        for name in ids.keys() - {"dead"}:
            stack.enter_context(held(settings, ids[name]))
        found = queued(settings, storage)
    assert list(found) == [ids[name] for name in ("urgent", "early", "late")]
