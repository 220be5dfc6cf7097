"""The order service as the worker uses it: check that an order may be paid, confirm it when it was, or cancel it.

The service was observed to answer otherwise than one expects: every error is a 500, amounts are JSON numbers in major
units, a paid order is CONFIRMED, and an update that succeeded is answered 500 when it is repeated. So one 500
proves nothing here, and an order is read before and after it is changed.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Protocol
from urllib.parse import quote

import jwt
import structlog

from shared.errors import UpstreamUnavailable
from shared.ids import is_order_number
from shared.lifecycle import FailureCode
from shared.money import in_major_units
from shared.payments.payment import Payment
from shared.upstream.client import Reply, UpstreamClient
from worker.order_answers import Order, parse_order
from worker.order_updates import OrderStatus, OrderUpdate, UpdateResult

log = structlog.get_logger(__name__)

# After so many answers of 500 in a row from a healthy service, spread over some seconds, there is no such order.
NOT_FOUND_TRIES = 3
# The service does not answer these today, but they mean that there is no such order.
NO_SUCH_ORDER = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.GONE, HTTPStatus.UNPROCESSABLE_ENTITY})
# Segments that change the path of a URL, also when they are percent-encoded (RFC 3986, 3.3).
DOT_SEGMENTS = frozenset({".", ".."})
# Seconds until a token expires; each request gets a new one.
TOKEN_LIVES_S = 300
SERVICE_EMAIL = "payments@payment-service.internal"
NOTES_CHARS_MAX = 500


@dataclass(frozen=True, slots=True)
class Payable:
    """The order is open, belongs to the payer, and its total is the payment's amount."""


@dataclass(frozen=True, slots=True)
class NotPayable:
    """The order must not be paid with this payment; `failure_code` says why."""

    failure_code: FailureCode


type OrderCheck = Payable | NotPayable


class OrderChecker(Protocol):
    """Checks the orders that payments are for."""

    async def check(self, payment: Payment) -> OrderCheck:
        """Return whether the order may be paid with the payment. Raises UpstreamUnavailable if that is not known."""
        ...


class OrderNotifier(Protocol):
    """Tells the order service what became of the payments of orders."""

    async def update(
        self, order_id: str, update: OrderUpdate, *, notes: str, correlation_id: str | None
    ) -> UpdateResult:
        """Update the order, unless that is already done or never can be.

        Never raises for what the service or the network does.
        """
        ...


class OrderService:
    """An `OrderChecker` and `OrderNotifier` over HTTP.

    One check takes at most `check_max_s` seconds. A healthy service that answers 500 for `not_found_after_s` seconds
    does not know the order. `secret` and `algorithm` sign the token of each request.
    """

    def __init__(
        self,
        service: UpstreamClient,
        *,
        secret: str,
        algorithm: str,
        not_found_after_s: float,
        check_max_s: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._service = service
        self._secret = secret
        self._algorithm = algorithm
        self._not_found_after_s = not_found_after_s
        self._check_max_s = check_max_s
        self._sleep = sleep

    async def check(self, payment: Payment) -> OrderCheck:
        """See `OrderChecker.check`."""
        # A payment may have been accepted before an order service was configured; that service only has order numbers.
        if not is_order_number(payment.order_id):
            return NotPayable(FailureCode.ORDER_NOT_FOUND)
        try:
            async with asyncio.timeout(self._check_max_s):
                order = await self._find(payment.order_id, payment.correlation_id)
        except TimeoutError:
            raise UpstreamUnavailable("the order could not be read in time") from None
        return _compare(order, payment)

    async def update(
        self, order_id: str, update: OrderUpdate, *, notes: str, correlation_id: str | None
    ) -> UpdateResult:
        """See `OrderNotifier.update`. Reads the order before and after: answers get lost, and a 500 says nothing."""
        before = await self._read(order_id, update, correlation_id)
        if before.order_status not in update.possible_from:
            return before
        content = {"status": update.to.value, "notes": notes[:NOTES_CHARS_MAX]}
        try:
            reply = await self._ask("PUT", order_id, correlation_id, content=content, sub_path="/status")
        except UpstreamUnavailable as error:
            status, body, failure = None, b"", str(error)
        else:
            status, body, failure = reply.status, reply.body, f"the order service answered {reply.status}"
        after = await self._read(order_id, update, correlation_id)
        if after.is_refused:
            return after
        if after.error is None:
            return UpdateResult(order_status=after.order_status, status_code=status or after.status_code, body=body)
        return UpdateResult(order_status=after.order_status, status_code=status, error=failure, body=body)

    async def _find(self, order_id: str, correlation_id: str | None) -> Order | None:
        """Return the order, None if there is none. Raises UpstreamUnavailable."""
        for is_last in (*[False] * (NOT_FOUND_TRIES - 1), True):
            reply = await self._ask("GET", order_id, correlation_id)
            if reply.status == HTTPStatus.OK:
                return parse_order(reply, order_id)
            if reply.status in NO_SUCH_ORDER:
                return None
            if reply.status != HTTPStatus.INTERNAL_SERVER_ERROR:
                log.warning("order.strange_answer", status=reply.status)
                raise UpstreamUnavailable(f"the order service answered {reply.status}")
            if not await self._service.is_healthy():
                raise UpstreamUnavailable("the order service answers 500 and is not healthy")
            if not is_last:
                await self._sleep(self._not_found_after_s / (NOT_FOUND_TRIES - 1))
        return None

    async def _read(self, order_id: str, update: OrderUpdate, correlation_id: str | None) -> UpdateResult:
        """Read the order. Return what its status says of the update, as the result of an attempt that only reads."""
        try:
            reply = await self._ask("GET", order_id, correlation_id)
            status_text = parse_order(reply, order_id).status if reply.status == HTTPStatus.OK else None
        except UpstreamUnavailable as error:
            return UpdateResult(order_status=None, error=str(error))
        if status_text is None or status_text not in set(OrderStatus):
            failure = f"the order could not be read: {status_text or reply.status}"
            return UpdateResult(order_status=None, status_code=reply.status, error=failure, body=reply.body)
        status = OrderStatus(status_text)
        why_not = update.refused.get(status) or update.waiting.get(status)
        return UpdateResult(
            order_status=status,
            status_code=reply.status,
            error=f"the order is {status}" if status in update.possible_from else why_not,
            is_refused=status in update.refused,
            body=reply.body,
        )

    async def _ask(
        self,
        method: str,
        order_id: str,
        correlation_id: str | None,
        *,
        content: dict[str, str] | None = None,
        sub_path: str = "",
    ) -> Reply:
        """Send one request about an order, with a new token. Raises UpstreamUnavailable."""
        segment = quote(order_id, safe="")
        if segment in DOT_SEGMENTS:
            raise UpstreamUnavailable("no address leads to an order of that id")
        return await self._service.ask(
            method,
            f"/orders/{segment}{sub_path}",
            token=self._token(),
            content=content,
            correlation_id=correlation_id,
        )

    def _token(self) -> str:
        claims = {
            "user_id": 0,
            "email": SERVICE_EMAIL,
            "role": "order_admin",
            "type": "access",
            "exp": datetime.now(UTC) + timedelta(seconds=TOKEN_LIVES_S),
        }
        return jwt.encode(claims, self._secret, self._algorithm)


def _compare(order: Order | None, payment: Payment) -> OrderCheck:
    if order is None:
        return NotPayable(FailureCode.ORDER_NOT_FOUND)
    if order.user_id != payment.user_id:
        return NotPayable(FailureCode.ORDER_NOT_OWNED)
    if order.status != OrderStatus.PENDING:
        return NotPayable(FailureCode.ORDER_NOT_PAYABLE)
    if (order.total, order.currency) != (in_major_units(payment.amount, payment.currency), payment.currency):
        return NotPayable(FailureCode.ORDER_AMOUNT_MISMATCH)
    return Payable()
