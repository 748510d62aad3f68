"""Seeds of independent, named random streams, derived from one seed."""

import hashlib
import json


def stream_seed(seed: int, *path: str | int) -> int:
    """Return a 63-bit seed for the stream named by `path`, e.g. `stream_seed(0, "block", 17)`.

    The seed is a hash of the name, the same on every machine. Use it for generators that keep all
    63 bits. RandomState and torch's CPU generator keep 32 bits, so two of n names share a seed with
    a probability of about n²/2³³: one in two for 77,000 names.
    """
    return int.from_bytes(hashlib.blake2b(_name(seed, path), digest_size=8).digest(), "big") >> 1


def stream_bytes(n: int, seed: int, *path: str | int) -> bytes:
    """Return n bytes of SHAKE-256 over the stream's name, to fill a generator's whole state."""
    return hashlib.shake_256(_name(seed, path)).digest(n)


def _name(seed: int, path: tuple[str | int, ...]) -> bytes:
    return json.dumps([seed, *path]).encode()
