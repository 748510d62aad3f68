"""The queue: several sweeps on one cluster, each with its share of the places.

A place is what one trial of a sweep needs.  No process divides the places: each driver computes the
same shares from what the drivers of all queued sweeps record in their studies.
"""

from collections.abc import Mapping
from fractions import Fraction
from itertools import groupby

from optuna.storages import BaseStorage

from orchestrator.settings import Settings
from orchestrator.study.lock import is_held
from orchestrator.study.state import QueuePlace, SweepState


def queued(settings: Settings, storage: BaseStorage) -> dict[str, QueuePlace]:
    """Return the queued sweeps whose drivers run, those that are served first in front."""
    found: dict[str, QueuePlace] = {}
    for study in storage.get_all_studies():
        sweep, _, stage = study.study_name.partition("/")
        if stage != "search" or not study.user_attrs.get("queue"):
            continue
        state = SweepState.of(study.user_attrs)
        if state.queue and state.state == "running" and is_held(settings, sweep):
            found[sweep] = state.queue
    return dict(sorted(found.items(), key=lambda item: (-item[1]["priority"], item[1]["since"])))


def shares(places: Mapping[str, QueuePlace]) -> dict[str, int]:
    """Return how many trials each sweep may train at once; `places` are in the queue's order.

    Higher priorities are served first.  Sweeps of one priority divide what is left evenly: one
    place after another goes to the sweep that has the smallest part of the cluster so far.

    >>> first, second = ({"priority": p, "slots": 4, "wants": 3, "since": ""} for p in (5, 0))
    >>> shares({"first": first, "second": second})
    {'first': 3, 'second': 1}
    """
    found, free = dict.fromkeys(places, 0), Fraction(1)
    for _, alike in groupby(places, lambda sweep: places[sweep]["priority"]):
        unserved = list(alike)
        while unserved:
            sweep = min(unserved, key=lambda s: Fraction(found[s], places[s]["slots"]))
            part = Fraction(1, places[sweep]["slots"])
            if found[sweep] == places[sweep]["wants"] or part > free:
                unserved.remove(sweep)
            else:
                found[sweep] += 1
                free -= part
    return found
