"""Reading a payment or a refund, and waiting until it is settled if the client asked for that."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from api.auth.principal import Principal
from api.long_poll import Read, Versioned, Waiter, cancel
from api.problems import found_or_404
from api.routes.parameters import Wait, parse_path_id
from api.state import Api
from shared.errors import PaymentsError
from shared.payments.find import Visible, find, find_many
from shared.payments.payment import Payment
from shared.refunds.find import FoundRefund, find_refund, find_refunds

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Kind[T: Versioned]:
    """A kind of object that requests wait for: how one is read for a principal, and many for the waiters."""

    find: Callable[[AsyncConnection, UUID, Visible], Awaitable[T | None]]
    find_many: Read[T]


PAYMENT: Kind[Payment] = Kind(find, find_many)
REFUND: Kind[FoundRefund] = Kind(find_refund, find_refunds)


async def read_payment(api: Api, principal: Principal, path_id: str, wait: Wait | None = None) -> Payment:
    """Return the payment whose id is in a path; see `read_one`."""
    return await read_one(api, PAYMENT, principal, path_id, wait)


async def read_refund(api: Api, principal: Principal, path_id: str, wait: Wait | None = None) -> FoundRefund:
    """Return the refund whose id is in a path; see `read_one`."""
    return await read_one(api, REFUND, principal, path_id, wait)


async def read_one[T: Versioned](
    api: Api, kind: Kind[T], principal: Principal, path_id: str, wait: Wait | None = None
) -> T:
    """Return the object whose id is in a path; with `wait`, once it is what is waited for or the time is up.

    Raises Problem (404) if there is no such object, or the principal may not see it.
    """
    object_id, visible = parse_path_id(path_id), api.permissions.visible(principal)
    if wait is None:
        return await _read(api, kind, object_id, visible)
    async with api.long_polls.subscribe(object_id, kind.find_many, until=wait.is_over) as waiter:
        found = await _read(api, kind, object_id, visible)
        if wait.is_over(found):
            return found
        return await _end(waiter, wait) or await _read(api, kind, object_id, visible)


async def await_settled[T: Versioned](api: Api, kind: Kind[T], found: T, wait: Wait | None) -> T:
    """Return the object of a request that is committed, once it is settled or the time is up.

    If the database cannot be read meanwhile, this is no error: `found` is an answer already. A repeat of a new payment
    is subscribed under the new id that it was given, not under the id of its payment: its wait begins here.
    """
    if wait is None or found.is_settled:
        return found
    async with api.long_polls.subscribe(found.id, kind.find_many) as waiter:
        current = await _read_again(api, kind, found)
        if current.is_settled:
            return current
        return await _end(waiter, wait) or await _read_again(api, kind, current)


async def await_accepted(api: Api, waiter: Waiter[Payment] | None, payment: Payment, wait: Wait) -> Payment:
    """Return the payment of a new request once it is settled; as it is now when the time is up."""
    return await _end(waiter, wait) or await _read_again(api, PAYMENT, payment)


async def _end[T: Versioned](waiter: Waiter[T] | None, wait: Wait) -> T | None:
    """Return the object if it is settled within the wait; None if not, or without capacity for another waiter."""
    if waiter is None:
        return None
    # A client that has gone must not keep the capacity of another one.
    wait.disconnect.on(lambda: cancel(waiter))
    try:
        async with asyncio.timeout(wait.seconds):
            return await waiter
    except TimeoutError:
        return None


async def _read_again[T: Versioned](api: Api, kind: Kind[T], found: T) -> T:
    """Return the object as it is now; as it was if the database cannot be read."""
    try:
        return await _read(api, kind, found.id, Visible())
    except PaymentsError as error:
        # Safe: the request has been done, and the waiter reads the object every second.
        log.warning("long_poll.database_failed", error=type(error).__name__)
        return found


async def _read[T: Versioned](api: Api, kind: Kind[T], object_id: UUID, visible: Visible) -> T:
    async with api.runtime.database.read() as connection:
        found = await kind.find(connection, object_id, visible)
    return found_or_404(found)
