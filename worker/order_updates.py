"""The updates that the order service is asked for, and what one attempt came to. Values only.

PENDING ──▶ CONFIRMED ──▶ PROCESSING ──▶ SHIPPED ──▶ DELIVERED
   └────────────┴─────────────┴──▶ CANCELLED
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum


class OrderStatus(StrEnum):
    """The status of an order, in the words of the order service."""

    PENDING = "PENDING"
    CONFIRMED = "CONFIRMED"
    PROCESSING = "PROCESSING"
    SHIPPED = "SHIPPED"
    DELIVERED = "DELIVERED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True)
class OrderUpdate:
    """An update of an order to the status `to`.

    It is asked for where the order has a status of `possible_from`, and done where it has one of `done`. The others
    are in `refused` or `waiting`, each with the reason why it can never be done any more, or not yet.
    """

    to: OrderStatus
    possible_from: frozenset[OrderStatus]
    done: frozenset[OrderStatus]
    refused: Mapping[OrderStatus, str]
    waiting: Mapping[OrderStatus, str] = field(default_factory=dict)


CONFIRM = OrderUpdate(
    OrderStatus.CONFIRMED,
    possible_from=frozenset({OrderStatus.PENDING}),
    done=frozenset({OrderStatus.CONFIRMED, OrderStatus.PROCESSING, OrderStatus.SHIPPED, OrderStatus.DELIVERED}),
    refused={OrderStatus.CANCELLED: "the order was cancelled: it can never be confirmed"},
)
CANCEL = OrderUpdate(
    OrderStatus.CANCELLED,
    possible_from=frozenset({OrderStatus.PENDING, OrderStatus.CONFIRMED, OrderStatus.PROCESSING}),
    done=frozenset({OrderStatus.CANCELLED}),
    refused={
        OrderStatus.SHIPPED: "the order was shipped: it can no longer be cancelled",
        OrderStatus.DELIVERED: "the order was delivered: it can no longer be cancelled",
    },
)
# While another payment is open. It can only pay for an order that is PENDING.
CANCEL_UNLESS_PENDING = replace(
    CANCEL,
    possible_from=CANCEL.possible_from - {OrderStatus.PENDING},
    waiting={OrderStatus.PENDING: "another payment may still pay for the order: it is not cancelled yet"},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateResult:
    """The result of one attempt to update an order.

    `order_status` is the status after the attempt, None if it could not be read. `error` is None if the update is done.
    `is_refused` says that no later attempt can succeed. `status_code` and `body` are those of the answer that says
    most about the attempt.
    """

    order_status: OrderStatus | None
    status_code: int | None = None
    error: str | None = None
    is_refused: bool = False
    body: bytes = field(default=b"", repr=False)
