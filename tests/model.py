"""What payments and deliveries must look like after each verb, in a few lines without any database."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from shared.leases import PICK_UP_S, REPUBLISHED_AFTER_S, Ref
from shared.lifecycle import OPEN_DELIVERY, DeliveryStatus, PaymentStatus


class Due(Protocol):
    """A row that somebody may have to look at."""

    attempt: int
    due_at: datetime | None


@dataclass(slots=True)
class Payment:
    """A payment's row, as far as the verbs move it."""

    order_id: str
    due_at: datetime | None
    status: PaymentStatus = PaymentStatus.PENDING
    sequence: int = 1
    attempt: int = 0
    gateway_tries: int = 0
    is_charged: bool | None = None  # by the gateway's books; None = they do not know it

    @property
    def columns(self) -> tuple[object, ...]:
        return self.status, self.sequence, self.attempt, self.gateway_tries, self.due_at

    def may_be_claimed(self, attempt: int) -> bool:
        return attempt == self.attempt and self.status in {PaymentStatus.PENDING, PaymentStatus.PROCESSING}

    def is_held(self, attempt: int) -> bool:
        """The claim with this attempt still counts."""
        return attempt == self.attempt and self.status == PaymentStatus.PROCESSING

    def claim(self, until: datetime) -> None:
        self.status, self.due_at = PaymentStatus.PROCESSING, until
        self.attempt += 1
        self.sequence += 1

    def end(self, status: PaymentStatus) -> None:
        self.status, self.due_at = status, None
        self.sequence += 1


@dataclass(slots=True)
class Delivery:
    """A delivery's row."""

    due_at: datetime | None
    status: DeliveryStatus = DeliveryStatus.PENDING
    attempt: int = 0
    tries: int = 0
    attempts_made: int = 0

    @property
    def columns(self) -> tuple[object, ...]:
        return self.status, self.attempt, self.tries, self.attempts_made, self.due_at

    def may_be_claimed(self, attempt: int, now: datetime) -> bool:
        soon = now + timedelta(seconds=REPUBLISHED_AFTER_S)
        is_due = self.due_at is not None and self.due_at <= soon
        return attempt == self.attempt and self.status in OPEN_DELIVERY and is_due

    def is_held(self, attempt: int) -> bool:
        return attempt == self.attempt and self.status == DeliveryStatus.SENDING

    def claim(self, until: datetime) -> None:
        self.status, self.due_at = DeliveryStatus.SENDING, until
        self.attempt += 1

    def record(self, status: DeliveryStatus, due_at: datetime | None) -> None:
        self.status, self.due_at = status, due_at
        self.tries += 1
        self.attempts_made += 1


@dataclass(slots=True)
class Model:
    """All of them, the keys that are bound, and what time it is."""

    now: datetime
    payments: dict[UUID, Payment] = field(default_factory=dict)
    deliveries: dict[UUID, Delivery] = field(default_factory=dict)
    keys: dict[str, tuple[str, UUID]] = field(default_factory=dict)  # of an intent: its request and its payment

    def after(self, seconds: float) -> datetime:
        return self.now + timedelta(seconds=seconds)

    def standing(self, order_id: str) -> tuple[UUID, Payment] | None:
        """The payment that keeps others of its order away."""
        ended = {PaymentStatus.FAILED, PaymentStatus.CANCELLED}
        live = [
            (id_, item) for id_, item in self.payments.items() if item.order_id == order_id and item.status not in ended
        ]
        assert len(live) <= 1
        return live[0] if live else None

    def accept(self, payment_id: UUID, order_id: str) -> None:
        self.payments[payment_id] = Payment(order_id, self.after(PICK_UP_S))

    def tell(self, tickets: Iterable[Ref], *, claimed_for_s: float | None) -> None:
        """A payment has ended, and these deliveries were written with it: one, to its callback."""
        [ticket] = tickets
        assert ticket.id not in self.deliveries
        delivery = self.deliveries[ticket.id] = Delivery(self.after(PICK_UP_S))
        if claimed_for_s is not None:
            delivery.claim(self.after(claimed_for_s))
        assert ticket.attempt == delivery.attempt

    def take[R: Due](self, rows: dict[UUID, R], taken: list[Ref], limit: int) -> None:
        """The relay took these: they must be those that are due the longest."""
        due = {id_: row.due_at for id_, row in rows.items() if row.due_at is not None and row.due_at <= self.now}
        assert len(taken) == len({ref.id for ref in taken}) == min(limit, len(due))
        assert all(ref.id in due and rows[ref.id].attempt == ref.attempt for ref in taken)
        left = due.keys() - {ref.id for ref in taken}
        assert not (taken and left) or max(due[ref.id] for ref in taken) <= min(due[id_] for id_ in left)
        for ref in taken:
            rows[ref.id].due_at = self.after(REPUBLISHED_AFTER_S)

    def give_back[R: Due](self, rows: dict[UUID, R], refs: Iterable[Ref]) -> None:
        for ref in refs:
            if rows[ref.id].attempt == ref.attempt and rows[ref.id].due_at is not None:
                rows[ref.id].due_at = self.now
