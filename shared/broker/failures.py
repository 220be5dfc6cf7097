"""What a failure of Redis means: its kind, for metrics, and its reason, for the log.

The reason names the command and the keys that were refused, and never the payload or a password.
"""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from shared import metrics
from shared.errors import BrokerUnavailable

REASON_CHARS_MAX = 200
# redis-py's words for the command of a pipeline that failed. The words of the command after its key are payload.
_OF_PIPELINE = re.compile(
    r"Command # \d+ \((\S+(?: \S+)?).*?\) of pipeline caused error: \(?['\"]?(.*?)['\"]?,?\)?", re.DOTALL
)


class FailureKind(StrEnum):
    """Why Redis did not do what it was asked to do."""

    UNREACHABLE = "unreachable"
    """No answer came: it is down, hangs, or the connection was lost."""
    READ_ONLY = "read_only"
    """It is a replica, or may not write without its replicas. After a failover the master is another one."""
    LOADING = "loading"
    """It is reading its data from disk, or has lost its master."""
    OUT_OF_MEMORY = "out_of_memory"
    """Its memory is full and its policy removes nothing."""
    WRONG_TYPE = "wrong_type"
    """Another program keeps something else under one of our keys."""
    DENIED = "denied"
    """Its user may not do this, or the password is wrong."""
    CLUSTER = "cluster"
    """It runs in cluster mode, which is not supported."""
    REFUSED = "refused"
    """Any other error of the server; the reason has its text."""


# The first word of an error that redis-py has no class for.
_KIND_OF_CODE = {
    "WRONGTYPE": FailureKind.WRONG_TYPE,
    "MASTERDOWN": FailureKind.LOADING,
    "NOREPLICAS": FailureKind.READ_ONLY,
    "MOVED": FailureKind.CLUSTER,
    "ASK": FailureKind.CLUSTER,
    "CROSSSLOT": FailureKind.CLUSTER,
    "CLUSTERDOWN": FailureKind.CLUSTER,
}
_KIND_OF_CLASS: dict[type[Exception], FailureKind] = {
    ReadOnlyError: FailureKind.READ_ONLY,
    BusyLoadingError: FailureKind.LOADING,
    OutOfMemoryError: FailureKind.OUT_OF_MEMORY,
    NoPermissionError: FailureKind.DENIED,
    AuthenticationError: FailureKind.DENIED,
}
# A connection to such a server leads to the wrong one, and its name may lead to another by now.
STALE = frozenset({FailureKind.READ_ONLY, FailureKind.LOADING})


def kind_of(error: BaseException) -> FailureKind:
    """Return the kind of an error that redis-py or the network raised."""
    for class_, kind in _KIND_OF_CLASS.items():
        if isinstance(error, class_):
            return kind
    if isinstance(error, ResponseError):
        return _KIND_OF_CODE.get(_message(error).partition(" ")[0], FailureKind.REFUSED)
    return FailureKind.UNREACHABLE


def reason_of(error: BaseException) -> str:
    """Return the class of an error, what was refused, and what the server said, in at most 200 characters."""
    message = _message(error)
    command = command_of(error)
    words = [type(error).__name__, *([command] if command else []), *([message] if message else [])]
    return ": ".join(words)[:REASON_CHARS_MAX]


def _message(error: BaseException) -> str:
    found = _OF_PIPELINE.fullmatch(str(error)) if isinstance(error, RedisError) else None
    return found.group(2) if found else str(error)


def command_of(error: BaseException) -> str:
    """Return the command of a pipeline that was refused, and its key; "" if the error does not name it."""
    found = _OF_PIPELINE.fullmatch(str(error)) if isinstance(error, RedisError) else None
    return found.group(1) if found else ""


def raise_if_cancelled() -> None:
    """Raise CancelledError if the task is to end: the client of Redis may answer a cancel with an error of its own.

    Whoever takes that for a failure and tries again would never end.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def translated(error: Exception) -> BrokerUnavailable:
    """Return our error for one that redis-py or the network raised, and count it. Raises CancelledError at a cancel."""
    raise_if_cancelled()
    metrics.broker_failures.labels(kind_of(error)).inc()
    return BrokerUnavailable(reason_of(error))


@contextmanager
def errors_translated() -> Iterator[None]:
    """Translate the errors of the block."""
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        raise translated(error) from error
