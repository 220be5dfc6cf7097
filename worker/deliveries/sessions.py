"""The HTTP clients of a delivery pool: one for URLs that users have given, and one for all others.

They share no connection: a connection that is open to a service or an admin may be closed to a user.
"""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Self

from aiohttp import ClientSession
from aiohttp.abc import AbstractResolver

from shared.delivery_lifecycle import DeliveryKind
from shared.webhooks.address_policy import AddressPolicy
from shared.webhooks.deliveries import ClaimedDelivery
from worker.deliveries.resolver import BoundedResolver, open_resolver
from worker.deliveries.ssrf_guard import guarded_connector
from worker.deliveries.webhook import open_session

# Names of principals begin with their role.
USER_PREFIX = "user:"


class Sessions:
    """As an async context manager it has both clients open within the block.

    `policy` judges the addresses of URLs from services and admins, `user_policy` those of URLs from users. A whole
    exchange takes at most `timeout_s` seconds, and at most `lookups_max` names are looked up at once.
    """

    def __init__(
        self,
        policy: AddressPolicy,
        user_policy: AddressPolicy,
        *,
        timeout_s: float,
        user_agent: str,
        name_servers: Sequence[str],
        lookups_max: int,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._policies = policy, user_policy
        self._timeout_s = timeout_s
        self._user_agent = user_agent
        self._name_servers = name_servers
        self._lookups_max = lookups_max
        self._resolver = resolver
        self._open = AsyncExitStack()
        self._sessions: tuple[ClientSession, ClientSession] | None = None

    async def __aenter__(self) -> Self:
        """Open the clients, which connect to nothing yet."""
        inner = self._resolver or open_resolver(self._name_servers)
        resolver = BoundedResolver(inner, lookups_max=self._lookups_max)
        self._open.push_async_callback(resolver.close)
        trusted, of_users = [
            await self._open.enter_async_context(
                open_session(
                    guarded_connector(policy, resolver=resolver),
                    timeout_s=self._timeout_s,
                    user_agent=self._user_agent,
                )
            )
            for policy in self._policies
        ]
        self._sessions = trusted, of_users
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Close every connection."""
        self._sessions = None
        await self._open.aclose()

    def session_for(self, delivery: ClaimedDelivery) -> ClientSession:
        """Return the client for the URL of a delivery. Raises RuntimeError outside the block."""
        if self._sessions is None:
            raise RuntimeError("The sessions are closed.")
        trusted, of_users = self._sessions
        is_of_user = delivery.kind == DeliveryKind.CALLBACK and delivery.owner.startswith(USER_PREFIX)
        return of_users if is_of_user else trusted
