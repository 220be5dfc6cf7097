"""Where the time of a payment, a refund or a delivery went: parts that add up to the whole, in milliseconds."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import Any

from shared.explain.facts import HistoryRow
from shared.explain.operations import NO_ANSWER, Claim, Operation
from shared.explain.words import OPERATIONS, duration
from shared.lifecycle import HistoryReason
from shared.refund_lifecycle import RefundHistoryReason
from shared.webhooks.delivery_log import Delivery

MILLISECOND = timedelta(milliseconds=1)


class PartName(StrEnum):
    """What the time of a part was for."""

    REQUESTED_WAIT = "requested_wait"
    """It was PENDING because the request had asked for that."""
    QUEUE_AND_CLAIM = "queue_and_claim"
    """From the moment at which it was due until a worker had it; no row tells the queue from the claim."""
    GATEWAY = "gateway"
    """The delay of a call to the gateway: as it was steered, else as it is drawn."""
    RECORD = "record"
    """All else until the answer of the gateway was recorded, the check of the order too."""
    RETRY_PAUSE = "retry_pause"
    """The pause before the next call."""
    LOST_CLAIM = "lost_claim"
    """A claim that recorded nothing, until the next one."""
    ORDER_CHECK = "order_check"
    """A check of the order, and what came of it."""
    LATE_ANSWER = "late_answer"
    """The gateway settled later."""
    CUSTOMER = "customer"
    """The customer was asked."""
    AUTHORIZED = "authorized"
    """The gateway held the money, and nobody had asked to capture or void it."""
    AT_WORK = "at_work"
    """A claim that goes on."""
    ATTEMPT = "attempt"
    """An attempt to deliver, until its answer or its error."""
    NEXT_ATTEMPT = "next_attempt"
    """From one attempt to the next: the pause of the schedule, the queue and the claim."""


WORDS = {
    PartName.REQUESTED_WAIT: "waiting before a worker might take it up, as the request had asked",
    PartName.QUEUE_AND_CLAIM: "queue and claim, which no record tells apart",
    PartName.GATEWAY: "the delay of the gateway",
    PartName.RECORD: "all else until the answer was recorded",
    PartName.RETRY_PAUSE: "the pause before the next call",
    PartName.LOST_CLAIM: "a claim that recorded nothing, and the wait for the next one",
    PartName.ORDER_CHECK: "a check of the order, with what came of it",
    PartName.LATE_ANSWER: "waiting for the late answer of the gateway",
    PartName.CUSTOMER: "waiting for the customer",
    PartName.AUTHORIZED: "money that was held, waiting for a capture or a cancel",
    PartName.AT_WORK: "a claim that goes on",
    PartName.ATTEMPT: "an attempt",
    PartName.NEXT_ATTEMPT: "the pause before the next attempt, with queue and claim",
}


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the time. `number` is that of the attempt or, of this operation, that of the call."""

    name: PartName
    ms: int
    number: int | None = None
    operation: str | None = None

    @property
    def words(self) -> str:
        """The part as a sentence."""
        of_call = "" if self.number is None else f" for call {self.number} of the {OPERATIONS[str(self.operation)]}"
        return f"{duration(self.ms)}: {WORDS[self.name]}{of_call}."

    def to_json(self) -> dict[str, Any]:
        """Return the part as clients see it."""
        return {"name": self.name.value, "ms": self.ms, "operation": self.operation, "number": self.number}


@dataclass(slots=True)
class Timeline:
    """Parts that follow each other without a gap, from `start` on."""

    start: datetime
    parts: list[Part] = field(default_factory=list)
    _until: datetime = field(init=False)

    def __post_init__(self) -> None:
        self._until = self.start

    @property
    def total_ms(self) -> int:
        """The whole time."""
        return sum(part.ms for part in self.parts)

    def add(
        self,
        name: PartName,
        until: datetime,
        *,
        ms_max: int | None = None,
        number: int | None = None,
        operation: str | None = None,
    ) -> None:
        """Add the part that ends at `until`, and after `ms_max` at the latest. Moments of the past add nothing."""
        ms = max(0, (until - self._until) // MILLISECOND)
        ms = ms if ms_max is None else min(ms, ms_max)
        if ms:
            self._until += ms * MILLISECOND
            self.parts.append(Part(name, ms, number, operation))

    def to_json(self) -> dict[str, Any]:
        """Return the time as clients see it."""
        return {"total_ms": self.total_ms, "parts": [part.to_json() for part in self.parts]}


type DelayOf = Callable[[Operation, Claim], int]
"""Returns the milliseconds that the gateway took for the call of a claim."""


def timeline_of(operations: list[Operation], delay_of: DelayOf, *, backoff_s: float, now: datetime) -> Timeline:
    """Return where the time of these operations went, which follow each other; until `now` if they go on."""
    rows = [(row, operation) for operation in operations for row in operation.rows]
    timeline = Timeline(rows[0][0].at)
    for (row, operation), (after, _) in pairwise(rows):
        claim = operation.claim_of(row)
        if claim is None:
            _add_wait(timeline, operation, row, after.at)
        else:
            _add_claim(timeline, operation, claim, delay_of(operation, claim), backoff_s)
    last, operation = rows[-1]
    if operation.end is None or last.reason in _HELD:
        claim = operation.claim_of(last)
        if claim is None:
            _add_wait(timeline, operation, last, now)
        elif claim.ended is None:
            timeline.add(PartName.AT_WORK, now)
        else:
            _add_claim(timeline, operation, claim, delay_of(operation, claim), backoff_s)
    return timeline


# The gateway holds the money after these.
_HELD = frozenset({HistoryReason.AUTHORIZED, HistoryReason.CAPTURE_FAILED})


def _add_claim(timeline: Timeline, operation: Operation, claim: Claim, delay_ms: int, backoff_s: float) -> None:
    after, call = claim.ended, claim.call
    if after is None:
        return
    match after.reason:
        case HistoryReason.LEASE_EXPIRED | HistoryReason.RELEASED:
            timeline.add(PartName.LOST_CLAIM, after.at)
        case HistoryReason.ORDER_UNREACHABLE | HistoryReason.ORDER_REFUSED | HistoryReason.ORDER_CHECK_TIMED_OUT:
            timeline.add(PartName.ORDER_CHECK, after.at)
        case _:
            if call is not None:
                name, number = operation.name, call.number
                timeline.add(PartName.GATEWAY, after.at, ms_max=delay_ms, number=number, operation=name)
            if call is None or after.reason not in NO_ANSWER:
                timeline.add(PartName.RECORD, after.at)
                return
            pause_ms = round(backoff_s * 1000 * 2 ** min(call.gateway_try, _DOUBLINGS_MAX))
            timeline.add(PartName.RETRY_PAUSE, after.at, ms_max=pause_ms)
            timeline.add(PartName.QUEUE_AND_CLAIM, after.at)


# More would overflow, and no payment is tried so often.
_DOUBLINGS_MAX = 20


def _add_wait(timeline: Timeline, operation: Operation, row: HistoryRow, until: datetime) -> None:
    name = _wait_after(row)
    if name is PartName.QUEUE_AND_CLAIM and row is operation.rows[0]:
        wait_ms = (operation.steering or {}).get("pending_ms") or 0
        timeline.add(PartName.REQUESTED_WAIT, until, ms_max=wait_ms)
    timeline.add(name, until)


def _wait_after(row: HistoryRow) -> PartName:
    """Return what the time is for after a row that is no claim."""
    match row.reason:
        case HistoryReason.GATEWAY_PENDING:
            return PartName.LATE_ANSWER
        case HistoryReason.ACTION_REQUIRED:
            return PartName.CUSTOMER
        case HistoryReason.AUTHORIZED | HistoryReason.CAPTURE_FAILED:
            return PartName.AUTHORIZED
        case (
            HistoryReason.ACCEPTED
            | HistoryReason.ACTION_APPROVED
            | HistoryReason.CAPTURE_REQUESTED
            | HistoryReason.VOID_REQUESTED
            | RefundHistoryReason.REQUESTED
        ):
            return PartName.QUEUE_AND_CLAIM
        case _:
            return PartName.RECORD


def timeline_of_delivery(delivery: Delivery, now: datetime) -> Timeline:
    """Return where the time of a delivery went; until `now` if it goes on."""
    timeline = Timeline(delivery.created_at)
    for attempt in delivery.attempts:
        is_first = attempt.number == 1
        timeline.add(PartName.QUEUE_AND_CLAIM if is_first else PartName.NEXT_ATTEMPT, attempt.started_at)
        ended_at = max(attempt.started_at, timeline.start) + attempt.duration_ms * MILLISECOND
        timeline.add(PartName.ATTEMPT, ended_at, number=attempt.number)
    if delivery.due_at is None:
        timeline.add(PartName.RECORD if delivery.attempts else PartName.QUEUE_AND_CLAIM, delivery.updated_at)
    else:
        timeline.add(PartName.NEXT_ATTEMPT if delivery.attempts else PartName.QUEUE_AND_CLAIM, now)
    return timeline
