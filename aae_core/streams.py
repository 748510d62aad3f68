"""Named random streams as torch has them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from aae_core.seeding import stream_seed


class Streams(torch.Generator):
    """One stream of every member of a pack: whatever is drawn is drawn from each, and stacked."""

    members: Sequence[torch.Generator]

    def __new__(cls, members: Sequence[torch.Generator]) -> "Streams":
        together = super().__new__(cls, members[0].device)  # type: ignore[call-arg]
        together.members = members
        return together


def generator(seed: int, *path: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(stream_seed(seed, *path))


def standard_normal(shape: torch.Size, stream: torch.Generator) -> Tensor:
    if isinstance(stream, Streams):
        return torch.stack([standard_normal(shape[1:], member) for member in stream.members])
    return torch.randn(shape, generator=stream, device=stream.device)
