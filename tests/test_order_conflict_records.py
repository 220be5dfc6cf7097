"""The record of a conflict: whatever is lost, repeated, killed or done at the same time, one refund and one event."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing import Pipe
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update

from shared.config.settings import Settings
from shared.database.engine import Database
from shared.database.leases import WorkItem
from shared.database.refund_tables import refunds
from shared.database.tables import columns_of, deliveries, events, payments
from shared.event_types import EventType
from shared.ids import new_id
from shared.lifecycle import PaymentStatus
from shared.refund_lifecycle import RefundReason
from shared.refunds.refund import Refund
from shared.refunds.requests import RefundMoved, RefundRequest, cancel_refund, request_refund
from shared.webhooks.attempts import Conflict, Exhausted, RecordedOutcome, TryAgain
from shared.webhooks.deliveries import ClaimedDelivery, claim_deliveries
from shared.webhooks.order_deliveries import KnownOfOrder
from tests.support.conflict_crashes import Confirmation, run_confirmation
from tests.support.crashing import assert_each_died
from tests.support.deliveries import attempt
from tests.support.processes import forked
from tests.support.processing import UnreliableDatabase
from tests.support.rows import accepted, write
from tests.support.settling import APPROVED
from tests.support.verified import settle
from tests.support.waiting import eventually
from worker.deliveries.conflicts import record_with_conflicts
from worker.deliveries.recorder import AttemptRecorder, AttemptResult
from worker.slots import Slots

type MakeSettings = Callable[..., Settings]

NOW = datetime.now(UTC).replace(microsecond=0)
LEASE_S = 30.0
BOUNDARIES_MIN = 20
# On SQLite they wait for each other, and for no more than 2 s.
PROCESSES_AT_ONCE = {"sqlite": 2, "postgresql": 4}


async def confirmations(database: Database, count: int = 1) -> list[WorkItem]:
    """Complete payments; return the deliveries that are to confirm their orders."""
    completed = [accepted(NOW) for _ in range(count)]
    await write(database, *completed)
    async with database.transaction() as connection:
        for payment in completed:
            await settle(connection, payment, APPROVED, at=NOW)
        of_these = deliveries.c.payment_id.in_([payment.id for payment in completed])
        found = await connection.execute(select(*columns_of(deliveries, "id", "lease_version")).where(of_these))
        return [WorkItem(row.id, row.lease_version) for row in found]


async def claimed(database: Database, *items: WorkItem) -> list[ClaimedDelivery]:
    """Claim deliveries."""
    async with database.transaction() as connection:
        found = await claim_deliveries(connection, NOW, items, lease_s=LEASE_S)
    return [each for each in found if each is not None]


async def recorded(
    database: Database, *found: ClaimedDelivery, at: datetime = NOW, refunds_conflicts: bool = True
) -> list[RecordedOutcome | None]:
    """Record that the orders of these deliveries were found cancelled."""
    attempts = [attempt(each, Conflict()) for each in found]
    async with database.transaction() as connection:
        return await record_with_conflicts(connection, at, attempts, refunds_conflicts=refunds_conflicts)


async def amounts_of_refunds(database: Database) -> dict[UUID, list[int]]:
    """Return the amounts of the refunds that the service requested, by payment."""
    async with database.read() as connection:
        found = await connection.execute(
            select(refunds.c.payment_id, refunds.c.amount).where(refunds.c.cause == "order_conflict")
        )
        amounts: dict[UUID, list[int]] = {}
        for row in found:
            amounts.setdefault(row.payment_id, []).append(row.amount)
        return amounts


async def conflict_events(database: Database) -> int:
    """Count the events of orders that were cancelled meanwhile."""
    async with database.read() as connection:
        found = select(func.count()).where(events.c.type == EventType.ORDER_CONFLICT)
        return (await connection.execute(found)).scalar_one()


async def statuses(database: Database) -> Counter[str]:
    """Count the deliveries to the order service by their status."""
    async with database.read() as connection:
        found = await connection.execute(select(deliveries.c.status).where(deliveries.c.kind == "order"))
        return Counter(found.scalars())


async def refunded(database: Database, payment_id: UUID, amount: int | None, **changes: Any) -> Refund:
    """Request a refund as a client does."""
    values: dict[str, Any] = {"reason": RefundReason.OTHER, "created_by": "service:shop", **changes}
    request = RefundRequest(id=new_id(), amount=amount, metadata={}, correlation_id=None, **values)
    async with database.transaction() as connection:
        requested = await request_refund(connection, payment_id, request, now=NOW)
    assert isinstance(requested, RefundMoved)
    return requested.refund


async def test_many_conflicts_at_once_are_each_refunded(database: Database) -> None:
    found = await claimed(database, *await confirmations(database, 20))
    assert set(await recorded(database, *found)) == {Conflict()}
    assert await amounts_of_refunds(database) == {each.payment_id: [1999] for each in found}
    assert await conflict_events(database) == 20
    assert await statuses(database) == {"exhausted": 20}


async def test_a_record_that_is_repeated_changes_nothing(database: Database) -> None:
    [found] = await claimed(database, *await confirmations(database))
    outcomes = await asyncio.gather(*(recorded(database, found) for _ in range(10)))
    assert Counter(outcome for [outcome] in outcomes) == {Conflict(): 1, None: 9}
    assert await amounts_of_refunds(database) == {found.payment_id: [1999]}
    assert await conflict_events(database) == 1


async def test_a_lost_answer_to_the_commit_is_no_second_refund(database: Database) -> None:
    [found] = await claimed(database, *await confirmations(database))
    unreliable = UnreliableDatabase(database)
    unreliable.commits_lost = 1
    recorder = AttemptRecorder(unreliable, queue_max=10, refunds_conflicts=True)
    run = asyncio.create_task(recorder.run())
    lease_ends = asyncio.get_running_loop().time() + LEASE_S
    slots = Slots("test", 1)
    slots.open()
    await recorder.record(AttemptResult(attempt(found, Conflict()), lease_ends), slots)
    recorder.close()
    await run
    assert unreliable.commits_lost == 0
    assert await amounts_of_refunds(database) == {found.payment_id: [1999]}
    assert await statuses(database) == {"exhausted": 1}


async def test_the_record_and_the_end_of_another_refund_at_the_same_time_lose_nothing(database: Database) -> None:
    """Whichever is first: all that is left is refunded at once, or the delivery stays due."""
    found = await claimed(database, *await confirmations(database, 10))
    others = [await refunded(database, each.payment_id, 99) for each in found]

    async def cancel(other: Refund) -> None:
        async with database.transaction() as connection:
            assert await cancel_refund(connection, other, by="service:shop", now=NOW)

    async def record(each: ClaimedDelivery) -> RecordedOutcome | None:
        return (await recorded(database, each))[0]

    outcomes, _ = await asyncio.gather(
        asyncio.gather(*(record(each) for each in found)), asyncio.gather(*(cancel(other) for other in others))
    )
    amounts = await amounts_of_refunds(database)
    for each, outcome in zip(found, outcomes, strict=True):
        assert (outcome == Conflict()) == (amounts.get(each.payment_id) == [1999]), outcome
        assert isinstance(outcome, Conflict | TryAgain)
    late = [WorkItem(each.id, each.lease_version) for each in found]
    for again in await claimed(database, *late):
        # What waits asks no order service again.
        assert again.known_of_order is KnownOfOrder.CANCELLED
        assert await recorded(database, again) == [Conflict()]
    assert await amounts_of_refunds(database) == {each.payment_id: [1999] for each in found}
    assert await conflict_events(database) == 10


async def test_the_waits_for_another_refund_grow_and_stay_bounded(database: Database) -> None:
    [item] = await confirmations(database)
    waits = []
    for retries in (0, 1, 2, 10, 5_000):
        [found] = await claimed(database, item)
        if retries == 0:
            await refunded(database, found.payment_id, 99)
        [outcome] = await recorded(database, replace(found, retries=retries))
        assert isinstance(outcome, TryAgain)
        waits.append(outcome.wait_s)
        item = found.work_item
        async with database.transaction() as connection:
            await connection.execute(update(deliveries).values(due_at=NOW))
    assert waits == [5, 10, 20, 300, 300]


async def test_what_waits_is_exhausted_when_conflicts_are_not_refunded_any_more(database: Database) -> None:
    [found] = await claimed(database, *await confirmations(database))
    await refunded(database, found.payment_id, 99)
    assert isinstance((await recorded(database, found))[0], TryAgain)
    [again] = await claimed(database, found.work_item)
    assert await recorded(database, again, refunds_conflicts=False) == [Conflict()]
    assert await amounts_of_refunds(database) == {}
    assert await conflict_events(database) == 1


async def test_an_order_that_was_found_cancelled_after_the_refund_is_no_conflict(database: Database) -> None:
    """The attempt was on its way while the refund ended and the order was cancelled for it."""
    [found] = await claimed(database, *await confirmations(database))
    async with database.transaction() as connection:
        await connection.execute(update(payments).values(status=PaymentStatus.REFUNDED))
    assert await recorded(database, found) == [Exhausted()]
    assert (await amounts_of_refunds(database), await conflict_events(database)) == ({}, 0)
    async with database.read() as connection:
        error = (await connection.execute(select(deliveries.c.last_error))).scalar_one()
    assert "refunded" in error


async def test_a_record_under_a_lost_lease_emits_and_refunds_nothing(database: Database) -> None:
    [found] = await claimed(database, *await confirmations(database))
    async with database.transaction() as connection:
        await connection.execute(update(deliveries).values(due_at=NOW))
    [again] = await claimed(database, found.work_item)
    assert await recorded(database, found) == [None]
    assert (await amounts_of_refunds(database), await conflict_events(database)) == ({}, 0)
    assert await recorded(database, again) == [Conflict()]


async def test_whatever_boundary_a_process_dies_at_one_refund_is_requested(
    make_settings: MakeSettings, database: Database, backend: str
) -> None:
    settings = make_settings()
    [item] = await confirmations(database)
    exit_code, boundaries = await ended(Confirmation(settings, item))
    assert exit_code == 0
    assert len(boundaries) >= BOUNDARIES_MIN
    items = await confirmations(database, len(boundaries))
    turns = asyncio.Semaphore(PROCESSES_AT_ONCE[backend])

    async def in_turn(number: int, item: WorkItem) -> int | None:
        async with turns:
            return (await ended(Confirmation(settings, item, number)))[0]

    codes = await asyncio.gather(*(in_turn(number, item) for number, item in enumerate(items)))
    assert_each_died(codes)
    # The leases are over: other workers claim what is still open.
    async with database.transaction() as connection:
        is_open = deliveries.c.status.in_(["pending", "sending"])
        await connection.execute(update(deliveries).where(is_open).values(due_at=NOW))
        found = await connection.execute(select(*columns_of(deliveries, "id", "lease_version")).where(is_open))
        left = [WorkItem(row.id, row.lease_version) for row in found]
    assert 0 < len(left) < len(items)
    await recorded(database, *await claimed(database, *left))
    amounts = await amounts_of_refunds(database)
    assert Counter(map(tuple, amounts.values())) == {(1999,): len(items) + 1}
    assert await conflict_events(database) == len(items) + 1
    assert await statuses(database) == {"exhausted": len(items) + 1}


async def ended(confirmation: Confirmation) -> tuple[int | None, list[str]]:
    """Run a confirmation in a process; return its exit code and the boundaries that it passed."""
    reports, sender = Pipe(duplex=False)
    process = forked(run_confirmation, confirmation, sender)
    sender.close()
    await eventually(lambda: process.exitcode is not None, 60)
    with reports:
        try:
            return process.exitcode, reports.recv()
        except EOFError:
            return process.exitcode, []
