"""A process that dies at any boundary of a payment's life, each in turn: what was accepted ends as it should, once.

Every death is a real SIGKILL, every recovery is by a worker and an API that know nothing but the database.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

import pytest
from sqlalchemy import select

from shared.config.settings import Settings
from shared.database.engine import Database
from shared.database.tables import deliveries
from tests.support.api_client import RunningApi, added, opened, order
from tests.support.crashing import LEASE_S, Journey, assert_each_died, later, run_journey, run_to_end
from tests.support.receivers import Receiver, receiver
from tests.support.rows import are_settled, assert_sound, ledger_entries, read_all
from tests.support.stored import row_counts
from tests.support.waiting import eventually
from tests.support.workers import working

type MakeSettings = Callable[..., Settings]

# Processes beside each other: each waits most of its time.
AT_ONCE = 4
# Of a journey to its end: fewer boundaries would mean that the hooks miss some.
BOUNDARIES_MIN = 30
RECOVERY_S = 30.0
STEPS = ("accept", "claim, charge, record", "deliver")


@dataclass(frozen=True, slots=True)
class End:
    """How a journey ended, and what its process had reported until then."""

    exit_code: int
    accepted: UUID | None
    boundaries: Sequence[str]


async def ended(journey: Journey) -> End:
    """Run a journey in a process, and wait until that has ended."""
    exit_code, received = await run_to_end(run_journey, journey)
    return End(exit_code, UUID(received[0]) if received else None, received[1] if len(received) > 1 else [])


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
async def test_whatever_boundary_a_process_dies_at_the_payment_is_charged_once_and_its_webhook_sent(
    make_settings: MakeSettings, database: Database, *, sends_at_once: bool
) -> None:
    settings = make_settings(payment_success_rate=1, lease_s=LEASE_S)
    async with receiver() as shop:
        async with later(settings) as runtime, opened(runtime) as running_api, running_api.user() as client:
            body = order(await added(client), callback_url=shop.url)
        whole = await ended(Journey(settings, {**body, "order_id": "whole"}, "whole", sends_at_once))
        assert (whole.exit_code, {name.split(":")[0] for name in whole.boundaries}) == (0, set(STEPS))
        assert len(whole.boundaries) >= BOUNDARIES_MIN, whole.boundaries
        journeys = [
            Journey(settings, {**body, "order_id": f"{number}"}, f"dies-{number}", sends_at_once, number)
            for number in range(len(whole.boundaries))
        ]
        turns = asyncio.Semaphore(AT_ONCE)

        async def in_turn(journey: Journey) -> End:
            async with turns:
                return await ended(journey)

        ends = await asyncio.gather(*map(in_turn, journeys))
        assert_each_died([end.exit_code for end in ends])
        async with later(settings) as runtime, opened(runtime) as running_api, working(runtime):
            found = await asyncio.gather(*(sent_again(running_api, journey) for journey in journeys))
            await eventually(lambda: everything_ended(database, len(journeys) + 1), RECOVERY_S)
    for end, payment_id, boundary in zip(ends, found, whole.boundaries, strict=True):
        assert end.accepted in {None, payment_id}, f"lost: the payment accepted before {boundary}"
        assert await ledger_entries(database, payment_id) == ["authorize", "capture"], boundary
        assert received_count(shop, payment_id) in range(1, 3), boundary
    assert {payment.status for payment in await read_all(database)} == {"COMPLETED"}
    await assert_sound(database)
    many = len(journeys) + 1
    rows = await row_counts(database)
    assert (rows["payments"], rows["idempotency_keys"], rows["deliveries"]) == (many,) * 3
    # Completed: no endpoint wants the beginning.
    assert rows["events"] == many
    # The webhook of a process that died between a POST and its record is sent again.
    assert len(shop.requests) > many


async def sent_again(running_api: RunningApi, journey: Journey) -> UUID:
    """Repeat the request with the same key, as a client does that got no answer."""
    async with running_api.user() as client:
        answer = await client.post("/payments", json=journey.body, headers={"Idempotency-Key": journey.key})
    assert answer.status_code == 202, answer.text
    return UUID(answer.json()["id"])


async def everything_ended(database: Database, count: int) -> bool:
    async with database.read() as connection:
        statuses = list((await connection.execute(select(deliveries.c.status))).scalars())
    return statuses == ["delivered"] * count and await are_settled(database, count)


def received_count(shop: Receiver, payment_id: UUID) -> int:
    """Count the webhooks of the payment; all have one id, by which the receiver knows a repetition."""
    received = [request for request in shop.requests if request.event["data"]["payment"]["id"] == str(payment_id)]
    assert len({request.headers["webhook-id"] for request in received}) == 1
    return len(received)
