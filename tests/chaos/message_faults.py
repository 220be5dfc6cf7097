"""What is done to messages (doubled, repeated when they are old, held up, forged) and to upstream services."""

import asyncio
from datetime import UTC, datetime
from time import time
from typing import Any, get_args

import aiohttp
import orjson
import redis.asyncio
from sqlalchemy import Select, Table, select

from api.paths import NOTIFICATIONS
from shared.broker.client import Queue, open_broker
from shared.database.clock import rfc3339
from shared.database.engine import open_database
from shared.database.leases import WorkItem
from shared.database.refund_tables import refunds
from shared.database.tables import deliveries, payments
from shared.errors import DatabaseUnavailable
from shared.ids import new_id
from shared.keyring import new_webhook_secret, open_keyring
from shared.simulation.gateways import GatewayName
from shared.webhooks.signatures import sign
from tests.chaos.installation import Installation
from tests.chaos.plan import Planned
from tests.chaos.upstreams import Mood

DOUBLED_MAX = 100  # rows of each table, the newest
TIMES = 3
LOOK_S = 0.005
SLOW_ORDERS_S = 1.5  # longer than a worker waits
LOST_UPDATES = 5
TROUBLES = 5
HINTS_MAX = 50
HINT_S = 3.0
FORGED_EVERY = 5


async def double_messages(installation: Installation, _planned: Planned) -> None:
    """The newest of each kind are published three times more, as they are and as they were a claim ago."""
    database, broker = open_database(installation.settings), open_broker(installation.valkey.url)
    try:
        async with installation.lock("valkey"), installation.lock("postgres"):
            for table, queue in ((payments, Queue.PROCESS), (refunds, Queue.REFUND), (deliveries, Queue.DELIVER)):
                async with database.read() as connection:
                    found = (await connection.execute(_newest(table))).all()
                items = [WorkItem(row.id, max(0, row.lease_version - back)) for row in found for back in (0, 1)]
                for start in range(0, len(items), DOUBLED_MAX):
                    for _ in range(TIMES):
                        await broker.publish(queue, items[start : start + DOUBLED_MAX])
    except DatabaseUnavailable:
        pass  # another fault has it
    finally:
        await broker.close()
        await database.dispose()


def _newest(table: Table) -> Select[Any]:
    return (
        select(table.c.id, table.c.lease_version.label("lease_version")).order_by(table.c.id.desc()).limit(DOUBLED_MAX)
    )


async def delay_messages(installation: Installation, planned: Planned) -> None:
    """Every published message is taken out of its queue, and put back after a while."""
    held: dict[str, dict[bytes, float]] = {queue: {} for queue in Queue}
    until = asyncio.get_running_loop().time() + planned.lasts_s
    async with installation.lock("valkey"), redis.asyncio.Redis.from_url(installation.valkey.url) as client:
        while asyncio.get_running_loop().time() < until:
            for queue, jobs in held.items():
                jobs.update(await client.zpopmin(queue, DOUBLED_MAX))
            await asyncio.sleep(LOOK_S)
        for queue, jobs in held.items():
            if jobs:
                await client.zadd(queue, jobs)


async def mislead_by_notifications(installation: Installation, planned: Planned) -> None:
    """Every gateway says of the newest payments, and of some that nobody knows, that they are settled; some are forged.

    Whoever is not to be believed gets 401. Everything else is no more than a hint.
    """
    database = open_database(installation.settings)
    try:
        async with installation.lock("postgres"), database.read() as connection:
            ids = [row.id for row in await connection.execute(_newest(payments).limit(HINTS_MAX))]
    except DatabaseUnavailable:
        return  # another fault has it
    finally:
        await database.dispose()
    keyring = open_keyring(installation.settings)
    url = installation.urls[planned.victim % len(installation.urls)] + NOTIFICATIONS
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=HINT_S)) as http:
        for number, payment_id in enumerate([*ids, new_id()]):
            gateway = list(GatewayName)[number % len(GatewayName)]
            body = orjson.dumps(
                {
                    "type": "payment.settled",
                    "timestamp": rfc3339(datetime.now(UTC)),
                    "data": {"gateway": gateway, "payment_id": str(payment_id)},
                }
            )
            is_forged = number % FORGED_EVERY == 0
            secret = new_webhook_secret() if is_forged else keyring.notification_secret(gateway)
            headers = sign(secret, new_id(), int(time()), body) | {"content-type": "application/json"}
            try:
                async with http.post(f"{url}/{gateway}", data=body, headers=headers) as reply:
                    status = reply.status
            except (aiohttp.ClientError, TimeoutError, OSError):
                return  # another fault has it
            if status not in {401 if is_forged else 204, 503}:
                installation.findings.append(f"a notification, {is_forged=}, was answered {status}")


async def upset_receiver(installation: Installation, planned: Planned) -> None:
    """The receiver answers 500, late or not at all, or hangs up."""
    moods: tuple[Mood, ...] = get_args(Mood.__value__)[1:]
    async with installation.lock("receiver"):
        installation.receiver.mood = moods[planned.victim % len(moods)]
        try:
            await asyncio.sleep(planned.lasts_s)
        finally:
            installation.receiver.mood = "well"


async def upset_orders(installation: Installation, planned: Planned) -> None:
    """The order service is down, slow or behind a sick proxy, or loses updates or their answers."""
    async with installation.lock("orders"):
        orders = installation.orders
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
