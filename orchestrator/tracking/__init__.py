"""MLflow: the outbox on disk, its writer, and the provenance of a run."""
