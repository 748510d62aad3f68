"""A small Parzen job, and its result by the in-process runner."""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from aae_core.evaluation.parzen import BLOCK, ArraySource, ParzenResult, in_process, run_protocol
from orchestrator.execution.parzen_pool import ArrayFile

N = 4 * BLOCK + 123
DIM = 3


def images(n: int, seed: int) -> Tensor:
    return torch.rand(n, DIM, generator=torch.Generator().manual_seed(seed))


VALID, TEST = images(30, 1), images(40, 2)


def saved_samples(folder: Path, n: int = N) -> ArrayFile:
    np.save(folder / "samples.npy", images(n, 0).numpy())
    return ArrayFile(folder / "samples.npy")


@cache
def in_process_result() -> ParzenResult:
    source = in_process(ArraySource(images(N, 0).numpy()))
    return run_protocol(source, N, VALID, TEST, curve=[BLOCK])


def same_figures(got: ParzenResult, want: ParzenResult) -> bool:
    differ = {"seconds", "blocks_repeated"}
    documents = [{k: v for k, v in r.to_dict().items() if k not in differ} for r in (got, want)]
    same_points = torch.equal(got.per_point, want.per_point)
    return documents[0] == documents[1] and got.curve == want.curve and same_points
