"""One later operation of a payment in a process of its own, which kills itself between two of its steps.

It is a capture, a void, an expiry or a refund, or one of the two halves of a payment that is not decided at once.

A boundary is what it is in `tests.support.crashing`, and each pause inside a call of the gateway as well.
"""

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from multiprocessing.connection import Connection
from typing import assert_never

from sqlalchemy import select

from shared.broker.client import Queue
from shared.config.settings import Settings
from shared.database.engine import Database
from shared.database.leases import WorkItem
from shared.database.refund_tables import refunds
from shared.database.tables import payments
from shared.ids import new_id
from shared.lifecycle import ActionResult
from shared.payments.notifications import hasten
from shared.payments.requests import answer_action, cancel, capture
from shared.refund_lifecycle import RefundReason
from shared.refunds.requests import RefundMoved, RefundRequest, request_refund
from shared.runtime import open_runtime
from shared.simulation.calls import Steering
from tests.support.crashing import NEVER, Boundaries, Outbox, process

PART = 700
BY = "service:shop"


class Later(StrEnum):
    """What happens to a payment after its authorization or its charge, or before them."""

    CAPTURE = "capture"
    VOID = "void"
    EXPIRY = "expiry"
    REFUND = "refund"
    # The gateway asks the customer, and the customer approves.
    CHALLENGE = "challenge"
    APPROVAL = "approval"
    # The gateway says that it settles later, and notifies that it has.
    PENDING = "pending"
    LATE_ANSWER = "late_answer"
    # The gateway does what it is asked to, and its answer is lost: the next call would be declined.
    LOST_ANSWER = "lost_answer"
    LOST_REFUND = "lost_refund"


@dataclass(frozen=True, slots=True)
class LaterJourney:
    """What the process is to do to which payment, and the number of the boundary at which it dies."""

    settings: Settings
    operation: Later
    item: WorkItem
    dies_at: int = NEVER


async def ask_for(database: Database, operation: Later, item: WorkItem) -> WorkItem | None:
    """Ask as a client does; of a payment that was asked for already, nothing. Return what a worker is to claim."""
    async with database.transaction() as connection:
        now = await database.clock.now(connection)
        match operation:
            case Later.EXPIRY | Later.CHALLENGE | Later.PENDING | Later.LOST_ANSWER:
                return item
            case Later.LATE_ANSWER:
                found = await connection.execute(select(payments.c.gateway).where(payments.c.id == item.id))
                hastened = await hasten(connection, [item.id], gateway=found.scalar_one(), now=now)
                return hastened[0] if hastened else None
            case Later.APPROVAL:
                requested = await answer_action(
                    connection, item.id, result=ActionResult.APPROVED, by="customer", now=now
                )
            case Later.REFUND | Later.LOST_REFUND:
                known = await connection.execute(select(refunds.c.id).where(refunds.c.payment_id == item.id))
                if known.first():
                    return None
                answer = await request_refund(connection, item.id, _refund(operation), now=now)
                assert isinstance(answer, RefundMoved)
                return answer.work[0]
            case Later.CAPTURE:
                requested = await capture(connection, item.id, amount=PART, by=BY, now=now)
            case Later.VOID:
                requested = await cancel(connection, item.id, by=BY, now=now)
            case _:
                assert_never(operation)
    return requested.work[0] if requested and requested.is_moved else None


def _refund(operation: Later) -> RefundRequest:
    outcomes = ("timeout_charged", "refund_declined") if operation is Later.LOST_REFUND else ()
    return RefundRequest(
        id=new_id(),
        amount=PART,
        reason=RefundReason.OTHER,
        metadata={},
        created_by=BY,
        correlation_id=None,
        steering=Steering(outcomes=outcomes),
    )


def run_later_journey(journey: LaterJourney, reports: Connection) -> None:
    """Do what the process is for, and send all boundaries at the end."""
    asyncio.run(_run_later_journey(journey, reports))


async def _run_later_journey(journey: LaterJourney, reports: Connection) -> None:
    runtime = open_runtime(journey.settings)
    boundaries = Boundaries(journey.dies_at)
    # On purpose, as in `run_journey`.
    boundaries.watch(runtime.database._engine)
    boundaries.step = "request"
    work = await ask_for(runtime.database, journey.operation, journey.item)
    assert work is not None

    async def sleep(_seconds: float) -> None:
        boundaries.reach("in the gateway")

    boundaries.step = "claim, ask, record"
    queue = Queue.REFUND if journey.operation in (Later.REFUND, Later.LOST_REFUND) else Queue.PROCESS
    await process(runtime, work, Outbox(runtime.broker, has_capacity=False), queue=queue, sleep=sleep)
    await runtime.close()
    reports.send(boundaries.passed)
