"""Payments that are authorized, captured and refunded over a running API, without a worker."""

from typing import Any
from uuid import UUID

import httpx
from sqlalchemy import select

from shared.database.engine import Database
from shared.database.leases import WorkItem
from shared.database.refund_tables import refunds
from shared.lifecycle import CaptureFailureCode, HistoryReason
from shared.payments.outcomes import Approved, Authorized, Declined, Settled, Voided
from shared.refund_lifecycle import RefundFailureCode, RefundHistoryReason
from shared.refunds.claim import claim_refunds
from shared.refunds.outcomes import RefundSettled
from shared.refunds.record import RefundRecord, record_refunds
from tests.support.api_client import accepted, added, order
from tests.support.settling import APPROVED, settled
from tests.support.waiting import eventually

VALID_S = 7 * 86_400.0

_APPROVAL = Approved(gateway="stripe_mock", transaction_id="ch_1", details={}, outcome_rule="rate")
AUTHORIZED = Authorized(_APPROVAL, VALID_S)
CAPTURED = Settled(_APPROVAL, HistoryReason.CAPTURED)
VOIDED = Settled(Voided("stripe_mock"), HistoryReason.VOIDED)
CAPTURE_DECLINED = Settled(
    Declined(
        gateway="stripe_mock",
        failure_code=CaptureFailureCode.CAPTURE_DECLINED,
        failure_reason="The gateway declined the capture.",
        details=None,
        outcome_rule="request",
    ),
    HistoryReason.CAPTURE_FAILED,
)
REFUNDED = RefundSettled(
    Approved(gateway="stripe_mock", transaction_id="re_1", details={}, outcome_rule="rate"),
    RefundHistoryReason.GATEWAY_APPROVED,
)
REFUND_DECLINED = RefundSettled(
    Declined(
        gateway="stripe_mock",
        failure_code=RefundFailureCode.REFUND_DECLINED,
        failure_reason="The gateway declined the refund.",
        details=None,
        outcome_rule="card",
    ),
    RefundHistoryReason.GATEWAY_DECLINED,
)


async def authorized(client: httpx.AsyncClient, database: Database, **changes: Any) -> dict[str, Any]:
    """A new payment of the client whose funds are held."""
    payment = await accepted(client, order(await added(client), capture_method="manual", **changes))
    await settled(database, payment["id"], AUTHORIZED)
    return await shown(client, payment["id"])


async def charged(client: httpx.AsyncClient, database: Database, **changes: Any) -> dict[str, Any]:
    """A new payment of the client that is COMPLETED."""
    payment = await accepted(client, order(await added(client), **changes))
    await settled(database, payment["id"], APPROVED)
    return await shown(client, payment["id"])


async def shown(client: httpx.AsyncClient, payment_id: str) -> dict[str, Any]:
    """The payment as its client sees it."""
    answer = await client.get(f"/payments/{payment_id}")
    assert answer.status_code == 200, answer.text
    payment: dict[str, Any] = answer.json()
    return payment


async def refund_claimed(database: Database, refund_id: str) -> Any:
    """The refund as a worker has claimed it, or None."""
    async with database.transaction() as connection:
        now = await database.clock.now(connection)
        version = await connection.execute(select(refunds.c.lease_version).where(refunds.c.id == UUID(refund_id)))
        item = WorkItem(UUID(refund_id), version.scalar_one())
        [claimed] = await claim_refunds(connection, now, [item], lease_s=30)
        return claimed and claimed.row


async def refund_ended(database: Database, refund_id: str, outcome: RefundSettled = REFUNDED) -> None:
    """Let a worker claim the refund and record how it ended."""
    work = await refund_claimed(database, refund_id)
    assert work is not None
    async with database.transaction() as connection:
        now = await database.clock.now(connection)
        [recorded] = await record_refunds(connection, now, [RefundRecord(work, outcome)])
    assert recorded is not None


async def refunded(client: httpx.AsyncClient, payment: dict[str, Any], **body: Any) -> dict[str, Any]:
    """A refund that must be accepted."""
    answer = await client.post(f"/payments/{payment['id']}/refunds", json=body)
    assert answer.status_code == 202, answer.text
    refund: dict[str, Any] = answer.json()
    return refund


async def in_status(client: httpx.AsyncClient, payment_id: str, status: str) -> dict[str, Any]:
    """The payment, as soon as it has this status."""

    async def there() -> Any:
        payment = await shown(client, payment_id)
        return payment if payment["status"] == status else None

    found: dict[str, Any] = await eventually(there)
    return found
