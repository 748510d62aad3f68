"""Serve the report as a live page on this machine. A request rebuilds an outdated page.

Other machines need a token. The server is read-only: it answers only GET.
"""

import hashlib
import hmac
import ipaddress
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from dashboards import build, page
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.results.reader import ResultsReader

FRESH_SECONDS = 2.0  # least time between two builds of a page
SHARE = 4  # a page also stays for so many times its last build time
COOKIE = "aae_sweep_token"


@dataclass(frozen=True)
class Answer:
    body: bytes
    kind: str = "text/html; charset=utf-8"
    policy: str = page.POLICY_SERVED

    @property
    def etag(self) -> str:
        return f'"{hashlib.sha256(self.body).hexdigest()[:32]}"'


class Pages:
    """The pages, built on request and cached briefly."""

    def __init__(self, open_reader: "Callable[[], ResultsReader]") -> None:
        self._open_reader = open_reader
        self._current: ResultsReader | None = None
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[Answer, float]] = {}  # path -> answer, good until

    def get(self, path: str) -> Answer:
        """Return the answer for a path. Raises UsageError for an unknown path."""
        if path in page.SERVED:
            return Answer(page.SERVED[path]().encode(), "text/javascript; charset=utf-8")
        with self._lock:
            answer, until = self._kept.get(path, (None, 0.0))
            if answer is not None and time.monotonic() < until:
                return answer
            began = time.monotonic()
            answer = Answer(self._built(path).encode())
            ended = time.monotonic()
            self._kept[path] = (answer, ended + max(FRESH_SECONDS, SHARE * (ended - began)))
            return answer

    def _built(self, path: str) -> str:
        reader = self._reader()
        if path == "/":
            return build.overview([reader.status(sweep) for sweep in reader.sweeps()], address)
        if not path.startswith("/sweep/"):
            raise UsageError(f"no page is at {path}; start at /")
        sweep = reader.resolve(unquote(path.removeprefix("/sweep/")))
        return build.live_report(reader.view(sweep))

    def _reader(self) -> "ResultsReader":
        """Return the reader. A home without sweeps is reopened: its files may not exist yet."""
        if self._current is None or not self._current.sweeps():
            self._current = self._open_reader()
        return self._current


def address(sweep: str) -> str:
    return f"/sweep/{quote(sweep, safe='')}"


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def server(pages: Pages, host: str, port: int, token: str | None) -> ThreadingHTTPServer:
    """Return a server that is bound but not serving yet.

    Raises UsageError for a non-loopback address without a token, OSError if binding fails.
    """
    if token is None and not is_loopback(host):
        raise UsageError(f"{host} is open to other machines: a token is required")

    class Handler(_Handler):
        pass

    Handler.pages, Handler.token = pages, token
    return _Server((host, port), Handler)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore closed connections: a browser may leave before the answer ends."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    pages: Pages
    token: str | None
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "aae-sweep", ""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        given = parse_qs(url.query).get("token", [""])[0]
        if self.token is None and not self._asked_by_name():
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST, "Use 127.0.0.1 or localhost as the host.")
        elif self.token is not None and _same(given, self.token):
            cookie = f"{COOKIE}={self.token}; HttpOnly; SameSite=Strict; Path=/"
            self._send(HTTPStatus.SEE_OTHER, b"", {"Location": url.path, "Set-Cookie": cookie})
        elif self.token is not None and not _same(self._cookie(), self.token):
            self._refuse(
                HTTPStatus.UNAUTHORIZED, "Open the address with ?token=… that was printed."
            )
        else:
            self._answer(url.path)

    def _answer(self, path: str) -> None:
        try:
            answer = self.pages.get(path)
        except UsageError as error:
            self._refuse(HTTPStatus.NOT_FOUND, str(error))
            return
        headers = {
            "Content-Type": answer.kind,
            "Content-Security-Policy": answer.policy,
            "Cache-Control": "no-cache",
            "ETag": answer.etag,
        }
        unchanged = self.headers["If-None-Match"] == answer.etag
        status = HTTPStatus.NOT_MODIFIED if unchanged else HTTPStatus.OK
        self._send(status, b"" if unchanged else answer.body, headers)

    def _refuse(self, status: HTTPStatus, words: str) -> None:
        self._send(status, f"{words}\n".encode(), {"Content-Type": "text/plain; charset=utf-8"})

    def _send(self, status: HTTPStatus, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        if status != HTTPStatus.NOT_MODIFIED:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _asked_by_name(self) -> bool:
        """Return whether the Host header names this machine. The check prevents DNS rebinding."""
        try:
            host = urlsplit(f"//{self.headers['Host'] or ''}").hostname
        except ValueError:
            return False
        return host is not None and is_loopback(host)

    def _cookie(self) -> str:
        found = SimpleCookie(self.headers["Cookie"] or "").get(COOKIE)
        return found.value if found else ""

    def log_message(self, *_: object) -> None:
        """Print nothing: a line per request has no reader."""


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())
