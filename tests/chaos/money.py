"""What the judge finds wrong with captures, refunds and the events of what happened to the payments."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import select

from shared.database.engine import Database
from shared.database.refund_tables import payment_balances, refunds
from shared.database.tables import columns_of, events, payment_history
from shared.event_types import CALLBACK_EVENTS
from shared.lifecycle import PaymentStatus
from shared.payments.payment import Payment
from shared.refunds.refund import Refund
from tests.chaos.clients import HOOK, Intent, callback_path
from tests.chaos.undecided import CHALLENGED, wrong_replies

# Money was taken for these.
CHARGED = {PaymentStatus.COMPLETED, PaymentStatus.PARTIALLY_REFUNDED, PaymentStatus.REFUNDED}


@dataclass(slots=True)
class MoneyRows:
    """What the tables say of each payment beside its row."""

    captured: dict[UUID, int] = field(default_factory=dict)
    refunds: dict[UUID, list[Refund]] = field(default_factory=dict)
    reasons: dict[UUID, set[str]] = field(default_factory=dict)
    events: dict[UUID, Counter[str]] = field(default_factory=dict)


async def read_money(database: Database) -> MoneyRows:
    """Read all of it."""
    rows = MoneyRows()
    async with database.read() as connection:
        for payment_id, captured in await connection.execute(
            select(payment_balances.c.payment_id, payment_balances.c.captured)
        ):
            rows.captured[payment_id] = captured
        for row in (await connection.execute(select(*columns_of(refunds)))).mappings():
            rows.refunds.setdefault(row["payment_id"], []).append(Refund.of(row))
        for payment_id, reason in await connection.execute(
            select(payment_history.c.payment_id, payment_history.c.reason)
        ):
            rows.reasons.setdefault(payment_id, set()).add(reason)
        for payment_id, event_type in await connection.execute(select(events.c.payment_id, events.c.type)):
            rows.events.setdefault(payment_id, Counter())[event_type] += 1
    return rows


def wrong_money(intent: Intent, payment: Payment, rows: MoneyRows) -> list[str]:
    """Return what is wrong with the captures, cancels and refunds that were answered."""
    later, reasons = intent.later, rows.reasons[payment.id]
    wrong = wrong_replies(
        intent.customer,
        is_challenged=intent.method == CHALLENGED,
        is_charged=payment.status in CHARGED,
        reasons=reasons,
    )
    if later.captures and "capture_requested" not in reasons:
        wrong.append("its capture was accepted and is lost")
    if later.is_cancelled and not reasons & {"void_requested", "cancelled"} and payment.status != "CANCELLED":
        wrong.append("its cancel was accepted and is lost")
    if intent.is_manual and payment.status in CHARGED and rows.captured.get(payment.id) not in later.captures:
        wrong.append(f"{rows.captured.get(payment.id)} was captured, and {later.captures} accepted")
    known = {str(one.id): one for one in rows.refunds.get(payment.id, [])}
    if lost := later.refunds.keys() - known.keys():
        wrong.append(f"refunds were accepted and are lost: {sorted(lost)}")
    if len(known) > later.refunds_sent:
        wrong.append(f"{len(known)} refunds for {later.refunds_sent} requests")
    wrong += [f"its refund {one} is {known[one].amount}, not {amount}" for one, amount in later.refunds.items()
              if one in known and known[one].amount != amount]  # fmt: skip
    wrong += [f"its refund {one} was cancelled, and is {known[one].status}" for one in later.refunds_cancelled
              if one in known and known[one].status != "CANCELLED"]  # fmt: skip
    return wrong


def missed_events(
    intent: Intent, payment: Payment, rows: MoneyRows, taken: Mapping[tuple[str, str, str], int]
) -> list[str]:
    """Return the events that never came to the endpoint or to the callback, each as often as it happened."""
    missed = []
    for event_type, times in rows.events[payment.id].items():
        paths = [HOOK, *([callback_path(intent.user)] if event_type in CALLBACK_EVENTS else [])]
        missed += [
            f"{event_type} came {taken[path, str(payment.id), event_type]} of {times} times to {path}"
            for path in paths
            if taken[path, str(payment.id), event_type] < times
        ]
    return missed
