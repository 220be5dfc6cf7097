"""Accepting intents: a batch of them in one transaction, in which the constraints of the tables decide every race."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select, tuple_

# ON CONFLICT without a target compiles for SQLite too.
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.leases import WorkItem
from shared.database.tables import columns_of, payments
from shared.errors import (
    IdempotencyKeyReused,
    OrderAlreadyPaid,
    PaymentInProgress,
    PaymentsError,
    Refused,
)
from shared.idempotency import KeyRequest, bind, replayed, unbind
from shared.lifecycle import LIVE, PAID, CaptureMethod, HistoryReason, PaymentOperation, PaymentStatus
from shared.payments.events import emit
from shared.payments.find import find_many
from shared.payments.history import Move, append, partially_refunded_since
from shared.payments.intent import Intent
from shared.payments.payment import Payment
from shared.payments.refusals import LivePayment, order_taken
from shared.payments.usable_methods import MethodRules, copy_usable_methods
from shared.simulation.calls import NOT_STEERED
from shared.simulation.scenarios import is_named_charge
from shared.webhooks.fan_out import NO_DELIVERIES

INSERT = insert(payments).on_conflict_do_nothing().returning(payments.c.id)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answer to an intent: its payment as it is now.

    `is_replay` says that an earlier request has created the payment. `deliveries` are to be published after the commit.
    """

    payment: Payment
    is_replay: bool
    deliveries: tuple[WorkItem, ...] = ()


type IntentAnswer = Accepted | PaymentsError


async def accept(
    connection: AsyncConnection, now: datetime, intents: Sequence[Intent], *, rules: MethodRules
) -> list[IntentAnswer]:
    """Insert a PENDING payment for each intent, or refuse it and write nothing.

    The answers are in the order of `intents`. A refusal is returned, not raised: PaymentMethodUnusable,
    CaptureMethodUnusable, OlderWorkers, PaymentInProgress or OrderAlreadyPaid, which leave the idempotency key unbound.
    An intent whose key is already bound is a replay, or refused with IdempotencyKeyReused.
    """
    answers: dict[UUID, IntentAnswer] = {}
    holders = await bind(connection, [intent.idempotency for intent in intents if intent.idempotency], now=now)
    firsts, repeats = _split_by_key(intents, holders, answers)
    usable = await _with_usable_methods(connection, firsts, now, answers, rules)
    created = await _insert(connection, usable, now, answers)
    refused = [intent.idempotency for intent in firsts if intent.id in answers and intent.idempotency]
    await unbind(connection, refused)
    moves = [Move(payment, None, HistoryReason.ACCEPTED, payment.created_by) for payment in created]
    await append(connection, moves, now=now)
    emitted = await emit(connection, moves, now=now)
    for payment in created:
        answers[payment.id] = Accepted(
            payment, is_replay=False, deliveries=emitted.get(payment.id, NO_DELIVERIES).to_publish
        )
    await _answer_repeats(connection, repeats, answers)
    return [answers[intent.id] for intent in intents]


def _split_by_key(
    intents: Sequence[Intent], holders: dict[tuple[str, str], KeyRequest], answers: dict[UUID, IntentAnswer]
) -> tuple[list[Intent], list[tuple[Intent, UUID]]]:
    """Return the intents that go ahead, and those that repeat a request, each with the payment of that request.

    An intent that reuses a key for another request gets its answer here.
    """
    firsts: list[Intent] = []
    repeats: list[tuple[Intent, UUID]] = []
    for intent in intents:
        try:
            repeated = intent.idempotency and replayed(intent.idempotency, holders[intent.idempotency.name])
        except IdempotencyKeyReused as error:
            answers[intent.id] = error
            continue
        if repeated:
            repeats.append((intent, repeated))
        else:
            firsts.append(intent)
    return firsts, repeats


async def _with_usable_methods(
    connection: AsyncConnection,
    intents: Sequence[Intent],
    now: datetime,
    answers: dict[UUID, IntentAnswer],
    rules: MethodRules,
) -> list[tuple[Intent, dict[str, Any]]]:
    if not intents:
        return []
    usable = []
    copies = await copy_usable_methods(connection, intents, rules, now=now)
    for intent, copied in zip(intents, copies, strict=True):
        if isinstance(copied, Refused):
            answers[intent.id] = copied
        else:
            usable.append((intent, copied))
    return usable


async def _insert(
    connection: AsyncConnection,
    intents: Sequence[tuple[Intent, dict[str, Any]]],
    now: datetime,
    answers: dict[UUID, IntentAnswer],
) -> list[Payment]:
    """Insert the payments that the constraint on live orders lets in. Answer each other intent with what blocks it."""
    if not intents:
        return []
    rows = [_row(intent, method, now) for intent, method in intents]
    rows.sort(key=lambda row: (row["user_id"], row["order_id"], row["id"]))  # lock order
    created = set((await connection.execute(INSERT, rows)).scalars())
    blocked = [intent for intent, _ in intents if intent.id not in created]
    if blocked:
        blockers = await _live_payments(connection, blocked)
        for intent in blocked:
            answers[intent.id] = _refusal(intent, blockers.get((intent.user_id, intent.order_id)))
    return [Payment.of(row) for row in rows if row["id"] in created]


def _row(intent: Intent, method: dict[str, Any], now: datetime) -> dict[str, Any]:
    return {
        "id": intent.id,
        "user_id": intent.user_id,
        "created_by": intent.created_by,
        "order_id": intent.order_id,
        "payment_method_id": intent.payment_method_id,
        "amount": intent.amount,
        "currency": intent.currency,
        "description": intent.description,
        "metadata": intent.metadata,
        "callback_url": intent.callback_url,
        "idempotency_key": intent.idempotency.key if intent.idempotency else None,
        "correlation_id": intent.correlation_id,
        "method": method,
        "status": PaymentStatus.PENDING,
        "sequence": 1,
        "lease_version": 0,
        "gateway_tries": 0,
        "due_at": now + timedelta(seconds=intent.steering.first_due_s),
        "due_reason": HistoryReason.CLAIMED,
        "gateway": None,
        "gateway_transaction_id": None,
        "gateway_details": None,
        "outcome_rule": None,
        "failure_code": None,
        "failure_reason": None,
        "created_at": now,
        "updated_at": now,
        "processed_at": None,
        "return_url": intent.return_url,
        "steering": intent.steering.stored,
        **_capture_columns(intent, method),
    }


def _capture_columns(intent: Intent, method: Mapping[str, Any]) -> dict[str, Any]:
    if intent.capture_method is CaptureMethod.MANUAL:
        return {"capture_method": CaptureMethod.MANUAL, "operation": PaymentOperation.AUTHORIZE}
    # A charge that a worker of 0.1 does not understand is named: the table refuses its claim by such a worker.
    is_plain = intent.return_url is None and not is_named_charge(method) and intent.steering == NOT_STEERED
    return {"capture_method": None, "operation": None if is_plain else PaymentOperation.CHARGE}


async def _live_payments(connection: AsyncConnection, intents: Sequence[Intent]) -> dict[tuple[str, str], LivePayment]:
    orders = sorted({(intent.user_id, intent.order_id) for intent in intents})
    found = await connection.execute(
        select(
            *columns_of(payments, "id", "user_id", "order_id", "status", "created_by", "updated_at", "processed_at")
        ).where(tuple_(payments.c.user_id, payments.c.order_id).in_(orders), payments.c.status.in_(LIVE))
    )
    return {(row.user_id, row.order_id): await _live_payment(connection, row) for row in found.all()}


async def _live_payment(connection: AsyncConnection, row: Any) -> LivePayment:
    status = PaymentStatus(row.status)
    since = row.processed_at or row.updated_at
    if status is PaymentStatus.PARTIALLY_REFUNDED:
        since = await partially_refunded_since(connection, row.id) or since
    return LivePayment(id=row.id, status=status, created_by=row.created_by, since=since)


def _refusal(intent: Intent, blocker: LivePayment | None) -> Refused:
    # The other payment ended between our INSERT and our SELECT. The next try of the client will be accepted.
    if blocker is None:
        return PaymentInProgress(None)
    if intent.visible.includes(user_id=intent.user_id, created_by=blocker.created_by):
        return order_taken(intent.order_id, blocker)
    # A client must not learn anything of a payment that it may not see.
    return OrderAlreadyPaid(None) if blocker.status in PAID else PaymentInProgress(None)


async def _answer_repeats(
    connection: AsyncConnection, repeats: Sequence[tuple[Intent, UUID]], answers: dict[UUID, IntentAnswer]
) -> None:
    """Answer repeats with the payment as it is now, or with the refusal that this batch gave to the first request."""
    earlier = {payment_id for _, payment_id in repeats} - answers.keys()
    known = {payment.id: payment for payment in await find_many(connection, earlier)} if earlier else {}
    for intent, payment_id in repeats:
        answer = answers.get(payment_id)
        match answer:
            case None:
                answers[intent.id] = Accepted(known[payment_id], is_replay=True)
            case Accepted(payment):
                answers[intent.id] = Accepted(payment, is_replay=True)
            case error:
                answers[intent.id] = error
