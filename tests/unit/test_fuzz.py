"""Damaged inputs from outside: one clear message, no traceback, no file written, little memory.

`make fuzz EXAMPLES=20000` tries that many of each kind; a run of the tests tries a few.
"""

import gzip
import json
import os
import resource
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mat_arrays import svhn_arrays
from scipy.io import savemat
from sweep_command import aae
from sweep_file import make_spec
from tiny import start, trial

import aae_core
from aae_core.data import open_array
from aae_core.data.arrays import Arrays
from aae_core.data.matlab import MatFile, N
from aae_core.data.mnist import IdxFile, read_idx
from aae_core.errors import AAEError
from aae_core.files import replacing
from orchestrator.errors import SweepError
from orchestrator.results.reader import ResultsReader
from orchestrator.settings import Settings
from orchestrator.study.study import StageStudy, open_storage
from orchestrator.sweepfile.parameters import SETTINGS
from orchestrator.tracking.outbox import Outbox

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", 20))
MOST_MEGABYTES = 300  # that one example may add to the process's memory
SWEEPS = Path(__file__).parents[2] / "sweeps"
SHIPPED = sorted(file.relative_to(SWEEPS) for file in SWEEPS.rglob("*.yaml"))
NASTY = [
    "null", "true", "[]", "{}", "[[]]", "-1", "0", "-0", "1e400", "-.inf", ".nan",
    "9223372036854775808", "1e-320", "0x7fffffffffffffff", '1_000\n""', "~", "&a", "*a", "<<:",
    "!!python/object:os.system", "!!binary", "?", "-", "|", ">", "---", "...", "2026-11-30",
    "12:30:45", "é", "\xa0", "\u200b\n\ufeff", "\t", "{float:", "[1,", "0]}", "{choice:", "[]}",
    "{int:", "[0,", "99999999999]}", "../../etc/passwd",
]  # fmt: skip

fuzzed = settings(
    max_examples=EXAMPLES,
    derandomize="FUZZ_EXAMPLES" not in os.environ,  # a run of the tests repeats its examples
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    database=None,
)
pytestmark = pytest.mark.timeout(60 + EXAMPLES)

# an edit: what happens, where (a share of the length), and with what
edits = st.lists(
    st.tuples(
        st.sampled_from(["replace", "insert", "delete", "repeat", "cut"]),
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 255) | st.sampled_from(NASTY),
    ),
    min_size=1,
    max_size=4,
)


def edited(content: bytes, changes: list[tuple[str, float, Any]]) -> bytes:
    for kind, share, value in changes:
        at = int(share * len(content))
        new = bytes([value]) if isinstance(value, int) else value.encode()
        content = {
            "replace": content[:at] + new + content[at + len(new) :],
            "insert": content[:at] + new + content[at:],
            "delete": content[:at] + content[at + 1 + len(new) :],
            "repeat": content[:at] + content[at : at + 40] * 3 + content[at + 40 :],
            "cut": content[: max(at, 1)],
        }[kind]
    return content


def megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def read(reader: Callable[[], object]) -> None:
    """Read an input; any error other than the project's own fails the test."""
    before, message = megabytes(), "read"
    try:
        reader()
    except (AAEError, SweepError) as error:
        message = str(error)
    assert message.strip()
    assert megabytes() - before < MOST_MEGABYTES


def require_clear_end(*command: object) -> None:
    before = megabytes()
    ended = aae(*command)
    assert ended.code in (0, 2, 4), ended.err
    assert "Traceback" not in ended.err
    assert ended.code == 0 or ended.err.strip()
    assert megabytes() - before < MOST_MEGABYTES


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AAE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the shipped files: a damaged one lies beside those that it extends."""
    return Path(shutil.copytree(SWEEPS, tmp_path_factory.mktemp("shipped") / "sweeps"))


@fuzzed
@given(name=st.sampled_from(SHIPPED), changes=edits)
def test_edited_sweep_file_is_valid_or_explained(
    name: Path, changes: list[Any], sweeps: Path, home: Path
) -> None:
    damaged = (sweeps / name).with_name("fuzzed.yaml")
    damaged.write_bytes(edited((sweeps / name).read_bytes(), changes))
    require_clear_end("validate", damaged)
    assert not home.exists()


@fuzzed
@given(path=st.sampled_from(sorted(SETTINGS)), value=st.sampled_from(NASTY) | st.text(max_size=20))
def test_override_with_any_text_is_valid_or_explained(path: str, value: str, home: Path) -> None:
    require_clear_end("validate", SWEEPS / SHIPPED[0], "--set", f"{path}={value}")
    assert not home.exists()


@fuzzed
@given(changes=edits, name=st.sampled_from(["pixels.npy", "images.npz"]))
def test_edited_array_is_read_or_refused(changes: list[Any], name: str, tmp_path: Path) -> None:
    x, file = np.random.default_rng(0).random((40, 9), dtype=np.float32), tmp_path / name
    if name == "pixels.npy":
        np.save(file, x)
    else:
        np.savez(file, x_train=x, y_train=np.arange(40) % 3, x_test=x[:5])
    file.write_bytes(edited(file.read_bytes(), changes))
    if name == "pixels.npy":
        read(lambda: open_array(file))
    else:
        read(lambda: (Arrays(file).training(), Arrays(file).test(), Arrays(file).describe()))


@fuzzed
@given(changes=edits, packed=st.booleans(), inside=st.booleans())
def test_edited_idx_file_is_read_or_refused(
    changes: list[Any], packed: bool, inside: bool, tmp_path: Path
) -> None:
    known = IdxFile("images", (7, 4, 4), "")
    content = known.header + bytes(known.size)
    content = edited(content, changes) if inside else content
    content = gzip.compress(content) if packed else content
    file = tmp_path / ("images.gz" if packed else "images")
    file.write_bytes(content if inside else edited(content, changes))
    read(lambda: read_idx(file, known))


@fuzzed
@given(changes=edits, deflate=st.booleans())
def test_edited_matlab_file_is_read_or_refused(
    changes: list[Any], deflate: bool, tmp_path: Path
) -> None:
    file = tmp_path / "train_32x32.mat"
    savemat(file, svhn_arrays("train"), do_compression=deflate)
    file.write_bytes(edited(file.read_bytes(), changes))

    def all_of_it() -> None:
        found = MatFile.open(file)
        n = found.count({"X": (32, 32, 3, N), "y": (N, 1)}, pixels="X", fewest=1)
        assert sum(block.shape[-1] for block in found.blocks("X", 7)) == n
        found.integers("y", 0, 10)

    read(all_of_it)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "epoch-1"
    start(trial("semi_supervised")).save(folder)
    return folder


@cache
def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return aae_core.load(checkpoint).state_dict()


@fuzzed
@given(changes=edits, draw=st.randoms(use_true_random=False))
def test_edited_checkpoint_is_refused_or_read_as_it_was_saved(
    changes: list[Any], draw: Any, checkpoint: Path
) -> None:
    """A manifest may repeat a key: then the checkpoint is whole."""
    file = draw.choice(sorted(path for path in checkpoint.rglob("*") if path.is_file()))
    whole, saved = file.read_bytes(), weights(checkpoint)
    message, found = str(checkpoint), saved
    try:
        file.write_bytes(edited(whole, changes))
        found = aae_core.load(checkpoint).state_dict()
    except AAEError as error:
        message = str(error)
    finally:
        with replacing(file) as part:
            part.write_bytes(whole)
    assert str(checkpoint) in message
    assert found.keys() == saved.keys()
    assert all(torch.equal(found[name], saved[name]) for name in saved)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@fuzzed
@given(
    name=st.sampled_from(["request", "extended", "version", "state", "planned", "spec", "done"]),
    value=values,
)
def test_any_state_in_a_study_is_read_or_refused(
    name: str, value: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("home")
    known = Settings.from_environment({"AAE_HOME": str(home)})
    spec = make_spec()
    study = StageStudy.create(open_storage(known), spec, "search")
    study.note(name="tiny", spec=spec.resolved(), stage="search", planned={"search": 3})
    study.optuna_study.set_user_attr(name, value)
    read(lambda: ResultsReader(known).status(spec.sweep_id))


ANSWERS: dict[str, Any] = {  # of MLflow, by the end of the request's path
    "experiments/get-by-name": {
        "experiment": {"experiment_id": "1", "name": "tiny", "lifecycle_stage": "active"}
    },
    "runs/search": {"runs": []},
    "runs/create": {"run": {"info": {"run_id": "0a", "experiment_id": "1", "status": "RUNNING"}}},
    "runs/get": {"run": {"info": {"run_id": "0a", "experiment_id": "1"}, "data": {}}},
}


class Tracking(ThreadingHTTPServer):
    """A server that answers as MLflow does, but for the edits and the status of each answer."""

    damages: list[tuple[int, list[Any]]]  # of the next answers

    def answer(self, path: str) -> tuple[int, bytes]:
        found = next((ANSWERS[end] for end in ANSWERS if path.partition("?")[0].endswith(end)), {})
        status, changes = self.damages.pop(0) if self.damages else (200, [])
        return status, edited(json.dumps(found).encode(), changes)


class Answering(BaseHTTPRequestHandler):
    server: Tracking

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, body = self.server.answer(self.path)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


for method in ("POST", "PUT", "PATCH"):
    setattr(Answering, f"do_{method}", Answering.do_GET)


@pytest.fixture(scope="module")
def tracking() -> Iterator[Tracking]:
    with Tracking(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@fuzzed
@given(
    damages=st.lists(
        st.tuples(
            st.sampled_from([200, 200, 200, 204, 302, 400, 401, 404, 409, 413, 429, 500, 503]),
            st.just([]) | edits,
        ),
        min_size=1,
        max_size=8,
    )
)
def test_any_answer_of_mlflow_loses_nothing_and_is_explained(
    damages: list[Any], tracking: Tracking, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("home")
    with Outbox(home / "outbox.db") as outbox:
        for key, parent in (("tiny-0", None), ("tiny-0/search/0", "tiny-0")):
            outbox.open_run(key, sweep_id="tiny-0", experiment="tiny", name=key, parent=parent)
        outbox.log("tiny-0/search/0", 1, {"val/recon": 0.5})
    tracking.damages = list(damages)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AAE_HOME", str(home))
        patch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{tracking.server_port}")
        require_clear_end("sync")
        tracking.damages = []  # the server has been mended
        require_clear_end("sync")
    with Outbox(home / "outbox.db", read_only=True) as outbox:
        assert outbox.unsynced("tiny-0") == 0
