"""A real PgBouncer before a PostgreSQL of the tests, as Debian configures it: only addresses and the mode are ours."""

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from cli.local.service import free_port, wait_until
from tests.support.processes import die_with_parent

# Debian puts it where only root's PATH leads.
PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
MODES = ("session", "transaction")
START_TIMEOUT_S = 30


class PgBouncer:
    """Leads to every database of the server on `server_port`, from `start` to `stop`. Restarted it keeps its URL."""

    def __init__(self, server_port: int, mode: str, *, users: dict[str, str] | None = None, **options: object) -> None:
        self.port = free_port()
        self._users = {"postgres": "", **(users or {})}
        self._server_port = server_port
        self._options = {"pool_mode": mode, **options}
        self._folder = Path(tempfile.mkdtemp(prefix="payments-pgbouncer-"))
        self._child: subprocess.Popen[bytes] | None = None

    def url_of(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text()

    def start(self) -> None:
        """Start it and return when it listens."""
        assert PROGRAM is not None
        self._write_configuration()
        user = "nobody" if os.geteuid() == 0 else None
        with (self._folder / "log").open("ab") as log:
            self._child = subprocess.Popen(
                [PROGRAM, self._folder / "pgbouncer.ini"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=user,
                cwd="/",
                preexec_fn=die_with_parent,  # noqa: PLW1509 - the tests fork from one thread
            )
        wait_until(lambda: "process up" in self.log, timeout_s=START_TIMEOUT_S, what="PgBouncer")

    def kill(self) -> None:
        """SIGKILL it: every connection breaks."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()

    def restart(self) -> None:
        """Kill it and start it again."""
        self.kill()
        (self._folder / "log").write_bytes(b"")
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.kill()
        shutil.rmtree(self._folder)

    def _write_configuration(self) -> None:
        options = "\n".join(f"{name} = {value}" for name, value in self._options.items())
        users = "".join(f'"{name}" "{password}"\n' for name, password in self._users.items())
        (self._folder / "users").write_text(users)
        (self._folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host=127.0.0.1 port={self._server_port}\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {self._folder / 'users'}\n{options}\n"
        )
        if os.geteuid() == 0:
            owner = pwd.getpwnam("nobody")
            for path in (self._folder, *self._folder.iterdir()):
                os.chown(path, owner.pw_uid, owner.pw_gid)
