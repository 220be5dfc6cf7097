"""Rate limits per user and per address, in fixed windows that all API processes count together in Redis.

Counting never makes a request fail, and delays it by at most a tenth of a second. While Redis does not answer, each
process counts alone, from the last counts that it knows. Without a limit in the settings there is no middleware.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import time
from zlib import crc32

from limits import RateLimitItem, parse
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.auth.authenticator import Authenticator
from api.auth.dependencies import AuthResult, authenticate, has_bearer_token
from api.auth.principal import Principal, Role
from api.bounded_cache import BoundedCache
from api.edge.client_address import client_address, rate_limit_key
from api.edge.redis_counts import RedisCounts
from api.edge.signed_notifications import signer_of
from api.paths import API_PATHS, QUIET_PATHS, shown_path
from api.problems import Code, Problem, render
from shared.broker.client import Broker
from shared.config.settings import Settings
from shared.config.values import Network
from shared.errors import BrokerUnavailable

# Counts that a process remembers: about 10 MB.
COUNTS_REMEMBERED_MAX = 50_000


@dataclass(frozen=True, slots=True)
class RateLimitStatus:
    """The status of one client under one limit.

    `count` is the number of its requests in the current window, as far as this process knows. `reset_s` is the number
    of seconds until the next window.
    """

    name: str
    limit: RateLimitItem
    count: int
    reset_s: int
    is_over: bool

    @property
    def policy(self) -> str:
        """The item of this limit in the field RateLimit-Policy."""
        return f'"{self.name}";q={self.limit.amount};w={self.limit.get_expiry()}'

    @property
    def state(self) -> str:
        """The item of this limit in the field RateLimit."""
        return f'"{self.name}";r={max(0, self.limit.amount - self.count)};t={self.reset_s}'


def limit_headers(statuses: Sequence[RateLimitStatus]) -> dict[str, str]:
    """Return the header fields of draft-ietf-httpapi-ratelimit-headers-10. Both are Lists (RFC 9651).

    RateLimit-Policy allows `q` requests in a window of `w` seconds. RateLimit says that `r` of them are left for the
    `t` seconds until the next window. A refusal has Retry-After, too: the seconds until no limit is exceeded any more.
    """
    headers = {
        "RateLimit-Policy": ", ".join(status.policy for status in statuses),
        "RateLimit": ", ".join(status.state for status in statuses),
    }
    waits_s = [status.reset_s for status in statuses if status.is_over]
    return headers | ({"Retry-After": str(max(waits_s))} if waits_s else {})


class Counter:
    """Counts the requests of clients in the current windows of limits."""

    def __init__(self, counts: RedisCounts, *, clock: Callable[[], float] = time) -> None:
        self._counts = counts
        self._clock = clock
        # The highest count of each key that Redis returned or that was counted here.
        self._known: BoundedCache[str, int] = BoundedCache(COUNTS_REMEMBERED_MAX)

    def peek(self, name: str, limit: RateLimitItem, client: str) -> RateLimitStatus:
        """Return a client's status without asking Redis: over the limit only if this process already knows that."""
        key, reset_s = self._window(name, limit, client)
        count = self._known.get(key, 0)
        return RateLimitStatus(name, limit, count, reset_s, is_over=count >= limit.amount)

    async def hit(self, name: str, limit: RateLimitItem, client: str) -> RateLimitStatus:
        """Count one more request, in one round trip to Redis, and return the client's status."""
        key, reset_s = self._window(name, limit, client)
        try:
            count = await self._counts.increment(key, limit.get_expiry())
        except BrokerUnavailable:
            count = self._known.get(key, 0) + 1
        # Answers may arrive out of order, and a Redis that was restarted begins at 0.
        known = max(count, self._known.get(key, 0))
        self._known.remember(key, known)
        return RateLimitStatus(name, limit, known, reset_s, is_over=count > limit.amount)

    def _window(self, name: str, limit: RateLimitItem, client: str) -> tuple[str, int]:
        """Return the key of the current window, and the seconds until the next one.

        The number of the window is part of the key, so its end is known without a round trip. The windows of different
        clients start at different moments, so that not all clients come back in the same second.
        """
        window_s = limit.get_expiry()
        number, elapsed_s = divmod(self._clock() + crc32(client.encode()) % window_s, window_s)
        return limit.key_for(name, client, int(number)), math.ceil(window_s - elapsed_s)

    async def run(self) -> None:
        """Take the counts to Redis until cancelled."""
        await self._counts.run()


@dataclass(frozen=True, slots=True)
class RateLimits:
    """The limits that are set, and the rules that say which client counts under which limit."""

    counter: Counter
    user: RateLimitItem | None
    address: RateLimitItem | None
    trusted_proxies: tuple[Network, ...]

    def of_address(self, scope: Scope) -> tuple[str, RateLimitItem, str] | None:
        """Return name, limit and client for the address of a request; None if it has no limit."""
        address = client_address(scope, self.trusted_proxies) if self.address else None
        return ("address", self.address, rate_limit_key(address)) if self.address and address else None

    def of_user(self, auth_result: AuthResult | None) -> tuple[str, RateLimitItem, str] | None:
        """Return name, limit and client for a user; None for services and admins, because they act for many users."""
        if self.user is None or not isinstance(auth_result, Principal) or auth_result.role != Role.USER:
            return None
        return "user", self.user, auth_result.user_id


def open_rate_limits(settings: Settings, broker: Broker) -> RateLimits | None:
    """Return the limits of these settings, counted in the broker's Redis; None if no limit is set."""
    user, address = (rate and parse(rate) for rate in (settings.rate_limit_user, settings.rate_limit_address))
    if not user and not address:
        return None
    return RateLimits(Counter(RedisCounts(broker)), user or None, address or None, settings.trusted_proxies)


class RateLimitMiddleware:
    """Refuses clients that are over a limit with 429, and sends every client its status in the header fields.

    Requests for health and metrics, and what a gateway has signed, are not counted. An address that this process knows
    to be over its limit is refused before the token is verified, and a user before Redis is asked.
    """

    def __init__(self, app: ASGIApp, *, limits: RateLimits, authenticator: Authenticator) -> None:
        self._app = app
        self._limits = limits
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request (ASGI)."""
        if scope["type"] != "http" or scope["path"] in QUIET_PATHS or signer_of(scope):
            await self._app(scope, receive, send)
            return
        statuses = await self._statuses(scope)
        headers = limit_headers(statuses) if statuses else {}
        if any(status.is_over for status in statuses):
            problem = Problem(Code.RATE_LIMITED, headers=headers)
            answer = render(problem, path=shown_path(scope), correlation_id=scope["correlation_id"])
            await answer(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(headers)
            await send(message)

        await self._app(scope, receive, send_with_headers)

    async def _statuses(self, scope: Scope) -> list[RateLimitStatus]:
        counter = self._limits.counter
        address = self._limits.of_address(scope)
        if address and (known := counter.peek(*address)).is_over:
            return [known]
        user = self._limits.of_user(await self._auth_result(scope)) if self._limits.user else None
        if user and (known := counter.peek(*user)).is_over:
            return [known]
        return await asyncio.gather(*(counter.hit(*counted) for counted in (user, address) if counted))

    async def _auth_result(self, scope: Scope) -> AuthResult | None:
        if not has_bearer_token(scope) or not scope["path"].startswith(API_PATHS):
            return None
        return await authenticate(scope, self._authenticator)
