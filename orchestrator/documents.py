"""The documents that `--json` prints, as types. Dashboards and messages read the same documents.

Missing figures are None. Seeds are those of confirmations unless the search is named.
"""

from typing import Any, Literal, NotRequired, TypedDict

from aae_core.metrics import Direction
from orchestrator.records import SweepRunState, TrialState

Verdict = Literal["winner", "worse", "equivalent", "undecided"]


class DirectedMetric(TypedDict):
    metric: str
    direction: Direction


class Summary(TypedDict):
    """A metric over a candidate's seeds."""

    mean: float | None
    std: float | None
    se: float | None  # standard error over seeds
    ci95: list[float] | None  # by Student's t
    bootstrap95: list[float] | None
    values: list[float | None]  # one per seed


class WinnerDifference(TypedDict):
    """Candidate minus winner, in the objective's unit."""

    mean: float | None
    ci95: list[float]
    detectable: float | None  # smallest difference that these seeds show at 80 % power


class Gain(TypedDict):
    """Winner minus control, in the objective's unit; positive is better."""

    mean: float
    ci95: list[float]


class Versus(TypedDict):
    """The fields of `results.ranking.Comparison`."""

    method: Literal["paired", "welch"] | None
    seeds: int
    difference: float | None
    se: float | None
    ci95: list[float] | None
    p: float | None
    p_holm: float | None
    degrees: float | None
    diverged: int


class CandidateFigures(TypedDict):
    """A configuration with all of its seeds; lists have one entry per seed."""

    params: dict[str, Any]
    config_hash: str
    seeds: list[int]
    trials: list[int]
    metrics: dict[str, Summary]
    checkpoints: list[str | None]
    run_ids: list[str | None]


class Compared(TypedDict):
    """A candidate beside the winner, the winner included."""

    config_hash: str
    params: dict[str, Any]
    seeds: list[int]
    metrics: dict[str, Summary]
    versus_best: Versus | None  # None: the winner itself
    difference: WinnerDifference | None
    # not of the control
    tied_with_best: NotRequired[bool]
    verdict: NotRequired[Verdict]
    # of `best` alone
    trials: NotRequired[list[int]]
    checkpoints: NotRequired[list[str | None]]
    run_ids: NotRequired[list[str | None]]
    by: NotRequired[str | None]  # parameter whose values have a winner each
    value: NotRequired[Any]  # of that parameter
    optimism: NotRequired[float | None]  # the search's value minus the confirmed mean
    # of `compare` alone
    sweep: NotRequired[str]


class Best(CandidateFigures):
    """`aae-sweep best`: the winner, and every confirmed candidate beside it."""

    sweep: str
    confirmed: bool  # False: the search's best, with one seed
    departures: list[str]  # from the paper
    groups: list[Compared]
    tied_with: list[str]
    objective: DirectedMetric
    margin: float | None
    baseline: Compared | None  # the control: the file's own configuration
    gain: Gain | None
    data_sha256: str | None
    code_version: str | None


class ComparisonDocument(TypedDict):
    """`aae-sweep compare`."""

    metric: str
    best_by: str  # the objective that ranks the candidates
    direction: Direction
    margin: float | None
    data_sha256: dict[str, str | None]  # by sweep
    candidates: list[Compared]


class BestTrial(TypedDict):
    trial: int
    metric: str
    value: float | None
    se: float | None
    confirmed: bool


class MlflowRun(TypedDict):
    experiment_id: str | None
    run_id: str | None


class Money(TypedDict):
    """Cost of training by `resources.price_per_hour`, without the evaluation."""

    amount: float
    currency: str | None


class Consumption(TypedDict):
    """Time, energy and cost of the trials' epochs, repeated ones included."""

    train_seconds: float
    energy_joules: float | None  # None where the machine counts no energy
    cost: Money | None  # None without a price


class Status(Consumption):
    """`aae-sweep status`."""

    sweep: str
    id: str
    config_hash: str
    stage: Literal["search", "confirm", "evaluate", "done"]
    state: SweepRunState
    trials: dict[TrialState, int]
    planned: dict[str, int]  # by stage
    objective: DirectedMetric
    secondary_objectives: list[DirectedMetric]
    best: BestTrial | None
    elapsed_seconds: float
    paused: bool
    eta_seconds: float | None
    unsynced: int
    mlflow: MlflowRun
    report: str | None
    resume: str | None


class QueuedSweep(TypedDict):
    """A sweep of `aae-sweep ls --queue`. A place is what one of its trials needs."""

    id: str
    priority: int
    stage: Literal["search", "confirm", "evaluate"]
    share: int  # places that the sweep may use now
    wants: int  # places that it could use
    slots: int  # places of the whole cluster
    since: str  # ISO 8601, UTC: the driver's start


class Control(TypedDict):
    """A control row: images scored as if they were samples."""

    kind: Literal["train_images", "kmeans"]
    n_samples: int
    log_likelihood: float
    log_likelihood_grid: float
    standard_error: float
    standard_error_grid: float | None
    sigma: float


class CurvePoint(TypedDict):
    """A point of the Parzen curve; the strict grid's fields are absent in older documents."""

    n_samples: int
    log_likelihood: float
    standard_error: float
    sigma: float
    log_likelihood_grid: NotRequired[float]
    standard_error_grid: NotRequired[float]
    sigma_grid: NotRequired[float]


class TestScores(TypedDict):
    """A model's figures on the test set. Only models scored by Parzen have the optional fields."""

    metrics: dict[str, float | None]
    n_samples: NotRequired[int]
    n_test: NotRequired[int]
    log_likelihood: NotRequired[float]
    log_likelihood_grid: NotRequired[float]
    standard_error: NotRequired[float]
    sigma: NotRequired[float]
    sigma_at_edge: NotRequired[bool]
    standard_error_grid: NotRequired[float | None]
    curve: NotRequired[list[CurvePoint]]
    controls: NotRequired[list[Control]]


class ScoredModel(TestScores):
    """A confirmed model on the test set."""

    trial: int
    seed: int
    config_hash: str
    group: Any
    checkpoint: str | None


class Evaluation(TypedDict):
    """`aae-sweep evaluate`."""

    sweep: str
    winner: str  # configuration hash
    models: list[ScoredModel]


class Started(TypedDict):
    """First event of `aae-sweep train`."""

    event: Literal["start"]
    seed: int
    device: str
    threads: int
    labelled_indices: list[int] | None
    config_hash: str
    data_sha256: str
    notes: list[str]  # on the data


class EpochEnded(TypedDict):
    """An epoch of `aae-sweep train`: the fields of `aae_core.training.loop.EpochMetrics`."""

    event: Literal["epoch"]
    epoch: int
    metrics: dict[str, float]
    lr: dict[str, float]
    seconds: float
    samples_per_second: float


class Ended(TypedDict):
    """Last event of `aae-sweep train`."""

    event: Literal["end"]
    state: Literal["complete", "diverged"]
    reason: NotRequired[str]
    metrics: dict[str, float | None]
    checkpoint: str | None


TrainEvent = Started | EpochEnded | Ended
