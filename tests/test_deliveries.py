"""The verbs that change a delivery, on both databases and with a clock of their own."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.config import Settings
from shared.db import Database
from shared.deliveries import (
    ERROR_CHARS_MAX,
    RESPONSE_BYTES_MAX,
    ClaimedDelivery,
    Delivered,
    DeliveryAttempt,
    Exhausted,
    Gone,
    Outcome,
    TryAgain,
    cancel_open,
    claim_deliveries,
    hosts_of,
    record_attempts,
    release,
    resend,
)
from shared.delivery_log import (
    ATTEMPTS_SHOWN_MAX,
    deliveries_of_endpoint,
    deliveries_of_payment,
    find_delivery,
)
from shared.errors import DeliveryInProgress, EndpointDisabled
from shared.ids import new_id
from shared.leases import CLOCKS_APART_S, Ref, take_due
from shared.lifecycle import DeliveryKind, DeliveryStatus, EventType
from shared.models import deliveries, delivery_attempts, events, webhook_endpoints
from shared.vault import Vault, open_vault
from tests.receivers import Endpoint, complete_and_claim, complete_payments, delivery_rows, register

NOW = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)
LEASE_S = 30
URL = "https://shop.example/hooks?token=1"


@pytest.fixture
def vault(settings: Settings) -> Vault:
    return open_vault(settings)


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


async def endpoint_with(database: Database, vault: Vault, count: int, **columns: Any) -> tuple[Endpoint, list[Ref]]:
    """An endpoint and `count` new deliveries to it."""
    async with database.transaction() as connection:
        endpoint = await register(connection, vault, URL, now=NOW, **columns)
        rows = await delivery_rows(connection, await complete_payments(connection, count, now=NOW))
        return endpoint, [Ref(row.id, row.attempt) for row in rows if row.endpoint_id == endpoint.id]


async def claim(database: Database, refs: Sequence[Ref], *, now: datetime = NOW) -> list[ClaimedDelivery | None]:
    async with database.transaction() as connection:
        return await claim_deliveries(connection, now, refs, lease_s=LEASE_S)


async def claim_one(database: Database, ref: Ref, *, now: datetime = NOW) -> ClaimedDelivery:
    [claimed] = await claim(database, [ref], now=now)
    assert claimed is not None
    return claimed


async def record(database: Database, *attempts: DeliveryAttempt, now: datetime = NOW) -> list[bool]:
    async with database.transaction() as connection:
        return await record_attempts(connection, now, attempts)


async def rows_of(database: Database, refs: Sequence[Ref]) -> list[Any]:
    async with database.read() as connection:
        return await delivery_rows(connection, refs)


async def attempts_of(database: Database, delivery_id: UUID) -> list[Any]:
    async with database.read() as connection:
        found = await connection.execute(
            select(delivery_attempts)
            .where(delivery_attempts.c.delivery_id == delivery_id)
            .order_by(delivery_attempts.c.number)
        )
        return list(found)


async def endpoint_row(database: Database, endpoint: Endpoint) -> Any:
    async with database.read() as connection:
        found = await connection.execute(select(webhook_endpoints).where(webhook_endpoints.c.id == endpoint.id))
        return found.one()


async def change_endpoint(database: Database, endpoint: Endpoint, **columns: Any) -> None:
    async with database.transaction() as connection:
        await connection.execute(
            update(webhook_endpoints).where(webhook_endpoints.c.id == endpoint.id).values(**columns)
        )


def attempt(
    delivery: ClaimedDelivery,
    outcome: Outcome,
    *,
    status_code: int | None = 500,
    error: str | None = "the receiver answered 500",
    body: bytes = b"",
) -> DeliveryAttempt:
    return DeliveryAttempt(
        delivery=delivery, outcome=outcome, duration_ms=12, status_code=status_code, error=error, response_body=body
    )


def success(delivery: ClaimedDelivery) -> DeliveryAttempt:
    return attempt(delivery, Delivered(), status_code=200, error=None)


# -- claiming


async def test_a_delivery_that_is_written_as_claimed_is_what_a_claim_would_answer(
    database: Database, vault: Vault
) -> None:
    """Endpoint, callback and order service: whoever records a payment may send at once under the same fence."""
    kinds = {"callback_url": "https://shop.example/back", "confirms_orders": True}
    async with database.transaction() as connection:
        await register(connection, vault, URL, now=NOW)
        written = await complete_and_claim(connection, 1, now=NOW, claim_for_s=LEASE_S, **kinds)
    assert {delivery.kind for delivery in written} == set(DeliveryKind)
    assert [(row.status, row.attempt, row.due_at) for row in await rows_of(database, [one.ref for one in written])] == [
        ("sending", 1, after(LEASE_S))
    ] * 3
    later = after(LEASE_S)
    claimed = await claim(database, [delivery.ref for delivery in written], now=later)
    assert claimed == [
        replace(delivery, attempt=2, claimed_at=later, lease_until=after(2 * LEASE_S)) for delivery in written
    ]
    assert await record(database, *(attempt(delivery, Delivered()) for delivery in written)) == [False] * 3


async def test_a_claim_holds_everything_that_sending_takes(database: Database, vault: Vault) -> None:
    endpoint, [ref] = await endpoint_with(database, vault, 1)
    claimed = await claim_one(database, ref)
    assert (claimed.id, claimed.attempt, claimed.tries, claimed.attempts_made) == (ref.id, 1, 0, 0)
    assert (claimed.kind, claimed.endpoint_id, claimed.url) == (DeliveryKind.ENDPOINT, endpoint.id, URL)
    assert claimed.encrypted_secret is not None
    assert vault.decrypt(claimed.encrypted_secret) == endpoint.secret
    assert claimed.correlation_id == "order-4711"
    assert (claimed.claimed_at, claimed.lease_until) == (NOW, after(LEASE_S))
    async with database.read() as connection:
        body = (await connection.execute(select(events.c.body).where(events.c.id == claimed.event_id))).scalar_one()
    assert claimed.body == body.encode()
    [row] = await rows_of(database, [ref])
    assert (row.status, row.attempt, row.due_at) == (DeliveryStatus.SENDING, 1, after(LEASE_S))


async def test_a_callback_is_claimed_with_its_own_url_and_the_owner_whose_secret_signs_it(database: Database) -> None:
    async with database.transaction() as connection:
        [ref] = await complete_payments(connection, 1, now=NOW, callback_url="https://me.example/cb")
    claimed = await claim_one(database, ref)
    assert (claimed.kind, claimed.url, claimed.owner) == (DeliveryKind.CALLBACK, "https://me.example/cb", "user:1")
    assert (claimed.encrypted_secret, claimed.endpoint_id) == (None, None)


async def test_claims_are_answered_in_order_with_none_for_stale_unknown_and_repeated_tickets(
    database: Database, vault: Vault
) -> None:
    _, [one, two, ended] = await endpoint_with(database, vault, 3)
    await record(database, success(await claim_one(database, ended)))
    tickets = [Ref(new_id(), 0), two, Ref(one.id, 7), one, two, Ref(ended.id, 1), ended]
    claimed = await claim(database, tickets)
    assert [delivery and delivery.id for delivery in claimed] == [None, two.id, None, one.id, None, None, None]


async def test_of_concurrent_claims_with_one_ticket_exactly_one_wins(database: Database, vault: Vault) -> None:
    _, refs = await endpoint_with(database, vault, 20)
    answers = await asyncio.gather(*(claim(database, refs if turn % 2 else refs[::-1]) for turn in range(4)))
    won = [delivery.id for batch in answers for delivery in batch if delivery]
    assert sorted(won) == sorted(ref.id for ref in refs)


async def test_a_lease_that_ran_out_is_claimed_again_with_the_next_attempt(database: Database, vault: Vault) -> None:
    _, [ref] = await endpoint_with(database, vault, 1)
    await claim_one(database, ref)
    async with database.transaction() as connection:
        assert await take_due(connection, deliveries, now=after(LEASE_S - 1), limit=10) == []
        [again] = await take_due(connection, deliveries, now=after(LEASE_S), limit=10)
    assert again == Ref(ref.id, 1)
    assert (await claim_one(database, again, now=after(LEASE_S))).attempt == 2


async def test_a_worker_whose_clock_is_behind_the_relays_claims_what_the_relay_brings(
    database: Database, vault: Vault
) -> None:
    _, [ref] = await endpoint_with(database, vault, 1)
    async with database.transaction() as connection:
        assert await take_due(connection, deliveries, now=after(60), limit=1) == [ref]
    await claim_one(database, ref, now=after(60 - CLOCKS_APART_S))


async def test_a_late_ticket_does_not_bring_the_next_try_forward(database: Database, vault: Vault) -> None:
    _, [ref] = await endpoint_with(database, vault, 1)
    first = await claim_one(database, ref)
    # The lease ran out, the relay wrote a ticket, and only then did the sender get through with its record.
    late = Ref(ref.id, first.attempt)
    await record(database, attempt(first, TryAgain(300)), now=after(LEASE_S + 1))
    assert await claim(database, [late], now=after(LEASE_S + 2)) == [None]
    assert await claim(database, [late], now=after(LEASE_S + 301)) != [None]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [({"enabled": False}, "the endpoint is disabled"), ({"deleted_at": NOW}, "the endpoint was deleted")],
)
async def test_an_endpoint_that_closed_before_the_claim_ends_the_delivery(
    database: Database, vault: Vault, columns: dict[str, Any], reason: str
) -> None:
    endpoint, [ref] = await endpoint_with(database, vault, 1)
    await change_endpoint(database, endpoint, **columns)
    assert await claim(database, [ref]) == [None]
    [row] = await rows_of(database, [ref])
    assert (row.status, row.due_at, row.last_error) == (DeliveryStatus.CANCELLED, None, reason)


async def test_hosts_are_read_for_open_deliveries_under_their_attempt(database: Database, vault: Vault) -> None:
    _, [one, ended] = await endpoint_with(database, vault, 2)
    async with database.transaction() as connection:
        [_, callback] = await complete_payments(connection, 1, now=NOW, callback_url="http://[2001:DB8::1]:8080/x")
    await record(database, success(await claim_one(database, ended)))
    async with database.read() as connection:
        hosts = await hosts_of(connection, [callback, one, Ref(one.id, 3), Ref(ended.id, 1), one])
        assert await hosts_of(connection, []) == []
    assert hosts == [(callback, "http://2001:db8::1:8080"), (one, "https://shop.example:443")]


# -- recording


async def test_a_delivered_attempt_ends_the_delivery(database: Database, vault: Vault) -> None:
    _, [ref] = await endpoint_with(database, vault, 1)
    delivery = await claim_one(database, ref)
    assert await record(database, success(delivery), now=after(1)) == [True]
    [row] = await rows_of(database, [ref])
    assert (row.status, row.due_at, row.last_error) == (DeliveryStatus.DELIVERED, None, None)
    assert (row.tries, row.attempts_made, row.delivered_at, row.updated_at) == (1, 1, after(1), after(1))
    [logged] = await attempts_of(database, ref.id)
    assert (logged.number, logged.started_at, logged.duration_ms) == (1, NOW, 12)
    assert (logged.status_code, logged.error, logged.response_body) == (200, None, "")


async def test_a_failed_attempt_is_due_again_after_its_wait(database: Database, vault: Vault) -> None:
    _, [ref] = await endpoint_with(database, vault, 1)
    await record(database, attempt(await claim_one(database, ref), TryAgain(300)), now=after(1))
    [row] = await rows_of(database, [ref])
    assert (row.status, row.due_at, row.delivered_at) == (DeliveryStatus.PENDING, after(301), None)
    assert (row.tries, row.attempts_made, row.attempt) == (1, 1, 1)
    assert row.last_error == "the receiver answered 500"


async def test_an_exhausted_delivery_is_never_due(database: Database, vault: Vault) -> None:
    _, [ref] = await endpoint_with(database, vault, 1)
    no_answer = attempt(await claim_one(database, ref), Exhausted(), status_code=None, error="no answer in time")
    await record(database, no_answer)
    [row] = await rows_of(database, [ref])
    assert (row.status, row.due_at, row.last_error) == (DeliveryStatus.EXHAUSTED, None, "no answer in time")


async def test_attempts_are_numbered_over_all_claims(database: Database, vault: Vault) -> None:
    _, [ref] = await endpoint_with(database, vault, 1)
    for turn in range(3):
        outcome = Delivered() if turn == 2 else TryAgain(0)
        await record(database, attempt(await claim_one(database, Ref(ref.id, turn)), outcome))
    assert [row.number for row in await attempts_of(database, ref.id)] == [1, 2, 3]


async def test_a_batch_records_each_delivery_with_its_own_outcome(database: Database, vault: Vault) -> None:
    _, refs = await endpoint_with(database, vault, 3)
    claimed = [delivery for delivery in await claim(database, refs) if delivery]
    outcomes: list[Outcome] = [Delivered(), TryAgain(60), Exhausted()]
    batch = [attempt(delivery, outcome) for delivery, outcome in zip(claimed, outcomes, strict=True)]
    stale = attempt(await _stale(claimed[0]), Exhausted())
    assert await record(database, batch[2], stale, batch[0], batch[1]) == [True, False, True, True]
    assert [row.status for row in await rows_of(database, refs)] == ["delivered", "pending", "exhausted"]


async def _stale(delivery: ClaimedDelivery) -> ClaimedDelivery:
    return ClaimedDelivery(**{name: getattr(delivery, name) for name in delivery.__slots__} | {"attempt": 9})


async def test_a_record_after_the_lease_was_lost_changes_nothing(database: Database, vault: Vault) -> None:
    endpoint, [ref] = await endpoint_with(database, vault, 1)
    first = await claim_one(database, ref)
    second = await claim_one(database, Ref(ref.id, 1), now=after(LEASE_S))
    assert await record(database, attempt(first, Gone(), status_code=410), now=after(LEASE_S + 1)) == [False]
    [row] = await rows_of(database, [ref])
    assert (row.status, row.attempt, row.attempts_made) == (DeliveryStatus.SENDING, 2, 0)
    assert await attempts_of(database, ref.id) == []
    assert (await endpoint_row(database, endpoint)).enabled
    assert await record(database, success(second), now=after(LEASE_S + 2)) == [True]


async def test_the_same_record_twice_counts_once(database: Database, vault: Vault) -> None:
    _, [ref] = await endpoint_with(database, vault, 1)
    failed = attempt(await claim_one(database, ref), TryAgain(5))
    assert await record(database, failed) == [True]
    assert await record(database, failed) == [False]  # the answer to the first COMMIT was lost
    assert len(await attempts_of(database, ref.id)) == 1


async def test_what_a_receiver_says_is_stored_as_text_that_every_database_takes(
    database: Database, vault: Vault
) -> None:
    _, [ref] = await endpoint_with(database, vault, 1)
    said = "Grüße\0".encode() + b"\xff" + b"x" * RESPONSE_BYTES_MAX
    odd = attempt(await claim_one(database, ref), TryAgain(5), error="\ud800\0" + "e" * 400, body=said)
    assert await record(database, odd) == [True]
    [logged] = await attempts_of(database, ref.id)
    assert logged.response_body.startswith("Grüße\ufffd\ufffdxxx")
    assert len(logged.response_body.encode("utf-8", "replace")) <= RESPONSE_BYTES_MAX + 2 * 2
    assert logged.error.startswith("?\ufffdeee")
    assert len(logged.error) == ERROR_CHARS_MAX


async def test_a_gone_endpoint_is_disabled_and_its_open_deliveries_end(database: Database, vault: Vault) -> None:
    endpoint, [gone, waiting, sending] = await endpoint_with(database, vault, 3)
    other, [other_ref] = await endpoint_with(database, vault, 1)
    delivery = await claim_one(database, gone)
    being_sent = await claim_one(database, sending)
    await record(database, attempt(delivery, Gone(), status_code=410, error="410"), now=after(1))
    rows = await rows_of(database, [gone, waiting, sending, other_ref])
    assert [row.status for row in rows] == ["exhausted", "cancelled", "cancelled", "pending"]
    assert [row.due_at is None for row in rows] == [True, True, True, False]
    row = await endpoint_row(database, endpoint)
    assert (row.enabled, row.disabled_reason) == (False, "the receiver answered 410 Gone")
    assert (await endpoint_row(database, other)).enabled
    assert len(await attempts_of(database, gone.id)) == 1
    assert await record(database, success(being_sent)) == [False]


async def test_a_gone_callback_ends_only_that_payments_callbacks(database: Database, vault: Vault) -> None:
    _, [ref] = await endpoint_with(database, vault, 1)
    [callback, other_payment, second_callback] = [new_id() for _ in range(3)]
    async with database.transaction() as connection:
        [row] = await delivery_rows(connection, [ref])
        base = {**row._asdict(), "kind": "callback", "endpoint_id": None, "url": "https://me.example"}
        await connection.execute(
            insert(deliveries),
            [
                {**base, "id": callback},
                {**base, "id": second_callback, "event_id": new_id()},
                {**base, "id": other_payment, "event_id": new_id(), "payment_id": new_id()},
            ],
        )
    await record(database, attempt(await claim_one(database, Ref(callback, 0)), Gone(), status_code=410))
    ids = [callback, second_callback, other_payment, ref.id]
    rows = await rows_of(database, [Ref(delivery_id, 0) for delivery_id in ids])
    assert [row.status for row in rows] == ["exhausted", "cancelled", "pending", "pending"]


async def test_two_batches_that_learn_of_the_same_gone_endpoint_do_not_deadlock(
    database: Database, vault: Vault
) -> None:
    _, refs = await endpoint_with(database, vault, 40)
    gone = [attempt(delivery, Gone(), status_code=410) for delivery in await claim(database, refs) if delivery]
    await asyncio.gather(record(database, *gone[::2]), record(database, *gone[1::2]))
    statuses = [row.status for row in await rows_of(database, refs)]
    assert set(statuses) == {"exhausted", "cancelled"}
    assert statuses.count("exhausted") == 20


# -- letting go, sending again, ending


async def test_a_released_delivery_is_due_at_once_and_uncounted(database: Database, vault: Vault) -> None:
    _, [ref, ended] = await endpoint_with(database, vault, 2)
    delivery, other = await claim_one(database, ref), await claim_one(database, ended)
    await record(database, success(other))
    async with database.transaction() as connection:
        assert await release(connection, after(1), [delivery.ref, other.ref, Ref(new_id(), 1)]) == 1
    [row, ended_row] = await rows_of(database, [ref, ended])
    assert (row.status, row.due_at, row.tries, row.attempts_made) == (DeliveryStatus.PENDING, after(1), 0, 0)
    assert ended_row.status == DeliveryStatus.DELIVERED
    assert await attempts_of(database, ref.id) == []
    assert (await claim_one(database, delivery.ref, now=after(1))).attempt == 2


async def test_a_claim_that_was_lost_cannot_be_released(database: Database, vault: Vault) -> None:
    _, [ref] = await endpoint_with(database, vault, 1)
    first = await claim_one(database, ref)
    await claim_one(database, first.ref, now=after(LEASE_S))
    async with database.transaction() as connection:
        assert await release(connection, after(LEASE_S), [first.ref]) == 0


@pytest.mark.parametrize("outcome", [Delivered(), Exhausted(), TryAgain(300)])
async def test_resending_starts_a_fresh_schedule_at_once(database: Database, vault: Vault, outcome: Outcome) -> None:
    _, [ref] = await endpoint_with(database, vault, 1)
    await record(database, attempt(await claim_one(database, ref), outcome), now=after(1))
    async with database.transaction() as connection:
        ticket = await resend(connection, after(2), ref.id)
    assert ticket == Ref(ref.id, 1)
    [row] = await rows_of(database, [ref])
    assert (row.status, row.tries, row.due_at, row.attempts_made) == (DeliveryStatus.PENDING, 0, after(2), 1)
    assert row.delivered_at == (after(1) if outcome == Delivered() else None)
    again = await claim_one(database, ticket, now=after(2))
    assert (again.id, again.tries, again.attempts_made) == (ref.id, 0, 1)


async def test_a_delivery_that_is_being_sent_is_not_resent_until_its_lease_ends(
    database: Database, vault: Vault
) -> None:
    _, [ref] = await endpoint_with(database, vault, 1)
    delivery = await claim_one(database, ref)
    async with database.transaction() as connection:
        with pytest.raises(DeliveryInProgress):
            await resend(connection, after(LEASE_S - 1), ref.id)
        assert await resend(connection, after(LEASE_S), ref.id) == delivery.ref
    assert await record(database, success(delivery), now=after(LEASE_S + 1)) == [False]


async def test_resending_needs_an_endpoint_that_is_open(database: Database, vault: Vault) -> None:
    endpoint, [ref] = await endpoint_with(database, vault, 1)
    await change_endpoint(database, endpoint, enabled=False)
    async with database.transaction() as connection:
        with pytest.raises(EndpointDisabled):
            await resend(connection, NOW, ref.id)
    await change_endpoint(database, endpoint, deleted_at=NOW)
    async with database.transaction() as connection:
        assert await resend(connection, NOW, ref.id) is None
        assert await resend(connection, NOW, new_id()) is None


async def test_cancelling_ends_what_is_open_at_this_endpoint_only(database: Database, vault: Vault) -> None:
    endpoint, [waiting, delivered, sending] = await endpoint_with(database, vault, 3)
    _, [elsewhere] = await endpoint_with(database, vault, 1)
    await record(database, success(await claim_one(database, delivered)))
    await claim_one(database, sending)
    async with database.transaction() as connection:
        open_before = 3  # one of them came with the second endpoint's payment
        assert await cancel_open(connection, after(1), endpoint.id, "the endpoint was deleted") == open_before
    rows = await rows_of(database, [waiting, delivered, sending, elsewhere])
    assert [row.status for row in rows] == ["cancelled", "delivered", "cancelled", "pending"]
    assert (rows[0].last_error, rows[0].due_at, rows[0].updated_at) == ("the endpoint was deleted", None, after(1))


# -- reading


async def test_the_document_of_a_delivery(database: Database, vault: Vault) -> None:
    endpoint, [ref] = await endpoint_with(database, vault, 1, name="Orders")
    first = attempt(await claim_one(database, ref), TryAgain(300), body=b"oops")
    await record(database, first, now=after(1))
    async with database.read() as connection:
        for_owner = await find_delivery(connection, ref.id)
        for_creator = await find_delivery(connection, ref.id, with_bodies=True)
    assert for_owner is not None
    assert for_creator is not None
    assert for_creator.endpoint_created_by == "service:shop"
    expected = {
        "id": str(ref.id),
        "event_id": str(first.delivery.event_id),
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
    assert for_owner.document() == expected
    expected["url"] = URL
    expected["attempts"][0]["response_body"] = "oops"  # type: ignore[index]
    assert for_creator.document(with_url=True) == expected


async def test_a_delivery_that_is_being_sent_names_no_next_attempt(database: Database, vault: Vault) -> None:
    _, [ref] = await endpoint_with(database, vault, 1)
    await claim_one(database, ref)
    async with database.read() as connection:
        found = await find_delivery(connection, ref.id)
        assert await find_delivery(connection, new_id()) is None
    assert found is not None
    assert (found.document()["status"], found.document()["next_attempt_at"]) == ("sending", None)


async def test_a_payments_deliveries_are_its_callback_and_its_endpoints(database: Database, vault: Vault) -> None:
    await endpoint_with(database, vault, 1)
    async with database.transaction() as connection:
        refs = await complete_payments(connection, 1, now=NOW, callback_url="https://me.example/cb")
        [row, _] = await delivery_rows(connection, refs)
        found = await deliveries_of_payment(connection, row.payment_id)
    assert [(delivery.kind, delivery.endpoint_name, delivery.url) for delivery in found] == [
        ("endpoint", "shop", URL),
        ("callback", None, "https://me.example/cb"),
    ]
    assert {delivery.event_type for delivery in found} == {EventType.COMPLETED}


async def test_an_endpoints_deliveries_are_paged_from_the_newest_and_filtered(database: Database, vault: Vault) -> None:
    endpoint, refs = await endpoint_with(database, vault, 5)
    await record(database, success(await claim_one(database, refs[1])))
    newest_first = [ref.id for ref in sorted(refs, reverse=True)]
    async with database.read() as connection:
        page = await deliveries_of_endpoint(connection, endpoint.id, limit=2)
        rest = await deliveries_of_endpoint(connection, endpoint.id, limit=10, before_id=page[-1].id)
        delivered = await deliveries_of_endpoint(connection, endpoint.id, DeliveryStatus.DELIVERED, limit=10)
        assert await deliveries_of_endpoint(connection, new_id(), limit=10) == []
    assert [delivery.id for delivery in page + rest] == newest_first
    assert [delivery.id for delivery in delivered] == [refs[1].id]


async def test_a_list_takes_two_statements_however_long_it_is(database: Database, vault: Vault) -> None:
    endpoint, refs = await endpoint_with(database, vault, 20)
    claimed = [delivery for delivery in await claim(database, refs) if delivery]
    await record(database, *(attempt(delivery, TryAgain(5)) for delivery in claimed))
    statements: list[str] = []
    async with database.read() as connection:
        event.listen(connection.sync_connection, "before_cursor_execute", lambda *args: statements.append(args[2]))
        found = await deliveries_of_endpoint(connection, endpoint.id, limit=50)
    assert [len(delivery.attempts) for delivery in found] == [1] * 20
    assert len([statement for statement in statements if statement.startswith("SELECT")]) == 2


async def test_only_the_latest_attempts_are_shown(database: Database, vault: Vault) -> None:
    _, [ref] = await endpoint_with(database, vault, 1)
    await _pretend_attempts(database, ref, ATTEMPTS_SHOWN_MAX + 5)
    async with database.read() as connection:
        found = await find_delivery(connection, ref.id)
    assert found is not None
    assert [shown.number for shown in found.attempts] == list(range(6, ATTEMPTS_SHOWN_MAX + 6))


async def _pretend_attempts(database: Database, ref: Ref, count: int) -> None:
    async with database.transaction() as connection:
        await _insert_attempts(connection, ref.id, count)
        await connection.execute(update(deliveries).where(deliveries.c.id == ref.id).values(attempts_made=count))


async def _insert_attempts(connection: AsyncConnection, delivery_id: UUID, count: int) -> None:
    rows = [
        {"delivery_id": delivery_id, "number": number, "started_at": NOW, "duration_ms": 1}
        for number in range(1, count + 1)
    ]
    await connection.execute(insert(delivery_attempts), rows)
