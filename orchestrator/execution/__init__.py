"""Where a sweep runs: the cluster, Tune's driver, the workers and the Parzen actors."""
