"""The first request of a connection, as it passes from a `NewConnection` to an `HttpProtocol`."""

from dataclasses import dataclass

from api.edge.unread import Unread
from api.problems import Problem

# Asks a client for the body that it announced (RFC 9110, 15.2.1).
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True, slots=True)
class FirstRequest:
    """The first request of a connection: what has arrived of it, and what was decided before it was handed over."""

    unread: Unread
    # Seconds in which the rest must arrive.
    left_s: float
    # The client was asked to send the body.
    has_continued: bool
    refused: Problem | None
