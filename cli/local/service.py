"""Child processes that run a command of the service: `payments up`, `api`, `worker` or `migrate`.

A child never outlives its parent, and never sees the operator's settings.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from cli.local.valkey import VALKEY_FOLDER, EmbeddedValkey
from shared.config.settings import Settings
from shared.errors import ConfigurationError

HOST = "127.0.0.1"
CHECKOUT = Path(__file__).resolve().parents[2]
# Seconds that a process may take to stop. It usually takes one; this is more than the bounds that the service sets
# itself, 10 s for open requests and 5 s for Valkey.
STOP_TIMEOUT_S = 20
LOG_TAIL_LINES = 12
POLL_S = 0.02
# Standard input is a pipe from the parent. It is closed when the parent ends for whatever reason, and the child then
# stops as on SIGTERM.
STARTER = """
import os, signal, sys, threading

def stop_with_the_parent():
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=stop_with_the_parent, daemon=True).start()
sys.path.insert(0, sys.argv[1])
from cli.main import app
app(sys.argv[2:])
"""


class ServiceProcess:
    """A process that runs `payments COMMAND` in its own folder with default settings, from `start` to `stop`.

    `settings` override the defaults; their keys are names of environment variables. `checkout` is the folder of the
    code that runs.
    """

    def __init__(
        self,
        folder: Path,
        command: str = "up",
        settings: Mapping[str, str] | None = None,
        *,
        checkout: Path = CHECKOUT,
    ) -> None:
        self.command = command
        self._folder = folder
        self._log = folder / f"{command}.log"
        self._checkout = checkout
        self._port = free_port()
        self._environment = clean_environment(os.environ) | {
            "HOST": HOST,
            "PORT": str(self._port),
            "LOG_FORMAT": "json",
            **(settings or {}),
        }
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL that the process listens on when it is ready."""
        return f"http://{HOST}:{self._environment['PORT']}"

    @property
    def pid(self) -> int | None:
        """The process id; None before `start`."""
        return self._child.pid if self._child else None

    @property
    def exit_code(self) -> int | None:
        """The exit code; None before `start` and while the process runs."""
        return self._child.poll() if self._child else None

    @property
    def failure(self) -> str | None:
        """A sentence that says that the process has ended; None while it runs."""
        return None if self.exit_code is None else f"`payments {self.command}` ended with exit code {self.exit_code}."

    def start(self) -> None:
        """Start the process and return at once. The process is ready a few seconds later."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as log:
            self._child = subprocess.Popen(  # noqa: S603 - this interpreter and our own code
                [sys.executable, "-c", STARTER, str(self._checkout), self.command],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A Ctrl-C reaches the parent only, which then stops the child.
                process_group=0,
            )

    def terminate(self) -> None:
        """Send SIGTERM and return at once. `stop` waits for the end."""
        if self._child is not None:
            self._child.terminate()

    def stop(self) -> None:
        """Stop the process and return when it has ended.

        It is killed if it has not ended after STOP_TIMEOUT_S seconds, or at once if Ctrl-C interrupts the wait.
        """
        if self._child is None:
            return
        try:
            self._child.terminate()
            self._child.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._kill(self._child)
        except BaseException:
            self._kill(self._child)
            raise
        finally:
            if self._child.stdin is not None:
                self._child.stdin.close()

    def wait(self, timeout_s: float) -> int | None:
        """Wait until the process ends by itself. Return its exit code, or None if it runs after `timeout_s` seconds."""
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: self.exit_code is not None, timeout_s=timeout_s, what=f"payments {self.command} ends")
        return self.exit_code

    def log_tail(self) -> list[str]:
        """Return the last lines of the log, as `telling_lines` selects them; none if there is no log."""
        return telling_lines(self._log.read_text(errors="replace").splitlines()) if self._log.exists() else []

    def answer_times_ms(self, correlation_prefix: str) -> list[float]:
        """Return the duration in ms, from the log, of each POST whose correlation id begins with the prefix."""
        # The process may be in the middle of its last line.
        whole_lines = self._log.read_text().split("\n")[:-1]
        lines = (json.loads(line) for line in whole_lines if '"http.answered"' in line)
        return [
            line["duration_ms"]
            for line in lines
            if line["method"] == "POST" and line["correlation_id"].startswith(correlation_prefix)
        ]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def _kill(self, child: subprocess.Popen[bytes]) -> None:
        """Kill the process group and the Valkey of `payments up`, which leads a process group of its own."""
        # If the child has been waited for, its process id may belong to another process.
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        if self.command != "up":
            return
        # An `EmbeddedValkey` stops the server that a killed owner left in its folder.
        with contextlib.suppress(ConfigurationError), EmbeddedValkey(self._folder / VALKEY_FOLDER):
            pass


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without the settings of the service, in upper or lower case."""
    return {name: value for name, value in environment.items() if name.lower() not in Settings.model_fields}


def free_port() -> int:
    """Return a TCP port on loopback that no process listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(condition: Callable[[], bool], *, timeout_s: float, what: str) -> None:
    """Poll `condition` until it is true. Raises TimeoutError, which names `what`, after `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            raise TimeoutError(f"This did not happen within {timeout_s:g} s: {what}.")
        time.sleep(POLL_S)


def telling_lines(lines: Sequence[str]) -> list[str]:
    """Return the last LOG_TAIL_LINES lines, after as many earlier JSON lines at most whose level is not `info`."""
    earlier, last = lines[:-LOG_TAIL_LINES], lines[-LOG_TAIL_LINES:]
    unusual = [line for line in earlier if '"level":"info"' not in line and line.startswith("{")]
    return [*unusual[-LOG_TAIL_LINES:], *last]
