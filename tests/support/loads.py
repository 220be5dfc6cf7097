"""What the tests of `payments load` share: a plan, what the API shows of a payment, a picture that is read back."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree as ET

from cli.load.plan import Plan
from cli.options import Shape
from shared.lifecycle import MethodType

MIX = {MethodType.CREDIT_CARD: 6, MethodType.DEBIT_CARD: 3, MethodType.PAYPAL: 1}


def parsed(picture: str) -> ET.Element:
    return ET.fromstring(picture)  # noqa: S314 - we drew it


def a_plan(**changes: Any) -> Plan:
    return replace(Plan(rate=20, duration_s=10, shape=Shape.STEADY, mix=MIX, seed="tests"), **changes)


def shown(
    order_id: str, status: str = "PENDING", *, payment_id: str = "", at_s: float = 0, sequence: int = 3
) -> dict[str, Any]:
    """A payment as the API shows it."""
    created = datetime.fromtimestamp(1_000_000 + at_s, UTC)
    has_ended = status in {"COMPLETED", "FAILED"}
    return {
        "id": payment_id or f"p-{order_id}",
        "order_id": order_id,
        "status": status,
        "failure_code": "card_declined" if status == "FAILED" else None,
        "sequence": sequence if has_ended else 1,
        "created_at": created.isoformat(),
        "processed_at": datetime.fromtimestamp(1_000_002 + at_s, UTC).isoformat() if has_ended else None,
    }


def a_history(*statuses: str) -> list[dict[str, Any]]:
    before = [None, *statuses[:-1]]
    return [
        {"sequence": number, "previous_status": previous, "new_status": status}
        for number, (previous, status) in enumerate(zip(before, statuses, strict=True), start=1)
    ]
