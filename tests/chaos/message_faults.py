"""What is done to messages and neighbours: doubled, repeated when they are old, held up; neighbours that fail."""

import asyncio
from typing import Any, get_args

import redis.asyncio
from sqlalchemy import Select, Table, select

from shared.db import open_database
from shared.errors import DatabaseUnavailable
from shared.leases import Ref
from shared.models import deliveries, payments
from shared.queue import Queue, open_carrier
from tests.chaos.neighbours import Mood
from tests.chaos.plan import Planned
from tests.chaos.stage import Stage

DOUBLED_MAX = 100  # rows of each table, the newest
TIMES = 3
LOOK_S = 0.005
SLOW_ORDERS_S = 1.5  # longer than a worker waits
LOST_UPDATES = 5
TROUBLES = 5


async def double_messages(stage: Stage, _planned: Planned) -> None:
    """The newest payments and deliveries are published three times more, as they are and as they were a claim ago."""
    database, carrier = open_database(stage.settings), open_carrier(stage.valkey.url)
    try:
        async with stage.lock("valkey"), stage.lock("postgres"):
            for table, queue in ((payments, Queue.PROCESS), (deliveries, Queue.DELIVER)):
                async with database.read() as connection:
                    found = (await connection.execute(_newest(table))).all()
                refs = [Ref(row.id, max(0, row.attempt - back)) for row in found for back in (0, 1)]
                for start in range(0, len(refs), DOUBLED_MAX):
                    for _ in range(TIMES):
                        await carrier.publish(queue, refs[start : start + DOUBLED_MAX])
    except DatabaseUnavailable:
        pass  # another fault has it
    finally:
        await carrier.close()
        await database.dispose()


def _newest(table: Table) -> Select[Any]:
    return select(table.c.id, table.c.attempt).order_by(table.c.id.desc()).limit(DOUBLED_MAX)


async def delay_messages(stage: Stage, planned: Planned) -> None:
    """Whatever is published is taken out of the queues, and put back after a while."""
    held: dict[str, dict[bytes, float]] = {queue: {} for queue in Queue}
    until = asyncio.get_running_loop().time() + planned.lasts_s
    async with stage.lock("valkey"), redis.asyncio.Redis.from_url(stage.valkey.url) as client:
        while asyncio.get_running_loop().time() < until:
            for queue, jobs in held.items():
                jobs.update(await client.zpopmin(queue, DOUBLED_MAX))
            await asyncio.sleep(LOOK_S)
        for queue, jobs in held.items():
            if jobs:
                await client.zadd(queue, jobs)


async def upset_receiver(stage: Stage, planned: Planned) -> None:
    """The receiver answers 500, late or not at all, or hangs up."""
    moods: tuple[Mood, ...] = get_args(Mood.__value__)[1:]
    async with stage.lock("receiver"):
        stage.receiver.mood = moods[planned.victim % len(moods)]
        try:
            await asyncio.sleep(planned.lasts_s)
        finally:
            stage.receiver.mood = "well"


async def upset_orders(stage: Stage, planned: Planned) -> None:
    """The order service is down, slow or behind a sick proxy, or loses updates or their answers."""
    async with stage.lock("orders"):
        orders = stage.orders
        match planned.victim % TROUBLES:
            case 0:
                orders.failing = 503
            case 1:
                await orders.down()
            case 2:
                orders.delay_s = SLOW_ORDERS_S
            case 3:
                orders.updates_to_lose = LOST_UPDATES
            case _:
                orders.updates_to_drop = LOST_UPDATES
        try:
            await asyncio.sleep(planned.lasts_s)
        finally:
            await orders.heal()
