"""Images on a device, as one tensor in the data set's own type."""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Images:
    """Images and labels of a split, for evaluation."""

    x: Tensor  # (n, D), uint8 or floats in [0, 1]
    y: Tensor | None  # (n,)

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray | None, device: torch.device | str) -> "Images":
        return cls(resident(x, device), None if y is None else resident(y, device))


def resident(x: np.ndarray, device: torch.device | str) -> Tensor:
    """Copy the whole array to the device unchanged; on a CPU, share the array's memory."""
    with warnings.catch_warnings():  # Ray's arrays are read-only; the tensor is only read, too
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(x).to(device)
