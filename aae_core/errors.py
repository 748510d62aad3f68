"""Exceptions of the core."""

from collections.abc import Mapping


class AAEError(Exception):
    """Base class of all errors that this package raises on purpose."""


class ConfigError(AAEError, ValueError):
    """A setting is invalid; the author of the configuration must edit it."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__(dict(problems))
        self.problems = dict(problems)

    def __str__(self) -> str:
        return "; ".join(f"{name}: {message}" for name, message in self.problems.items())


class PluginError(AAEError, ValueError):
    """A declaration of another package cannot be used; the message names package and version."""


class DataError(AAEError):
    """A data set is missing, damaged or of the wrong form; the message names the file."""


class TrialDiverged(AAEError):
    """A metric is no longer finite: a result of the configuration; do not retry."""

    def __init__(self, metric: str, epoch: int) -> None:
        super().__init__(metric, epoch)
        self.metric = metric
        self.epoch = epoch

    def __str__(self) -> str:
        return f"{self.metric} is not finite in epoch {self.epoch}"


class CheckpointError(AAEError):
    """A checkpoint is missing, incomplete, damaged or of another version."""
