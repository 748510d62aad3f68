"""One seed, many independent streams: every draw names the stream that it comes from."""

import hashlib
import json

import torch


def stream_seed(seed: int, *path: str | int) -> int:
    """A 63-bit seed for the stream named by `path`, e.g. `stream_seed(0, "block", 17)`.

    A hash, so that streams of different names share nothing, on any machine alike.
    """
    name = json.dumps([seed, *path]).encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big") >> 1


def generator(seed: int, *path: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(stream_seed(seed, *path))
