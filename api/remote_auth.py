"""Asks the auth service whose token it is, and remembers the verdict for a moment.

An auth service that does not answer is an error and never a verdict. Roles are none of its business.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from http import HTTPStatus
from time import time
from typing import NamedTuple

import structlog

from api.auth import user_id_of
from shared.errors import NeighbourUnreachable
from shared.neighbour import Neighbour, Reply, parsed

log = structlog.get_logger(__name__)

REMEMBERED_MAX = 10_000  # verdicts, about 2 MB
REFUSALS = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


class Verdict(NamedTuple):
    """What the auth service said of a token, and until when that is taken for its word."""

    user_id: str | None  # None: it refuses the token
    until: float  # unix seconds


class RemoteAuth:
    """A verdict lives `cache_s` seconds at most, never longer than its token; one call serves all who ask at once."""

    def __init__(self, service: Neighbour, *, cache_s: float, clock: Callable[[], float] = time) -> None:
        self._service = service
        self._cache_s = cache_s
        self._clock = clock
        self._verdicts: OrderedDict[bytes, Verdict] = OrderedDict()  # by hash: no tokens lie around, however long
        self._calls: dict[bytes, asyncio.Future[str | None]] = {}

    async def user_of(self, token: str, *, expires_at: float) -> str | None:
        """The user whose access token this is; None if the auth service refuses it. Raises NeighbourUnreachable."""
        key = sha256(token.encode()).digest()
        known = self._verdicts.get(key)
        if known is not None and self._clock() < known.until:
            return known.user_id
        call = self._calls.get(key)
        if call is None:
            return await self._first_call(key, token, expires_at)
        return await asyncio.shield(call)  # one who leaves takes the answer from nobody

    async def _first_call(self, key: bytes, token: str, expires_at: float) -> str | None:
        """Ask, and tell the answer to all who want the same meanwhile."""
        call = self._calls[key] = asyncio.get_running_loop().create_future()
        try:
            asked_at = self._clock()
            user_id = await self._ask(token)
        except BaseException as error:
            retry_after_s = error.retry_after_s if isinstance(error, NeighbourUnreachable) else 0.0
            call.set_exception(NeighbourUnreachable("the auth service gave no answer", retry_after_s=retry_after_s))
            call.exception()  # looked at: nobody else may be waiting
            raise
        else:
            self._remember(key, Verdict(user_id, min(asked_at + self._cache_s, expires_at)))
            call.set_result(user_id)
            return user_id
        finally:
            del self._calls[key]

    async def _ask(self, token: str) -> str | None:
        correlation_id = structlog.contextvars.get_contextvars().get("correlation_id")
        reply = await self._service.ask("GET", "/auth/verify", token=token, correlation_id=correlation_id)
        if reply.status in REFUSALS:
            return None
        return _verified_user(reply)

    def _remember(self, key: bytes, verdict: Verdict) -> None:
        self._verdicts[key] = verdict
        self._verdicts.move_to_end(key)
        if len(self._verdicts) > REMEMBERED_MAX:
            self._verdicts.popitem(last=False)


def _verified_user(reply: Reply) -> str | None:
    """Whom a 200 names, None if it says that the token is not valid. What is not its answer is no verdict."""
    said = parsed(reply.body) if reply.status == HTTPStatus.OK else None
    if not isinstance(said, dict) or not isinstance(said.get("valid"), bool):
        log.warning("auth.strange_answer", status=reply.status)
        raise NeighbourUnreachable("the auth service answers something else")
    return user_id_of({"user_id": said.get("user_id")}) if said["valid"] else None
