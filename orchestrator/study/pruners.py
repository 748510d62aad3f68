"""Pruners for several objectives: they compare the Pareto fronts of trials.

Optuna's pruners compare one value.  OptunaHub's multi-metric pruner (package/pruners/
multi_metric_pruner in github.com/optuna/optunahub-registry) ranks the objectives that trials report
at one epoch by Pareto front, and an Optuna pruner then compares these numbers.  These pruners do
the same, except:

- OptunaHub gives the fronts to Optuna's pruner as a new study.  Optuna's successive halving and
  Hyperband look for the values that they have stored at each rung, which the new study does not
  have.  Here, each decision computes the fronts at the rung anew.
- The median rule compares a trial's best values so far with the others' values at its last epoch.
  OptunaHub compares the trial's best front so far, although the fronts of different epochs have
  different trials.

If all objectives are one metric, successive halving and Hyperband decide as Optuna's pruners of one
objective do.  So does the median rule, except between the two middle values of an even number of
trials, where fronts have no fractions.  No pruner ends a trial of the first front.
"""

from binascii import crc32
from bisect import bisect
from collections.abc import Iterable, Sequence
from itertools import accumulate
from math import ceil

import numpy as np
from numpy.typing import ArrayLike
from optuna.pruners import BasePruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial
from optuna.trial import TrialState as OptunaState

from orchestrator.study.pareto import fronts

_OBJECTIVES = "objectives/"  # and the epoch: attribute with the values of several objectives
_RUNG = "rung"  # attribute: the last rung that the trial has passed


def report(trial: Trial, objectives: Sequence[float], epoch: int) -> None:
    """Record the objectives of an epoch.  `Trial.report` refuses several.

    Nor are several objectives stored as intermediate values: the TPE sampler orders pruned trials
    by these values, which needs a single direction.
    """
    if len(objectives) == 1:
        trial.report(objectives[0], epoch)
    else:
        trial.set_user_attr(f"{_OBJECTIVES}{epoch}", list(objectives))


def reported(trial: FrozenTrial) -> dict[int, list[float]]:
    """Return the recorded objectives by epoch."""
    several = {
        int(name.removeprefix(_OBJECTIVES)): values
        for name, values in trial.user_attrs.items()
        if name.startswith(_OBJECTIVES)
    }
    return several or {epoch: [value] for epoch, value in trial.intermediate_values.items()}


def should_prune(trial: Trial) -> bool:
    """Return the pruner's decision.  `Trial.should_prune` refuses several objectives."""
    study = trial.study
    if len(study.directions) == 1:
        return bool(trial.should_prune())  # some pruners return numpy's bool
    return study.pruner.prune(study, study._storage.get_trial(trial._trial_id))


class ParetoHalving(BasePruner):
    """Asynchronous successive halving (Li et al. 2020), or Hyperband with several brackets.

    A trial passes a rung if none, or fewer than one in `factor`, of the trials that have reached
    the rung are on a better front.
    """

    def __init__(self, rungs: Sequence[int], factor: int, *, brackets: int = 1) -> None:
        """Bracket b begins with rung b.  rungs: epochs, in order."""
        self._rungs = rungs
        self._factor = factor
        # Optuna's share of each bracket, which follows Algorithm 1 of Hyperband
        sizes = [ceil(brackets * factor**s / (s + 1)) for s in reversed(range(brackets))]
        self._ends = list(accumulate(sizes))

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Return whether the trial fails a rung that it has reached since the last decision.

        A driver that died before a decision makes the same decision later: a rung counts as passed
        only once its attribute is stored, and what is compared are the values at the rung.
        """
        bracket, own = self._bracket(study, trial), reported(trial)
        passed = trial.user_attrs.get(_RUNG, 0)
        for rung in (r for r in self._rungs[bracket:] if passed < r and r in own):
            peers = [
                t
                for t in study.get_trials(deepcopy=False)
                if t.number != trial.number and self._bracket(study, t) == bracket
            ]
            if self._fails(_costs(study, own[rung]), _costs_at(study, peers, rung)):
                return True
            study._storage.set_trial_user_attr(trial._trial_id, _RUNG, rung)
        return False

    def _fails(self, own: np.ndarray, peers: np.ndarray) -> bool:
        if np.isnan(own).any():
            return True
        found = fronts(np.vstack([own, peers]))
        kept = max(len(found) // self._factor, 1)
        return bool(found[0] > np.sort(found)[kept - 1])

    def _bracket(self, study: Study, trial: FrozenTrial) -> int:
        """Return the bracket that Optuna's Hyperband gives a trial of this study and number."""
        drawn = crc32(f"{study.study_name}_{trial.number}".encode()) % self._ends[-1]
        return bisect(self._ends, drawn)


class ParetoMedian(BasePruner):
    """Median rule: prune a trial whose front is worse than the median of the completed trials'."""

    def __init__(self, startup_trials: int, grace_epochs: int) -> None:
        self._startup_trials = startup_trials
        self._grace_epochs = grace_epochs

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        own = reported(trial)
        epoch = max(own, default=0)
        completed = study.get_trials(deepcopy=False, states=[OptunaState.COMPLETE])
        if epoch < self._grace_epochs or len(completed) < self._startup_trials:
            return False
        best = np.fmin.reduce([_costs(study, values) for values in own.values()])
        if np.isnan(best).any():
            return True
        peers = _costs_at(study, completed, epoch)
        front, *others = fronts(np.vstack([best, peers]))
        return bool(others and front > np.median(others))


def _costs_at(study: Study, trials: Iterable[FrozenTrial], epoch: int) -> np.ndarray:
    """Return the costs, (trials, objectives), of the trials that have them at the epoch."""
    name = f"{_OBJECTIVES}{epoch}"
    values = [t.user_attrs[name] for t in trials if name in t.user_attrs]
    numbers = [each for each in values if not np.isnan(each).any()]
    return _costs(study, np.reshape(numbers, (-1, len(study.directions))))


def _costs(study: Study, values: ArrayLike) -> np.ndarray:
    signs = np.array([-1.0 if d == StudyDirection.MAXIMIZE else 1.0 for d in study.directions])
    costs: np.ndarray = np.asarray(values, float) * signs
    return costs
