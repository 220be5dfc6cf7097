"""The resolver of deliveries: which name servers it asks, and how many lookups it makes at once."""

import asyncio
import socket

import pytest

from tests.support.resolvers import HangingResolver, name_server
from tests.support.waiting import eventually
from worker.deliveries.resolver import PER_DOMAIN_MAX, BoundedResolver, open_resolver


async def look_up(resolver: BoundedResolver, name: str) -> list[str]:
    return [found["host"] for found in await resolver.resolve(name, 443, socket.AF_INET)]


async def test_a_real_name_server_is_asked_and_silent_names_delay_no_other() -> None:
    async with name_server(silent=".slow.test") as server:
        resolver = BoundedResolver(open_resolver([f"127.0.0.1:{server.port}"]), lookups_max=200)
        silent = [asyncio.create_task(look_up(resolver, f"h{number}.slow{number}.test")) for number in range(80)]
        silent += [asyncio.create_task(look_up(resolver, f"h{number}.slow.test")) for number in range(80)]
        await eventually(lambda: len({name for name in server.asked if name.endswith(".slow.test")}) == PER_DOMAIN_MAX)
        found = await asyncio.gather(*(look_up(resolver, f"good{number}.test") for number in range(20)))
        assert found == [["127.0.0.1"]] * 20
        assert len({name for name in server.asked if name.endswith(".slow.test")}) == PER_DOMAIN_MAX
        for task in silent:
            task.cancel()
        await asyncio.gather(*silent, return_exceptions=True)
        await resolver.close()


async def test_a_name_that_is_silent_ends_in_an_error_and_frees_its_lookup() -> None:
    async with name_server(silent=".slow.test") as server:
        resolver = BoundedResolver(open_resolver([f"127.0.0.1:{server.port}"]), lookups_max=1)
        with pytest.raises(OSError, match=r"DNS|time"):
            await look_up(resolver, "h.slow.test")
        assert await look_up(resolver, "good.test") == ["127.0.0.1"]
        await resolver.close()


async def test_lookups_are_bounded_in_total_and_for_each_registered_domain() -> None:
    hanging = HangingResolver("127.0.0.1", hanging=".test")
    resolver = BoundedResolver(hanging, lookups_max=25)
    one_domain = [asyncio.create_task(look_up(resolver, f"h{number}.slow.test")) for number in range(50)]
    await eventually(lambda: hanging.pending == PER_DOMAIN_MAX)
    others = [asyncio.create_task(look_up(resolver, f"h.slow{number}.test")) for number in range(50)]
    await eventually(lambda: hanging.pending == 25)
    for task in (*one_domain, *others):
        task.cancel()
    await asyncio.gather(*one_domain, *others, return_exceptions=True)
    assert (hanging.pending, hanging.pending_max) == (0, 25)
    assert not resolver._domains
    assert await look_up(resolver, "shop.example") == ["127.0.0.1"]
