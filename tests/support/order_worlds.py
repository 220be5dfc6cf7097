"""A worker beside the platform's order service, and the payments of its orders: accepted, captured, refunded."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, select

from shared.config.settings import Settings
from shared.database.engine import Database
from shared.database.refund_tables import refunds
from shared.database.tables import columns_of, deliveries, events, payments
from shared.event_types import EventType
from shared.ids import new_id
from shared.lifecycle import CaptureMethod, PaymentOperation, PaymentStatus
from shared.payments.outcomes import Approved
from shared.payments.payment import Payment
from shared.payments.requests import cancel, capture
from shared.refund_lifecycle import RefundFailureCode, RefundHistoryReason, RefundReason
from shared.refunds.claim import claim_refunds
from shared.refunds.outcomes import RefundSettled
from shared.refunds.record import RefundRecord, record_refunds
from shared.refunds.refund import Refund
from shared.refunds.requests import ExceedsBalance, NotRefundable, RefundMoved, RefundRequest, request_refund
from shared.runtime import Runtime, open_runtime
from shared.verify import delivery_checks, due_checks
from shared.verify.scan import Scan
from shared.webhooks.resend import resend
from tests.support.authorizations import whole
from tests.support.order_standins import Order, OrderService
from tests.support.processing import simulated_gateway
from tests.support.rows import accepted, assert_sound, write
from tests.support.standins import running
from tests.support.waiting import eventually

type MakeSettings = Callable[..., Settings]

TOTAL, CENTS = "15.85", 1585
WAIT_S = 30.0
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Shop:
    """The order service, and a runtime for workers beside it."""

    orders: OrderService
    runtime: Runtime

    @property
    def database(self) -> Database:
        """The database of the payments."""
        return self.runtime.database

    async def accept(self, order: Order, *, manual: bool = False, **changes: Any) -> Payment:
        """Write a payment for the order, which the relay finds due."""
        payment = accepted(datetime.now(UTC), amount=CENTS, order_id=str(order.id), user_id=str(order.user_id))
        payment = replace(payment, **{"due_at": payment.created_at, **changes})
        if manual:
            payment = replace(payment, capture_method=CaptureMethod.MANUAL, operation=PaymentOperation.AUTHORIZE)
        await write(self.database, payment)
        return payment

    async def paid(self, order: Order, **changes: Any) -> Payment:
        """Accept a payment and return it once it is COMPLETED."""
        payment = await self.accept(order, **changes)
        return await self.reached(payment, PaymentStatus.COMPLETED)

    async def reached(self, payment: Payment, status: PaymentStatus) -> Payment:
        """Return the payment once it has this status."""

        async def there() -> Payment | None:
            found = await whole(self.database, payment.id)
            return found if found.status is status else None

        found = await eventually(there, WAIT_S)
        assert found is not None
        return found

    async def request(self, payment: Payment, amount: int | None = None, *, voids: bool = False) -> None:
        """Request the capture, or the void, and make it due at once."""
        async with self.database.transaction() as connection:
            now = await self.database.clock.now(connection)
            if voids:
                requested = await cancel(connection, payment.id, by="service:shop", now=now)
            else:
                requested = await capture(connection, payment.id, amount=amount, by="service:shop", now=now)
            await connection.execute(payments.update().where(payments.c.id == payment.id).values(due_at=now))
        assert requested is not None
        assert requested.is_moved

    async def capture_without_record(self, payment: Payment) -> None:
        """Let the gateway capture the payment, as a worker does that is killed before it records that."""
        async with simulated_gateway(self.database) as gateway:
            answer = await gateway.capture(await whole(self.database, payment.id))
        assert isinstance(answer, Approved)

    async def try_refund(
        self, payment: Payment, amount: int | None = None, **changes: Any
    ) -> RefundMoved | NotRefundable | ExceedsBalance | None:
        """Request a refund as a client does, which the relay finds due after its head start."""
        values: dict[str, Any] = {"reason": RefundReason.OTHER, "created_by": "service:shop", **changes}
        request = RefundRequest(id=new_id(), amount=amount, metadata={}, correlation_id=None, **values)
        async with self.database.transaction() as connection:
            now = await self.database.clock.now(connection)
            return await request_refund(connection, payment.id, request, now=now)

    async def refund(self, payment: Payment, amount: int | None = None, **changes: Any) -> Refund:
        """Request a refund, and make it due at once."""
        requested = await self.try_refund(payment, amount, **changes)
        assert isinstance(requested, RefundMoved)
        await self.hurry_refunds()
        return requested.refund

    async def fail_refund(self, refund: Refund) -> None:
        """Claim the refund and record that the gateway could not be reached, as a worker does."""
        async with self.database.transaction() as connection:
            now = await self.database.clock.now(connection)
            [claimed] = await claim_refunds(connection, now, [refund.work_item], lease_s=30)
        assert claimed is not None
        work, code = claimed.row, RefundFailureCode.NETWORK_ERROR
        async with simulated_gateway(self.database) as gateway:
            answer = await gateway.close_refund_or_fetch(work.payment, work.refund, code)
        settled = RefundSettled(answer, RefundHistoryReason.GATEWAY_UNREACHABLE)
        async with self.database.transaction() as connection:
            assert await record_refunds(connection, now, [RefundRecord(work, settled)]) != [None]

    async def hurry_refunds(self) -> None:
        """Let no refund wait for its head start over the relay."""
        async with self.database.transaction() as connection:
            now = await self.database.clock.now(connection)
            await connection.execute(
                refunds.update().where(refunds.c.due_at > now, refunds.c.lease_version == 0).values(due_at=now)
            )

    async def hurry_updates(self) -> None:
        """Let no update of an order wait for its next attempt."""
        async with self.database.transaction() as connection:
            now = await self.database.clock.now(connection)
            is_waiting = (deliveries.c.kind == "order") & (deliveries.c.status == "pending")
            await connection.execute(deliveries.update().where(is_waiting).values(due_at=now))

    async def updates(self, payment: Payment) -> dict[str, RowMapping]:
        """Return the deliveries to the order service by the types of their events."""
        async with self.database.read() as connection:
            found = await connection.execute(
                select(*columns_of(deliveries), events.c.type.label("event_type"))
                .join(events, events.c.id == deliveries.c.event_id)
                .where(deliveries.c.payment_id == payment.id, deliveries.c.kind == "order")
            )
            rows = found.mappings().all()
        by_type = {row["event_type"]: row for row in rows}
        assert len(by_type) == len(rows)
        return by_type

    async def update(self, payment: Payment, event_type: str, status: str) -> RowMapping:
        """Return the delivery to the order service once it has this status."""

        async def there() -> RowMapping | None:
            row = (await self.updates(payment)).get(event_type)
            return row if row is not None and row["status"] == status else None

        found = await eventually(there, WAIT_S)
        assert found is not None
        return found

    async def resend(self, delivery_id: UUID) -> None:
        """Send a delivery again."""
        async with self.database.transaction() as connection:
            assert await resend(connection, await self.database.clock.now(connection), delivery_id)

    async def event_types(self, payment: Payment) -> list[str]:
        """Return the types of the events of a payment, in their order."""
        async with self.database.read() as connection:
            found = await connection.execute(
                select(events.c.type).where(events.c.payment_id == payment.id).order_by(events.c.sequence, events.c.id)
            )
            return list(found.scalars())

    async def refunds(self, payment: Payment) -> list[Refund]:
        """Return the refunds of a payment, in their order."""
        async with self.database.read() as connection:
            found = await connection.execute(
                select(*columns_of(refunds)).where(refunds.c.payment_id == payment.id).order_by(refunds.c.number)
            )
            return [Refund.of(row) for row in found.mappings()]


async def assert_updates_sound(runtime: Runtime) -> None:
    """What must hold of the updates of orders, as `payments verify` sees it."""
    types = [EventType.COMPLETED, EventType.REFUNDED] if runtime.settings.cancels_orders else [EventType.COMPLETED]
    scan = Scan(runtime.database)
    await scan.of_payments(
        [
            delivery_checks.silent_order_updates(),
            due_checks.deliveries_never_due(),
            *(delivery_checks.missing_order_deliveries(LONG_AGO, event_type) for event_type in types),
        ]
    )
    assert scan.found.totals == {}


@asynccontextmanager
async def shop_with(make_settings: MakeSettings, **changes: Any) -> AsyncIterator[Shop]:
    """The order service and a runtime with these settings; what is in the tables at the end must be sound."""
    settings = make_settings()
    async with running(OrderService(secret=settings.jwt_secret_key.get_secret_value())) as orders:
        values = {
            "order_service_url": orders.url,
            "payment_success_rate": 1,
            "order_not_found_after_s": 0.05,
            "order_backoff_s": 0.05,
            "webhook_retry_schedule": (0.05,) * 400,
            "breaker_open_s": 0.05,
        }
        runtime = open_runtime(make_settings(**{**values, **changes}))
        try:
            yield Shop(orders, runtime)
            await assert_sound(runtime.database)
            await assert_updates_sound(runtime)
        finally:
            await runtime.close()
