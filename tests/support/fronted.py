"""A front on a free port, before an application that answers everything."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from uvicorn import Config
from uvicorn.server import ServerState

from api.edge.access_log import REFUSED
from api.edge.arrival import ArrivalMemory
from api.edge.connection_limits import ConnectionLimits
from api.edge.front import Front
from api.main import listen
from api.problems import KINDS, Problem
from tests.support.raw_http import ANSWER_S
from tests.support.waiting import eventually

REQUEST = b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n"


async def application(scope: dict[str, Any], _receive: object, send: Callable[..., object]) -> None:
    """Answer every request with nothing and 200, or the status of its refusal."""
    if scope["path"] == "/never":
        await asyncio.Event().wait()
    refused: Problem | None = scope[REFUSED]
    status = 200 if refused is None else KINDS[refused.code].status
    for message in (
        {"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]},
        {"type": "http.response.body", "body": b""},
    ):
        await send(message)  # type: ignore[misc]  # ASGI


class Fronted:
    """A front on a free port, with an application that answers everything but `/never`."""

    def __init__(
        self, *, request_timeout_s: float = ANSWER_S, listener: socket.socket | None = None, connections_max: int = 1000
    ) -> None:
        config = Config(application, lifespan="off", log_config=None)
        config.load()
        self.state = ServerState()
        listener = listener or listen("127.0.0.1", 0)
        self.address = listener.getsockname()
        self.url = f"http://127.0.0.1:{self.address[1]}"
        limits = ConnectionLimits(
            request_timeout_s=request_timeout_s,
            write_timeout_s=ANSWER_S,
            memory=ArrivalMemory(),
            connections_max=connections_max,
        )
        self.front = Front(listener, limits, config=config, state=self.state, app_state={})

    async def end(self) -> None:
        """Shut down, and wait until no connection is left."""
        for connection in list(self.state.connections):
            connection.shutdown()
        await eventually(lambda: not self.state.connections)
