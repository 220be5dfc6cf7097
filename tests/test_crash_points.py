"""A process that dies at any boundary of a payment's life, each in turn: what was accepted ends as it should, once.

Every death is a real SIGKILL, every recovery is by a worker and an API that know nothing but the database.
"""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from multiprocessing import Pipe
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.clock import DatabaseClock
from shared.config import Settings
from shared.db import Database, open_database
from shared.models import deliveries
from shared.runtime import Runtime, open_runtime
from tests.api_client import Door, added, opened, order, row_counts, working
from tests.crashing import LEASE_S, Journey, travel
from tests.processes import END_S, forked
from tests.receivers import Receiver, receiver
from tests.rows import are_settled, assert_sound, books, read_all
from tests.waiting import eventually

type MakeSettings = Callable[..., Settings]

AT_ONCE = 4  # processes beside each other: each waits most of its time
BOUNDARIES_MIN = 30  # of the whole journey: fewer would mean that the hooks miss some
RECOVERY_S = 30.0
STEPS = ("accept", "claim, charge, record", "deliver")


class LaterClock(DatabaseClock):
    """A clock under which every lease of those who died is over."""

    async def now(self, connection: AsyncConnection) -> datetime:
        return await super().now(connection) + timedelta(seconds=2 * LEASE_S)


@dataclass(frozen=True, slots=True)
class End:
    """How a journey ended: what its process told before."""

    exit_code: int
    accepted: UUID | None
    boundaries: Sequence[str]


async def travelled(journey: Journey) -> End:
    """Let a process travel, and wait until it is dead."""
    told, teller = Pipe(duplex=False)
    process = forked(travel, journey, teller)
    teller.close()
    await eventually(lambda: process.exitcode is not None, END_S)
    words: list[Any] = []
    with told:
        while told.poll():
            try:
                words.append(told.recv())
            except EOFError:
                break
    assert process.exitcode is not None
    return End(process.exitcode, UUID(words[0]) if words else None, words[1] if len(words) > 1 else [])


@asynccontextmanager
async def later(settings: Settings) -> AsyncIterator[Runtime]:
    """What the survivors run on: the same database and Redis, when the leases are over."""
    runtime = open_runtime(settings)
    await runtime.database.dispose()
    runtime = replace(runtime, database=open_database(settings, clock=LaterClock()))
    yield runtime
    await runtime.close()


@pytest.mark.parametrize(
    ("backend", "sends_at_once"),
    [
        ("postgresql", True),
        ("sqlite", False),
        pytest.param("postgresql", False, marks=pytest.mark.slow),
        pytest.param("sqlite", True, marks=pytest.mark.slow),
    ],
    indirect=["backend"],
)
async def test_whatever_boundary_a_process_dies_at_the_payment_is_charged_and_told_once(
    make_settings: MakeSettings, database: Database, *, sends_at_once: bool
) -> None:
    settings = make_settings(payment_success_rate=1, lease_s=LEASE_S)
    async with receiver() as shop:
        async with later(settings) as runtime, opened(runtime) as door, door.user() as client:
            body = order(await added(client), callback_url=shop.url)
        whole = await travelled(Journey(settings, {**body, "order_id": "whole"}, "whole", sends_at_once))
        assert (whole.exit_code, {name.split(":")[0] for name in whole.boundaries}) == (0, set(STEPS))
        assert len(whole.boundaries) >= BOUNDARIES_MIN, whole.boundaries
        journeys = [
            Journey(settings, {**body, "order_id": f"{number}"}, f"dies-{number}", sends_at_once, number)
            for number in range(len(whole.boundaries))
        ]
        turns = asyncio.Semaphore(AT_ONCE)

        async def in_turn(journey: Journey) -> End:
            async with turns:
                return await travelled(journey)

        ends = await asyncio.gather(*map(in_turn, journeys))
        assert Counter(end.exit_code for end in ends) == {-signal.SIGKILL: len(journeys)}
        async with later(settings) as runtime, opened(runtime) as door, working(runtime):
            found = await asyncio.gather(*(asked_again(door, journey) for journey in journeys))
            await eventually(lambda: everything_ended(database, len(journeys) + 1), RECOVERY_S)
    for end, payment_id, boundary in zip(ends, found, whole.boundaries, strict=True):
        assert end.accepted in {None, payment_id}, f"lost: the payment accepted before {boundary}"
        assert await books(database, payment_id) == ["authorize", "capture"], boundary
        assert told(shop, payment_id) in range(1, 3), boundary
    assert {payment.status for payment in await read_all(database)} == {"COMPLETED"}
    await assert_sound(database)
    many = len(journeys) + 1
    rows = await row_counts(database)
    assert (rows["payments"], rows["idempotency_keys"], rows["deliveries"]) == (many,) * 3
    assert rows["events"] == 2 * many  # initiated and completed
    assert len(shop.requests) > many  # who died between a POST and its record: told once more


async def asked_again(door: Door, journey: Journey) -> UUID:
    """What a client does that got no answer: it repeats its request, with the same key."""
    async with door.user() as client:
        answer = await client.post("/payments", json=journey.body, headers={"Idempotency-Key": journey.key})
    assert answer.status_code == 202, answer.text
    return UUID(answer.json()["id"])


async def everything_ended(database: Database, count: int) -> bool:
    async with database.read() as connection:
        standing = list((await connection.execute(select(deliveries.c.status))).scalars())
    return standing == ["delivered"] * count and await are_settled(database, count)


def told(shop: Receiver, payment_id: UUID) -> int:
    """How often the receiver heard of the payment; always under one id, by which it knows a repetition."""
    heard = [request for request in shop.requests if request.event["data"]["payment"]["id"] == str(payment_id)]
    assert len({request.headers["webhook-id"] for request in heard}) == 1
    return len(heard)
