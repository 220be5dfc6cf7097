"""The claims of deliveries and their end without an attempt, on both databases and with a clock of their own."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from shared.database.engine import Database
from shared.database.leases import CLOCK_SKEW_MAX_S, WorkItem, take_due
from shared.database.tables import deliveries, events
from shared.delivery_lifecycle import DeliveryKind, DeliveryStatus
from shared.ids import new_id
from shared.keyring import Keyring
from shared.webhooks.attempts import Delivered, TryAgain
from shared.webhooks.deliveries import cancel_open, flows_of, release
from shared.webhooks.flows import Flow
from tests.support.deliveries import (
    LEASE_S,
    NOW,
    URL,
    after,
    attempt,
    attempts_of,
    change_endpoint,
    claim,
    claim_one,
    endpoint_with,
    record,
    rows_of,
    success,
)
from tests.support.receivers import complete_and_lease, complete_payments, register

pytest_plugins = ["tests.support.delivery_fixtures"]


# -- claiming


async def test_a_delivery_that_is_inserted_already_leased_is_what_a_claim_would_answer(
    database: Database, keyring: Keyring
) -> None:
    """Endpoint, callback and order service: the worker that records a payment may send at once under this lease."""
    kinds = {"callback_url": "https://shop.example/back", "confirms_orders": True}
    async with database.transaction() as connection:
        await register(connection, keyring, URL, now=NOW)
        written = await complete_and_lease(connection, 1, now=NOW, lease_for_s=LEASE_S, **kinds)
    assert {delivery.kind for delivery in written} == set(DeliveryKind)
    assert [
        (row.status, row.lease_version, row.due_at)
        for row in await rows_of(database, [one.work_item for one in written])
    ] == [("sending", 1, after(LEASE_S))] * 3
    later = after(LEASE_S)
    claimed = await claim(database, [delivery.work_item for delivery in written], now=later)
    assert claimed == [replace(delivery, lease_version=2, claimed_at=later) for delivery in written]
    assert await record(database, *(attempt(delivery, Delivered()) for delivery in written)) == [False] * 3


async def test_a_claim_holds_everything_that_sending_takes(database: Database, keyring: Keyring) -> None:
    endpoint, [item] = await endpoint_with(database, keyring, 1)
    claimed = await claim_one(database, item)
    assert (claimed.id, claimed.lease_version, claimed.retries) == (item.id, 1, 0)
    assert (claimed.kind, claimed.endpoint_id, claimed.url) == (DeliveryKind.ENDPOINT, endpoint.id, URL)
    assert claimed.encrypted_secret is not None
    assert keyring.decrypt(claimed.encrypted_secret) == endpoint.secret
    assert claimed.correlation_id == "order-4711"
    assert claimed.claimed_at == NOW
    [row] = await rows_of(database, [item])
    assert (row.status, row.lease_version, row.due_at) == (DeliveryStatus.SENDING, 1, after(LEASE_S))
    async with database.read() as connection:
        body = (await connection.execute(select(events.c.body).where(events.c.id == row.event_id))).scalar_one()
    assert claimed.body == body.encode()


async def test_a_callback_is_claimed_with_its_own_url_and_the_owner_whose_secret_signs_it(database: Database) -> None:
    async with database.transaction() as connection:
        [item] = await complete_payments(connection, 1, now=NOW, callback_url="https://me.example/cb")
    claimed = await claim_one(database, item)
    assert (claimed.kind, claimed.url, claimed.owner) == (DeliveryKind.CALLBACK, "https://me.example/cb", "user:1")
    assert (claimed.encrypted_secret, claimed.endpoint_id) == (None, None)


async def test_claims_are_answered_in_order_with_none_for_stale_unknown_and_repeated_items(
    database: Database, keyring: Keyring
) -> None:
    _, [one, two, ended] = await endpoint_with(database, keyring, 3)
    await record(database, success(await claim_one(database, ended)))
    items = [WorkItem(new_id(), 0), two, WorkItem(one.id, 7), one, two, WorkItem(ended.id, 1), ended]
    claimed = await claim(database, items)
    assert [delivery and delivery.id for delivery in claimed] == [None, two.id, None, one.id, None, None, None]


async def test_of_concurrent_claims_with_one_item_exactly_one_wins(database: Database, keyring: Keyring) -> None:
    _, items = await endpoint_with(database, keyring, 20)
    answers = await asyncio.gather(*(claim(database, items if turn % 2 else items[::-1]) for turn in range(4)))
    won = [delivery.id for batch in answers for delivery in batch if delivery]
    assert sorted(won) == sorted(item.id for item in items)


async def test_a_lease_that_ran_out_is_claimed_again_with_the_next_version(
    database: Database, keyring: Keyring
) -> None:
    _, [item] = await endpoint_with(database, keyring, 1)
    await claim_one(database, item)
    async with database.transaction() as connection:
        assert not await take_due(connection, deliveries, now=after(LEASE_S - 1), limit=10)
        [again] = await take_due(connection, deliveries, now=after(LEASE_S), limit=10)
    assert again == WorkItem(item.id, 1)
    assert (await claim_one(database, again, now=after(LEASE_S))).lease_version == 2


async def test_a_worker_whose_clock_is_behind_the_relays_claims_what_the_relay_brings(
    database: Database, keyring: Keyring
) -> None:
    _, [item] = await endpoint_with(database, keyring, 1)
    async with database.transaction() as connection:
        assert list(await take_due(connection, deliveries, now=after(60), limit=1)) == [item]
    await claim_one(database, item, now=after(60 - CLOCK_SKEW_MAX_S))


async def test_a_late_item_does_not_bring_the_next_try_forward(database: Database, keyring: Keyring) -> None:
    _, [item] = await endpoint_with(database, keyring, 1)
    first = await claim_one(database, item)
    # The lease ran out, the relay published it, and only then did the sender get through with its record.
    late = WorkItem(item.id, first.lease_version)
    await record(database, attempt(first, TryAgain(300)), now=after(LEASE_S + 1))
    assert await claim(database, [late], now=after(LEASE_S + 2)) == [None]
    assert await claim(database, [late], now=after(LEASE_S + 301)) != [None]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [({"enabled": False}, "the endpoint is disabled"), ({"deleted_at": NOW}, "the endpoint was deleted")],
)
async def test_an_endpoint_that_closed_before_the_claim_ends_the_delivery(
    database: Database, keyring: Keyring, columns: dict[str, Any], reason: str
) -> None:
    endpoint, [item] = await endpoint_with(database, keyring, 1)
    await change_endpoint(database, endpoint, **columns)
    assert await claim(database, [item]) == [None]
    [row] = await rows_of(database, [item])
    assert (row.status, row.due_at, row.last_error) == (DeliveryStatus.CANCELLED, None, reason)


async def test_flows_are_read_for_open_deliveries_under_their_lease_version(
    database: Database, keyring: Keyring
) -> None:
    _, [one, ended] = await endpoint_with(database, keyring, 2)
    async with database.transaction() as connection:
        [_, callback] = await complete_payments(connection, 1, now=NOW, callback_url="http://[2001:DB8::1]:8080/x")
    await record(database, success(await claim_one(database, ended)))
    async with database.read() as connection:
        flows = await flows_of(connection, [callback, one, WorkItem(one.id, 3), WorkItem(ended.id, 1), one])
        assert await flows_of(connection, []) == []
    [endpoint_id] = {row.endpoint_id for row in await rows_of(database, [one])}
    assert flows == [
        (callback, Flow("http://2001:db8::1:8080", "user:1", "user:1")),
        (one, Flow("https://shop.example:443", str(endpoint_id), "service:shop")),
    ]


# -- releasing and ending


async def test_a_released_delivery_is_due_at_once_and_uncounted(database: Database, keyring: Keyring) -> None:
    _, [item, ended] = await endpoint_with(database, keyring, 2)
    delivery, other = await claim_one(database, item), await claim_one(database, ended)
    await record(database, success(other))
    async with database.transaction() as connection:
        assert await release(connection, after(1), [delivery.work_item, other.work_item, WorkItem(new_id(), 1)]) == 1
    [row, ended_row] = await rows_of(database, [item, ended])
    assert (row.status, row.due_at, row.retries, row.attempts_total) == (DeliveryStatus.PENDING, after(1), 0, 0)
    assert ended_row.status == DeliveryStatus.DELIVERED
    assert await attempts_of(database, item.id) == []
    assert (await claim_one(database, delivery.work_item, now=after(1))).lease_version == 2


async def test_a_claim_that_was_lost_cannot_be_released(database: Database, keyring: Keyring) -> None:
    _, [item] = await endpoint_with(database, keyring, 1)
    first = await claim_one(database, item)
    await claim_one(database, first.work_item, now=after(LEASE_S))
    async with database.transaction() as connection:
        assert await release(connection, after(LEASE_S), [first.work_item]) == 0


async def test_cancelling_ends_what_is_open_at_this_endpoint_only(database: Database, keyring: Keyring) -> None:
    endpoint, [waiting, delivered, sending] = await endpoint_with(database, keyring, 3)
    _, [elsewhere] = await endpoint_with(database, keyring, 1)
    await record(database, success(await claim_one(database, delivered)))
    await claim_one(database, sending)
    of_endpoint = deliveries.c.endpoint_id == endpoint.id
    async with database.transaction() as connection:
        # Two of these three, and one that came with the second endpoint's payment.
        assert await cancel_open(connection, after(1), "the endpoint was deleted", of_endpoint) == 3
    rows = await rows_of(database, [waiting, delivered, sending, elsewhere])
    assert [row.status for row in rows] == ["cancelled", "delivered", "cancelled", "pending"]
    assert (rows[0].last_error, rows[0].due_at, rows[0].updated_at) == ("the endpoint was deleted", None, after(1))
