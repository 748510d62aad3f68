"""The Ray cluster: its address, its resources, and the check that the resources suffice."""

import errno
import math
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import torch

from orchestrator.errors import EnvironmentUnusable
from orchestrator.settings import Settings
from orchestrator.sweepfile.spec import ResourcesSpec

_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune prints nothing of its own
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_COUNT_PREEMPTION_AS_FAILURE": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the study and MLflow replace these loggers
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the driver drains instead
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",  # a slow clean-up must not kill the next trial
    "TUNE_GLOBAL_CHECKPOINT_S": "inf",  # the study is the state: Tune's state is never read
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # the driver reports the errors
    "TUNE_MAX_PENDING_TRIALS_PG": "8",
}


_ANOTHER_ADDRESS = "set RAY_ADDRESS to a running cluster, or unset it to use this machine alone"
_ANSWER_SECONDS = 4.0  # for a server to answer
_STARTS, _SLOW_START = 3, "timed out during startup"
_SETTINGS = b"\x04"  # type of the frame that every HTTP/2 server, hence gRPC, sends first
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + _SETTINGS + bytes(5)


@dataclass(frozen=True)
class TrialResources:
    """CPUs and GPUs of one trial, or of one actor."""

    cpu: float
    gpu: float

    @property
    def threads(self) -> int:
        return max(1, math.floor(self.cpu))


def prepare(settings: Settings) -> None:
    """Set the environment that Ray reads on import; a later call has no effect.

    A local Ray instance listens on every network interface, whatever address it is given.
    Therefore the instance gets a token that only this process and its children have.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if settings.ray_address is None and "ray" not in sys.modules:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


@contextmanager
def connected(settings: Settings) -> Iterator[None]:
    """Connect to Ray for a `with` block: the cluster at RAY_ADDRESS, or one on this machine."""
    prepare(settings)
    import ray
    from ray._private import worker

    # whatever `log_to_driver` says, Ray prints a lost worker to standard output
    vars(worker)["print_to_stdstream"] = lambda *_, **__: None
    if ray.is_initialized():
        yield
        return
    require_answer(settings)
    options: dict[str, Any] = {"logging_level": "error", "log_to_driver": False}
    if settings.ray_address is None:
        options |= {"include_dashboard": False, "num_cpus": usable_cpus()}
    try:
        with _sigterm_left_alone():
            # without an address, Ray would join any cluster that was started on this machine
            address = settings.ray_address or "local"
            _start(address, runtime_env={"env_vars": _ENVIRONMENT}, **options)
    except Exception as error:  # Ray raises a bare one if a node starts too slowly
        where = f"the Ray cluster at {settings.ray_address}" if settings.ray_address else "Ray"
        raise EnvironmentUnusable(
            f"{where} cannot be used: {error}\n{_remedy(settings, error)}"
        ) from error
    try:
        yield
    finally:
        with _sigterm_left_alone():
            ray.shutdown()


def _start(address: str, **options: Any) -> None:
    """Start Ray, up to three times: Ray gives a node 30 s, which a busy machine may exceed."""
    import ray

    for attempt in range(1, _STARTS + 1):
        try:
            ray.init(address, **options)
        except Exception as error:
            if _SLOW_START not in str(error) or attempt == _STARTS:
                raise
            ray.shutdown()
        else:
            return


def require_answer(settings: Settings) -> None:
    """Raise EnvironmentUnusable unless a server of Ray's kind answers at RAY_ADDRESS.

    Ray itself would wait for minutes, in native code, during which no signal is handled.
    """
    address = settings.ray_address
    if address is None:
        return
    try:
        place = _place(address)
        if place is not None:
            _greet(place)
    except (OSError, ValueError) as error:
        raise EnvironmentUnusable(
            f"the Ray cluster at {address} does not answer: {error}\n{_ANOTHER_ADDRESS}"
        ) from error


def _place(address: str) -> tuple[str, int] | None:
    """Return host and port of the cluster; None for an address that only Ray understands."""
    if address == "auto":
        from ray._private import services

        address = services.canonicalize_bootstrap_address(address) or "local"
    if address == "local":
        return None
    parts = urlsplit(address if "://" in address else f"ray://{address}")
    if parts.scheme != "ray":
        return None
    if parts.hostname is None or parts.port is None:
        raise ValueError("write it as HOST:PORT")
    return parts.hostname, parts.port


def _greet(place: tuple[str, int]) -> None:
    """Raise an OSError unless a gRPC server answers in time."""
    with socket.create_connection(place, _ANSWER_SECONDS) as connection:
        if os.environ.get("RAY_USE_TLS", "0") not in ("0", ""):
            return  # the server answers only with certificates
        connection.sendall(_HELLO)
        with connection.makefile("rb") as answer:
            if answer.read(9)[3:4] != _SETTINGS:
                raise OSError("the process that listens there is not Ray")


def _remedy(settings: Settings, error: Exception) -> str:
    """Return what to do about an error of Ray's start."""
    if settings.ray_address is not None:
        return _ANOTHER_ADDRESS
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return "raise the limit of open files: ulimit -n 65536"
    if isinstance(error, OSError | UnicodeError):
        folder = f"/tmp/ray-{os.getuid()}"
        return f"give Ray a folder of your own with a short path: export RAY_TMPDIR={folder}"
    from ray._common.utils import get_default_ray_temp_dir

    return f"see Ray's logs in {get_default_ray_temp_dir()}/session_latest/logs"


@contextmanager
def _sigterm_left_alone() -> Iterator[None]:
    """Keep this process's SIGTERM handler while Ray starts and ends.

    Ray would install a handler that raises SystemExit. Python drops a SystemExit that is raised in
    a destructor, and then the process runs on.  At its start, Ray's core installs another handler,
    which calls ours and aborts the process after three seconds.  At its end, Ray's core installs
    the system's default handler.
    """
    from ray._private import utils

    ours, rays_own = signal.getsignal(signal.SIGTERM), utils.set_sigterm_handler
    utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = rays_own
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, ours)
            signal.alarm(0)


def usable_cpus() -> int:
    return len(os.sched_getaffinity(0))


def preflight(settings: Settings, resources: ResourcesSpec) -> None:
    """Reject resources that this machine cannot hold, if Ray will run here, before anything starts.

    Also reject a cluster that does not answer. Raises EnvironmentUnusable.
    """
    require_answer(settings)
    if settings.ray_address is None:
        here = {"cpu": float(usable_cpus()), "gpu": float(torch.cuda.device_count())}
        _require_room(_wanted(resources, here), here, "this machine has no more than")


def trial_resources(resources: ResourcesSpec) -> TrialResources:
    """Return the resources of each trial; `gpu: auto` is a whole GPU if the cluster has any."""
    wanted = _wanted(resources, capacity())
    _require_room(wanted, _biggest_node(), "no node has more than")
    return wanted


def _wanted(resources: ResourcesSpec, has: dict[str, float]) -> TrialResources:
    gpu = resources.gpu
    return TrialResources(
        resources.cpu, (1.0 if has["gpu"] else 0.0) if gpu == "auto" else float(gpu)
    )


def _require_room(wanted: TrialResources, room: dict[str, float], but: str) -> None:
    problems = [
        f"a trial needs {want:g} {unit} and {but} {room[name]:g}: "
        f"lower resources.{name}, or use a larger cluster (RAY_ADDRESS)"
        for name, unit, want in (("cpu", "CPUs", wanted.cpu), ("gpu", "GPUs", wanted.gpu))
        if want > room[name]
    ]
    if problems:
        raise EnvironmentUnusable("\n".join(problems))


def slots(wanted: TrialResources) -> int:
    """Return the number of such trials that the cluster can now run at once."""
    return _fitting(wanted, capacity())


def slots_of_a_node(wanted: TrialResources) -> int:
    """Return the number of such trials that train side by side on the biggest node."""
    return min(slots(wanted), _fitting(wanted, _biggest_node()))


def _fitting(wanted: TrialResources, room: dict[str, float]) -> int:
    fits = [room["cpu"] / wanted.cpu]
    if wanted.gpu:
        fits.append(room["gpu"] / wanted.gpu)
    return max(1, math.floor(min(fits)))


def cpus() -> int:
    """Return the number of CPUs of the whole cluster, at least one."""
    return max(1, math.floor(capacity()["cpu"]))


def capacity() -> dict[str, float]:
    import ray

    return _cpu_gpu(ray.cluster_resources())


def kill_worker(node: str, pid: int) -> None:
    """Kill a worker that does not answer, by a task on its node; do not wait for the task."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node, soft=False)
    task: Any = ray.remote(_kill_worker)
    task.options(num_cpus=0, max_retries=0, scheduling_strategy=there).remote(pid)


def _kill_worker(pid: int) -> None:
    named = subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, check=False)
    if named.stdout.startswith(b"ray::"):  # else the worker ended, and the pid may be another's
        os.kill(pid, signal.SIGKILL)


def _biggest_node() -> dict[str, float]:
    import ray

    nodes = [_cpu_gpu(node["Resources"]) for node in ray.nodes() if node["Alive"]]
    return {name: max((node[name] for node in nodes), default=0.0) for name in ("cpu", "gpu")}


def _cpu_gpu(resources: dict[str, float]) -> dict[str, float]:
    return {"cpu": resources.get("CPU", 0.0), "gpu": resources.get("GPU", 0.0)}
