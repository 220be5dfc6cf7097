"""Payments that a killed worker or a lost message left in the middle: the next worker charges them once."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from shared.broker.client import Broker, Queue
from shared.database.engine import Database
from shared.database.leases import WorkItem
from shared.lifecycle import FailureCode, MethodType
from shared.payments.outcomes import Approved, Declined
from shared.payments.payment import Payment
from shared.simulation.ledger_entries import EntryKind
from tests.support.pipelines import MakeSettings, opened, worker
from tests.support.rows import (
    accepted,
    are_settled,
    assert_sound,
    claimed,
    ledger_entries,
    read,
    read_all,
    reasons,
    write,
)
from tests.support.waiting import eventually
from worker.gateway.ledger import Entry, Ledger

NOW = datetime.now(UTC).replace(microsecond=0)
LONG_AGO = NOW - timedelta(hours=1)


CHARGED = Approved("stripe_mock", "ch_of_the_first_worker", {"authorization_code": "A1B2C3"}, "rate")
REFUSED = Declined("stripe_mock", FailureCode.CARD_DECLINED, "The issuer declined the card.", {}, "rate")
CREDIT, DEBIT = MethodType.CREDIT_CARD, MethodType.DEBIT_CARD
LEFT_BEHIND: dict[str, tuple[MethodType, list[EntryKind], list[str]]] = {
    "before anything": (CREDIT, [], ["authorize", "capture"]),
    "after the authorization": (CREDIT, [EntryKind.AUTHORIZE], ["authorize", "capture"]),
    "after the capture": (CREDIT, [EntryKind.AUTHORIZE, EntryKind.CAPTURE], ["authorize", "capture"]),
    "after the sale": (DEBIT, [EntryKind.SALE], ["sale"]),
    "after the decline": (CREDIT, [EntryKind.DECLINE], ["decline"]),
}


def left_behind(method_type: MethodType) -> Payment:
    """A payment in whose middle a worker was killed; its lease is over."""
    return claimed(LONG_AGO, method={"type": method_type, "details": {}, "scenario": None})


async def note(database: Database, row: Payment, kinds: Sequence[EntryKind]) -> None:
    """Put on record what the gateway had done by then."""
    ledger = Ledger(database, batch_max=10, queue_max=10)
    run = asyncio.create_task(ledger.run())
    for kind in kinds:
        answer = REFUSED if kind is EntryKind.DECLINE else replace(CHARGED, transaction_id=f"ch_{row.id}")
        await ledger.record_entry(Entry(row.id, kind, row.amount, row.currency, answer))
    ledger.close()
    await run


async def test_whatever_moment_a_worker_was_killed_at_the_next_one_charges_once(make_settings: MakeSettings) -> None:
    async with opened(make_settings(payment_success_rate=1)) as runtime:
        database = runtime.database
        rows = {moment: left_behind(method_type) for moment, (method_type, _, _) in LEFT_BEHIND.items()}
        await write(database, *rows.values())
        for moment, (_, kinds, _) in LEFT_BEHIND.items():
            await note(database, rows[moment], kinds)
        async with worker(runtime):
            await eventually(lambda: are_settled(database, len(rows)))
        await assert_sound(database)
        for moment, (_, kinds, expected) in LEFT_BEHIND.items():
            payment = await read(database, rows[moment].id)
            assert await ledger_entries(database, payment.id) == expected, moment
            assert payment.status == ("FAILED" if expected == ["decline"] else "COMPLETED"), moment
            if kinds and expected != ["decline"]:
                assert payment.gateway_transaction_id == f"ch_{payment.id}", "the first worker's charge was not found"
            assert (await reasons(database, payment.id))[:3] == ["accepted", "claimed", "lease_expired"]


async def test_duplicate_late_and_disordered_messages_change_nothing(make_settings: MakeSettings) -> None:
    async with opened(make_settings(payment_success_rate=1)) as runtime:
        database = runtime.database
        rows = [accepted(LONG_AGO) for _ in range(30)]
        items = await write(database, *rows)
        future = [WorkItem(item.id, 9) for item in items]
        for batch in (items[::-1], items, future, items[10:20], items):
            await runtime.broker.publish(Queue.PROCESS, batch)
        async with worker(runtime) as process:
            await eventually(lambda: are_settled(database, 30))
            for batch in (
                items,
                future,
                [WorkItem(item.id, 1) for item in items],
                [WorkItem(item.id, 2) for item in items],
            ):
                await runtime.broker.publish(Queue.PROCESS, batch)
            await eventually(lambda: is_empty(runtime.broker))
            await eventually(lambda: process.processor.free == runtime.settings.worker_concurrency)
        await assert_sound(database)
        assert {payment.sequence for payment in await read_all(database)} == {3}


async def is_empty(broker: Broker) -> bool:
    return not await broker.arq_connection.zcard(Queue.PROCESS)


async def test_without_a_single_message_the_relay_alone_brings_everything(make_settings: MakeSettings) -> None:
    async with opened(make_settings()) as runtime:
        await write(runtime.database, *(accepted(LONG_AGO) for _ in range(20)))
        async with worker(runtime):
            await eventually(lambda: are_settled(runtime.database, 20))
        await assert_sound(runtime.database)
