"""Test the live page's server: its answers, its access control, and how often it builds pages."""

import http.client
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from synthetic_sweep import ResultsReader

from dashboards import live
from orchestrator.errors import UsageError
from orchestrator.results.reader import SweepView

Ask = Callable[..., tuple[http.client.HTTPResponse, str]]


@pytest.fixture
def reader(view: SweepView) -> ResultsReader:
    return ResultsReader(view)


@dataclass
class Response:
    port: int

    def ask(self, path: str, host: str = "127.0.0.1", **headers: str) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET", path, headers={"Host": f"{host}:{self.port}", **named})
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        return answer, body


@pytest.fixture
def serve(reader: ResultsReader) -> Iterator[Callable[..., Response]]:
    running = []

    def start(host: str = "127.0.0.1", token: str | None = None) -> Response:
        server = live.server(live.Pages(lambda: reader), host, 0, token)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        running.append((server, thread))
        return Response(server.server_port)

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


def test_live_server_start_page_links_every_sweep(serve: Callable[..., Response]) -> None:
    served = serve()
    answer, body = served.ask("/")
    assert answer.status == 200
    assert 'href="/sweep/likelihood_mnist-1a2b3c4d"' in body
    answer, body = served.ask("/sweep/likelihood_mnist-1a2b3c4d")
    assert answer.status == 200
    assert "wins: val/parzen_ll" in body
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "plotly.js v" not in body
    assert "plotly.js v" in served.ask("/plotly.js")[1]


def test_live_server_answers_304_for_an_unchanged_page(serve: Callable[..., Response]) -> None:
    served = serve()
    first, _ = served.ask("/sweep/latest")
    again, body = served.ask("/sweep/latest", If_None_Match=first.headers["ETag"])
    assert (again.status, body) == (304, "")


def test_live_server_builds_a_page_once_for_all_readers(
    serve: Callable[..., Response], reader: ResultsReader
) -> None:
    served = serve()
    for _ in range(5):
        served.ask("/sweep/latest")
    assert reader.views == 1


@pytest.mark.parametrize("path", ["/nowhere", "/sweep/gone", "/../pyproject.toml", "/report.css"])
def test_live_server_answers_404_for_unknown_paths(
    serve: Callable[..., Response], path: str
) -> None:
    answer, body = serve().ask(path)
    assert answer.status == 404
    assert "<" not in body


def test_live_server_rejects_requests_that_send_data(serve: Callable[..., Response]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", serve().port, timeout=60)
    connection.request("POST", "/", body="x")
    assert connection.getresponse().status == 501
    connection.close()


def test_live_server_rejects_a_foreign_host_name(serve: Callable[..., Response]) -> None:
    served = serve()
    assert served.ask("/", host="evil.example")[0].status == 421
    assert served.ask("/", host="localhost")[0].status == 200


def test_live_server_requires_the_token_on_open_addresses(serve: Callable[..., Response]) -> None:
    served = serve(host="0.0.0.0", token="s3cret")
    for path, headers in [
        ("/", {}),
        ("/?token=guess", {}),
        ("/plotly.js", {}),
        ("/sweep/latest", {"Cookie": f"{live.COOKIE}=guess"}),
    ]:
        answer, body = served.ask(path, **headers)
        assert answer.status == 401
        assert "s3cret" not in body
    answer, _ = served.ask("/?token=s3cret")
    assert (answer.status, answer.headers["Location"]) == (303, "/")
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    answer, body = served.ask("/", Cookie=cookie.partition(";")[0])
    assert answer.status == 200
    assert "likelihood_mnist" in body


def test_live_server_without_a_token_rejects_an_open_address(reader: ResultsReader) -> None:
    with pytest.raises(UsageError, match="a token is required"):
        live.server(live.Pages(lambda: reader), "0.0.0.0", 0, None)


def test_live_server_notes_an_empty_home_and_lists_later_sweeps(
    serve: Callable[..., Response], reader: ResultsReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(live, "SHARE", 0)
    reader.empty = True
    served = serve()
    assert "No sweep has been run here yet." in served.ask("/")[1]
    reader.empty = False
    assert "likelihood_mnist-1a2b3c4d" in served.ask("/")[1]
