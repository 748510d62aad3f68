"""MLflow: the outbox on disk, its writer, and what a run's record says."""
