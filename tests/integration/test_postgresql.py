"""Studies on a real PostgreSQL server: the lock, a killed driver, a restarted server."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from optuna.storages import RDBStorage
from postgresql_server import BINARIES, PASSWORD, Server, serving
from sweep_command import COMMAND, PATIENCE, Bench, Outcome, under_way
from sweep_file import make_long_text

from orchestrator.errors import EnvironmentUnusable, StudyLost, SweepLocked
from orchestrator.records import RunRecord
from orchestrator.settings import Settings
from orchestrator.study.lock import held, is_held
from orchestrator.study.study import StageStudy, open_storage, sweep_ids

pytestmark = pytest.mark.skipif(not BINARIES, reason="no PostgreSQL server is installed")

EPOCHS = 8
SWEEP = make_long_text("served", EPOCHS, model={"hidden": [300, 300]}, search={"trials": 2})
HOLD = """
from orchestrator.study.lock import held
from orchestrator.settings import Settings
with held(Settings.from_environment(), 'a'):
    print('held', flush=True); input()
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


def home(folder: Path, server: Server) -> Settings:
    return Settings.from_environment({"AAE_HOME": str(folder), "AAE_STUDY_URI": server.uri})


# -- lock ------------------------------------------------------------------------------------


def test_sweep_lock_on_postgresql_excludes_other_hosts(server: Server, tmp_path: Path) -> None:
    here, there = home(tmp_path / "here", server), home(tmp_path / "there", server)
    with held(here, "a"):
        assert is_held(there, "a")
        assert not is_held(there, "b")
        who = re.escape(f"process {os.getpid()} on {socket.gethostname()}, since 20")
        with pytest.raises(SweepLocked, match=who), held(there, "a"):
            pass
        with held(there, "b"):
            pass
    assert not is_held(there, "a")


def test_sweep_lock_is_released_when_its_process_is_killed(server: Server, tmp_path: Path) -> None:
    there = home(tmp_path / "there", server)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD],
        env=os.environ | {"AAE_HOME": str(tmp_path / "here"), "AAE_STUDY_URI": server.uri},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(SweepLocked, match=f"process {holder.pid} on"), held(there, "a"):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    deadline = time.monotonic() + 10
    while is_held(there, "a"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_lock_holder_with_a_cut_connection_exits_at_once(server: Server, tmp_path: Path) -> None:
    cut = threading.Timer(0.5, lambda: terminate_connections(server))
    began = time.monotonic()
    cut.start()
    with pytest.raises(StudyLost, match="has gone away") as caught:
        hold(home(tmp_path, server), 30)
    cut.join()
    assert time.monotonic() - began < 15
    assert PASSWORD not in str(caught.value)
    assert signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL


def hold(settings: Settings, seconds: float) -> None:
    with held(settings, "a") as lock, lock.watched():
        time.sleep(seconds)


def terminate_connections(server: Server) -> None:
    with psycopg.connect(server.uri.replace("+psycopg", "")) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name LIKE 'aae-sweep%'"
        )


def test_study_errors_never_contain_the_password(server: Server, tmp_path: Path) -> None:
    for wrong in (
        server.uri.replace("/postgres", "/nowhere"),
        server.uri.replace("aae:", "nobody:"),
        server.uri.replace("127.0.0.1", "nowhere.invalid"),
        server.uri + "?sslmode=none",
    ):
        settings = replace(home(tmp_path, server), study_uri=wrong)
        for attempt in (lambda s=settings: open_storage(s), lambda s=settings: is_held(s, "a")):
            with pytest.raises(EnvironmentUnusable, match="AAE_STUDY_URI") as caught:
                attempt()
            assert PASSWORD not in str(caught.value)


# -- sweeps ----------------------------------------------------------------------------------


class ServedBench(Bench):
    """A sweep whose study is on the server."""

    def __init__(self, folder: Path, server: Server) -> None:
        super().__init__(folder, SWEEP)
        self.settings = replace(self.settings, study_uri=server.uri)

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | {"AAE_STUDY_URI": self.settings.study_uri}

    @contextmanager
    def storage(self) -> Iterator[RDBStorage]:
        storage = open_storage(self.settings)
        try:
            yield storage
        finally:
            storage.engine.dispose()

    @property
    def sweep(self) -> str:
        with self.storage() as storage:
            return sweep_ids(storage)[-1]

    def trials(self) -> list[RunRecord]:
        with self.storage() as storage:
            studies = [
                StageStudy.read(storage, sweep, stage)
                for sweep in sweep_ids(storage)
                for stage in ("search", "confirm")
            ]
            return [record for study in studies if study for record in study.records()]


@pytest.fixture(scope="module")
def ended(server: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[ServedBench, Outcome]:
    """Return a sweep whose first driver was killed and whose server restarted under the second."""
    bench = ServedBench(tmp_path_factory.mktemp("served"), server)
    with bench.started() as process:
        bench.wait_for(process, under_way(EPOCHS))
        process.kill()
    before = sum(r.attempts for r in bench.trials())
    with bench.started() as process:
        bench.wait_for(process, lambda records: sum(r.attempts for r in records) > before)
        bench.wait_for(process, under_way(EPOCHS))
        elsewhere = bench.environment | {"AAE_HOME": str(bench.folder / "elsewhere")}
        command = [COMMAND, "run", str(bench.file)]
        refused = subprocess.run(command, env=elsewhere, capture_output=True, text=True)
        assert refused.returncode == 4
        assert f"by process {process.pid} on {socket.gethostname()}, since" in refused.stderr
        assert PASSWORD not in refused.stderr + refused.stdout
        server.stop()
        time.sleep(3)
        server.start()
        out, err = process.communicate(timeout=PATIENCE)
    return bench, Outcome(process.returncode, out, err)


def test_sweep_waits_for_a_restarted_server_and_resumes(ended: tuple[ServedBench, Outcome]) -> None:
    bench, done = ended
    assert done.code == 0, done.err
    said = "has gone away; the sweep resumes from its last checkpoints once the server answers"
    assert said in done.err
    assert done.document["state"] == "done"
    records = bench.trials()
    assert [(r.state, r.epochs) for r in records] == [("complete", EPOCHS)] * 3
    assert max(r.attempts for r in records) >= 2
    assert any(r.resumed_from for r in records)
    assert set(bench.mlflow_states().values()) == {"FINISHED"}


def test_password_is_in_no_output_and_no_file(ended: tuple[ServedBench, Outcome]) -> None:
    bench, done = ended
    assert PASSWORD not in done.out + done.err
    for command in ("status", "show", "best", "doctor"):
        output = bench.tell(command, "--json")
        assert PASSWORD not in output.out + output.err
    files = [path for path in bench.settings.home.rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if PASSWORD.encode() in path.read_bytes()] == []
