"""A failover of Redis under load: by Sentinel, and behind one name; nothing is lost, and no process is restarted."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import redis

from shared.database.engine import Database
from tests.support.processes import Shop
from tests.support.redis_processes import Make, makes
from tests.support.redis_proxy import redis_proxy
from tests.support.rows import read_all
from tests.support.sentinels import watched
from tests.support.servers import ValkeyServer
from tests.support.survival import MakeSettings, Service, a_service, everything_settles, on_postgresql
from tests.support.waiting import eventually

pytest_plugins = ["tests.support.survival_fixtures"]

# Seconds that Sentinels may take to decide, on a loaded machine.
DECIDED_WITHIN_S = 40.0
# Seconds after the change of the master within which payments are processed as before.
WELL_WITHIN_S = 12.0


@asynccontextmanager
async def load(shop: Shop) -> AsyncIterator[list[str]]:
    """Payments are accepted one after the other until the block ends, fewer than the workers can process."""
    accepted: list[str] = []
    is_over = asyncio.Event()

    async def accept() -> None:
        while not is_over.is_set():
            accepted.append(await shop.accepted())
            await asyncio.sleep(0.1)

    paying = asyncio.create_task(accept())
    try:
        yield accepted
    finally:
        is_over.set()
        await paying


async def is_well(service: Service) -> bool:
    """A payment that is accepted now ends while its client waits, which takes the queue, a loop and the channel."""
    answer = await service.shop.pay(headers={"Prefer": "wait=3"})
    return answer.status_code == 201


async def well_within(service: Service, seconds: float) -> None:
    await eventually(lambda: is_well(service), seconds)


@pytest.mark.slow
@on_postgresql
@pytest.mark.timeout(240)
@pytest.mark.parametrize("make", makes())
async def test_sentinels_name_another_master_under_load(
    slow_gateway: MakeSettings, database: Database, tmp_path: Path, make: Make
) -> None:
    with watched(tmp_path / "redis", make) as installation:
        settings = slow_gateway(redis_url=installation.url, rate_limit_user="100000/minute")
        async with a_service(settings, tmp_path) as service:
            assert await is_well(service)
            async with load(service.shop) as accepted:
                for _ in range(2):
                    old = installation.master
                    old.kill()
                    await eventually(partial(installation.has_failed_over, old), DECIDED_WITHIN_S)
                    await well_within(service, WELL_WITHIN_S)
                    # It comes back as a replica of the new master. One Sentinel may be gone as well.
                    old.start()
                    await eventually(installation.is_watched, DECIDED_WITHIN_S)
                installation.sentinels[0].kill()
                await well_within(service, WELL_WITHIN_S)
            assert len(accepted) > 20
            await everything_settles(database, len(await read_all(database)))


@pytest.mark.slow
@on_postgresql
async def test_a_name_leads_to_another_master_while_the_old_connections_stay_open(
    slow_gateway: MakeSettings, database: Database, own_valkey: ValkeyServer, tmp_path: Path
) -> None:
    with ValkeyServer(tmp_path / "new") as new:
        async with redis_proxy(own_valkey.url) as proxy:
            settings = slow_gateway(redis_url=proxy.url, rate_limit_user="100000/minute")
            async with a_service(settings, tmp_path) as service:
                async with load(service.shop) as accepted:
                    assert await is_well(service)
                    for old, target in ((own_valkey, new), (new, own_valkey)):
                        with redis.Redis.from_url(target.url) as operator:
                            operator.execute_command("REPLICAOF", "NO", "ONE")
                        proxy.target = target.url
                        with redis.Redis.from_url(old.url) as operator:
                            operator.execute_command("REPLICAOF", "127.0.0.1", "1")
                        await well_within(service, WELL_WITHIN_S)
                    assert len(accepted) > 10
                await everything_settles(database, len(await read_all(database)))


@pytest.mark.slow
@on_postgresql
async def test_dropped_connections_of_every_process_recover(
    slow_gateway: MakeSettings, database: Database, own_valkey: ValkeyServer, tmp_path: Path
) -> None:
    async with redis_proxy(own_valkey.url) as proxy:
        settings = slow_gateway(redis_url=proxy.url, rate_limit_user="100000/minute")
        async with a_service(settings, tmp_path) as service:
            async with load(service.shop):
                assert await is_well(service)
                for _ in range(3):
                    proxy.swallow()
                    await well_within(service, WELL_WITHIN_S)
            await everything_settles(database, len(await read_all(database)))
