"""Pareto fronts of points with several costs."""

import numpy as np


def fronts(costs: np.ndarray) -> np.ndarray:
    """Return the Pareto front of each point, (points,).  costs: (points, objectives), to minimise.

    A point dominates another if it is as good in every objective and better in one.  No point
    dominates those of front 0, only points of front 0 dominate those of front 1, and so on.

    >>> fronts(np.array([[1, 4], [3, 2], [3, 5]])).tolist()
    [0, 0, 1]
    """
    found = np.zeros(len(costs), int)
    costs = np.where(np.isnan(costs), np.inf, costs)
    as_good = np.logical_and.reduce([cost[:, None] <= cost for cost in costs.T])
    dominates = as_good & ~as_good.T
    dominators = np.count_nonzero(dominates, 0)  # of each point, among those in no front yet
    while (front := dominators == 0).any():
        dominators -= np.count_nonzero(dominates[front], 0)
        dominators[front] = -1
        found[dominators >= 0] += 1
    return found
