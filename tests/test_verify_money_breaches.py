"""`payments verify`: every breach beyond the plain charge that is planted is found, alone and where it is."""

from datetime import timedelta

import pytest
from sqlalchemy import delete, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.engine import Database
from shared.database.refund_tables import payment_balances
from shared.database.tables import events, payment_history
from shared.verify.breaches import BreachKind
from tests.support.planted import Plant, Plants, assert_found_alone
from tests.support.verified import LONG_AGO, NOW, bind, record_entry
from tests.support.verified_money import (
    MoneyWorld,
    build_money,
    change,
    change_balance,
    change_entry,
    of_number,
    remove_entry,
)

money_plants = Plants[MoneyWorld]()


@pytest.fixture
async def world(database: Database) -> MoneyWorld:
    return await build_money(database)


# -- the ledger


@money_plants(BreachKind.AUTHORIZED_NOT_HELD)
async def the_gateway_does_not_know_the_authorization(connection: AsyncConnection, world: MoneyWorld) -> None:
    await remove_entry(connection, world.authorized, 1)


@money_plants(BreachKind.AUTHORIZED_NOT_HELD)
async def the_authorization_was_voided(connection: AsyncConnection, world: MoneyWorld) -> None:
    await of_number(connection, world.authorized, "void", 2, 1999)


@money_plants(BreachKind.AUTHORIZED_NOT_HELD)
async def the_authorization_was_captured(connection: AsyncConnection, world: MoneyWorld) -> None:
    await of_number(connection, world.authorized, "capture", 4, 1999)


@money_plants(BreachKind.ACTION_DECIDED)
async def a_payment_is_charged_before_its_customer_approves(connection: AsyncConnection, world: MoneyWorld) -> None:
    await record_entry(connection, world.asking, "sale", 1)


@money_plants(BreachKind.ACTION_DECIDED)
async def a_payment_is_held_before_its_customer_approves(connection: AsyncConnection, world: MoneyWorld) -> None:
    await record_entry(connection, world.asking, "authorize", 1)


@money_plants(BreachKind.ENDED_CHARGED)
async def a_payment_is_charged_although_its_customer_declined(connection: AsyncConnection, world: MoneyWorld) -> None:
    await record_entry(connection, world.refused, "sale", 1)


@money_plants(BreachKind.FAILED_NOT_VOIDED)
async def a_payment_fails_although_its_customer_was_not_asked(connection: AsyncConnection, world: MoneyWorld) -> None:
    await change(connection, world.refused, outcome_rule="rate")


@money_plants(BreachKind.PENDING_UNKNOWN)
async def the_gateway_never_announced_a_late_answer(connection: AsyncConnection, world: MoneyWorld) -> None:
    await remove_entry(connection, world.late, 0)


@money_plants(BreachKind.HOLD_MISMATCH)
async def another_amount_is_held(connection: AsyncConnection, world: MoneyWorld) -> None:
    await change_entry(connection, world.authorized, 1, amount=1998)


@money_plants(BreachKind.HOLD_MISMATCH)
async def another_currency_is_held(connection: AsyncConnection, world: MoneyWorld) -> None:
    await change_entry(connection, world.authorized, 1, currency="EUR")


@money_plants(BreachKind.CAPTURED_ABOVE_HOLD)
async def more_is_captured_than_was_held(connection: AsyncConnection, world: MoneyWorld) -> None:
    await change_entry(connection, world.partly, 4, amount=2000)


@money_plants(BreachKind.CAPTURED_ABOVE_HOLD)
async def a_capture_that_is_not_recorded_yet_is_above_what_was_held(
    connection: AsyncConnection, world: MoneyWorld
) -> None:
    await of_number(connection, world.capturing, "capture", 4, 2000)


@money_plants(BreachKind.CHARGE_MISMATCH)
async def another_part_was_captured(connection: AsyncConnection, world: MoneyWorld) -> None:
    await change_entry(connection, world.partly, 4, amount=999)


@money_plants(BreachKind.COMPLETED_UNCHARGED)
async def what_was_refunded_was_never_charged(connection: AsyncConnection, world: MoneyWorld) -> None:
    await remove_entry(connection, world.refunded, 1)


@money_plants(BreachKind.COMPLETED_UNCHARGED)
async def what_is_refunded_in_part_was_never_captured(connection: AsyncConnection, world: MoneyWorld) -> None:
    await remove_entry(connection, world.partly, 4)


@money_plants(BreachKind.ENDED_HELD)
async def a_cancelled_authorization_is_still_held(connection: AsyncConnection, world: MoneyWorld) -> None:
    await remove_entry(connection, world.voided, 2)


@money_plants(BreachKind.ENDED_CHARGED)
async def a_cancelled_authorization_was_captured(connection: AsyncConnection, world: MoneyWorld) -> None:
    await remove_entry(connection, world.voided, 2)
    await of_number(connection, world.voided, "capture", 4, 1999)


@money_plants(BreachKind.CHARGED_TWICE)
async def a_capture_follows_a_sale(connection: AsyncConnection, world: MoneyWorld) -> None:
    await of_number(connection, world.refunded, "capture", 9, 1999)


# -- balances


@money_plants(BreachKind.BALANCE_MISSING)
async def an_authorization_has_no_balance(connection: AsyncConnection, world: MoneyWorld) -> None:
    await connection.execute(delete(payment_balances).where(payment_balances.c.payment_id == world.authorized))


@money_plants(BreachKind.BALANCE_MISSING)
async def a_refunded_charge_has_no_balance(connection: AsyncConnection, world: MoneyWorld) -> None:
    await connection.execute(delete(payment_balances).where(payment_balances.c.payment_id == world.refunded))


@money_plants(BreachKind.UNEXPECTED_BALANCE)
async def what_was_only_charged_has_a_balance(connection: AsyncConnection, world: MoneyWorld) -> None:
    await change(connection, world.voided, operation="authorize")


@money_plants(BreachKind.BALANCE_MISMATCH)
async def the_balance_has_another_authorization(connection: AsyncConnection, world: MoneyWorld) -> None:
    await change_balance(connection, world.authorized, authorized=2000)


@money_plants(BreachKind.BALANCE_MISMATCH)
async def the_balance_of_an_authorization_is_captured(connection: AsyncConnection, world: MoneyWorld) -> None:
    await change_balance(connection, world.authorized, captured=1)


@money_plants(BreachKind.BALANCE_MISMATCH)
async def another_part_was_to_be_captured(connection: AsyncConnection, world: MoneyWorld) -> None:
    await change(connection, world.partly, operation_amount=999)


@money_plants(BreachKind.REFUND_SUM_MISMATCH)
async def too_much_is_reserved(connection: AsyncConnection, world: MoneyWorld) -> None:
    await change_balance(connection, world.partly, reserved=76)


@money_plants(BreachKind.REFUND_SUM_MISMATCH)
async def too_little_is_refunded(connection: AsyncConnection, world: MoneyWorld) -> None:
    await change_balance(connection, world.partly, refunded=299)


# -- histories, events and due times


@money_plants(BreachKind.HISTORY_MOVE)
async def an_authorization_is_completed_without_a_capture(connection: AsyncConnection, world: MoneyWorld) -> None:
    of_request = (payment_history.c.payment_id == world.partly) & (payment_history.c.sequence == 4)
    await connection.execute(update(payment_history).where(of_request).values(new_status="CANCELLED"))


@money_plants(BreachKind.EVENT_MISSING)
async def the_event_of_an_authorization_is_gone(connection: AsyncConnection, world: MoneyWorld) -> None:
    of_hold = (events.c.payment_id == world.authorized) & (events.c.type == "payment.authorized")
    await connection.execute(delete(events).where(of_hold))


@money_plants(BreachKind.DANGLING_IDEMPOTENCY_KEY)
async def a_key_of_a_capture_that_is_not_there(connection: AsyncConnection, world: MoneyWorld) -> None:
    await bind(connection, f"service:shop POST /payments/{world.partly}/capture", world.completed.id)


@money_plants(BreachKind.PAYMENT_NEVER_DUE)
async def an_authorization_never_ends(connection: AsyncConnection, world: MoneyWorld) -> None:
    await change(connection, world.authorized, due_at=None)


@money_plants(BreachKind.EXPIRY_MISMATCH)
async def an_authorization_is_looked_at_too_early(connection: AsyncConnection, world: MoneyWorld) -> None:
    await change(connection, world.authorized, due_at=NOW)


@money_plants(BreachKind.EXPIRY_MISMATCH)
async def an_authorization_is_looked_at_too_late(connection: AsyncConnection, world: MoneyWorld) -> None:
    await change(connection, world.authorized, due_at=NOW + timedelta(days=30))


@money_plants(BreachKind.EXPIRY_MISMATCH)
async def an_authorization_has_no_end(connection: AsyncConnection, world: MoneyWorld) -> None:
    await change(connection, world.authorized, capture_before=None)


@money_plants(BreachKind.EXPIRY_MISMATCH)
async def a_customer_has_more_time_than_the_payment(connection: AsyncConnection, world: MoneyWorld) -> None:
    await change(connection, world.asking, action_expires_at=NOW)


@money_plants(BreachKind.PAYMENT_UNCLAIMED)
async def nobody_takes_a_payment_whose_customer_did_not_answer(connection: AsyncConnection, world: MoneyWorld) -> None:
    await change(connection, world.asking, action_expires_at=LONG_AGO, due_at=NOW)


@money_plants(BreachKind.PAYMENT_UNCLAIMED)
async def nobody_asks_for_a_late_answer(connection: AsyncConnection, world: MoneyWorld) -> None:
    await change(connection, world.late, updated_at=LONG_AGO)


@money_plants(BreachKind.PAYMENT_UNCLAIMED)
async def nobody_takes_a_capture(connection: AsyncConnection, world: MoneyWorld) -> None:
    await change(connection, world.capturing, updated_at=LONG_AGO)


@money_plants(BreachKind.PAYMENT_UNCLAIMED)
async def nobody_takes_an_authorization_that_is_over(connection: AsyncConnection, world: MoneyWorld) -> None:
    await change(connection, world.authorized, capture_before=LONG_AGO, due_at=NOW)


@pytest.mark.parametrize(("kind", "plant"), money_plants.parameters())
async def test_a_planted_breach_is_found_and_nothing_else(
    database: Database, world: MoneyWorld, kind: BreachKind, plant: Plant[MoneyWorld]
) -> None:
    await assert_found_alone(database, world, kind, plant)
