"""Deliveries as clients see them, and sending one again, on both databases."""

from uuid import UUID

import pytest
from sqlalchemy import event, insert, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.engine import Database
from shared.database.leases import WorkItem
from shared.database.tables import deliveries, delivery_attempts
from shared.delivery_lifecycle import DeliveryStatus
from shared.errors import DeliveryInProgress, EndpointDeleted, EndpointDisabled
from shared.event_types import EventType
from shared.ids import new_id
from shared.keyring import Keyring
from shared.webhooks.attempts import AttemptOutcome, Delivered, Exhausted, TryAgain
from shared.webhooks.delivery_log import (
    ATTEMPTS_SHOWN_MAX,
    Delivery,
    deliveries_of_endpoint,
    deliveries_of_payment,
    find_delivery,
)
from shared.webhooks.resend import resend
from tests.support.deliveries import (
    LEASE_S,
    NOW,
    URL,
    after,
    attempt,
    change_endpoint,
    claim,
    claim_one,
    endpoint_with,
    record,
    rows_of,
    success,
)
from tests.support.receivers import complete_payments, delivery_rows

pytest_plugins = ["tests.support.delivery_fixtures"]


# -- sending again


@pytest.mark.parametrize("outcome", [Delivered(), Exhausted(), TryAgain(300)])
async def test_resending_starts_a_fresh_schedule_at_once(
    database: Database, keyring: Keyring, outcome: AttemptOutcome
) -> None:
    _, [item] = await endpoint_with(database, keyring, 1)
    await record(database, attempt(await claim_one(database, item), outcome), now=after(1))
    async with database.transaction() as connection:
        assert await resend(connection, after(2), item.id) == WorkItem(item.id, 1)
    [row] = await rows_of(database, [item])
    assert (row.status, row.retries, row.due_at, row.attempts_total) == (DeliveryStatus.PENDING, 0, after(2), 1)
    assert row.delivered_at == (after(1) if outcome == Delivered() else None)
    again = await claim_one(database, WorkItem(item.id, 1), now=after(2))
    assert (again.id, again.retries) == (item.id, 0)
    [row] = await rows_of(database, [item])
    assert row.attempts_total == 1


async def test_a_delivery_that_is_being_sent_is_not_resent_until_its_lease_ends(
    database: Database, keyring: Keyring
) -> None:
    _, [item] = await endpoint_with(database, keyring, 1)
    delivery = await claim_one(database, item)
    async with database.transaction() as connection:
        with pytest.raises(DeliveryInProgress):
            await resend(connection, after(LEASE_S - 1), item.id)
        assert await resend(connection, after(LEASE_S), item.id) == delivery.work_item
    assert await record(database, success(delivery), now=after(LEASE_S + 1)) == [False]


async def test_resending_needs_an_endpoint_that_is_open(database: Database, keyring: Keyring) -> None:
    endpoint, [item] = await endpoint_with(database, keyring, 1)
    await change_endpoint(database, endpoint, enabled=False)
    async with database.transaction() as connection:
        with pytest.raises(EndpointDisabled):
            await resend(connection, NOW, item.id)
    await change_endpoint(database, endpoint, deleted_at=NOW)
    async with database.transaction() as connection:
        with pytest.raises(EndpointDeleted, match="the endpoint is gone"):
            await resend(connection, NOW, item.id)
        assert await resend(connection, NOW, new_id()) is None


# -- reading


async def test_the_json_of_a_delivery(database: Database, keyring: Keyring) -> None:
    endpoint, [item] = await endpoint_with(database, keyring, 1, name="Orders")
    first = attempt(await claim_one(database, item), TryAgain(300), body=b"oops")
    await record(database, first, now=after(1))
    [row] = await rows_of(database, [item])
    async with database.read() as connection:
        found = await find_delivery(connection, item.id, with_bodies=True)
        [listed] = (await deliveries_of_payment(connection, row.payment_id, limit=10, after_id=None)).deliveries
    assert found is not None
    assert (found.endpoint_created_by, found.payment_created_by) == ("service:shop", "user:1")
    expected = {
        "id": str(item.id),
        "event_id": str(row.event_id),
        "event_type": "payment.completed",
        "payment_id": str(first.delivery.payment_id),
        "kind": "endpoint",
        "endpoint_id": str(endpoint.id),
        "endpoint_name": "Orders",
        "status": "pending",
        "tries": 1,
        "next_attempt_at": "2026-01-02T03:09:06.678Z",
        "last_error": "the receiver answered 500",
        "created_at": "2026-01-02T03:04:05.678Z",
        "updated_at": "2026-01-02T03:04:06.678Z",
        "delivered_at": None,
        "attempts": [
            {
                "number": 1,
                "started_at": "2026-01-02T03:04:05.678Z",
                "duration_ms": 12,
                "status_code": 500,
                "error": "the receiver answered 500",
            }
        ],
    }
    assert found.to_json() == listed.to_json() == expected
    expected["url"] = expected["attempts"][0]["url"] = URL  # type: ignore[index]
    assert found.to_json(with_url=True) == listed.to_json(with_url=True) == expected
    expected["attempts"][0]["response_body"] = "oops"  # type: ignore[index]
    assert found.to_json(with_url=True, with_bodies=True) == expected


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        ("could not connect: Connect call failed ('10.9.9.2', 5432)", "could not connect: Connect call failed"),
        ("TLS failed: certificate is not valid for 'localhost'.", "TLS failed: certificate is not valid."),
        ("the receiver answered 500", "the receiver answered 500"),
    ],
)
async def test_an_old_error_names_no_address_to_those_who_may_not_see_the_url(
    database: Database, keyring: Keyring, stored: str, shown: str
) -> None:
    _, [item] = await endpoint_with(database, keyring, 1)
    await record(database, attempt(await claim_one(database, item), TryAgain(300), error=stored))
    async with database.read() as connection:
        found = await find_delivery(connection, item.id)
    assert found is not None
    for with_url, text in ((False, shown), (True, stored)):
        delivery = found.to_json(with_url=with_url)
        assert (delivery["last_error"], delivery["attempts"][0]["error"]) == (text, text)


async def test_a_delivery_that_is_being_sent_names_no_next_attempt(database: Database, keyring: Keyring) -> None:
    _, [item] = await endpoint_with(database, keyring, 1)
    await claim_one(database, item)
    async with database.read() as connection:
        found = await find_delivery(connection, item.id)
        assert await find_delivery(connection, new_id()) is None
    assert found is not None
    assert (found.to_json()["status"], found.to_json()["next_attempt_at"]) == ("sending", None)


async def test_a_payments_deliveries_are_its_callback_and_its_endpoints(database: Database, keyring: Keyring) -> None:
    await endpoint_with(database, keyring, 1)
    async with database.transaction() as connection:
        items = await complete_payments(connection, 1, now=NOW, callback_url="https://me.example/cb")
        [row, _] = await delivery_rows(connection, items)
        page = await deliveries_of_payment(connection, row.payment_id, limit=10, after_id=None)
    found = page.deliveries
    assert [(delivery.kind, delivery.endpoint_name, delivery.url) for delivery in found] == [
        ("endpoint", "shop", URL),
        ("callback", None, "https://me.example/cb"),
    ]
    assert {delivery.event_type for delivery in found} == {EventType.COMPLETED}


async def test_an_endpoints_deliveries_are_paged_from_the_newest_and_filtered(
    database: Database, keyring: Keyring
) -> None:
    endpoint, items = await endpoint_with(database, keyring, 5)
    await record(database, success(await claim_one(database, items[1])))
    newest_first = [item.id for item in sorted(items, reverse=True)]
    async with database.read() as connection:
        page = await _page(connection, endpoint.id, limit=2)
        older = await _page(connection, endpoint.id, before_id=page[-1].id)
        delivered = await _page(connection, endpoint.id, status=DeliveryStatus.DELIVERED)
        assert await _page(connection, new_id()) == []
    assert [delivery.id for delivery in page + older] == newest_first
    assert [delivery.id for delivery in delivered] == [items[1].id]


async def test_a_list_takes_two_statements_however_long_it_is(database: Database, keyring: Keyring) -> None:
    endpoint, items = await endpoint_with(database, keyring, 20)
    claimed = [delivery for delivery in await claim(database, items) if delivery]
    await record(database, *(attempt(delivery, TryAgain(5)) for delivery in claimed))
    statements: list[str] = []
    async with database.read() as connection:
        event.listen(connection.sync_connection, "before_cursor_execute", lambda *args: statements.append(args[2]))
        found = await _page(connection, endpoint.id)
    assert [len(delivery.attempts) for delivery in found] == [1] * 20
    assert len([statement for statement in statements if statement.startswith("SELECT")]) == 2


async def test_only_the_latest_attempts_are_shown(database: Database, keyring: Keyring) -> None:
    _, [item] = await endpoint_with(database, keyring, 1)
    await _pretend_attempts(database, item, ATTEMPTS_SHOWN_MAX + 5)
    async with database.read() as connection:
        found = await find_delivery(connection, item.id)
    assert found is not None
    assert [shown.number for shown in found.attempts] == list(range(6, ATTEMPTS_SHOWN_MAX + 6))


async def _page(
    connection: AsyncConnection,
    endpoint_id: UUID,
    *,
    status: DeliveryStatus | None = None,
    limit: int = 50,
    before_id: UUID | None = None,
) -> list[Delivery]:
    found = await deliveries_of_endpoint(connection, endpoint_id, status, limit=limit, before_id=before_id)
    return found.deliveries


async def _pretend_attempts(database: Database, item: WorkItem, count: int) -> None:
    rows = [
        {"delivery_id": item.id, "number": number, "started_at": NOW, "duration_ms": 1}
        for number in range(1, count + 1)
    ]
    async with database.transaction() as connection:
        await connection.execute(insert(delivery_attempts), rows)
        await connection.execute(update(deliveries).where(deliveries.c.id == item.id).values(attempts_total=count))
