"""Version 0.1 beside payments that it does not know: authorizations, captures, voids and refunds.

Whenever its worker is started, and whether or not anybody sees its heartbeat: it does not move them.
"""

from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update

from shared.broker.client import Broker, Queue
from shared.database.engine import Database
from shared.database.leases import WorkItem
from shared.database.refund_tables import refunds
from shared.database.tables import columns_of, gateway_ledger, payments
from shared.errors import ValueRefused
from shared.ids import new_id
from shared.lifecycle import CaptureMethod, PaymentOperation, PaymentStatus
from shared.payments.find import Visible, find
from shared.payments.payment import Payment
from shared.payments.requests import cancel, capture
from shared.refund_lifecycle import RefundReason, RefundStatus
from shared.refunds.requests import RefundMoved, RefundRequest, request_refund
from tests.support.processes import PaymentsProcess, Shop, processes
from tests.support.processing import processing, simulated_gateway
from tests.support.rows import accepted, assert_sound, ledger_entries, read, write
from tests.support.survival import MakeSettings, on_postgresql
from tests.support.version_0_1 import process_of_0_1, unpack
from tests.support.waiting import eventually

pytest_plugins = ["tests.support.survival_fixtures"]

SETTLED_S = 60.0
USER = "7"


@dataclass
class Left:
    """Payments as this version leaves them when its workers stop: by what they wait for."""

    authorization: Payment
    capture: Payment
    void: Payment
    expiry: Payment
    wait: Payment
    refund: Payment
    rest: Payment
    refunded: Payment

    @property
    def all(self) -> dict[str, Payment]:
        return vars(self)


def manual(**changes: Any) -> Payment:
    order = str(new_id())
    return replace(
        accepted(datetime.now(UTC)), id=new_id(), user_id=USER, order_id=order, capture_method=CaptureMethod.MANUAL,
        operation=PaymentOperation.AUTHORIZE, **changes,
    )  # fmt: skip


async def left(database: Database, broker: Broker) -> Left:
    held = {name: manual() for name in ("capture", "void", "expiry", "wait")}
    charged = {
        name: accepted(datetime.now(UTC), id=new_id(), user_id=USER, order_id=str(new_id()))
        for name in ("refund", "rest", "refunded")
    }
    async with simulated_gateway(database) as gateway, processing(database, gateway, broker) as worker:
        await write(database, *held.values(), *charged.values())
        await worker.offer(*held.values(), *charged.values())
        await eventually(lambda: are(database, held, PaymentStatus.AUTHORIZED))
        await eventually(lambda: are(database, charged, PaymentStatus.COMPLETED))
        part = await refund(database, charged["rest"].id, 1)
        whole = await refund(database, charged["refunded"].id)
        await worker.processor.offer([*part.work, *whole.work], Queue.REFUND)
        await eventually(lambda: are(database, {"": charged["rest"]}, PaymentStatus.PARTIALLY_REFUNDED))
        await eventually(lambda: are(database, {"": charged["refunded"]}, PaymentStatus.REFUNDED))
    authorization = manual()
    await write(database, authorization)
    await refund(database, charged["refund"].id, 10)
    async with database.transaction() as connection:
        now = await database.clock.now(connection)
        await capture(connection, held["capture"].id, amount=60, by="service:shop", now=now)
        await cancel(connection, held["void"].id, by="service:shop", now=now)
        over = now - timedelta(seconds=1)
        await connection.execute(
            update(payments).where(payments.c.id == held["expiry"].id).values(capture_before=over, due_at=over)
        )
    found = {"authorization": authorization, **held, **charged}
    return Left(**{name: await read(database, payment.id) for name, payment in found.items()})


async def are(database: Database, wanted: dict[str, Payment], status: PaymentStatus) -> bool:
    return all([(await read(database, payment.id)).status is status for payment in wanted.values()])


async def refund(database: Database, payment_id: UUID, amount: int | None = None) -> RefundMoved:
    wanted = RefundRequest(
        id=new_id(), amount=amount, reason=RefundReason.OTHER, metadata={}, created_by="service:shop",
        correlation_id=None,
    )  # fmt: skip
    async with database.transaction() as connection:
        now = await database.clock.now(connection)
        requested = await request_refund(connection, payment_id, wanted, now=now)
    assert isinstance(requested, RefundMoved)
    return requested


async def standing(database: Database, found: Left) -> dict[str, Any]:
    """Everything of these payments that a worker could change, but for the moment at which they are due."""
    async with database.read() as connection:
        rows = await connection.execute(select(*columns_of(payments)).where(payments.c.user_id == USER))
        entries = await connection.execute(select(gateway_ledger.c.key).order_by("key"))
        of_refunds = await connection.execute(select(refunds.c.id, refunds.c.status).order_by("id"))
        return {
            **{str(row["id"]): {**row, "due_at": None} for row in rows.mappings()},
            "ledger": [key for (key,) in entries if any(key.startswith(str(one.id)) for one in found.all.values())],
            "refunds": [tuple(row) for row in of_refunds],
        }


@on_postgresql
@pytest.mark.slow
@pytest.mark.timeout(200)
async def test_a_worker_of_0_1_leaves_them_to_the_workers_of_this_version(
    make_settings: MakeSettings, database: Database, broker: Broker, tmp_path: Path
) -> None:
    settings = make_settings(
        payment_success_rate=1, payment_processing_delay_min=0, payment_processing_delay_max=50, relay_interval_s=0.5
    )
    found = await left(database, broker)
    plain = accepted(datetime.now(UTC), id=new_id(), order_id=str(new_id()))
    await write(database, plain)
    before = await standing(database, found)
    old = process_of_0_1("worker", tmp_path / "old", settings, source=unpack(tmp_path / "source"))
    with processes(old):
        await old.ready()
        items = [payment.work_item for payment in found.all.values()]
        # In one batch: what is refused must not keep the others.
        assert await broker.publish(Queue.PROCESS, [*items, plain.work_item])
        await eventually(lambda: are(database, {"": plain}, PaymentStatus.COMPLETED), SETTLED_S)
        refused = [found.authorization, found.capture, found.void]
        await eventually(lambda: sum(line["count"] for line in old.lines("payments.claims_failed")) >= len(refused))
        assert {line["payment_id"] for line in old.lines("payment.claimed")} == {str(plain.id)}
        assert await standing(database, found) == before
        old.terminate()
        assert await old.ended() == 0
    await ends_as_asked(database, found, PaymentsProcess("worker", tmp_path / "new", settings))
    await assert_sound(database)


async def ends_as_asked(database: Database, found: Left, worker: PaymentsProcess) -> None:
    """A worker of this version does what the worker before left alone."""
    wanted = {
        "authorization": (PaymentStatus.AUTHORIZED, ["authorize"]),
        "capture": (PaymentStatus.COMPLETED, ["authorize", "capture"]),
        "void": (PaymentStatus.CANCELLED, ["authorize", "void"]),
        "expiry": (PaymentStatus.CANCELLED, ["authorize", "void"]),
        "wait": (PaymentStatus.AUTHORIZED, ["authorize"]),
        "refund": (PaymentStatus.PARTIALLY_REFUNDED, None),
    }
    # The relay would publish them again half a minute after the relay of 0.1 did.
    async with database.transaction() as connection:
        now = await database.clock.now(connection)
        await connection.execute(update(payments).where(payments.c.due_at < now + timedelta(days=1)).values(due_at=now))
    with processes(worker):
        for name, (status, _) in wanted.items():
            await eventually(partial(are, database, {"": found.all[name]}, status), SETTLED_S)
    for name, (_, kinds) in wanted.items():
        if kinds is not None:
            assert await ledger_entries(database, found.all[name].id) == kinds
    async with database.read() as connection:
        captured = await find(connection, found.capture.id, Visible())
    assert captured is not None
    assert captured.amounts.captured == 60


@on_postgresql
@pytest.mark.slow
@pytest.mark.timeout(200)
async def test_the_api_of_0_1_moves_none_of_them_but_to_cancel_what_is_pending(
    make_settings: MakeSettings, database: Database, broker: Broker, tmp_path: Path
) -> None:
    settings = make_settings()
    found = await left(database, broker)
    before = await standing(database, found)
    old = process_of_0_1("api", tmp_path / "old", settings, source=unpack(tmp_path / "source"))
    async with AsyncExitStack() as stack:
        stack.enter_context(processes(old))
        await old.ready()
        shop = await stack.enter_async_context(Shop(settings, user=USER))
        await shop.add_card()
        for name in ("capture", "void", "expiry", "wait", "refund", "rest", "refunded"):
            answer = await shop.http.post(f"/payments/{found.all[name].id}/cancel")
            assert not answer.is_success, name
        # Their orders are taken, all but the one whose payment was refunded.
        for name in ("authorization", "capture", "void", "expiry", "wait", "refund", "rest"):
            answer = await shop.pay(order_id=found.all[name].order_id)
            assert not answer.is_success, name
        assert await standing(database, found) == before
        await shop.accepted(order_id=found.refunded.order_id)
        cancelled = await shop.http.post(f"/payments/{found.authorization.id}/cancel")
        assert cancelled.json()["status"] == "CANCELLED"
    await assert_sound(database)


# -- the guard


async def claim_as_0_1(database: Database, item: WorkItem) -> None:
    """Do what its claim does: it writes no column that it does not know."""
    async with database.transaction() as connection:
        await connection.execute(
            update(payments)
            .where(payments.c.id == item.id, payments.c.lease_version == item.lease_version)
            .values(status=PaymentStatus.PROCESSING, lease_version=payments.c.lease_version + 1)
        )


async def test_the_table_refuses_claims_that_do_not_know_the_operation(database: Database, broker: Broker) -> None:
    found = await left(database, broker)
    for payment in (found.authorization, found.capture, found.void, found.expiry, found.wait):
        with pytest.raises(ValueRefused):
            await claim_as_0_1(database, payment.work_item)
        assert await read(database, payment.id) == payment
    plain = accepted(datetime.now(UTC), id=new_id(), order_id=str(new_id()))
    await write(database, plain)
    await claim_as_0_1(database, plain.work_item)
    assert (await read(database, plain.id)).lease_version == 1
    assert {status.status for status in await refunds_of(database)} == {RefundStatus.PENDING, RefundStatus.COMPLETED}


async def refunds_of(database: Database) -> list[Any]:
    async with database.read() as connection:
        return list(await connection.execute(select(refunds.c.status)))
