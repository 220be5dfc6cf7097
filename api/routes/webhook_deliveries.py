"""Deliveries: send one again."""

from datetime import datetime
from uuid import UUID

import structlog
from fastapi import APIRouter
from fastapi.responses import Response
from sqlalchemy.ext.asyncio import AsyncConnection

from api import schemas
from api.auth import Authenticated, Principal, Role
from api.errors import Code, Problem
from api.openapi import problems
from api.repeats import REPEATED, once
from api.requests import ApiState, IdempotencyKey, claim_of, existing_id
from api.responses import document
from shared.deliveries import resend
from shared.delivery_log import Delivery, find_delivery
from shared.leases import Ref
from shared.payments.find import find
from shared.queue import Queue

log = structlog.get_logger(__name__)
router = APIRouter(prefix="/webhook-deliveries", tags=["webhooks"])


@router.post(
    "/{delivery_id}/resend",
    status_code=202,
    response_model=schemas.Delivery,
    responses=problems(404, 409, 422, 503),
)
async def resend_delivery(
    delivery_id: str, principal: Authenticated, api: ApiState, key: IdempotencyKey = None
) -> Response:
    """Send a delivery again, now and with a fresh schedule, however it ended."""
    wanted = existing_id(delivery_id)
    claim = claim_of(
        api.runtime.vault,
        principal,
        key,
        operation=f"POST /webhook-deliveries/{wanted}/resend",
        content={},
        object_id=wanted,
    )

    async def work(connection: AsyncConnection, now: datetime, repeated: UUID | None) -> tuple[Delivery, Ref | None]:
        await _visible(connection, principal, wanted)
        ref = None if repeated else await resend(connection, now, wanted)
        if ref is None and not repeated:
            raise Problem(Code.NOT_FOUND)
        return await _visible(connection, principal, wanted), ref

    (delivery, ref), is_repeat = await once(api.runtime.database, claim, work)
    if ref is not None:
        log.info("delivery.resent", delivery_id=str(wanted))
        api.publisher.publish(Queue.DELIVER, [ref])
    return document(delivery.document(), status=202, headers=REPEATED if is_repeat else None)


async def _visible(connection: AsyncConnection, principal: Principal, delivery_id: UUID) -> Delivery:
    """The delivery, if it is of a payment or to an endpoint of the principal's."""
    delivery = await find_delivery(connection, delivery_id)
    if delivery is not None and (
        principal.role == Role.ADMIN
        or delivery.endpoint_created_by == principal.actor
        or await find(connection, delivery.payment_id, principal.visible)
    ):
        return delivery
    raise Problem(Code.NOT_FOUND)
