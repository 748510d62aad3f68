"""Detection of workers that hang: their process lives, but sends nothing.

A hung worker is killed. The trial or the Parzen block is then lost like any other.
"""

import math
from dataclasses import dataclass

HUNG_AFTER = 10.0  # times the longest answer so far; twice as long after each hang
LEAST_PATIENCE = 60.0  # seconds
_STEP_SECONDS = 1.0  # of one call, at most, that count: the driver itself may have slept


@dataclass
class Watch:
    """Time since a worker's last report, in seconds of the driver's own activity."""

    silence: float = 0.0
    longest: float | None = None  # silence before an answer, so far

    def wait(self, seconds: float) -> None:
        self.silence += min(seconds, _STEP_SECONDS)

    def answered(self) -> None:
        self.longest = max(self.silence, self.longest or 0.0)
        self.silence = 0.0

    def hangs(self, limit: float | None = None, earlier: int = 0) -> bool:
        """Return True if the silence exceeds `limit`, by default a multiple of the longest so far.

        limit: seconds.  earlier: number of earlier hangs, each of which doubles the default.
        """
        if limit is None:
            known = math.inf if self.longest is None else HUNG_AFTER * self.longest
            limit = max(LEAST_PATIENCE, known) * 2**earlier
        return self.silence > limit
