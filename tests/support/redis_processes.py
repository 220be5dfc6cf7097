"""Redis and Sentinel on ports of loopback: Debian's, or the packaged Valkey, which can be both."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Literal, Self

import redis

from cli.local.valkey import _die_with_parent_command, _packaged_server
from tests.support.servers import free_port, wait_until

START_TIMEOUT_S = 10
STOP_TIMEOUT_S = 10

type Make = Literal["valkey", "redis"]


def makes() -> list[Make]:
    """The makes that can be tested here. Debian's Redis must be there in CI; elsewhere it is used if it is."""
    has_debians = shutil.which("redis-server") and shutil.which("redis-sentinel")
    if not has_debians and not os.environ.get("CI"):
        print("redis-server and redis-sentinel are not installed: only the packaged Valkey is tested")  # noqa: T201
        return ["valkey"]
    return ["valkey", "redis"]


class RedisProcess:
    """One server that keeps nothing. `arguments` are those of `redis-server`; `--sentinel` makes it a Sentinel."""

    def __init__(self, folder: Path, *arguments: str, make: Make = "valkey", lines: tuple[str, ...] = ()) -> None:
        self.port = free_port()
        self.folder = folder
        self._arguments = arguments
        self._make = make
        self._lines = lines
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port)

    def start(self) -> None:
        """Start it, or start it again, empty; a Sentinel goes on with the file that it wrote."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "server.conf"
        if not file.exists():
            file.write_text("\n".join([f"port {self.port}", "bind 127.0.0.1", f"dir {self.folder}", *self._lines, ""]))
        server = str(_packaged_server()) if self._make == "valkey" else str(shutil.which("redis-server"))
        memory_only = () if "--sentinel" in self._arguments else ("--save", "", "--appendonly", "no")
        with (self.folder / "log").open("ab") as log:
            self._child = subprocess.Popen(
                [*_die_with_parent_command(), server, str(file), *self._arguments, *memory_only],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )
        wait_until(self._answers, timeout_s=START_TIMEOUT_S, what=f"the server of {self.folder} answers")

    def kill(self) -> None:
        """SIGKILL."""
        if self._child is not None:
            self._child.kill()
            self._child.wait(STOP_TIMEOUT_S)
            self._child = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.kill()

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.exceptions.ConnectionError:
            return False
