"""One seed, many independent streams: every draw names the stream that it comes from."""

import hashlib
import json


def stream_seed(seed: int, *path: str | int) -> int:
    """A 63-bit seed for the stream named by `path`, e.g. `stream_seed(0, "block", 17)`.

    A hash, so that streams of different names share nothing, on any machine alike.
    """
    name = json.dumps([seed, *path]).encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big") >> 1
