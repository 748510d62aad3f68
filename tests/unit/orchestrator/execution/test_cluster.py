"""A cluster that does not answer, and the remedy for each cause."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from unittest.mock import Mock

import pytest

from orchestrator.errors import EnvironmentUnusable
from orchestrator.execution import cluster
from orchestrator.settings import Settings

SETTINGS_FRAME = bytes(3) + b"\x04" + bytes(5)


@contextmanager
def listener(answer: bytes) -> Iterator[int]:
    """Yield the port of a server that sends `answer` to one client, and then waits."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(answer)
                connection.recv(64)
                connection.recv(64)  # until the client leaves

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


def require_answer(address: str) -> None:
    cluster.require_answer(Settings.from_environment({"RAY_ADDRESS": address}))


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_cluster_that_greets_as_grpc_is_accepted(scheme: str) -> None:
    with listener(SETTINGS_FRAME) as port:
        require_answer(f"{scheme}127.0.0.1:{port}")


@pytest.mark.parametrize("scheme", ["", "ray://"])
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_address_without_a_cluster_is_named_in_time(
    scheme: str, answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_ANSWER_SECONDS", 0.2)
    began = time.monotonic()
    with listener(answer) as port:
        address = f"{scheme}127.0.0.1:{port}"
        with pytest.raises(EnvironmentUnusable, match=f"{address} does not answer: .*") as caught:
            require_answer(address)
    assert "set RAY_ADDRESS to a running cluster" in str(caught.value)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("address", ["127.0.0.1:9", "127.0.0.1", "[::1]:9", "127.0.0.1:port"])
def test_address_at_which_no_process_listens_is_named(address: str) -> None:
    with pytest.raises(EnvironmentUnusable) as caught:
        require_answer(address)
    assert f"at {address} does not answer: " in str(caught.value)


@pytest.mark.parametrize("address", [None, "local", "module://cluster"])
def test_address_that_only_ray_understands_is_left_to_ray(address: str | None) -> None:
    cluster.require_answer(Settings.from_environment({"RAY_ADDRESS": address or ""}))


@pytest.mark.parametrize(("slow_starts", "attempts"), [(0, 1), (2, 3), (3, 3)])
def test_local_ray_that_starts_too_slowly_is_started_again(
    slow_starts: int, attempts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = [*[RuntimeError("The current node timed out during startup.")] * slow_starts, None]
    started = Mock(side_effect=results)
    monkeypatch.setattr("ray.init", started)
    with pytest.raises(RuntimeError) if slow_starts == 3 else nullcontext():
        cluster._start("local")
    assert started.call_count == attempts


def test_ray_of_this_machine_joins_no_other_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    started = Mock()
    monkeypatch.setattr("ray.init", started)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with cluster.connected(Settings.from_environment({})):
        pass
    assert started.call_args.args == ("local",)


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (OSError("AF_UNIX path length cannot exceed 107 bytes: /tmp/…"), "export RAY_TMPDIR=/tmp/"),
        (PermissionError(13, "Permission denied", "/tmp/ray"), "export RAY_TMPDIR=/tmp/"),
        (UnicodeEncodeError("utf-8", "\udce9", 0, 1, "surrogates"), "export RAY_TMPDIR=/tmp/"),
        (OSError(24, "Too many open files"), "ulimit -n"),
        (RuntimeError("the node timed out"), "session_latest/logs"),
    ],
)
def test_error_of_a_local_ray_comes_with_the_remedy_of_its_cause(
    error: Exception, remedy: str
) -> None:
    assert remedy in cluster._remedy(Settings.from_environment({}), error)
    elsewhere = Settings.from_environment({"RAY_ADDRESS": "head:6379"})
    assert "set RAY_ADDRESS" in cluster._remedy(elsewhere, error)
