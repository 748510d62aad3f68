"""Schedule of faults: a pure function of a seed, in epochs and not in seconds."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random


@dataclass(frozen=True)
class Strike:
    after: int  # epochs of all trials together since the previous strike
    fault: str  # a name of `faults.FAULTS`
    seed: int  # for the fault's own draws: its victim, or the file to damage


def schedule(seed: int, faults: Sequence[str], strikes: int, epochs: int) -> list[Strike]:
    """Return `strikes` strikes within `epochs` epochs, in any order, each fault at least once."""
    if not len(faults) <= strikes <= epochs:
        raise ValueError(f"{strikes} strikes of {len(faults)} faults do not fit {epochs} epochs")
    draw = Random(seed)
    drawn = [*faults, *draw.choices(faults, k=strikes - len(faults))]
    draw.shuffle(drawn)
    times = sorted(draw.sample(range(1, epochs + 1), strikes))
    gaps = (later - earlier for earlier, later in pairwise([0, *times]))
    return [
        Strike(gap, fault, draw.getrandbits(32)) for gap, fault in zip(gaps, drawn, strict=True)
    ]
