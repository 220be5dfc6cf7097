"""What the demo plays on: the service as a child process, and a receiver that accepts no webhook unverified.

Neither may outlive the demo, and neither may see the operator's settings.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

from aiohttp import web

from cli.embedded_valkey import EmbeddedValkey
from shared.config import Settings
from shared.errors import ConfigurationError

HOST = "127.0.0.1"
ROOT = Path(__file__).resolve().parent.parent
VALKEY_FOLDER = "var/valkey"  # as in cli.processes, which takes a second to import
STOP_TIMEOUT_S = 20  # it drains within a second; more than its own bounds of 10 s for requests and 5 s for Valkey
LOG_TAIL_LINES = 12
# The pipe on its standard input ends when the demo ends, however that happens: then it stops as it does on SIGTERM.
STARTER = """
import os, signal, sys, threading

def stop_with_the_demo():
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=stop_with_the_demo, daemon=True).start()
sys.path.insert(0, sys.argv[1])
from cli.main import app
app(["up"])
"""

type Kind = Literal["endpoint", "callback"]


class Service:
    """`payments up` with default settings in a folder of its own, from `start` to `stop`."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self._folder = folder
        self._log = folder / "service.log"
        self._port = free_port()
        self._environment = clean_environment(os.environ) | {
            "HOST": HOST,
            "PORT": str(self._port),
            "LOG_FORMAT": "json",
            **settings,
        }
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens once it is ready."""
        return f"http://{HOST}:{self._port}"

    @property
    def exit_code(self) -> int | None:
        """None as long as it runs."""
        return self._child.poll() if self._child else None

    def start(self) -> None:
        """Start it; it is ready a little later."""
        with self._log.open("wb") as log:
            self._child = subprocess.Popen(  # noqa: S603 - this interpreter and this code
                [sys.executable, "-c", STARTER, str(ROOT)],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,  # Ctrl-C is for the demo, which then stops the service
            )

    def stop(self) -> None:
        """End it and return when it is gone: politely for STOP_TIMEOUT_S, then by force, on a second Ctrl-C at once."""
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

    def last_words(self) -> list[str]:
        """The end of its log, after the last lines before that which are not routine."""
        return telling_lines(self._log.read_text(errors="replace").splitlines()) if self._log.exists() else []

    def answer_times_ms(self, correlation_prefix: str) -> list[float]:
        """How long it took for each POST with such a correlation id, as its log says."""
        lines = (json.loads(line) for line in self._log.read_text().splitlines() if '"http.answered"' in line)
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
        """Kill its group and its Valkey, which leads a group of its own: whoever takes over the folder ends that."""
        if child.poll() is None:  # else the number may be somebody else's by now
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        with contextlib.suppress(ConfigurationError), EmbeddedValkey(self._folder / VALKEY_FOLDER):
            pass


@dataclass(frozen=True, slots=True)
class Arrival:
    """A webhook whose signature is right."""

    kind: Kind
    event_type: str
    payment: dict[str, Any]
    at: datetime


class Receiver:
    """A server that is told of payments; it answers 204 to what `secrets` verifies and 400 to everything else."""

    def __init__(self) -> None:
        self.secrets: dict[Kind, str] = {}
        self.refused: list[str] = []
        self._arrivals: dict[tuple[str, Kind], Arrival] = {}
        self._arrived = asyncio.Condition()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        if self._runner is None:
            raise RuntimeError("the receiver does not run")
        return f"http://{HOST}:{self._runner.addresses[0][1]}"

    def url_for(self, kind: Kind) -> str:
        """Where it takes deliveries of this kind."""
        return f"{self.url}/{kind}"

    async def arrival(self, payment_id: str, kind: Kind, *, timeout_s: float) -> Arrival | None:
        """The verified webhook of this payment, waiting for it; None if it does not come in time."""
        try:
            async with asyncio.timeout(timeout_s), self._arrived:
                await self._arrived.wait_for(lambda: (payment_id, kind) in self._arrivals)
        except TimeoutError:
            return None
        return self._arrivals[payment_id, kind]

    async def __aenter__(self) -> Self:
        application = web.Application()
        application.add_routes(
            [web.post("/endpoint", self._take_from_endpoint), web.post("/callback", self._take_callback)]
        )
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, 0).start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _take_from_endpoint(self, request: web.Request) -> web.Response:
        return await self._take("endpoint", request)

    async def _take_callback(self, request: web.Request) -> web.Response:
        return await self._take("callback", request)

    async def _take(self, kind: Kind, request: web.Request) -> web.Response:
        from standardwebhooks import Webhook, WebhookVerificationError  # noqa: PLC0415 - not in a production image

        body = await request.read()
        try:
            event = Webhook(self.secrets[kind]).verify(body, dict(request.headers))
        except (WebhookVerificationError, KeyError) as error:
            self.refused.append(f"{kind} delivery {request.headers.get('webhook-id')}: {error!r}")
            return web.Response(status=400)
        payment = event["data"]["payment"]
        arrival = Arrival(kind, event["type"], payment, datetime.now(UTC))
        async with self._arrived:
            self._arrivals.setdefault((payment["id"], kind), arrival)  # a second delivery of the same is allowed
            self._arrived.notify_all()
        return web.Response(status=204)


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without any setting of the service, however it is spelled."""
    return {name: value for name, value in environment.items() if name.lower() not in Settings.model_fields}


def free_port() -> int:
    """A TCP port on loopback that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def telling_lines(lines: Sequence[str]) -> list[str]:
    """The last lines of a log, after the last ones before them that are not routine."""
    earlier, last = lines[:-LOG_TAIL_LINES], lines[-LOG_TAIL_LINES:]
    unusual = [line for line in earlier if '"level":"info"' not in line and line.startswith("{")]
    return [*unusual[-LOG_TAIL_LINES:], *last]
