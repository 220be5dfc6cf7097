"""`payments verify`: every breach that is planted is found, alone and where it is."""

from typing import Any

import pytest
from sqlalchemy import delete, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.config.settings import Settings
from shared.database.engine import Database
from shared.database.tables import deliveries, events, gateway_ledger, payment_history, payments
from shared.ids import new_id
from shared.payments.events import emit_order_conflicts
from shared.verify.breaches import BreachKind
from tests.support.planted import Plant, Plants, assert_found_alone
from tests.support.verified import (
    IN_AN_HOUR,
    LONG_AGO,
    World,
    bind,
    build,
    of_delivery,
    record_entry,
    repeat_row,
)

plants = Plants[World]()


@pytest.fixture
async def world(database: Database, settings: Settings) -> World:
    return await build(database, settings)


def of_move(payment_id: Any, sequence: int) -> Any:
    return (payment_history.c.payment_id == payment_id) & (payment_history.c.sequence == sequence)


@plants(BreachKind.HISTORY_GAP)
async def a_move_is_gone(connection: AsyncConnection, world: World) -> None:
    await connection.execute(delete(payment_history).where(of_move(world.completed, 2)))


@plants(BreachKind.HISTORY_GAP)
async def a_move_has_another_number(connection: AsyncConnection, world: World) -> None:
    await connection.execute(update(payment_history).where(of_move(world.completed, 2)).values(sequence=0))


@plants(BreachKind.HISTORY_START)
async def a_history_starts_in_the_middle(connection: AsyncConnection, world: World) -> None:
    await connection.execute(
        update(payment_history).where(of_move(world.completed, 1)).values(previous_status="PROCESSING")
    )


@plants(BreachKind.HISTORY_MOVE)
async def a_move_begins_elsewhere(connection: AsyncConnection, world: World) -> None:
    await connection.execute(
        update(payment_history).where(of_move(world.completed, 3)).values(previous_status="PENDING")
    )


@plants(BreachKind.HISTORY_MOVE)
async def a_move_is_not_allowed(connection: AsyncConnection, world: World) -> None:
    await connection.execute(
        update(payment_history)
        .where(of_move(world.cancelled, 2))
        .values(previous_status="PENDING", new_status="FAILED", reason="gateway_declined")
    )
    await connection.execute(update(payments).where(payments.c.id == world.cancelled).values(status="FAILED"))
    of_end = (events.c.payment_id == world.cancelled) & (events.c.sequence == 2)
    await connection.execute(update(events).where(of_end).values(type="payment.failed"))
    await record_entry(connection, world.cancelled, "decline", 1)


@plants(BreachKind.HISTORY_END)
async def a_status_was_set_by_hand(connection: AsyncConnection, world: World) -> None:
    await connection.execute(update(payments).where(payments.c.id == world.processing).values(status="PENDING"))


@plants(BreachKind.CHARGED_TWICE)
async def it_was_charged_again(connection: AsyncConnection, world: World) -> None:
    of_hold = (gateway_ledger.c.payment_id == world.completed) & (gateway_ledger.c.step == 1)
    await connection.execute(update(gateway_ledger).where(of_hold).values(kind="sale"))


@plants(BreachKind.CHARGED_TWICE)
async def it_is_being_processed_and_was_charged_again(connection: AsyncConnection, world: World) -> None:
    await record_entry(connection, world.processing, "capture", 2)


@plants(BreachKind.COMPLETED_UNCHARGED)
async def the_ledger_does_not_know_it(connection: AsyncConnection, world: World) -> None:
    await connection.execute(delete(gateway_ledger).where(gateway_ledger.c.payment_id == world.completed))


@plants(BreachKind.COMPLETED_UNCHARGED)
async def it_was_voided(connection: AsyncConnection, world: World) -> None:
    of_capture = (gateway_ledger.c.payment_id == world.completed) & (gateway_ledger.c.step == 2)
    await connection.execute(update(gateway_ledger).where(of_capture).values(kind="void"))


@plants(BreachKind.COMPLETED_UNCHARGED)
async def it_was_sold_and_voided(connection: AsyncConnection, world: World) -> None:
    of_hold = (gateway_ledger.c.payment_id == world.completed) & (gateway_ledger.c.step == 1)
    await connection.execute(update(gateway_ledger).where(of_hold).values(kind="sale"))
    await it_was_voided(connection, world)


def charge_with(**changes: Any) -> Plant[World]:
    async def plant(connection: AsyncConnection, world: World) -> None:
        of_capture = (gateway_ledger.c.payment_id == world.completed) & (gateway_ledger.c.step == 2)
        await connection.execute(update(gateway_ledger).where(of_capture).values(**changes))

    return plant


plants(BreachKind.CHARGE_MISMATCH)(charge_with(amount=1998))
plants(BreachKind.CHARGE_MISMATCH)(charge_with(currency="EUR"))
plants(BreachKind.CHARGE_MISMATCH)(charge_with(answer={"transaction_id": "ch_2"}))
plants(BreachKind.CHARGE_MISMATCH)(charge_with(answer={}))


@plants(BreachKind.ENDED_CHARGED)
async def a_cancelled_one_was_charged(connection: AsyncConnection, world: World) -> None:
    await record_entry(connection, world.cancelled, "sale", 1)


@plants(BreachKind.ENDED_CHARGED)
async def a_failed_one_was_charged(connection: AsyncConnection, world: World) -> None:
    of_failed = gateway_ledger.c.payment_id == world.failed
    await connection.execute(update(gateway_ledger).where(of_failed).values(kind="sale"))


@plants(BreachKind.ENDED_HELD)
async def a_failed_one_is_still_authorized(connection: AsyncConnection, world: World) -> None:
    of_failed = gateway_ledger.c.payment_id == world.failed
    await connection.execute(update(gateway_ledger).where(of_failed).values(kind="authorize"))


@plants(BreachKind.FAILED_NOT_VOIDED)
async def the_gateway_was_never_asked_to_void_it(connection: AsyncConnection, world: World) -> None:
    await connection.execute(delete(gateway_ledger).where(gateway_ledger.c.payment_id == world.failed))


@plants(BreachKind.ORPHAN_CHARGE)
async def the_ledger_has_a_payment_of_its_own(connection: AsyncConnection, world: World) -> None:
    await record_entry(connection, new_id(), "sale", 1)


@plants(BreachKind.DANGLING_IDEMPOTENCY_KEY)
async def a_key_of_a_payment_that_is_not_there(connection: AsyncConnection, world: World) -> None:
    await bind(connection, "user:1 POST /payments", new_id())


@plants(BreachKind.DANGLING_IDEMPOTENCY_KEY)
async def a_key_of_an_endpoint_that_is_not_there(connection: AsyncConnection, world: World) -> None:
    await bind(connection, "service:shop POST /webhook-endpoints", world.completed)


@plants(BreachKind.DANGLING_IDEMPOTENCY_KEY)
async def a_key_of_a_delivery_that_is_not_there(connection: AsyncConnection, world: World) -> None:
    await bind(connection, f"user:1 POST /webhook-deliveries/{world.completed}/resend", world.completed)


async def add_initiated(connection: AsyncConnection, world: World, *, sequence: int = 1) -> None:
    """Add the event about the beginning of the pending payment, which no endpoint wants."""
    changes = {"payment_id": world.pending, "sequence": sequence, "type": "payment.initiated"}
    await repeat_row(connection, events, where=events.c.payment_id == world.failed, id=new_id(), **changes)


@plants(BreachKind.EVENT_MISSING)
async def an_event_is_gone(connection: AsyncConnection, world: World) -> None:
    of_failed = (events.c.payment_id == world.failed) & (events.c.type == "payment.failed")
    await connection.execute(delete(events).where(of_failed))


@plants(BreachKind.UNEXPECTED_EVENT)
async def an_event_says_something_else(connection: AsyncConnection, world: World) -> None:
    await add_initiated(connection, world, sequence=2)


@plants(BreachKind.UNEXPECTED_EVENT)
async def a_conflict_is_emitted_for_what_was_not_paid(connection: AsyncConnection, world: World) -> None:
    await emit_order_conflicts(connection, [world.failed], now=LONG_AGO)


@plants(BreachKind.MISSING_ENDPOINT_DELIVERY)
async def the_endpoint_was_forgotten(connection: AsyncConnection, world: World) -> None:
    await connection.execute(delete(deliveries).where(of_delivery(world, "endpoint")))


@plants(BreachKind.MISSING_CALLBACK_DELIVERY)
async def the_callback_was_forgotten(connection: AsyncConnection, world: World) -> None:
    await connection.execute(delete(deliveries).where(of_delivery(world, "callback")))


@plants(BreachKind.MISSING_ORDER_DELIVERY)
async def the_order_service_was_forgotten(connection: AsyncConnection, world: World) -> None:
    await connection.execute(delete(deliveries).where(of_delivery(world, "order")))


@plants(BreachKind.ORDER_UPDATE_SILENT)
async def an_order_update_ended_without_a_reason(connection: AsyncConnection, world: World) -> None:
    ended = {"status": "exhausted", "due_at": None}
    await connection.execute(update(deliveries).where(of_delivery(world, "order")).values(**ended))


@plants(BreachKind.PAYMENT_NEVER_DUE)
async def a_payment_is_due_at_no_time(connection: AsyncConnection, world: World) -> None:
    await connection.execute(update(payments).where(payments.c.id == world.processing).values(due_at=None))


@plants(BreachKind.DELIVERY_NEVER_DUE)
async def a_delivery_is_due_at_no_time(connection: AsyncConnection, world: World) -> None:
    await connection.execute(update(deliveries).where(of_delivery(world, "callback")).values(due_at=None))


@plants(BreachKind.PAYMENT_OVERDUE)
async def a_payment_is_waited_for(connection: AsyncConnection, world: World) -> None:
    await connection.execute(update(payments).where(payments.c.id == world.pending).values(due_at=LONG_AGO))


@plants(BreachKind.DELIVERY_OVERDUE)
async def a_delivery_is_waited_for(connection: AsyncConnection, world: World) -> None:
    await connection.execute(update(deliveries).where(of_delivery(world, "endpoint")).values(due_at=LONG_AGO))


@plants(BreachKind.PAYMENT_LEASED_TOO_LONG)
async def a_payment_was_claimed_before_the_clock_was_set_back(connection: AsyncConnection, world: World) -> None:
    await connection.execute(update(payments).where(payments.c.id == world.processing).values(due_at=IN_AN_HOUR))


@plants(BreachKind.DELIVERY_LEASED_TOO_LONG)
async def a_delivery_was_claimed_before_the_clock_was_set_back(connection: AsyncConnection, world: World) -> None:
    claimed = {"status": "sending", "due_at": IN_AN_HOUR}
    await connection.execute(update(deliveries).where(of_delivery(world, "endpoint")).values(**claimed))


@plants(BreachKind.PAYMENT_UNCLAIMED)
async def the_relay_publishes_a_payment_that_nobody_takes(connection: AsyncConnection, world: World) -> None:
    await connection.execute(update(payments).where(payments.c.id == world.pending).values(created_at=LONG_AGO))


@plants(BreachKind.DELIVERY_UNCLAIMED)
async def the_relay_publishes_a_delivery_that_nobody_takes(connection: AsyncConnection, world: World) -> None:
    await connection.execute(update(deliveries).where(of_delivery(world, "endpoint")).values(created_at=LONG_AGO))


@pytest.mark.parametrize(("kind", "plant"), plants.parameters())
async def test_a_planted_breach_is_found_and_nothing_else(
    database: Database, world: World, kind: BreachKind, plant: Plant[World]
) -> None:
    await assert_found_alone(database, world, kind, plant)
