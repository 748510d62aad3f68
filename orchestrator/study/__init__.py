"""Optuna's record of trials: the only truth about a sweep's trials."""
