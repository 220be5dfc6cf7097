"""The order in an answer of the order service. No request is made here.

Amounts are JSON numbers in major units: they are read as decimals, exactly as they were written.
"""

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NoReturn

import structlog

from shared.errors import UpstreamUnavailable
from shared.upstream.client import Reply

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Order:
    """An order as the order service answered it. `total` is in major units, exactly as it was written in the JSON."""

    user_id: str
    status: str
    total: Decimal
    currency: str


def parse_order(reply: Reply, order_id: str) -> Order:
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
