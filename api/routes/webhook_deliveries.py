"""Webhook deliveries: one with what its receiver answered, and sending it again."""

from datetime import datetime
from uuid import UUID

import structlog
from fastapi import APIRouter
from fastapi.responses import Response
from sqlalchemy.ext.asyncio import AsyncConnection

from api.auth.dependencies import Authenticated
from api.auth.principal import Principal, Role
from api.openapi import examples
from api.openapi.responses import KEYED, problems, success
from api.problems import Code, Problem
from api.responses import json_response
from api.routes.delivery_rights import may_see_answers, may_see_url
from api.routes.idempotent import REPLAYED_HEADER, IdempotencyKey, key_request_of, run_idempotent
from api.routes.parameters import ApiState, parse_path_id
from api.routes.strict_route import StrictRoute
from api.schemas import webhooks as schemas
from api.state import Api
from shared.broker.client import Queue
from shared.database.leases import WorkItem
from shared.payments.find import find
from shared.webhooks.delivery_log import Delivery, find_delivery
from shared.webhooks.resend import resend

log = structlog.get_logger(__name__)
router = APIRouter(route_class=StrictRoute, prefix="/webhook-deliveries", tags=["webhooks"])


@router.get(
    "/{delivery_id}",
    response_model=schemas.Delivery,
    responses=problems(Code.NOT_FOUND) | success(200, "The delivery.", example=examples.DELIVERY),
)
async def get_webhook_delivery(delivery_id: str, principal: Authenticated, api: ApiState) -> Response:
    """Return one delivery with its attempts and, for those who may see them, the latest answers of its receiver."""
    async with api.runtime.database.read() as connection:
        delivery = await _visible(connection, api, principal, parse_path_id(delivery_id), with_bodies=True)
    shown = delivery.to_json(
        with_url=may_see_url(principal, delivery),
        with_bodies=may_see_answers(principal, delivery, api.runtime.settings),
    )
    return json_response(shown)


@router.post(
    "/{delivery_id}/resend",
    status_code=202,
    response_model=schemas.Delivery,
    responses=problems(*KEYED, Code.NOT_FOUND, Code.DELIVERY_IN_PROGRESS)
    | success(202, "The delivery is due now.", example=examples.RESENT),
)
async def resend_delivery(
    delivery_id: str, principal: Authenticated, api: ApiState, key: IdempotencyKey = None
) -> Response:
    """Send a delivery again, at once and with a new retry schedule.

    Any delivery can be resent, even one that was delivered. It is 409 while an attempt is running, and 422 while the
    endpoint is disabled or if it was deleted.
    """
    wanted = parse_path_id(delivery_id)
    key_request = key_request_of(
        api.runtime.keyring,
        principal,
        key,
        operation=f"POST /webhook-deliveries/{wanted}/resend",
        content={},
        object_id=wanted,
    )

    async def work(
        connection: AsyncConnection, now: datetime, repeated: UUID | None
    ) -> tuple[Delivery, WorkItem | None]:
        await _visible(connection, api, principal, wanted)
        real_now = api.runtime.database.clock.real_now()
        item = None if repeated else await resend(connection, now, wanted, real_now=real_now)
        if item is None and not repeated:
            raise Problem(Code.NOT_FOUND)
        return await _visible(connection, api, principal, wanted), item

    (delivery, item), is_repeat = await run_idempotent(api, key_request, work)
    if item is not None:
        log.info("delivery.resent", delivery_id=str(wanted))
        api.publisher.publish(Queue.DELIVER, [item])
    return json_response(delivery.to_json(), status=202, headers=REPLAYED_HEADER if is_repeat else None)


async def _visible(
    connection: AsyncConnection, api: Api, principal: Principal, delivery_id: UUID, *, with_bodies: bool = False
) -> Delivery:
    """Return the delivery if the principal may see its payment or created its endpoint. Raises Problem (404)."""
    delivery = await find_delivery(connection, delivery_id, with_bodies=with_bodies)
    if delivery is not None and (
        principal.role == Role.ADMIN
        or delivery.endpoint_created_by == principal.actor
        or await find(connection, delivery.payment_id, api.permissions.visible(principal))
    ):
        return delivery
    raise Problem(Code.NOT_FOUND)
