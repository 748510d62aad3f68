"""One seed, many independent streams: every draw names the stream that it comes from."""

import hashlib
import json


def stream_seed(seed: int, *path: str | int) -> int:
    """A 63-bit seed for the stream named by `path`, e.g. `stream_seed(0, "block", 17)`.

    A hash of the name, the same on every machine. Use it where all 63 bits count. Where a library
    keeps 32 of them, as RandomState and torch's CPU generator do, two of n names have one seed
    with a probability of about n²/2³³: one in two for 77,000 names.
    """
    return int.from_bytes(hashlib.blake2b(_name(seed, path), digest_size=8).digest(), "big") >> 1


def stream_bytes(n: int, seed: int, *path: str | int) -> bytes:
    """The first n bytes of SHAKE-256 over the stream's name: a whole generator's state."""
    return hashlib.shake_256(_name(seed, path)).digest(n)


def _name(seed: int, path: tuple[str | int, ...]) -> bytes:
    return json.dumps([seed, *path]).encode()
