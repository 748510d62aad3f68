"""Execution of a sweep: the cluster, Tune's driver, the workers and the Parzen actors."""
