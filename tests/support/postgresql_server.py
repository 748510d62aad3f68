"""A separate PostgreSQL server in a temporary folder."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sweep_command import free_port

PASSWORD = "swordfish"
BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))  # where Debian installs them


class Server:
    """A server on a local port with a password; `stop` and `start` keep its data."""

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
        """Stop the server as a reboot does: it closes connections without waiting for them."""
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


def _user() -> str | None:
    """Return `nobody` if this process is root, because PostgreSQL refuses to run as root."""
    return pwd.getpwnam("nobody").pw_name if os.geteuid() == 0 else None
