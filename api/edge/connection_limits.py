"""What bounds a connection."""

from dataclasses import dataclass

from api.edge.arrival import ArrivalMemory
from api.edge.problem_pages import ProblemPages

# Seconds that a client may take to read a response that fills the buffers of the connection.
WRITE_TIMEOUT_S = 30.0
# Open files that are kept for the service itself: its connections to the database, to Redis and to receivers.
RESERVED_FILES = 256


def connections_max(files_max: int) -> int:
    """Return how many connections a process may have that may have so many files open."""
    return files_max - min(RESERVED_FILES, files_max // 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """The limits of every connection, and what the connections of a process share."""

    request_timeout_s: float
    write_timeout_s: float
    memory: ArrivalMemory
    connections_max: int
    # What a proxy has stripped from the paths.
    root_path: str = ""
    # What is refused counts for a rate limit, which only the application knows.
    has_rate_limits: bool = False
    # A cache must not give the response of one origin to another.
    varies_by_origin: bool = False
    # Where what is refused is answered with a page.
    pages: tuple[ProblemPages, ...] = ()
