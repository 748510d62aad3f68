"""The state that a sweep keeps in its studies, outside the trials."""

from functools import cache
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic reads no other before Python 3.12

from orchestrator.errors import EnvironmentUnusable
from orchestrator.records import SweepRunState

ControlRequest = Literal["pause", "drain", "now"]
VERSION = 1  # of the layout below; a later layout gets a larger number

CONTROL_REQUESTS: dict[ControlRequest, str] = {  # what the driver does on each request
    "pause": "the driver finishes the current epochs and waits",
    "drain": "the driver finishes the current epochs and exits",
    "now": "the driver exits at once",
}


class Limits(TypedDict, total=False):
    """Larger limits of a search."""

    trials: int
    hours: float


class QueuePlace(TypedDict):
    """A sweep in the queue, as its driver records it."""

    priority: int  # higher ones go first
    since: str  # ISO 8601, UTC: the driver's start
    slots: int  # trials of this sweep that the whole cluster holds, at least 1
    wants: int  # trials that it could train at once, at most `slots`


class SweepState(BaseModel):
    """A sweep's state. Each field is one attribute of the study, so that writers do not collide.

    Other terminals write `request`, `extended`, `enqueued` and `stopped`, the driver all other
    fields. The search's study has all fields; the confirmation's has `objectives`, `baseline` and
    `winner`.
    """

    model_config = ConfigDict(frozen=True)

    version: int = VERSION
    # the user's request
    name: str = ""
    spec: dict[str, Any] = {}  # the resolved sweep file
    spec_text: str = ""  # the sweep file as its author wrote it
    resume: str | None = None  # the command that resumes the sweep
    extended: Limits = {}  # from `aae-sweep extend`
    enqueued: list[dict[str, Any]] = []  # parameters from `aae-sweep enqueue`, the first one first
    queue: QueuePlace | None = None  # None: the sweep is not queued
    stopped: list[int] = []  # trials of the search, from `aae-sweep stop SWEEP TRIAL`
    request: ControlRequest | None = None  # from `aae-sweep stop` or `pause`
    # progress
    stage: Literal["search", "confirm", "evaluate"] = "search"
    state: SweepRunState = "interrupted"
    planned: dict[str, int] = {}  # number of trials by stage
    drivers: int = 0  # number of drivers so far; 1 if nothing interrupted the sweep
    elapsed: float = 0.0  # seconds of all drivers
    touched: str = ""  # the driver's last sign of life: ISO 8601, UTC
    done: str | None = None  # digest of the resolved file that has been run to its end
    report: str | None = None  # path of the report
    # facts about the results
    objectives: list[str] = []  # metrics, the main one first
    data_sha256: str | None = None  # of the training and validation images
    code_version: str | None = None
    warm_trials: int | None = None  # another sweep's trials that the sampler has; None before
    baseline: str | None = None  # configuration hash of the control
    winner: str | None = None  # configuration hash of the winner, set before a test split is read

    @classmethod
    def of(cls, attributes: dict[str, Any]) -> Self:
        """Return the state in a study's attributes.

        Raises EnvironmentUnusable if a later version of aae-sweep, or something else, wrote the
        attributes.
        """
        version = attributes.get("version", VERSION)
        if isinstance(version, int) and version > VERSION:
            raise EnvironmentUnusable(
                "a later version of aae-sweep wrote this sweep; install that version to read it"
            )
        try:
            return cls(**attributes)
        except ValidationError as error:
            names = ", ".join(sorted({str(each["loc"][0]) for each in error.errors()}))
            raise EnvironmentUnusable(
                f"the study holds what aae-sweep did not write, in {names}: another program writes "
                "to AAE_STUDY_URI; restore the study from a backup, or give the sweep another name"
            ) from error

    @classmethod
    def checked(cls, changes: dict[str, Any]) -> dict[str, Any]:
        """Return the changes. Raises KeyError or ValueError if one does not fit its field."""
        for name, value in changes.items():
            _adapter(name).validate_python(value, strict=True)
        return changes


@cache
def _adapter(field: str) -> TypeAdapter[Any]:
    annotation: Any = SweepState.model_fields[field].annotation
    return TypeAdapter(annotation)
