"""Test a sweep over two hosts in network namespaces, between which packets are lost in silence."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex

import pytest
from sweep_command import COMMAND, Bench, program_of, under_way
from sweep_file import make_long_text

EPOCHS = 14
LONG = 400.0  # seconds
PORT = 6379

pytestmark = [
    pytest.mark.skipif(shutil.which("ip") is None, reason="not installed: ip (iproute2)"),
    pytest.mark.skipif(os.getuid() != 0, reason="network namespaces need root"),
    pytest.mark.timeout(2 * LONG),
]


@dataclass
class Host:
    """A network namespace with one address, joined to another by a virtual cable."""

    name: str
    address: str
    environment: dict[str, str] = field(default_factory=dict)
    started: list["subprocess.Popen[str]"] = field(default_factory=list)

    def start(self, *command: object) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.name, *map(str, command)],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def start_ray(self, *options: str) -> "subprocess.Popen[str]":
        ray = Path(sys.executable).with_name("ray")
        common = (f"--node-ip-address={self.address}", "--num-cpus=1", "--disable-usage-stats")
        memory = f"--object-store-memory={100 << 20}"
        return self.start(ray, "start", *options, *common, memory, "--block")

    def workers(self) -> list[int]:
        """Return the ids of the processes in which Ray trains here."""
        pids = ip("netns", "pids", self.name).split()
        return [int(pid) for pid in pids if program_of(int(pid)).startswith("ray::ImplicitFunc")]

    def pull_the_cable(self) -> None:
        ip("-n", self.name, "link", "set", self.name, "down")


def ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    number = os.getpid()
    near, far = Host(f"near{number}", "10.77.0.1"), Host(f"far{number}", "10.77.0.2")
    with ExitStack() as stack:
        for host in (near, far):
            ip("netns", "add", host.name)
            stack.callback(ip, "netns", "del", host.name)
            stack.callback(end_all, host)
        ends = ("netns", near.name, "type", "veth", "peer", "name", far.name, "netns", far.name)
        ip("link", "add", near.name, *ends)
        for host in (near, far):
            ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", host.name)
            for device in ("lo", host.name):
                ip("-n", host.name, "link", "set", device, "up")
        yield near, far


@pytest.fixture
def own_folder() -> Iterator[str]:
    """Yield Ray's option for a folder of its own, whose path is short enough for its sockets."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        yield f"--temp-dir={folder}"


def end_all(host: Host) -> None:
    while pids := ip("netns", "pids", host.name).split():
        for pid in pids:
            os.kill(int(pid), signal.SIGKILL)
        time.sleep(0.1)
    for process in host.started:
        process.communicate()


def test_trial_beyond_a_silent_partition_resumes_on_the_driver_s_side(
    hosts: tuple[Host, Host], own_folder: str, tmp_path: Path
) -> None:
    near, far = hosts
    bench = Bench(tmp_path, make_long_text("split", EPOCHS, search={"trials": 3}))
    address = f"{near.address}:{PORT}"
    ours = {"RAY_ADDRESS": address, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token_hex(32)}
    for host in hosts:
        host.environment = bench.environment | ours
    near.start_ray("--head", f"--port={PORT}", "--include-dashboard=false", own_folder)
    far.start_ray(f"--address={address}")
    ray = Path(sys.executable).with_name("ray")
    deadline = time.monotonic() + LONG
    while near.start(ray, "health-check", "--address", address).wait() != 0:
        assert time.monotonic() < deadline
    driver = near.start(COMMAND, "run", bench.file, "--json")
    bench.wait_for(driver, lambda records: bool(far.workers()) and under_way(EPOCHS)(records))
    far.pull_the_cable()
    _, err = driver.communicate(timeout=LONG)
    assert driver.returncode == 0, err
    records = bench.trials()
    assert [(r.stage, r.state, r.epochs) for r in records] == [
        *3 * [("search", "complete", EPOCHS)],
        ("confirm", "complete", EPOCHS),
    ]
    assert [r for r in records if r.resumed_from]
    assert any(r.lost for r in records)
    assert set(bench.mlflow_states().values()) == {"FINISHED"}
