"""Trials of another sweep that a search starts with (`search.warm_start`)."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from orchestrator.errors import UsageError
from orchestrator.records import RunRecord
from orchestrator.results.reader import ResultsReader
from orchestrator.settings import Settings
from orchestrator.sweepfile import space
from orchestrator.sweepfile.spec import SweepSpec


@dataclass(frozen=True)
class WarmStart:
    """The other sweep's trials that the sampler gets, and why it does not get the others."""

    sweep: str  # id of the other sweep
    trials: int  # of its search
    known: list[RunRecord]  # trials that the sampler gets, with their parameters in this space
    left_out: Counter[str]  # trials by reason; a trial may have several reasons

    @property
    def summary(self) -> str:
        taken = len(self.known) or "none"
        reasons = [
            f"; {n} {'has' if n == 1 else 'have'} {reason}"
            for reason, n in self.left_out.most_common()
        ]
        return (
            f"search.warm_start: the sampler has {taken} of the {self.trials} trials of "
            f"{self.sweep}{''.join(reasons)}"
        )


def read(spec: SweepSpec, settings: Settings, data_sha256: str | None = None) -> WarmStart | None:
    """Return the trials that the search of `spec` starts with; None if the file names no sweep.

    data_sha256: checksum of the sweep's data, if they are known.  Raises UsageError if the file
    names no sweep on the same data, or a sweep without a trial in this space.
    """
    if spec.search is None or spec.search.warm_start is None:
        return None
    reader = ResultsReader(settings)
    try:
        other = reader.resolve(spec.search.warm_start)
    except UsageError as error:
        raise UsageError(f"search.warm_start: {error}") from error
    if other == spec.sweep_id or data_sha256 not in (None, reader.data_sha256(other)):
        raise UsageError(f"search.warm_start: {other} is not another sweep on the same data")
    theirs, records = SweepSpec.of(reader.spec(other)), reader.trials(other, "search")
    known, left_out = [], Counter[str]()
    for record in records:
        params, misfits = space.locate(theirs.trial_config(record.params, 0), spec)
        reasons = [*_without_result(record, spec)] or misfits
        left_out.update(reasons)
        known += [] if reasons else [replace(record, params=params)]
    found = WarmStart(other, len(records), known, left_out)
    if not known:
        raise UsageError(f"{found.summary}\nChange these settings, or drop search.warm_start.")
    return found


def _without_result(record: RunRecord, spec: SweepSpec) -> Iterator[str]:
    if record.state != "complete":
        yield f"the state {record.state}"
        return
    for name in spec.objectives:
        if not math.isfinite(record.metrics.get(name, math.nan)):
            yield f"no finite {name}"
