"""Notifications of gateways, signed by the official `standardwebhooks` package, and payments that wait for them."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import orjson
from sqlalchemy import select, update
from standardwebhooks import Webhook

from shared.database.engine import Database
from shared.database.refund_tables import refunds
from shared.database.tables import payments
from shared.ids import new_id
from shared.payments.outcomes import Pending, Unsettled
from shared.refund_lifecycle import RefundHistoryReason
from tests.support.api_client import RunningApi, accepted, added, order, paypal
from tests.support.money import charged, refund_claimed
from tests.support.settling import settled

GATEWAY = "paypal_mock"
PATH = "/webhooks/payment"
# Seconds until the gateway is asked without a notification.
ASKED_AFTER_S = 3600


def notification(payment_id: str, *, refund_id: str | None = None, gateway: str = GATEWAY) -> dict[str, Any]:
    """The body of a notification about a payment, or about a refund of it."""
    data = {"gateway": gateway, "payment_id": payment_id}
    return {
        "type": "refund.settled" if refund_id else "payment.settled",
        "timestamp": datetime.now(UTC).isoformat(),
        "data": data | ({"refund_id": refund_id} if refund_id else {}),
    }


def signed(
    running_api: RunningApi, content: bytes, *, signer: str = GATEWAY, offset_s: float = 0, **headers: str
) -> dict[str, str]:
    """The headers of a notification that this gateway signs, `offset_s` seconds from now."""
    moment = datetime.now(UTC) + timedelta(seconds=offset_s)
    webhook_id = str(new_id())
    secret = running_api.runtime.keyring.notification_secret(signer)
    return {
        "content-type": "application/json",
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": Webhook(secret).sign(webhook_id, moment, content.decode()),
        **headers,
    }


async def notify(
    running_api: RunningApi, body: Any, *, path: str = f"{PATH}/{GATEWAY}", **signing: Any
) -> httpx.Response:
    """Send a notification, signed with `signing`."""
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    return await running_api.client().post(path, content=content, headers=signed(running_api, content, **signing))


async def waiting_payment(running_api: RunningApi, *, gateway: str = GATEWAY) -> str:
    """The id of a payment that waits for a late answer of this gateway."""
    user = running_api.user()
    payment = await accepted(user, order(await added(user, paypal())))
    recorded = await settled(running_api.database, payment["id"], Unsettled(Pending(gateway, 10), ASKED_AFTER_S))
    assert recorded is not None
    payment_id: str = payment["id"]
    return payment_id


async def waiting_refund(running_api: RunningApi, *, gateway: str = GATEWAY) -> tuple[str, str]:
    """The ids of a payment and of a refund of it that waits for a late answer of this gateway."""
    payment = await charged(running_api.user(), running_api.database)
    answer = await running_api.admin().post(f"/payments/{payment['id']}/refunds", json={"amount": 1})
    refund_id: str = answer.json()["id"]
    await refund_claimed(running_api.database, refund_id)
    async with running_api.database.transaction() as connection:
        now = await running_api.database.clock.now(connection)
        await connection.execute(
            update(refunds)
            .where(refunds.c.id == UUID(refund_id))
            .values(
                gateway=gateway,
                due_at=now + timedelta(seconds=ASKED_AFTER_S),
                held_until=None,
                due_reason=RefundHistoryReason.GATEWAY_SETTLED,
            )
        )
    return payment["id"], refund_id


async def row(database: Database, row_id: str) -> dict[str, Any]:
    """The row of a payment or of a refund."""
    async with database.read() as connection:
        for table in (payments, refunds):
            found = (await connection.execute(select(table).where(table.c.id == UUID(row_id)))).mappings().first()
            if found is not None:
                return dict(found)
    raise AssertionError(row_id)


async def is_due_soon(database: Database, row_id: str) -> bool:
    """Whether a worker is to look at it within a minute."""
    due_at = (await row(database, row_id))["due_at"]
    return due_at is not None and due_at - datetime.now(UTC) < timedelta(seconds=60)
