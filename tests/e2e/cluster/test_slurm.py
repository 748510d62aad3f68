"""A sweep as Slurm jobs, on Slurm's own daemons: requeued in its search, it ends complete."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sweep_command import COMMAND, Bench, free_port, under_way
from sweep_file import make_long_text

DAEMONS = ("munged", "slurmctld", "slurmd")
MISSING = [name for name in DAEMONS if shutil.which(name) is None]
SCRIPT = Path(__file__).parents[3] / "docker" / "slurm.sbatch"
EPOCHS = 12
LONG = 600.0  # seconds

pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (slurm-wlm)"),
    pytest.mark.skipif(os.getuid() != 0, reason="Slurm's daemons need root"),
    pytest.mark.timeout(2 * LONG),
]


class Slurm:
    """A cluster of two nodes, both on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._daemons: list[subprocess.Popen[bytes]] = []
        host = socket.gethostname()
        ports = [free_port() for _ in range(3)]
        nodes = "".join(
            f"NodeName=n{i} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2\n"
            for i, port in enumerate(ports[1:])
        )
        settings = f"""ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
KillWait=5
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
{nodes}PartitionName=main Nodes=ALL Default=YES State=UP
"""
        (folder / "slurm.conf").write_text(settings)
        (folder / "state").mkdir()
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}

    def start(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        munge = ["--foreground", "--force", f"--key-file={key}", f"--seed-file={self.folder}/seed"]
        files = ("socket", "pid-file", "log-file")
        munge += [f"--{name}={self.folder}/munge.{name.partition('-')[0]}" for name in files]
        self._start("munged", *munge)
        self._start("slurmctld", "-D")
        for node in ("n0", "n1"):
            (self.folder / f"spool-{node}").mkdir()
            self._start("slurmd", "-D", "-N", node)
        wait_until(lambda: self.call("sinfo", "-h", "-o", "%t %D") == "idle 2")

    def stop(self) -> None:
        for daemon in reversed(self._daemons):
            daemon.terminate()
            daemon.wait()

    def call(self, *command: str) -> str:
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        return done.stdout.strip()

    def _start(self, *command: str) -> None:
        log = (self.folder / f"daemon-{len(self._daemons)}.log").open("wb")
        with log:
            daemon = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        self._daemons.append(daemon)


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.5)


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Slurm]:
    found = Slurm(tmp_path)
    found.start()
    yield found
    found.call("scancel", "--user=root")
    wait_until(lambda: found.call("squeue", "-h") == "")
    found.stop()


def test_requeued_head_resumes_the_sweep_and_its_workers_end_with_it(
    slurm: Slurm, tmp_path: Path
) -> None:
    (tmp_path / "sweep").mkdir()
    bench = Bench(tmp_path / "sweep", make_long_text("batch", EPOCHS, search={"trials": 4}))
    slurm.environment |= bench.environment | {"PATH": f"{COMMAND.parent}:{os.environ['PATH']}"}
    submit = ("sbatch", "--parsable", f"--output={tmp_path}/job-%j.out", "--cpus-per-task=2")
    head = slurm.call(*submit, str(SCRIPT), str(bench.file))
    slurm.call(*submit, "--array=1-1", str(SCRIPT))
    wait_until(lambda: under_way(EPOCHS)(bench.trials()))
    slurm.call("scontrol", "requeue", head)
    wait_until(lambda: slurm.call("squeue", "-h") == "")
    output = (tmp_path / f"job-{head}.out").read_text()
    status = bench.ask("status", "batch")
    assert status["state"] == "done", output
    assert status["trials"]["complete"] == 4 + 1
    assert {trial.epochs for trial in bench.trials()} == {EPOCHS}
    assert any(trial.resumed_from for trial in bench.trials())
    assert "RUNNING" not in bench.mlflow_states().values()
