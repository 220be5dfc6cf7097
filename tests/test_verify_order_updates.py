"""What `payments verify` says of the orders of refunded payments, on both databases."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from sqlalchemy import delete, select

from shared.config.settings import Settings
from shared.database.engine import Database
from shared.database.tables import deliveries, events
from shared.event_types import EventType
from shared.ids import new_id
from shared.payments.events import emit_order_conflicts
from shared.payments.outcomes import Approved
from shared.payments.payment import Payment
from shared.refund_lifecycle import RefundHistoryReason, RefundReason
from shared.refunds.claim import claim_refunds
from shared.refunds.outcomes import RefundSettled
from shared.refunds.record import RefundRecord, record_refunds
from shared.refunds.requests import RefundMoved, RefundRequest, request_refund
from shared.verify import event_checks
from shared.verify.breaches import BreachKind
from shared.verify.scan import Scan
from shared.verify.verifier import verify_installation
from tests.support.settling import APPROVED
from tests.support.verified import LONG_AGO, NOW, accept, settle

PAID_BACK = Approved("stripe_mock", "re_1", {}, "rate")


async def refunded(
    database: Database, *, at: datetime = NOW, amount: int | None = None, cancels_orders: bool = True
) -> Payment:
    """Complete a payment and refund it at this moment."""
    payment = await accept(database, at=at)
    async with database.transaction() as connection:
        await settle(connection, payment, APPROVED, at=at)
        request = RefundRequest(
            id=new_id(), amount=amount, reason=RefundReason.OTHER, metadata={}, created_by="service:1",
            correlation_id=None,
        )  # fmt: skip
        requested = await request_refund(connection, payment.id, request, now=at)
        assert isinstance(requested, RefundMoved)
        [claimed] = await claim_refunds(connection, at, requested.work, lease_s=30)
        assert claimed is not None
        settled = RefundSettled(PAID_BACK, RefundHistoryReason.GATEWAY_APPROVED)
        record = RefundRecord(claimed.row, settled)
        assert await record_refunds(connection, at, [record], cancels_orders=cancels_orders) != [None]
    return payment


async def missing(database: Database) -> dict[BreachKind, int]:
    """Return what is found of the order updates of refunded payments."""
    scan = Scan(database, range_size=2)
    await scan.of_payments(await scan.order_update_queries(None, EventType.REFUNDED))
    return scan.found.totals


async def test_nothing_is_judged_before_the_first_order_update_of_a_refunded_payment(database: Database) -> None:
    await refunded(database, cancels_orders=False)
    assert await missing(database) == {}


async def test_a_refunded_payment_without_its_order_update_is_a_breach(database: Database) -> None:
    await refunded(database, at=LONG_AGO - timedelta(hours=1), cancels_orders=False)
    await refunded(database, at=LONG_AGO)
    await refunded(database, amount=1, cancels_orders=False)
    late = await refunded(database)
    assert await missing(database) == {}
    async with database.transaction() as connection:
        await connection.execute(delete(deliveries).where(deliveries.c.payment_id == late.id))
    assert await missing(database) == {BreachKind.MISSING_ORDER_DELIVERY: 1}


@pytest.mark.parametrize(("on_refund", "count"), [("none", 1), ("cancel", 2)])
async def test_both_updates_are_asked_for_only_where_the_order_service_is_told_of_refunds(
    make_settings: Callable[..., Settings], database: Database, on_refund: str, count: int
) -> None:
    await refunded(database, at=LONG_AGO)
    late = await refunded(database)
    async with database.transaction() as connection:
        await connection.execute(delete(deliveries).where(deliveries.c.payment_id == late.id))
    settings = make_settings(order_service_url="http://127.0.0.1:9", order_on_refund=on_refund)
    done = await verify_installation(Scan(database), settings)
    assert done.found.totals[BreachKind.MISSING_ORDER_DELIVERY] == count


async def test_a_conflict_that_is_found_after_a_part_was_refunded_is_no_unexpected_event(database: Database) -> None:
    payment = await refunded(database, amount=1)
    unexpected = Scan(database)
    await unexpected.of_payments([event_checks.unexpected_events()])
    before = unexpected.found.total
    async with database.transaction() as connection:
        await emit_order_conflicts(connection, [payment.id], now=NOW)
    scan = Scan(database)
    await scan.of_payments([event_checks.unexpected_events()])
    assert scan.found.total == before


async def test_a_conflict_is_emitted_once_whatever_moves_the_payment_meanwhile(database: Database) -> None:
    payment = await refunded(database, amount=1)
    for _ in range(2):
        async with database.transaction() as connection:
            await emit_order_conflicts(connection, [payment.id], now=NOW)
            request = RefundRequest(
                id=new_id(), amount=1, reason=RefundReason.OTHER, metadata={}, created_by="service:1",
                correlation_id=None,
            )  # fmt: skip
            assert isinstance(await request_refund(connection, payment.id, request, now=NOW), RefundMoved)
    async with database.read() as connection:
        found = await connection.execute(select(events.c.id).where(events.c.type == EventType.ORDER_CONFLICT))
        assert len(found.all()) == 1
