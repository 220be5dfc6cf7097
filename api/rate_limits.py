"""How often one user and one address may ask: counted in Redis by all processes together, in fixed windows.

Counting never fails a request and holds it up for a tenth of a second at most: where Redis does not answer, each
process counts for itself, from what it last heard. With neither limit set none of this is in a request's way.
"""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import time
from zlib import crc32

from fastapi.security.utils import get_authorization_scheme_param
from limits import RateLimitItem, parse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.auth import VERDICT, Door, Principal, Role, Verdict, decide
from api.client_address import client_address, limited_as
from api.errors import Code, Problem, render
from api.middleware import QUIET_PATHS
from api.rate_counts import SharedCounts
from shared.addresses import Network
from shared.config import Settings
from shared.errors import NeighbourUnreachable
from shared.queue import Carrier

REMEMBERED_MAX = 50_000  # counts that a process knows: about 10 MB
API_PATHS = "/api/"  # where a token says who asks


@dataclass(frozen=True, slots=True)
class Standing:
    """How one who is counted stands with one limit."""

    name: str
    limit: RateLimitItem
    count: int  # in this window, as far as is known
    reset_s: int  # until the next window
    is_over: bool

    @property
    def policy(self) -> str:
        """The member of RateLimit-Policy."""
        return f'"{self.name}";q={self.limit.amount};w={self.limit.get_expiry()}'

    @property
    def state(self) -> str:
        """The member of RateLimit."""
        return f'"{self.name}";r={max(0, self.limit.amount - self.count)};t={self.reset_s}'


def limit_headers(standings: Sequence[Standing]) -> dict[str, str]:
    """The fields of draft-ietf-httpapi-ratelimit-headers-10, both Lists of RFC 9651.

    `q` requests in a window of `w` s; `r` of them are left for the `t` s until the next window. A refusal has
    Retry-After as well: when the last of the limits that it met lets through again.
    """
    headers = {
        "RateLimit-Policy": ", ".join(standing.policy for standing in standings),
        "RateLimit": ", ".join(standing.state for standing in standings),
    }
    waits_s = [standing.reset_s for standing in standings if standing.is_over]
    return headers | ({"Retry-After": str(max(waits_s))} if waits_s else {})


class Counter:
    """Counts what somebody did in this window of a limit."""

    def __init__(self, shared: SharedCounts, *, clock: Callable[[], float] = time) -> None:
        self._shared = shared
        self._clock = clock
        self._known: OrderedDict[str, int] = OrderedDict()  # by key: the highest count heard of, or counted here

    def peek(self, name: str, limit: RateLimitItem, who: str) -> Standing:
        """How they stand, asking nobody: over the limit only if this process knows that they are."""
        key, reset_s = self._window(name, limit, who)
        count = self._known.get(key, 0)
        return Standing(name, limit, count, reset_s, is_over=count >= limit.amount)

    async def hit(self, name: str, limit: RateLimitItem, who: str) -> Standing:
        """Count one more, in one round trip, and say how they stand."""
        key, reset_s = self._window(name, limit, who)
        try:
            count = await self._shared.incr(key, limit.get_expiry())
        except NeighbourUnreachable:
            count = self._known.get(key, 0) + 1
        known = max(count, self._known.get(key, 0))  # answers may come in another order; a new Redis begins at 0
        self._remember(key, known)
        return Standing(name, limit, known, reset_s, is_over=count > limit.amount)

    def _window(self, name: str, limit: RateLimitItem, who: str) -> tuple[str, int]:
        """The key of the window that is running, and the seconds until the next one.

        The number of the window is part of the key, so its end is known without asking. Each begins at another
        moment: not everybody comes back in the same second.
        """
        window_s = limit.get_expiry()
        number, elapsed_s = divmod(self._clock() + crc32(who.encode()) % window_s, window_s)
        return limit.key_for(name, who, int(number)), math.ceil(window_s - elapsed_s)

    def _remember(self, key: str, count: int) -> None:
        self._known[key] = count
        self._known.move_to_end(key)
        if len(self._known) > REMEMBERED_MAX:
            self._known.popitem(last=False)


@dataclass(frozen=True, slots=True)
class RateLimits:
    """The limits that are set, and who is counted under which."""

    counter: Counter
    shared: SharedCounts
    user: RateLimitItem | None
    address: RateLimitItem | None
    trusted_proxies: tuple[Network, ...]

    def of_address(self, scope: Scope) -> tuple[str, RateLimitItem, str] | None:
        """The count that a request's address has."""
        address = client_address(scope, self.trusted_proxies) if self.address else None
        return ("address", self.address, limited_as(address)) if self.address and address else None

    def of_user(self, verdict: Verdict | None) -> tuple[str, RateLimitItem, str] | None:
        """The count that a user has; machines (services, admins) act for many, and have none."""
        if self.user is None or not isinstance(verdict, Principal) or verdict.role != Role.USER:
            return None
        return "user", self.user, verdict.user_id


def open_rate_limits(settings: Settings, carrier: Carrier) -> RateLimits | None:
    """The limits of these settings, counted on the carrier's connections; None without any. Connects to nothing yet."""
    user, address = (rate and parse(rate) for rate in (settings.rate_limit_user, settings.rate_limit_address))
    if not user and not address:
        return None
    shared = SharedCounts(carrier.redis)
    return RateLimits(Counter(shared), shared, user or None, address or None, settings.trusted_proxies)


class RateLimited:
    """Refuses who asks too often (429), and tells everybody else how they stand. Health and metrics are not counted.

    Whoever this process knows to be over a limit is refused before the token is looked at or Redis is asked.
    """

    def __init__(self, app: ASGIApp, *, limits: RateLimits, doorkeeper: Door) -> None:
        self._app = app
        self._limits = limits
        self._doorkeeper = doorkeeper

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request (ASGI)."""
        if scope["type"] != "http" or scope["path"] in QUIET_PATHS:
            await self._app(scope, receive, send)
            return
        standings = await self._standings(scope)
        headers = limit_headers(standings) if standings else {}
        if any(standing.is_over for standing in standings):
            problem = Problem(Code.RATE_LIMITED, headers=headers)
            answer = render(problem, path=scope["path"], correlation_id=scope["correlation_id"])
            await answer(scope, receive, send)
            return

        async def send_labelled(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(headers)
            await send(message)

        await self._app(scope, receive, send_labelled)

    async def _standings(self, scope: Scope) -> list[Standing]:
        counter = self._limits.counter
        address = self._limits.of_address(scope)
        if address and (known := counter.peek(*address)).is_over:
            return [known]
        user = self._limits.of_user(await self._verdict(scope)) if self._limits.user else None
        if user and (known := counter.peek(*user)).is_over:
            return [known]
        return await asyncio.gather(*(counter.hit(*counted) for counted in (user, address) if counted))

    async def _verdict(self, scope: Scope) -> Verdict | None:
        """Who asks, kept for the operation, which would have to find out, too."""
        scheme, token = get_authorization_scheme_param(Headers(scope=scope).get("authorization"))
        if scheme.lower() != "bearer" or not token or not scope["path"].startswith(API_PATHS):
            return None
        scope[VERDICT] = verdict = await decide(self._doorkeeper, token)
        return verdict
