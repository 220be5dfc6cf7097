"""The order service as the worker uses it: check that an order may be paid, and confirm an order that was paid.

The service was observed to answer otherwise than one expects: every error is a 500, amounts are JSON numbers in major
units, a paid order is CONFIRMED, and an update that succeeded is answered 500 when it is repeated. So one 500
proves nothing here, and an order is read before and after it is changed.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from http import HTTPStatus
from typing import Any, NoReturn, Protocol
from urllib.parse import quote

import jwt
import structlog

from shared.errors import UpstreamUnavailable
from shared.ids import is_order_number
from shared.lifecycle import FailureCode
from shared.money import in_major_units
from shared.payments.payment import Payment
from shared.upstream.client import Reply, UpstreamClient

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


class OrderStatus(StrEnum):
    """The status of an order, in the words of the order service."""

    PENDING = "PENDING"
    CONFIRMED = "CONFIRMED"
    PROCESSING = "PROCESSING"
    SHIPPED = "SHIPPED"
    DELIVERED = "DELIVERED"
    CANCELLED = "CANCELLED"


CONFIRMED_OR_LATER = frozenset(
    {OrderStatus.CONFIRMED, OrderStatus.PROCESSING, OrderStatus.SHIPPED, OrderStatus.DELIVERED}
)
WHY_NOT_CONFIRMED = {
    OrderStatus.PENDING: "the order is not confirmed",
    OrderStatus.CANCELLED: "the order was cancelled: it can never be confirmed",
}


@dataclass(frozen=True, slots=True)
class Payable:
    """The order is open, belongs to the payer, and its total is the payment's amount."""


@dataclass(frozen=True, slots=True)
class NotPayable:
    """The order must not be paid with this payment; `failure_code` says why."""

    failure_code: FailureCode


type OrderCheck = Payable | NotPayable


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """The result of one attempt to confirm an order.

    `order_status` is the status after the attempt, None if it could not be read. `error` is None if the order is
    confirmed. `status_code` and `body` are those of the answer that says most about the attempt.
    """

    order_status: OrderStatus | None
    status_code: int | None = None
    error: str | None = None
    body: bytes = field(default=b"", repr=False)


class OrderChecker(Protocol):
    """Checks the orders that payments are for."""

    async def check(self, payment: Payment) -> OrderCheck:
        """Return whether the order may be paid with the payment. Raises UpstreamUnavailable if that is not known."""
        ...


class OrderNotifier(Protocol):
    """Tells the order service that orders are paid."""

    async def confirm(self, order_id: str, *, notes: str, correlation_id: str | None) -> Confirmation:
        """Make the order CONFIRMED, unless it already is or never can be.

        Never raises for what the service or the network does.
        """
        ...


@dataclass(frozen=True, slots=True)
class Order:
    """An order as the order service answered it. `total` is in major units, exactly as it was written in the JSON."""

    user_id: str
    status: str
    total: Decimal
    currency: str


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

    async def confirm(self, order_id: str, *, notes: str, correlation_id: str | None) -> Confirmation:
        """See `OrderNotifier.confirm`. Reads the order before and after: answers get lost, and a 500 says nothing."""
        before = await self._order_status(order_id, correlation_id)
        if before.order_status is not OrderStatus.PENDING:
            return before
        update = {"status": OrderStatus.CONFIRMED.value, "notes": notes[:NOTES_CHARS_MAX]}
        try:
            reply = await self._ask("PUT", order_id, correlation_id, content=update, sub_path="/status")
        except UpstreamUnavailable as error:
            status, body, failure = None, b"", str(error)
        else:
            status, body, failure = reply.status, reply.body, f"the order service answered {reply.status}"
        after = await self._order_status(order_id, correlation_id)
        if after.order_status in CONFIRMED_OR_LATER:
            return Confirmation(order_status=after.order_status, status_code=status or after.status_code, body=body)
        if after.order_status is OrderStatus.CANCELLED:
            return after
        return Confirmation(order_status=after.order_status, status_code=status, error=failure, body=body)

    async def _find(self, order_id: str, correlation_id: str | None) -> Order | None:
        """Return the order, None if there is none. Raises UpstreamUnavailable."""
        for is_last in (*[False] * (NOT_FOUND_TRIES - 1), True):
            reply = await self._ask("GET", order_id, correlation_id)
            if reply.status == HTTPStatus.OK:
                return _parse_order(reply, order_id)
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

    async def _order_status(self, order_id: str, correlation_id: str | None) -> Confirmation:
        """Read the order. Return its status as the result of an attempt that does nothing more."""
        try:
            reply = await self._ask("GET", order_id, correlation_id)
            status_text = _parse_order(reply, order_id).status if reply.status == HTTPStatus.OK else None
        except UpstreamUnavailable as error:
            return Confirmation(order_status=None, error=str(error))
        if status_text is None or status_text not in set(OrderStatus):
            failure = f"the order could not be read: {status_text or reply.status}"
            return Confirmation(order_status=None, status_code=reply.status, error=failure, body=reply.body)
        status = OrderStatus(status_text)
        return Confirmation(
            order_status=status, status_code=reply.status, error=WHY_NOT_CONFIRMED.get(status), body=reply.body
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


def _parse_order(reply: Reply, order_id: str) -> Order:
    """Return the order in an answer of 200. Raises UpstreamUnavailable if the answer holds no order, or another one."""
    try:
        content = json.loads(reply.body, parse_float=Decimal, parse_constant=_refuse_constant)
        order = Order(
            str(_integer(content["user_id"])),
            str(content["status"]),
            _decimal(content["total"]),
            str(content["currency"]),
        )
        is_this_one = content["id"] == int(order_id)
    except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
        log.warning("order.strange_answer", status=reply.status, error=type(error).__name__)
        raise UpstreamUnavailable("the order service answered something else than the order") from error
    if not is_this_one:
        raise UpstreamUnavailable("the order service answered another order")
    return order


def _integer(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise TypeError("not an integer")


def _decimal(value: Any) -> Decimal:
    return value if isinstance(value, Decimal) else Decimal(_integer(value))


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no amount")
