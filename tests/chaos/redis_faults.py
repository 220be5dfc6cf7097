"""What is done to Redis: another server becomes the master, its memory is full, its connections fall silent."""

import asyncio

import redis.asyncio

from tests.chaos.installation import Installation
from tests.chaos.plan import Planned
from tests.support.servers import ValkeyServer


async def fail_over(installation: Installation, planned: Planned) -> None:
    """The spare server becomes the master. The old one refuses writes, and connections to it stay open."""
    async with installation.lock("valkey"):
        old, new = installation.valkey, installation.spare
        await _order(new, "REPLICAOF NO ONE")
        await _order(new, "FLUSHALL")
        installation.redis_proxy.target = new.url
        await _order(old, "REPLICAOF 127.0.0.1 1")
        installation.valkey, installation.spare = new, old
        await asyncio.sleep(planned.lasts_s)


async def fill_valkey(installation: Installation, planned: Planned) -> None:
    """Redis answers, and takes nothing because its memory is full."""
    async with installation.lock("valkey"):
        await _order(installation.valkey, "CONFIG SET maxmemory 1")
        try:
            await asyncio.sleep(planned.lasts_s)
        finally:
            await _order(installation.valkey, "CONFIG SET maxmemory 0")


async def swallow_redis(installation: Installation, _planned: Planned) -> None:
    """Every connection to Redis stays open, and nothing goes through it any more."""
    async with installation.lock("valkey"):
        installation.redis_proxy.swallow()


async def _order(server: ValkeyServer, command: str) -> None:
    async with redis.asyncio.Redis.from_url(server.url) as client:
        await client.execute_command(*command.split())
