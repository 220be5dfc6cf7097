"""The neighbours, as far as readiness asks about them: are they healthy. What is wrong with them never fails us."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from time import monotonic

from shared.config import Settings
from shared.neighbour import Neighbour


class Neighbours:
    """The health of the services that are configured, each asked within `running` only."""

    def __init__(self, settings: Settings) -> None:
        urls = {"auth_service": settings.auth_service_url, "order_service": settings.order_service_url}
        self._services = {
            name: Neighbour(name, url, timeout_s=settings.ready_timeout_s, connections_max=1) if url else None
            for name, url in urls.items()
        }
        self._healths = {
            name: Health(service, cache_s=settings.ready_cache_s) for name, service in self._services.items() if service
        }

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep connections to them."""
        async with AsyncExitStack() as stack:
            for service in self._services.values():
                if service is not None:
                    await stack.enter_async_context(service)
            yield

    async def are_healthy(self) -> dict[str, bool | None]:
        """By name: healthy or not; None where none is configured."""
        answers = await asyncio.gather(*(health.is_healthy() for health in self._healths.values()))
        return {**dict.fromkeys(self._services, None), **dict(zip(self._healths, answers, strict=True))}


class Health:
    """One neighbour's health, asked at most every `cache_s` seconds and by one at a time, however many want to know."""

    def __init__(self, service: Neighbour, *, cache_s: float, clock: Callable[[], float] = monotonic) -> None:
        self._service = service
        self._cache_s = cache_s
        self._clock = clock
        self._answer = False
        self._asked_at = float("-inf")
        self._one_at_a_time = asyncio.Lock()

    async def is_healthy(self) -> bool:
        """Its last answer, if that is new enough."""
        began = self._clock()
        async with self._one_at_a_time:
            if self._asked_at < began and self._clock() - self._asked_at >= self._cache_s:
                self._answer = await self._service.is_healthy()
                self._asked_at = self._clock()
            return self._answer
