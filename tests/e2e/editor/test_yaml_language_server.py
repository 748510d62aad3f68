"""Test what an editor shows in a sweep file, through Red Hat's YAML language server.

`npm install --global yaml-language-server` installs it; without it the tests are skipped.
"""

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

SWEEPS = Path(__file__).parents[3] / "sweeps"
SERVER = shutil.which("yaml-language-server")
FIRST_LINE = "# yaml-language-server: $schema=schema.json\n"
PATIENCE = 60.0  # seconds for an answer

pytestmark = pytest.mark.skipif(SERVER is None, reason="yaml-language-server is not installed")


class Editor:
    """An editor's side of the language server protocol."""

    def __init__(self, server: "subprocess.Popen[bytes]") -> None:
        self._server = server
        self._received: Queue[dict[str, Any]] = Queue()
        self._sent = 0
        threading.Thread(target=self._read, daemon=True).start()
        root = SWEEPS.as_uri()
        self.ask("initialize", processId=None, rootUri=root, capabilities={})
        self.tell("initialized")
        settings = {"yaml": {"validate": True, "completion": True, "hover": True}}
        self.tell("workspace/didChangeConfiguration", settings=settings)

    def tell(self, method: str, **params: Any) -> None:
        self._send({"method": method, "params": params})

    def ask(self, method: str, **params: Any) -> Any:
        self._sent += 1
        self._send({"id": self._sent, "method": method, "params": params})
        return self._awaited(lambda m: m.get("id") == self._sent and "method" not in m)["result"]

    def open(self, text: str) -> dict[str, str]:
        """Open a text as a new file among the shipped sweeps; return how to name it."""
        self._sent += 1
        uri = (SWEEPS / f"unsaved_{self._sent}.yaml").as_uri()
        document = {"uri": uri, "languageId": "yaml", "version": 1, "text": text}
        self.tell("textDocument/didOpen", textDocument=document)
        return {"uri": uri}

    def errors(self, text: str) -> list[tuple[int, str]]:
        """Return the line, from 1, and the message of each error that the editor shows."""
        uri = self.open(text)["uri"]
        shown = self._awaited(
            lambda m: (
                m.get("method") == "textDocument/publishDiagnostics" and m["params"]["uri"] == uri
            )
        )
        found = shown["params"]["diagnostics"]
        return [(d["range"]["start"]["line"] + 1, d["message"]) for d in found]

    def completions(self, text: str) -> set[str]:
        """Return what the editor offers at the end of a text."""
        *before, last = text.split("\n")
        at = {"line": len(before), "character": len(last)}
        answer = self.ask("textDocument/completion", textDocument=self.open(text), position=at)
        return {item["label"] for item in answer["items"]}

    def _send(self, message: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self._server.stdin is not None
        self._server.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self._server.stdin.flush()

    def _awaited(self, is_it: Any) -> dict[str, Any]:
        while True:
            message = self._received.get(timeout=PATIENCE)
            if is_it(message):
                return message
            if "id" in message and "method" in message:  # a question of the server's
                items = message["params"].get("items", []) if message.get("params") else []
                body = {"id": message["id"], "result": [None for _ in items] or None}
                self._send(body)

    def _read(self) -> None:
        out = self._server.stdout
        assert out is not None
        while line := out.readline():
            length = int(line.partition(b":")[2])
            while out.readline().strip():  # further headers
                pass
            self._received.put(json.loads(out.read(length)))


@pytest.fixture(scope="module")
def editor() -> Iterator[Editor]:
    assert SERVER is not None
    pipe = subprocess.PIPE
    with subprocess.Popen([SERVER, "--stdio"], stdin=pipe, stdout=pipe) as server:
        yield Editor(server)
        server.kill()


@pytest.mark.parametrize("file", sorted(SWEEPS.rglob("*.yaml")), ids=lambda file: file.stem)
def test_editor_shows_no_error_in_a_shipped_sweep(editor: Editor, file: Path) -> None:
    assert editor.errors(file.read_text().replace("=../schema", "=schema")) == []


def test_editor_marks_a_misspelt_key_and_a_wrong_kind(editor: Editor) -> None:
    text = f"{FIRST_LINE}name: x\ntraining:\n  epoch: 3\nmodel:\n  kind: aea\n"
    found = dict(editor.errors(text))
    assert set(found) == {4, 6}
    assert "epoch is not allowed" in found[4]
    assert '"aae"' in found[6]


def test_editor_marks_a_parameter_that_is_not_a_setting(editor: Editor) -> None:
    start = f"{FIRST_LINE}name: x\nsearch:\n  trials: 3\n  space:\n"
    text = f"{start}    model.code_dims: {{int: [2, 4]}}\n"
    [(line, message)] = editor.errors(text)
    assert line == 6
    assert "model.code_dims is not allowed" in message


def test_editor_completes_keys_kinds_and_searched_settings(editor: Editor) -> None:
    start = f"{FIRST_LINE}name: x\n"
    assert {"epochs", "batch_size", "phases"} <= editor.completions(f"{start}training:\n  ")
    assert {"aae", "semi_supervised"} <= editor.completions(f"{start}model:\n  kind: ")
    space = f"{start}search:\n  trials: 3\n  space:\n    "
    assert {"model.prior.std", "training.adversarial.lr"} <= editor.completions(space)


def test_editor_explains_a_setting_where_the_mouse_rests(editor: Editor) -> None:
    text = f"{FIRST_LINE}name: x\ntraining:\n  validate_every: 5\n"
    at = {"line": 3, "character": 5}
    answer = editor.ask("textDocument/hover", textDocument=editor.open(text), position=at)
    assert "the last epoch is always validated" in answer["contents"]["value"]
