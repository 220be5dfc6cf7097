"""Readiness of the upstream services: whether they are healthy. An unhealthy one never makes this service fail."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from api.single_flight import CachedCall
from shared.config.settings import Settings
from shared.upstream.client import UpstreamClient


class Readiness:
    """The health of the upstream services that are configured; they are called only within `running`.

    `upstreams` has a client for each name, or None where a service is not configured. Each service is asked at most
    once in `fresh_for_s` seconds, and all callers share the answer.
    """

    def __init__(self, upstreams: Mapping[str, UpstreamClient | None], *, fresh_for_s: float) -> None:
        self._upstreams = upstreams
        self._healths = {
            name: CachedCall(upstream.is_healthy, ttl_s=fresh_for_s) for name, upstream in upstreams.items() if upstream
        }

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep connections to the upstream services open for the length of the block. Calls end with it."""
        async with AsyncExitStack() as stack:
            for upstream in self._upstreams.values():
                if upstream is not None:
                    await stack.enter_async_context(upstream)
            for health in self._healths.values():
                stack.push_async_callback(health.close)
            yield

    async def are_healthy(self) -> dict[str, bool | None]:
        """Return whether each service is healthy, by its name; None where a service is not configured.

        It takes at most READY_TIMEOUT_S, and as long again to wait for a free connection. A service that does not
        answer in that time counts as unhealthy.
        """
        answers = await asyncio.gather(*(health.get() for health in self._healths.values()))
        return {**dict.fromkeys(self._upstreams, None), **dict(zip(self._healths, answers, strict=True))}


def open_readiness(settings: Settings) -> Readiness:
    """Return the readiness of the services in these settings; connects to nothing yet."""
    urls = {"auth_service": settings.auth_service_url, "order_service": settings.order_service_url}
    upstreams = {
        name: UpstreamClient(name, url, timeout_s=settings.ready_timeout_s, connections_max=1) if url else None
        for name, url in urls.items()
    }
    return Readiness(upstreams, fresh_for_s=settings.ready_cache_s)
