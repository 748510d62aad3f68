"""Named random streams as torch has them."""

import torch

from aae_core.seeding import stream_seed


def generator(seed: int, *path: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(stream_seed(seed, *path))
