"""Learning-rate schedules: the multiplier of every rate in an epoch; epochs count from 1."""

import math

from aae_core.config import ScheduleConfig


def multiplier(schedule: ScheduleConfig, epoch: int, epochs: int) -> float:
    """Return a multiplier in (0, 1].

    A cosine or exponential schedule goes from 1 in epoch 1 to `factor` in the last epoch.
    """
    progress = (epoch - 1) / max(epochs - 1, 1)
    match schedule.kind:
        case "constant":
            base = 1.0
        case "step":
            base = schedule.factor ** sum(epoch > drop for drop in schedule.drop_epochs)
        case "cosine":
            base = schedule.factor + (1 - schedule.factor) * (1 + math.cos(math.pi * progress)) / 2
        case "exponential":
            base = schedule.factor**progress
    warmup = min(1.0, epoch / (schedule.warmup_epochs + 1))
    return base * warmup
