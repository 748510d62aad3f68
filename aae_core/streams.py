"""Named random streams as torch generators."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from aae_core.seeding import stream_bytes, stream_seed

# torch's CPU state: the seed, two counters and a flag in 24 bytes, then the words as uint64
_HEAD, _WORDS = 24, 624


class Streams(torch.Generator):
    """One stream of every member of a pack; a draw is the stack of one draw from each stream."""

    members: Sequence[torch.Generator]

    def __new__(cls, members: Sequence[torch.Generator]) -> "Streams":
        together = super().__new__(cls, members[0].device)  # type: ignore[call-arg]
        together.members = members
        return together


def generator(seed: int, *path: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return the stream named by `path`; different names give independent streams on CPU and GPU.

    The GPU's generator (Philox) uses all 63 bits of the name's seed. The CPU's generator (Mersenne
    Twister) would keep only 32 bits, so its 624 words are derived from the name itself.
    """
    stream = torch.Generator(device).manual_seed(stream_seed(seed, *path))
    if stream.device.type == "cpu":
        words = np.frombuffer(stream_bytes(4 * _WORDS, seed, *path), "<u4").astype(np.uint64)
        state = stream.get_state()
        state[_HEAD : _HEAD + words.nbytes] = torch.from_numpy(words.view(np.uint8))
        stream.set_state(state)
    return stream


def permutations(n: int, wanted: int, stream: torch.Generator) -> Tensor:
    """Return the first `wanted` entries of concatenated permutations of 0 … n−1."""
    rounds = -(-wanted // n)
    order = [torch.randperm(n, generator=stream, device=stream.device) for _ in range(rounds)]
    return torch.cat(order)[:wanted]


def standard_normal(shape: torch.Size, stream: torch.Generator) -> Tensor:
    if isinstance(stream, Streams):
        return torch.stack([standard_normal(shape[1:], member) for member in stream.members])
    return torch.randn(shape, generator=stream, device=stream.device)
