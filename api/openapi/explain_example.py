"""The example of an explanation: built as every explanation is, from the payment of the other examples."""

from dataclasses import fields
from datetime import datetime
from typing import Any
from uuid import UUID

from api.openapi import examples
from shared.delivery_lifecycle import DeliveryKind, DeliveryStatus
from shared.event_types import EventType
from shared.explain.explanation import Explanation
from shared.explain.facts import Facts, GatewaySettings, HistoryRow, LedgerRow, Reader
from shared.lifecycle import PaymentStatus
from shared.payments.payment import Payment
from shared.simulation.decisions import OutcomeSettings
from shared.simulation.delays import Delays
from shared.simulation.ledger_entries import EntryKind
from shared.webhooks.delivery_log import Delivery, DeliveryPage, LoggedAttempt

_SEED, _MIN_MS, _MAX_MS = "example", 1000, 2100
_SETTINGS = GatewaySettings(
    outcomes=OutcomeSettings(_SEED, success_rate=0.95, uses_test_amounts=False),
    delays=Delays(_SEED, min_ms=_MIN_MS, max_ms=_MAX_MS, slow_max_ms=20_000),
    is_seeded=True,
    delay_min_ms=_MIN_MS,
    delay_max_ms=_MAX_MS,
    backoff_s=1,
    is_simulation_on=True,
    checks_orders=False,
)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


_ACCEPTED_AT, _ENDED_AT = _moment(examples.ACCEPTED_AT), _moment(examples.ENDED_AT)


def _payment() -> Payment:
    shown: dict[str, Any] = {field.name: examples.COMPLETED.get(field.name) for field in fields(Payment)}
    return Payment(
        **shown
        | {
            "id": UUID(examples.COMPLETED["id"]),
            "payment_method_id": UUID(examples.METHOD_ID),
            "idempotency_key": "order-1042",
            "method": {"type": "CREDIT_CARD", "details": examples.CARD, "scenario": None},
            "status": PaymentStatus.COMPLETED,
            "lease_version": 1,
            "gateway_tries": 0,
            "order_checks": 0,
            "capture_method": None,
            "created_at": _ACCEPTED_AT,
            "updated_at": _ENDED_AT,
            "processed_at": _ENDED_AT,
            "simulated": None,
            "balance": None,
        }
    )


def _history() -> tuple[HistoryRow, ...]:
    return tuple(
        HistoryRow(
            sequence=row["sequence"],
            status=row["new_status"],
            reason=row["reason"],
            metadata=row["metadata"],
            at=_moment(row["created_at"]),
            by=row["created_by"],
        )
        for row in examples.HISTORY["history"]
    )


def _ledger(kind: EntryKind, at: str) -> LedgerRow:
    answer = {
        "gateway": "stripe_mock",
        "outcome_rule": "rate",
        "transaction_id": examples.COMPLETED["gateway_transaction_id"],
    }
    return LedgerRow(f"{examples.COMPLETED['id']}:{kind}", kind, None, 1585, answer, _moment(at))


def _delivery() -> Delivery:
    shown = examples.DELIVERY
    delivered_at = _moment(shown["delivered_at"])
    attempt = LoggedAttempt(
        number=1,
        started_at=_moment(shown["attempts"][0]["started_at"]),
        duration_ms=9,
        status_code=200,
        error=None,
        url=None,
        response_body=None,
    )
    return Delivery(
        id=UUID(shown["id"]),
        event_id=UUID(shown["event_id"]),
        event_type=EventType.COMPLETED,
        payment_id=UUID(shown["payment_id"]),
        kind=DeliveryKind.ENDPOINT,
        endpoint_id=UUID(shown["endpoint_id"]),
        endpoint_name=shown["endpoint_name"],
        endpoint_created_by="service:orders",
        payment_created_by="user:1",
        url=examples.ENDPOINT["url"],
        status=DeliveryStatus.DELIVERED,
        retries=1,
        due_at=None,
        last_error=None,
        created_at=_ENDED_AT,
        updated_at=delivered_at,
        delivered_at=delivered_at,
        attempts=(attempt,),
    )


_FACTS = Facts(
    payment=_payment(),
    history=_history(),
    has_more_history=False,
    ledger=(
        _ledger(EntryKind.AUTHORIZE, "2026-11-27T18:48:56.204Z"),
        _ledger(EntryKind.CAPTURE, "2026-11-27T18:48:56.902Z"),
    ),
    refunds=(),
    refunds_total=0,
    deliveries=DeliveryPage([_delivery()], has_more=False),
    earlier=0,
    rule=None,
    now=_moment("2026-11-27T18:50:00.000Z"),
)

EXPLANATION: dict[str, Any] = Explanation(_FACTS, _SETTINGS, Reader("1", is_admin=False)).to_json()
