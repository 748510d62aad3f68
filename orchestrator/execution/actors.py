"""Actors that share jobs. A lost or hung actor is replaced, and only its job is lost."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, Self, TypeVar

import ray
from ray.exceptions import ObjectLostError, OutOfMemoryError, RayActorError, RayTaskError

from orchestrator.errors import SweepError
from orchestrator.execution.cluster import TrialResources
from orchestrator.execution.hangs import Watch

_POLL_SECONDS = 1.0  # between two looks for actors that hang
_LOSSES = 3  # actors lost in a row until their job is taken for the cause

Job = TypeVar("Job", bound=Hashable)  # a job's name or number

_log = logging.getLogger(__name__)


class Scores(Protocol):
    """An actor. Its arguments and answers are sent between processes."""

    def ready(self) -> None:
        """Return once the actor has found a place to run."""

    def score(self, *arguments: Any) -> Any: ...


@dataclass
class _Task(Generic[Job]):
    """An actor's current task: a job, or its own start."""

    actor: Any
    job: Job | None
    watch: Watch = field(default_factory=Watch)


class ActorPool(Generic[Job]):
    """Actors of one kind, each with one job at a time, until the end of the `with`.

    Only a ready actor gets jobs: on a cluster with other users, an actor may wait long for its
    place. `shared` are the arguments of each actor's constructor. They are sent to a node once.
    """

    def __init__(
        self,
        kind: Callable[..., Scores],
        resources: TrialResources,
        what: str,  # before a job in messages
        shared: Sequence[object] = (),
    ) -> None:
        self._kind, self._resources, self._what = kind, resources, what
        self._shared, self._refs = shared, list[Any]()
        self._actors: list[Any] = []
        self._idle: list[Any] = []
        self._busy: dict[Any, _Task[Job]] = {}  # by ref
        self._longest: float | None = None  # seconds of a job, so far
        self._losses: Counter[Job | None] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for actor in self._actors:
            ray.kill(actor)

    @property
    def idle(self) -> bool:
        return bool(self._idle)

    def grow(self, size: int) -> None:
        """Start actors until there are `size` of them."""
        for _ in range(size - len(self._actors)):
            self._start_actor()

    def run(self, size: int, jobs: Mapping[Job, Sequence[object]]) -> Iterator[tuple[Job, Any]]:
        """Yield each job and its answer as the job ends; `jobs` holds the arguments of each."""
        self.grow(min(size, len(jobs)))
        waiting, left = list(jobs), len(jobs)
        while left:
            while self._idle and waiting:
                job = waiting.pop(0)
                self.hand_out(job, *jobs[job])
            for answer in self.collect(waiting.append):
                left -= 1
                yield answer

    def hand_out(self, job: Job, *arguments: object) -> None:
        """Give a job to an idle actor."""
        actor = self._idle.pop()
        task = _Task(actor, job, Watch(longest=self._longest))
        self._busy[actor.score.remote(*arguments)] = task

    def collect(self, lost: Callable[[Job], None]) -> Iterator[tuple[Job, Any]]:
        """Wait for one event: an answer, which is yielded, a ready actor, or a `lost` job.

        Raises the error that a job has raised, and SweepError if the actors that hold one job keep
        dying.
        """
        ready: list[Any] = []
        while not ready:
            began = time.monotonic()
            ready, _ = ray.wait(list(self._busy), timeout=_POLL_SECONDS)
            self._kill_hung(time.monotonic() - began)
        [ref] = ready
        task = self._busy.pop(ref)
        try:
            answer = ray.get(ref)
        except (RayActorError, ObjectLostError, OutOfMemoryError) as error:
            self._replace(task, error)
            if task.job is not None:
                lost(task.job)
        except RayTaskError as error:
            if not isinstance(error.cause, Exception):
                raise
            raise error.cause from error
        else:
            self._losses[task.job] = 0
            self._idle.append(task.actor)
            if task.job is not None:
                task.watch.answered()
                self._longest = task.watch.longest
                yield task.job, answer

    def _start_actor(self) -> None:
        self._refs = self._refs or [ray.put(value) for value in self._shared]
        remote: Any = ray.remote(num_cpus=self._resources.cpu, num_gpus=self._resources.gpu)
        actor = remote(self._kind).remote(*self._refs)
        self._actors.append(actor)
        self._busy[actor.ready.remote()] = _Task(actor, None)

    def _kill_hung(self, seconds: float) -> None:
        """Kill actors that hang in a job, which is then lost; `seconds` have passed."""
        for task in self._busy.values():
            task.watch.wait(seconds)
            if task.job is not None and task.watch.hangs(earlier=self._losses[task.job]):
                ray.kill(task.actor)

    def _replace(self, task: _Task[Job], error: Exception) -> None:
        self._actors.remove(task.actor)
        ray.kill(task.actor)  # the actor may be alive but out of reach
        what = "start of an actor" if task.job is None else f"{self._what} {task.job}"
        self._losses[task.job] += 1
        if self._losses[task.job] == _LOSSES:
            raise SweepError(
                f"{what}: lost {_LOSSES} actors in a row; look for the cause, often too "
                f"little memory, in Ray's logs of the last one: {error}"
            )
        _log.warning("%s: the actor was lost; another one takes over", what)
        self._start_actor()
