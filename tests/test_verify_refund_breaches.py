"""`payments verify`: every breach of refunds that is planted is found, alone and where it is."""

from typing import Any

import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.engine import Database
from shared.database.refund_tables import refund_history, refunds
from shared.database.tables import deliveries, events, payment_history
from shared.ids import new_id
from shared.refunds.refund import Refund
from shared.verify.breaches import BreachKind
from tests.support.planted import Plant, Plants, assert_found_alone
from tests.support.verified import IN_AN_HOUR, LONG_AGO, bind, repeat_row
from tests.support.verified_money import (
    MoneyWorld,
    build_money,
    change,
    change_balance,
    change_entry,
    change_refund,
    of_number,
    of_step,
    remove_entry,
)

refund_plants = Plants[MoneyWorld]()


@pytest.fixture
async def world(database: Database) -> MoneyWorld:
    return await build_money(database)


# -- histories of refunds


@refund_plants(BreachKind.REFUND_HISTORY_GAP)
async def a_step_is_gone(connection: AsyncConnection, world: MoneyWorld) -> None:
    await connection.execute(delete(refund_history).where(of_step(world.completed, 2)))


@refund_plants(BreachKind.REFUND_HISTORY_GAP)
async def a_refund_has_no_history(connection: AsyncConnection, world: MoneyWorld) -> None:
    await connection.execute(delete(refund_history).where(refund_history.c.refund_id == world.pending.id))


@refund_plants(BreachKind.REFUND_HISTORY_START)
async def a_refund_starts_in_the_middle(connection: AsyncConnection, world: MoneyWorld) -> None:
    await connection.execute(
        update(refund_history).where(of_step(world.completed, 1)).values(previous_status="PROCESSING")
    )


@refund_plants(BreachKind.REFUND_HISTORY_MOVE)
async def a_refund_is_cancelled_after_its_claim(connection: AsyncConnection, world: MoneyWorld) -> None:
    await connection.execute(update(refund_history).where(of_step(world.failed, 3)).values(new_status="CANCELLED"))
    await change_refund(connection, world.failed, status="CANCELLED")


@refund_plants(BreachKind.REFUND_HISTORY_END)
async def a_refund_ended_otherwise(connection: AsyncConnection, world: MoneyWorld) -> None:
    await change_refund(connection, world.failed, status="CANCELLED")


# -- refunds and the status of their payments


async def call_it(connection: AsyncConnection, payment_id: Any, sequence: int, before: str, after: str) -> None:
    """Give a payment another status after its move, with the event that this calls for."""
    await change(connection, payment_id, status=after)
    moves = payment_history.c.payment_id == payment_id
    later = moves & (payment_history.c.sequence > sequence)
    await connection.execute(update(payment_history).where(later).values(previous_status=after, new_status=after))
    at = moves & (payment_history.c.sequence == sequence)
    await connection.execute(update(payment_history).where(at).values(new_status=after))
    types = {"PARTIALLY_REFUNDED": "payment.partially_refunded", "REFUNDED": "payment.refunded"}
    of_move = (events.c.payment_id == payment_id) & (events.c.sequence == sequence)
    await connection.execute(update(events).where(of_move, events.c.type == types[before]).values(type=types[after]))


@refund_plants(BreachKind.REFUND_STATUS_MISMATCH)
async def what_is_refunded_as_a_whole_is_called_a_part(connection: AsyncConnection, world: MoneyWorld) -> None:
    await call_it(connection, world.refunded, 5, "REFUNDED", "PARTIALLY_REFUNDED")


@refund_plants(BreachKind.REFUND_STATUS_MISMATCH)
async def what_was_not_refunded_is_called_refunded(connection: AsyncConnection, world: MoneyWorld) -> None:
    """The refund failed, and its payment is called refunded all the same."""
    one = await refund_of(connection, world)
    await change_refund(connection, one, status="FAILED")
    await connection.execute(update(refund_history).where(of_step(one, 3)).values(new_status="FAILED"))
    await change_entry(connection, world.refunded, one.number, kind="refund_decline")
    await change_balance(connection, world.refunded, refunded=0)


async def refund_of(connection: AsyncConnection, world: MoneyWorld) -> Refund:
    found = await connection.execute(refunds.select().where(refunds.c.payment_id == world.refunded))
    return Refund.of(found.mappings().one())


@refund_plants(BreachKind.REFUND_UNPAID)
async def the_gateway_does_not_know_the_refund(connection: AsyncConnection, world: MoneyWorld) -> None:
    await remove_entry(connection, world.partly, world.completed.number)


@refund_plants(BreachKind.REFUND_UNPAID)
async def the_gateway_refused_the_refund(connection: AsyncConnection, world: MoneyWorld) -> None:
    await change_entry(connection, world.partly, world.completed.number, kind="refund_decline")


@refund_plants(BreachKind.REFUND_PAID_ANYWAY)
async def a_failed_refund_was_paid(connection: AsyncConnection, world: MoneyWorld) -> None:
    await change_entry(connection, world.partly, world.failed.number, kind="refund")


@refund_plants(BreachKind.REFUND_PAID_ANYWAY)
async def a_cancelled_refund_was_paid(connection: AsyncConnection, world: MoneyWorld) -> None:
    await of_number(connection, world.partly, "refund", world.cancelled.number, 100)


@refund_plants(BreachKind.REFUND_PAID_ANYWAY)
async def a_refund_was_paid_that_no_worker_claimed(connection: AsyncConnection, world: MoneyWorld) -> None:
    await of_number(connection, world.partly, "refund", world.pending.number, 25)


def paid_with(**changes: Any) -> Plant[MoneyWorld]:
    async def plant(connection: AsyncConnection, world: MoneyWorld) -> None:
        await change_entry(connection, world.partly, world.completed.number, **changes)

    return plant


refund_plants(BreachKind.REFUND_MISMATCH)(paid_with(amount=299))
refund_plants(BreachKind.REFUND_MISMATCH)(paid_with(currency="EUR"))
refund_plants(BreachKind.REFUND_MISMATCH)(paid_with(answer={"transaction_id": "re_2"}))


@refund_plants(BreachKind.REFUND_MISMATCH)
async def another_amount_is_being_paid_back(connection: AsyncConnection, world: MoneyWorld) -> None:
    await of_number(connection, world.partly, "refund", world.processing.number, 51)


@refund_plants(BreachKind.REFUND_NOT_CLOSED)
async def the_gateway_was_never_asked_to_refuse_it(connection: AsyncConnection, world: MoneyWorld) -> None:
    await remove_entry(connection, world.partly, world.failed.number)


@refund_plants(BreachKind.ORPHAN_REFUND)
async def the_ledger_has_a_refund_of_its_own(connection: AsyncConnection, world: MoneyWorld) -> None:
    await of_number(connection, world.partly, "refund", 99, 10)


@refund_plants(BreachKind.ORPHAN_REFUND)
async def the_ledger_refunds_a_payment_that_is_not_there(connection: AsyncConnection, world: MoneyWorld) -> None:
    await of_number(connection, new_id(), "refund", 4, 10)


@refund_plants(BreachKind.MONEY_AFTER_VOID)
async def what_was_voided_was_paid_back(connection: AsyncConnection, world: MoneyWorld) -> None:
    """A payment that is refunded was voided before: its sale, as older versions could."""
    await of_number(connection, world.refunded, "void", 2, 1999)


# -- events, keys and due times


@refund_plants(BreachKind.EVENT_MISSING)
async def the_event_of_a_request_is_gone(connection: AsyncConnection, world: MoneyWorld) -> None:
    of_request = (events.c.payment_id == world.refunded) & (events.c.type == "refund.created")
    await connection.execute(delete(events).where(of_request))


@refund_plants(BreachKind.EVENT_MISSING)
async def the_event_of_the_payment_beside_that_of_its_refund_is_gone(
    connection: AsyncConnection, world: MoneyWorld
) -> None:
    of_end = (events.c.payment_id == world.refunded) & (events.c.type == "payment.refunded")
    await connection.execute(delete(events).where(of_end))


@refund_plants(BreachKind.UNEXPECTED_EVENT)
async def a_refund_is_said_to_be_completed_that_failed(connection: AsyncConnection, world: MoneyWorld) -> None:
    of_end = (events.c.payment_id == world.refunded) & (events.c.type == "refund.created")
    await repeat_row(connection, events, where=of_end, id=new_id(), type="refund.failed")


@refund_plants(BreachKind.EVENT_REPEATED)
async def a_cancelled_order_is_reported_before_and_after_a_refund(
    connection: AsyncConnection, world: MoneyWorld
) -> None:
    for sequence in (3, 5):
        of_end = (events.c.payment_id == world.refunded) & (events.c.type == "payment.completed")
        changes = {"id": new_id(), "type": "payment.order_conflict", "sequence": sequence}
        await repeat_row(connection, events, where=of_end, **changes)


@refund_plants(BreachKind.MISSING_CALLBACK_DELIVERY)
async def the_callback_of_a_refund_was_forgotten(connection: AsyncConnection, world: MoneyWorld) -> None:
    of_failure = select(events.c.id).where(events.c.payment_id == world.partly, events.c.type == "refund.failed")
    await connection.execute(delete(deliveries).where(deliveries.c.event_id.in_(of_failure)))


@refund_plants(BreachKind.DANGLING_IDEMPOTENCY_KEY)
async def a_key_of_a_refund_that_is_not_there(connection: AsyncConnection, world: MoneyWorld) -> None:
    await bind(connection, f"service:shop POST /payments/{world.partly}/refunds", world.partly)


@refund_plants(BreachKind.DANGLING_IDEMPOTENCY_KEY)
async def a_key_of_a_cancelled_refund_that_is_not_there(connection: AsyncConnection, world: MoneyWorld) -> None:
    await bind(connection, f"service:shop POST /refunds/{world.completed.id}/cancel", world.partly)


@refund_plants(BreachKind.REFUND_NEVER_DUE)
async def a_refund_is_due_at_no_time(connection: AsyncConnection, world: MoneyWorld) -> None:
    await change_refund(connection, world.processing, due_at=None)


@refund_plants(BreachKind.REFUND_OVERDUE)
async def a_refund_is_waited_for(connection: AsyncConnection, world: MoneyWorld) -> None:
    await change_refund(connection, world.pending, due_at=LONG_AGO)


@refund_plants(BreachKind.REFUND_LEASED_TOO_LONG)
async def a_refund_was_claimed_before_the_clock_was_set_back(connection: AsyncConnection, world: MoneyWorld) -> None:
    await change_refund(connection, world.processing, due_at=IN_AN_HOUR)


@refund_plants(BreachKind.REFUND_UNCLAIMED)
async def the_relay_publishes_a_refund_that_nobody_takes(connection: AsyncConnection, world: MoneyWorld) -> None:
    await change_refund(connection, world.pending, created_at=LONG_AGO)


@pytest.mark.parametrize(("kind", "plant"), refund_plants.parameters())
async def test_a_planted_breach_is_found_and_nothing_else(
    database: Database, world: MoneyWorld, kind: BreachKind, plant: Plant[MoneyWorld]
) -> None:
    await assert_found_alone(database, world, kind, plant)
