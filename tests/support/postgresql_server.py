"""A PostgreSQL server of one's own, in a temporary folder."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PASSWORD = "swordfish"
BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))  # as Debian packages them


class Server:
    """On a port of this machine, behind a password; `stop` and `start` keep what it holds."""

    def __init__(self, folder: Path, port: int, user: str | None) -> None:
        self.uri = f"postgresql+psycopg://aae:{PASSWORD}@127.0.0.1:{port}/postgres"
        self._folder, self._port, self._user = folder, port, user
        password = folder / "password"
        password.write_text(PASSWORD)
        if user is not None:
            shutil.chown(folder, user)
            shutil.chown(password, user)
        self._call("initdb", "-U", "aae", "-A", "scram-sha-256", f"--pwfile={password}", "-N")

    def start(self) -> None:
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -k {self._folder} -c fsync=off"
        self._call("pg_ctl", "start", "-w", "-l", str(self._folder / "log"), "-o", options)

    def stop(self) -> None:
        """As a machine that is rebooted does: connections are closed, not waited for."""
        self._call("pg_ctl", "stop", "-w", "-m", "fast")

    def _call(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [BINARIES[-1] / program, "-D", str(self._folder / "data"), *arguments],
            user=self._user,
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            check=True,
        )


@contextmanager
def serving() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        server = Server(Path(folder), free_port(), _user())
        server.start()
        try:
            yield server
        finally:
            server.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _user() -> str | None:
    """PostgreSQL refuses to be run by root."""
    return pwd.getpwnam("nobody").pw_name if os.geteuid() == 0 else None
