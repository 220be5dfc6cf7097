"""Reading a payment, and waiting until it has ended if the client asked for that."""

import asyncio
from uuid import UUID

import structlog

from api.auth.principal import Principal
from api.long_poll import Waiter, cancel
from api.problems import found_or_404
from api.routes.parameters import Wait, parse_path_id
from api.state import Api
from shared.errors import PaymentsError
from shared.payments.find import Visible, find
from shared.payments.payment import Payment

log = structlog.get_logger(__name__)


async def read_payment(api: Api, principal: Principal, path_id: str, wait: Wait | None = None) -> Payment:
    """Return the payment whose id is in a path; with `wait`, once it has ended or the time is up.

    Raises Problem (404) if there is no such payment, or the principal may not see it.
    """
    payment_id = parse_path_id(path_id)
    return await _awaited(api, payment_id, api.permissions.visible(principal), wait)


async def await_replayed(api: Api, payment: Payment, wait: Wait) -> Payment:
    """Return the payment of a repeated request once it has ended or the time is up.

    If the database cannot be read meanwhile, this is no error: `payment` is an answer already.
    A repeat is subscribed under the new id that it was given, not under the id of this payment: its wait begins here.
    """
    if payment.status.is_settled:
        return payment
    async with api.long_polls.subscribe(payment.id) as waiter:
        current = await _read_again(api, payment)
        return current if current.status.is_settled else await _end(waiter, wait) or current


async def await_accepted(api: Api, waiter: Waiter | None, payment: Payment, wait: Wait) -> Payment:
    """Return the payment of a new request once it has ended; as it is now when the time is up."""
    return await _end(waiter, wait) or await _read_again(api, payment)


async def _end(waiter: Waiter | None, wait: Wait) -> Payment | None:
    """Return the payment if it ends within the wait; None if it does not, or without capacity for another waiter."""
    if waiter is None:
        return None
    # A client that has gone must not keep the capacity of another one.
    wait.disconnect.on(lambda: cancel(waiter))
    try:
        async with asyncio.timeout(wait.seconds):
            return await waiter
    except TimeoutError:
        return None


async def _awaited(api: Api, payment_id: UUID, visible: Visible, wait: Wait | None) -> Payment:
    if wait is None:
        return await _read(api, payment_id, visible)
    async with api.long_polls.subscribe(payment_id) as waiter:
        payment = await _read(api, payment_id, visible)
        if payment.status.is_settled:
            return payment
        return await _end(waiter, wait) or await _read(api, payment_id, visible)


async def _read_again(api: Api, payment: Payment) -> Payment:
    """Return the payment as it is now; as it was if the database cannot be read."""
    try:
        return await _read(api, payment.id, Visible())
    except PaymentsError as error:
        # Safe: the request has been done, and the waiter reads the payment every second.
        log.warning("long_poll.database_failed", error=type(error).__name__)
        return payment


async def _read(api: Api, payment_id: UUID, visible: Visible) -> Payment:
    async with api.runtime.database.read() as connection:
        payment = await find(connection, payment_id, visible)
    return found_or_404(payment)
