"""What can go wrong in the core, and whose it is to mend."""

from collections.abc import Mapping


class AAEError(Exception):
    """Every error that this package raises on purpose."""


class ConfigError(AAEError, ValueError):
    """A setting cannot be right; whoever wrote the configuration edits it."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__(dict(problems))
        self.problems = dict(problems)

    def __str__(self) -> str:
        return "; ".join(f"{name}: {message}" for name, message in self.problems.items())


class DataError(AAEError):
    """A data set is missing, damaged or of the wrong form; the message says which file."""


class TrialDiverged(AAEError):
    """A loss is no longer finite: a result of the configuration, not a fault to retry."""

    def __init__(self, metric: str, epoch: int) -> None:
        super().__init__(metric, epoch)
        self.metric = metric
        self.epoch = epoch

    def __str__(self) -> str:
        return f"{self.metric} is not finite in epoch {self.epoch}"


class CheckpointError(AAEError):
    """A checkpoint is missing, torn or of another model."""
