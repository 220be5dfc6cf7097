"""The order service as the worker needs it: may this payment be taken, and let it know that it was.

Its answers are what was observed, not what one would expect: every error is a 500, amounts are JSON numbers in major
units, a paid order is CONFIRMED, and an update that worked is answered 500 when it is repeated. So nothing here
believes a 500, and the order itself is read before and after it is changed.
"""

import asyncio
import json
import re
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

from shared.documents import Payment
from shared.errors import NeighbourUnreachable
from shared.lifecycle import FailureCode
from shared.money import in_major_units
from shared.neighbour import Neighbour, Reply

log = structlog.get_logger(__name__)

ORDER_NUMBER = re.compile(r"[1-9][0-9]{0,18}")
NOT_FOUND_TRIES = 3  # 500s in a row, spread over some seconds, of a service that is healthy: there is no such order
NO_SUCH_ORDER = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.GONE, HTTPStatus.UNPROCESSABLE_ENTITY})
DOT_SEGMENTS = frozenset({".", ".."})  # steps in a path (RFC 3986, 3.3), however they are encoded
TOKEN_LIVES_S = 300
SERVICE_EMAIL = "payments@payment-service.internal"
NOTES_CHARS_MAX = 500


class OrderStatus(StrEnum):
    """Where an order stands; its words."""

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
    """The order waits for exactly this payment."""


@dataclass(frozen=True, slots=True)
class NotPayable:
    """The order must not be paid with this payment, and why."""

    failure_code: FailureCode


type Verdict = Payable | NotPayable


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """How an order stands after the attempt to confirm it; None if that could not be read."""

    order_status: OrderStatus | None
    status_code: int | None = None  # of the answer that says most about the attempt
    error: str | None = None  # None = it is confirmed
    body: bytes = field(default=b"", repr=False)


class OrderBook(Protocol):
    """Knows the orders that payments are for."""

    async def check(self, payment: Payment) -> Verdict:
        """Whether the payment may be charged. Raises NeighbourUnreachable if nobody could tell."""
        ...


class OrderNotifier(Protocol):
    """Lets it be known that orders are paid."""

    async def confirm(self, order_id: str, *, notes: str, correlation_id: str | None) -> Confirmation:
        """Make the order CONFIRMED, unless it is or can never be; never raises for what the service or network does."""
        ...


@dataclass(frozen=True, slots=True)
class Order:
    """What there is to know about an order."""

    user_id: str
    status: str
    total: Decimal  # major units, exactly as it was written
    currency: str


class OrderService:
    """An `OrderBook` and `OrderNotifier` over HTTP. One check takes `check_max_s` at the very longest."""

    def __init__(
        self,
        service: Neighbour,
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

    async def check(self, payment: Payment) -> Verdict:
        """See `OrderBook.check`."""
        if not ORDER_NUMBER.fullmatch(payment.order_id):  # accepted before there was an order service: it numbers them
            return NotPayable(FailureCode.ORDER_NOT_FOUND)
        try:
            async with asyncio.timeout(self._check_max_s):
                order = await self._find(payment.order_id, payment.correlation_id)
        except TimeoutError:
            raise NeighbourUnreachable("the order could not be read in time") from None
        return _judged(order, payment)

    async def confirm(self, order_id: str, *, notes: str, correlation_id: str | None) -> Confirmation:
        """See `OrderNotifier.confirm`. Reads the order before and after: answers get lost, and errors say nothing."""
        before = await self._standing(order_id, correlation_id)
        if before.order_status is not OrderStatus.PENDING:
            return before
        update = {"status": OrderStatus.CONFIRMED.value, "notes": notes[:NOTES_CHARS_MAX]}
        try:
            reply = await self._ask("PUT", order_id, correlation_id, content=update, of="/status")
        except NeighbourUnreachable as error:
            status, body, failure = None, b"", str(error)
        else:
            status, body, failure = reply.status, reply.body, f"the order service answered {reply.status}"
        after = await self._standing(order_id, correlation_id)
        if after.order_status in CONFIRMED_OR_LATER:
            return Confirmation(order_status=after.order_status, status_code=status or after.status_code, body=body)
        if after.order_status is OrderStatus.CANCELLED:
            return after
        return Confirmation(order_status=after.order_status, status_code=status, error=failure, body=body)

    async def _find(self, order_id: str, correlation_id: str | None) -> Order | None:
        """The order, None if there is none. Raises NeighbourUnreachable."""
        for is_last in (*[False] * (NOT_FOUND_TRIES - 1), True):
            reply = await self._ask("GET", order_id, correlation_id)
            if reply.status == HTTPStatus.OK:
                return _read(reply, order_id)
            if reply.status in NO_SUCH_ORDER:  # not today's service, but what it should say
                return None
            if reply.status != HTTPStatus.INTERNAL_SERVER_ERROR:
                log.warning("order.strange_answer", status=reply.status)
                raise NeighbourUnreachable(f"the order service answered {reply.status}")
            if not await self._service.is_healthy():
                raise NeighbourUnreachable("the order service answers 500 and is not healthy")
            if not is_last:
                await self._sleep(self._not_found_after_s / (NOT_FOUND_TRIES - 1))
        return None

    async def _standing(self, order_id: str, correlation_id: str | None) -> Confirmation:
        """How the order stands now, as one attempt's result if nothing more is done."""
        try:
            reply = await self._ask("GET", order_id, correlation_id)
            said = _read(reply, order_id).status if reply.status == HTTPStatus.OK else None
        except NeighbourUnreachable as error:
            return Confirmation(order_status=None, error=str(error))
        if said is None or said not in set(OrderStatus):
            why = f"the order could not be read: {said or reply.status}"
            return Confirmation(order_status=None, status_code=reply.status, error=why, body=reply.body)
        status = OrderStatus(said)
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
        of: str = "",
    ) -> Reply:
        """One request about one order, with a token minted for it."""
        segment = quote(order_id, safe="")
        if segment in DOT_SEGMENTS:
            raise NeighbourUnreachable("no address leads to an order of that id")
        return await self._service.ask(
            method,
            f"/orders/{segment}{of}",
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


def _judged(order: Order | None, payment: Payment) -> Verdict:
    if order is None:
        return NotPayable(FailureCode.ORDER_NOT_FOUND)
    if order.user_id != payment.user_id:
        return NotPayable(FailureCode.ORDER_NOT_OWNED)
    if order.status != OrderStatus.PENDING:
        return NotPayable(FailureCode.ORDER_NOT_PAYABLE)
    if (order.total, order.currency) != (in_major_units(payment.amount, payment.currency), payment.currency):
        return NotPayable(FailureCode.ORDER_AMOUNT_MISMATCH)
    return Payable()


def _read(reply: Reply, order_id: str) -> Order:
    """The order in a 200. Raises NeighbourUnreachable for what is not the order service's answer."""
    try:
        said = json.loads(reply.body, parse_float=Decimal, parse_constant=_refuse)
        order = Order(str(_whole(said["user_id"])), str(said["status"]), _number(said["total"]), str(said["currency"]))
        is_this_one = said["id"] == int(order_id)
    except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
        log.warning("order.strange_answer", status=reply.status, error=type(error).__name__)
        raise NeighbourUnreachable("the order service answered something else than the order") from error
    if not is_this_one:
        raise NeighbourUnreachable("the order service answered another order")
    return order


def _whole(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise TypeError("not an integer")


def _number(value: Any) -> Decimal:
    return value if isinstance(value, Decimal) else Decimal(_whole(value))


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no amount")
