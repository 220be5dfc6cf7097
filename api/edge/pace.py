"""The pace at which the requests of a connection that has a transport are read."""

from asyncio import Transport
from socket import socket
from typing import cast

from uvicorn.protocols.http.flow_control import FlowControl

from api.edge.slow_lane import READS_MAX, SlowLane, after_read


class Pace:
    """Reads a connection as its bytes come, or with the slow ones while its client sends a request in small pieces."""

    __slots__ = ("_flow", "_is_slow", "_lane", "_reads_left", "socket")

    def __init__(self, lane: SlowLane, flow: FlowControl, transport: Transport) -> None:
        self._lane = lane
        self._flow = flow
        self.socket = cast("socket", transport.get_extra_info("socket"))
        self._reads_left = float(READS_MAX)
        self._is_slow = False

    def count(self, size: int) -> None:
        """Note a read of `size` bytes after which the request is still not whole."""
        if not self._is_slow:
            self._reads_left = after_read(self._reads_left, size)
            if self._reads_left > 0:
                return
            self._is_slow = True
            self._lane.add(self)
        self._flow.pause_reading()

    def on_readable(self) -> None:
        """Let the transport read once: it is this connection's turn."""
        if self._is_slow:
            self._flow.resume_reading()

    def end(self) -> None:
        """Begin anew: the request is whole or refused, or the connection is lost."""
        self._reads_left = float(READS_MAX)
        if self._is_slow:
            self._is_slow = False
            self._lane.remove(self)
            self._flow.resume_reading()
