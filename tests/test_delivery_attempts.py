"""The record of an attempt, in the log and on its delivery, on both databases and with a clock of its own."""

import asyncio
from dataclasses import replace

from sqlalchemy import insert

from shared.database.engine import Database
from shared.database.leases import WorkItem
from shared.database.tables import ERROR_CHARS_MAX, deliveries
from shared.delivery_lifecycle import DeliveryStatus
from shared.ids import new_id
from shared.keyring import Keyring
from shared.webhooks.attempts import (
    RESPONSE_BYTES_MAX,
    AttemptOutcome,
    Delivered,
    Exhausted,
    Gone,
    TryAgain,
)
from tests.support.deliveries import (
    LEASE_S,
    NOW,
    after,
    attempt,
    attempts_of,
    claim,
    claim_one,
    endpoint_row,
    endpoint_with,
    record,
    rows_of,
    success,
)
from tests.support.receivers import delivery_rows

pytest_plugins = ["tests.support.delivery_fixtures"]


async def test_a_delivered_attempt_ends_the_delivery(database: Database, keyring: Keyring) -> None:
    _, [item] = await endpoint_with(database, keyring, 1)
    delivery = await claim_one(database, item)
    assert await record(database, success(delivery), now=after(1)) == [True]
    [row] = await rows_of(database, [item])
    assert (row.status, row.due_at, row.last_error) == (DeliveryStatus.DELIVERED, None, None)
    assert (row.retries, row.attempts_total, row.delivered_at, row.updated_at) == (1, 1, after(1), after(1))
    [logged] = await attempts_of(database, item.id)
    assert (logged.number, logged.started_at, logged.duration_ms) == (1, NOW, 12)
    assert (logged.status_code, logged.error, logged.response_body) == (200, None, "")


async def test_a_failed_attempt_is_due_again_after_its_wait(database: Database, keyring: Keyring) -> None:
    _, [item] = await endpoint_with(database, keyring, 1)
    await record(database, attempt(await claim_one(database, item), TryAgain(300)), now=after(1))
    [row] = await rows_of(database, [item])
    assert (row.status, row.due_at, row.delivered_at) == (DeliveryStatus.PENDING, after(301), None)
    assert (row.retries, row.attempts_total, row.lease_version) == (1, 1, 1)
    assert row.last_error == "the receiver answered 500"


async def test_an_exhausted_delivery_is_never_due(database: Database, keyring: Keyring) -> None:
    _, [item] = await endpoint_with(database, keyring, 1)
    no_answer = attempt(await claim_one(database, item), Exhausted(), status_code=None, error="no answer in time")
    await record(database, no_answer)
    [row] = await rows_of(database, [item])
    assert (row.status, row.due_at, row.last_error) == (DeliveryStatus.EXHAUSTED, None, "no answer in time")


async def test_attempts_are_numbered_over_all_claims(database: Database, keyring: Keyring) -> None:
    _, [item] = await endpoint_with(database, keyring, 1)
    for turn in range(3):
        outcome = Delivered() if turn == 2 else TryAgain(0)
        await record(database, attempt(await claim_one(database, WorkItem(item.id, turn)), outcome))
    assert [row.number for row in await attempts_of(database, item.id)] == [1, 2, 3]


async def test_a_batch_records_each_delivery_with_its_own_outcome(database: Database, keyring: Keyring) -> None:
    _, items = await endpoint_with(database, keyring, 3)
    claimed = [delivery for delivery in await claim(database, items) if delivery]
    outcomes: list[AttemptOutcome] = [Delivered(), TryAgain(60), Exhausted()]
    batch = [attempt(delivery, outcome) for delivery, outcome in zip(claimed, outcomes, strict=True)]
    stale = attempt(replace(claimed[0], lease_version=9), Exhausted())
    assert await record(database, batch[2], stale, batch[0], batch[1]) == [True, False, True, True]
    assert [row.status for row in await rows_of(database, items)] == ["delivered", "pending", "exhausted"]


async def test_a_record_after_the_lease_was_lost_changes_nothing(database: Database, keyring: Keyring) -> None:
    endpoint, [item] = await endpoint_with(database, keyring, 1)
    first = await claim_one(database, item)
    second = await claim_one(database, WorkItem(item.id, 1), now=after(LEASE_S))
    assert await record(database, attempt(first, Gone(), status_code=410), now=after(LEASE_S + 1)) == [False]
    [row] = await rows_of(database, [item])
    assert (row.status, row.lease_version, row.attempts_total) == (DeliveryStatus.SENDING, 2, 0)
    assert await attempts_of(database, item.id) == []
    assert (await endpoint_row(database, endpoint)).enabled
    assert await record(database, success(second), now=after(LEASE_S + 2)) == [True]


async def test_the_same_record_twice_counts_once(database: Database, keyring: Keyring) -> None:
    _, [item] = await endpoint_with(database, keyring, 1)
    failed = attempt(await claim_one(database, item), TryAgain(5))
    assert await record(database, failed) == [True]
    # The answer to the first COMMIT was lost.
    assert await record(database, failed) == [False]
    assert len(await attempts_of(database, item.id)) == 1


async def test_what_a_receiver_says_is_stored_as_text_that_every_database_takes(
    database: Database, keyring: Keyring
) -> None:
    _, [item] = await endpoint_with(database, keyring, 1)
    said = "Grüße\0".encode() + b"\xff" + b"x" * RESPONSE_BYTES_MAX
    odd = attempt(await claim_one(database, item), TryAgain(5), error="\ud800\0" + "e" * 400, body=said)
    assert await record(database, odd) == [True]
    [logged] = await attempts_of(database, item.id)
    assert logged.response_body.startswith("Grüße\ufffd\ufffdxxx")
    assert len(logged.response_body.encode()) == RESPONSE_BYTES_MAX
    assert logged.error.startswith("?\ufffdeee")
    assert len(logged.error) == ERROR_CHARS_MAX


async def test_a_gone_endpoint_is_disabled_and_its_open_deliveries_end(database: Database, keyring: Keyring) -> None:
    endpoint, [gone, waiting, sending] = await endpoint_with(database, keyring, 3)
    other, [other_item] = await endpoint_with(database, keyring, 1)
    delivery = await claim_one(database, gone)
    being_sent = await claim_one(database, sending)
    await record(database, attempt(delivery, Gone(), status_code=410, error="410"), now=after(1))
    rows = await rows_of(database, [gone, waiting, sending, other_item])
    assert [row.status for row in rows] == ["exhausted", "cancelled", "cancelled", "pending"]
    assert [row.due_at is None for row in rows] == [True, True, True, False]
    row = await endpoint_row(database, endpoint)
    assert (row.enabled, row.disabled_reason) == (False, "the receiver answered 410 Gone")
    assert (await endpoint_row(database, other)).enabled
    assert len(await attempts_of(database, gone.id)) == 1
    # The receiver has accepted the other one all the same.
    assert await record(database, success(being_sent)) == [True]
    assert [row.status for row in await rows_of(database, [sending])] == ["delivered"]


async def test_a_gone_callback_ends_only_that_payments_callbacks(database: Database, keyring: Keyring) -> None:
    _, [item] = await endpoint_with(database, keyring, 1)
    [callback, other_payment, second_callback] = [new_id() for _ in range(3)]
    async with database.transaction() as connection:
        [row] = await delivery_rows(connection, [item])
        base = {**row._asdict(), "kind": "callback", "endpoint_id": None, "url": "https://me.example"}
        await connection.execute(
            insert(deliveries),
            [
                {**base, "id": callback},
                {**base, "id": second_callback, "event_id": new_id()},
                {**base, "id": other_payment, "event_id": new_id(), "payment_id": new_id()},
            ],
        )
    await record(database, attempt(await claim_one(database, WorkItem(callback, 0)), Gone(), status_code=410))
    ids = [callback, second_callback, other_payment, item.id]
    rows = await rows_of(database, [WorkItem(delivery_id, 0) for delivery_id in ids])
    assert [row.status for row in rows] == ["exhausted", "cancelled", "pending", "pending"]


async def test_two_batches_that_learn_of_the_same_gone_endpoint_do_not_deadlock(
    database: Database, keyring: Keyring
) -> None:
    _, items = await endpoint_with(database, keyring, 40)
    gone = [attempt(delivery, Gone(), status_code=410) for delivery in await claim(database, items) if delivery]
    await asyncio.gather(record(database, *gone[::2]), record(database, *gone[1::2]))
    statuses = [row.status for row in await rows_of(database, items)]
    assert set(statuses) == {"exhausted", "cancelled"}
    assert statuses.count("exhausted") == 20
