"""Optuna's samplers and pruners by the names of the sweep file, every argument pinned."""

import warnings
from collections.abc import Mapping

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    SuccessiveHalvingPruner,
)
from optuna.samplers import (
    BaseSampler,
    GPSampler,
    GridSampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.trial import FrozenTrial

from aae_core.seeding import stream_seed
from orchestrator.study.pruners import ParetoHalving, ParetoMedian
from orchestrator.sweepfile import space
from orchestrator.sweepfile.spec import PrunerSpec, SamplerSpec, SweepSpec


def build_sampler(spec: SweepSpec, number: int) -> BaseSampler:
    """Build a new sampler for each trial, so that suggestions survive a restart of the driver.

    Optuna takes seeds of 32 bits. Two trials with one seed (probability 1e-4 for 1,000 trials) may
    get the same parameters; the second trial then ends as a repeat.
    """
    assert spec.search is not None
    sampler: SamplerSpec = spec.search.sampler
    seed = stream_seed(spec.seed, "sampler", number) % 2**32
    match sampler.kind:
        case "tpe":
            return TPESampler(
                n_startup_trials=sampler.startup_trials,
                multivariate=True,
                constant_liar=True,
                seed=seed,
            )
        case "gp":
            return GPSampler(
                n_startup_trials=sampler.startup_trials,
                seed=seed,
                warn_independent_sampling=False,  # intended for conditional parameters
            )
        case "qmc":  # one sequence: the study gives its position, the file its scrambling
            seed = stream_seed(spec.seed, "qmc") % 2**32
            return _Sequence(space.distributions(spec.search.space), seed)
        case "grid":
            return GridSampler(space.grid(spec.search.space), seed=spec.seed % 2**32)
        case "random":
            return RandomSampler(seed=seed)


def build_pruner(spec: SweepSpec) -> BasePruner:
    """Build Optuna's pruner; with several objectives, its counterpart for Pareto fronts."""
    pruner: PrunerSpec = spec.pruner
    several = len(spec.objectives) > 1
    match pruner.kind:
        case "successive_halving" if several:
            return ParetoHalving(spec.rungs, pruner.reduction_factor)
        case "hyperband" if several:
            return ParetoHalving(spec.rungs, pruner.reduction_factor, brackets=len(spec.rungs))
        case "median" if several:
            return ParetoMedian(pruner.startup_trials, pruner.grace_epochs)
        case "successive_halving":
            return SuccessiveHalvingPruner(
                min_resource=pruner.grace_epochs, reduction_factor=pruner.reduction_factor
            )
        case "hyperband":
            return HyperbandPruner(
                min_resource=pruner.grace_epochs,
                max_resource=spec.max_epochs,
                reduction_factor=pruner.reduction_factor,
            )
        case "median":
            return MedianPruner(pruner.startup_trials, n_warmup_steps=pruner.grace_epochs)
        case "none":
            return NopPruner()


class _Sequence(QMCSampler):
    """QMC sampler with a coordinate for each parameter, even conditional, from the first trial on.

    Optuna's QMCSampler takes the space from the first trial that ends. Until then, and for
    parameters which that trial lacks, QMCSampler draws at random, by the same seed in every trial.
    """

    def __init__(self, distributions: Mapping[str, BaseDistribution], seed: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            super().__init__(scramble=True, seed=seed)
        self._space = {path: d for path, d in distributions.items() if not d.single()}

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._space
