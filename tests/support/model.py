"""What payments and deliveries must look like after each verb, in a few lines without any database."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from shared.database.leases import FIRST_RELAY_AFTER_S, REPUBLISHED_AFTER_S, WorkItem
from shared.delivery_lifecycle import OPEN_DELIVERY, DeliveryStatus
from shared.lifecycle import PaymentStatus


class Due(Protocol):
    """A row that may become due."""

    lease_version: int
    due_at: datetime | None


@dataclass(slots=True)
class Payment:
    """A payment's row, as far as the verbs move it."""

    order_id: str
    due_at: datetime | None
    status: PaymentStatus = PaymentStatus.PENDING
    sequence: int = 1
    lease_version: int = 0
    gateway_tries: int = 0
    # By the gateway's ledger; None = the ledger does not know the payment.
    is_charged: bool | None = None

    @property
    def columns(self) -> tuple[object, ...]:
        return self.status, self.sequence, self.lease_version, self.gateway_tries, self.due_at

    def may_be_claimed(self, lease_version: int) -> bool:
        return lease_version == self.lease_version and self.status in {PaymentStatus.PENDING, PaymentStatus.PROCESSING}

    def is_held(self, lease_version: int) -> bool:
        """The claim with this lease version is still valid."""
        return lease_version == self.lease_version and self.status == PaymentStatus.PROCESSING

    def claim(self, until: datetime) -> None:
        self.status, self.due_at = PaymentStatus.PROCESSING, until
        self.lease_version += 1
        self.sequence += 1

    def end(self, status: PaymentStatus) -> None:
        self.status, self.due_at = status, None
        self.sequence += 1


@dataclass(slots=True)
class Delivery:
    """A delivery's row."""

    due_at: datetime | None
    status: DeliveryStatus = DeliveryStatus.PENDING
    lease_version: int = 0
    retries: int = 0
    attempts_total: int = 0

    @property
    def columns(self) -> tuple[object, ...]:
        return self.status, self.lease_version, self.retries, self.attempts_total, self.due_at

    def may_be_claimed(self, lease_version: int, now: datetime) -> bool:
        soon = now + timedelta(seconds=REPUBLISHED_AFTER_S)
        is_due = self.due_at is not None and self.due_at <= soon
        return lease_version == self.lease_version and self.status in OPEN_DELIVERY and is_due

    def is_held(self, lease_version: int) -> bool:
        return lease_version == self.lease_version and self.status == DeliveryStatus.SENDING

    def claim(self, until: datetime) -> None:
        self.status, self.due_at = DeliveryStatus.SENDING, until
        self.lease_version += 1

    def record(self, status: DeliveryStatus, due_at: datetime | None) -> None:
        self.status, self.due_at = status, due_at
        self.retries += 1
        self.attempts_total += 1


@dataclass(slots=True)
class Model:
    """All of them, the keys that are bound, and what time it is."""

    now: datetime
    payments: dict[UUID, Payment] = field(default_factory=dict)
    deliveries: dict[UUID, Delivery] = field(default_factory=dict)
    # Of an intent: its request and its payment.
    keys: dict[str, tuple[str, UUID]] = field(default_factory=dict)

    def after(self, seconds: float) -> datetime:
        return self.now + timedelta(seconds=seconds)

    def live_payment(self, order_id: str) -> tuple[UUID, Payment] | None:
        """The payment that keeps others of its order away."""
        ended = {PaymentStatus.FAILED, PaymentStatus.CANCELLED}
        live = [
            (id_, item) for id_, item in self.payments.items() if item.order_id == order_id and item.status not in ended
        ]
        assert len(live) <= 1
        return live[0] if live else None

    def accept(self, payment_id: UUID, order_id: str) -> None:
        self.payments[payment_id] = Payment(order_id, self.after(FIRST_RELAY_AFTER_S))

    def emit(self, items: Iterable[WorkItem], *, leased_for_s: float | None) -> None:
        """A payment has ended, and these deliveries were inserted with its event: one, to its callback."""
        [item] = items
        assert item.id not in self.deliveries
        delivery = self.deliveries[item.id] = Delivery(self.after(FIRST_RELAY_AFTER_S))
        if leased_for_s is not None:
            delivery.claim(self.after(leased_for_s))
        assert item.lease_version == delivery.lease_version

    def take[R: Due](self, rows: dict[UUID, R], taken: list[WorkItem], limit: int) -> None:
        """The relay took these: they must be those that are due the longest."""
        due = {id_: row.due_at for id_, row in rows.items() if row.due_at is not None and row.due_at <= self.now}
        assert len(taken) == len({item.id for item in taken}) == min(limit, len(due))
        assert all(item.id in due and rows[item.id].lease_version == item.lease_version for item in taken)
        left = due.keys() - {item.id for item in taken}
        assert not (taken and left) or max(due[item.id] for item in taken) <= min(due[id_] for id_ in left)
        for item in taken:
            rows[item.id].due_at = self.after(REPUBLISHED_AFTER_S)

    def give_back[R: Due](self, rows: dict[UUID, R], items: Iterable[WorkItem]) -> None:
        for item in items:
            # What was taken at this moment and is as it was then.
            is_taken = rows[item.id].due_at == self.after(REPUBLISHED_AFTER_S)
            if is_taken and rows[item.id].lease_version == item.lease_version:
                rows[item.id].due_at = self.now
