"""What bounds a connection."""

from dataclasses import dataclass

from api.edge.arrival import ArrivalMemory
from api.edge.problem_pages import ProblemPages

# Seconds that a client may take to read a response that fills the buffers of the connection.
WRITE_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """The limits of every connection, and what the connections of a process share."""

    request_timeout_s: float
    write_timeout_s: float
    memory: ArrivalMemory
    # What a proxy has stripped from the paths.
    root_path: str = ""
    # What is refused counts for a rate limit, which only the application knows.
    has_rate_limits: bool = False
    # A cache must not give the response of one origin to another.
    varies_by_origin: bool = False
    # Where what is refused is answered with a page.
    pages: tuple[ProblemPages, ...] = ()
