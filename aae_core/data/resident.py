"""Images on a device: one tensor each, as the data set gave them."""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Images:
    """A split, for evaluation."""

    x: Tensor  # (n, D), uint8 or floats in [0, 1]
    y: Tensor | None  # (n,)

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray | None, device: torch.device | str) -> "Images":
        return cls(resident(x, device), None if y is None else resident(y, device))


def resident(x: np.ndarray, device: torch.device | str) -> Tensor:
    """The whole array on the device, as it is; on a CPU it shares the array's memory."""
    with warnings.catch_warnings():  # arrays from Ray's object store are read-only, and so are we
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(x).to(device)
