"""Examples of payments that need more than a charge (approval, capture or refund), and of refunds."""

from typing import Any

from api.openapi.examples import COMPLETED, ENDED_AT, PENDING
from api.openapi.responses import EXAMPLE_ID

AUTHORIZED = COMPLETED | {
    "status": "AUTHORIZED",
    "capture_method": "manual",
    "amount_captured": 0,
    "amount_refundable": 0,
    "capture_before": "2026-12-04T18:48:57.118Z",
    "processed_at": None,
}
_ASKED_AT = "2026-11-28T09:12:40.006Z"
_DONE_AT = "2026-11-28T09:12:41.873Z"
CAPTURING = AUTHORIZED | {"status": "PROCESSING", "sequence": 4, "updated_at": _ASKED_AT}
# Of the 1585 that were authorized, 385 are released.
CAPTURED = AUTHORIZED | {
    "status": "COMPLETED",
    "amount_captured": 1200,
    "amount_refundable": 1200,
    "capture_before": None,
    "sequence": 6,
    "updated_at": _DONE_AT,
    "processed_at": _DONE_AT,
}
CAPTURE_FAILED = AUTHORIZED | {
    "last_capture_error": {
        "code": "capture_declined",
        "reason": "The gateway declined the capture.",
        "at": _DONE_AT,
    },
    "sequence": 6,
    "updated_at": _DONE_AT,
}
VOIDING = CAPTURING

# A card that wants 3-D Secure.
REQUIRES_ACTION = PENDING | {
    "return_url": "https://shop.example/paid?basket=7",
    "status": "REQUIRES_ACTION",
    "next_action": {
        "type": "redirect",
        "url": "https://pay.example/approve/TOKEN-OF-THE-LINK",
        "expires_at": "2026-11-27T19:03:57.118Z",
    },
    "gateway": "stripe_mock",
    "sequence": 3,
    "updated_at": ENDED_AT,
}
APPROVED = REQUIRES_ACTION | {"status": "PROCESSING", "next_action": None, "sequence": 4, "updated_at": _ASKED_AT}
COMPLETED_AFTER_APPROVAL = COMPLETED | {
    "return_url": REQUIRES_ACTION["return_url"],
    "sequence": 6,
    "updated_at": _DONE_AT,
    "processed_at": _DONE_AT,
}

REFUND_ID = "01a21e5c-44b2-7e9d-8c37-90a1f6d2b814"
REFUND_PENDING: dict[str, Any] = {
    "id": REFUND_ID,
    "payment_id": EXAMPLE_ID,
    "order_id": "1042",
    "amount": 500,
    "currency": "USD",
    "status": "PENDING",
    "reason": "requested_by_customer",
    "failure_code": None,
    "failure_reason": None,
    "gateway": None,
    "gateway_transaction_id": None,
    "sequence": 1,
    "metadata": {"rma": "7"},
    "simulation": None,
    "created_by": "service:shop",
    "created_at": _ASKED_AT,
    "updated_at": _ASKED_AT,
    "processed_at": None,
}
REFUND = REFUND_PENDING | {
    "status": "COMPLETED",
    "gateway": "stripe_mock",
    "gateway_transaction_id": "re_3T9kQ2eZvKYlo2C8h5Jd0sWx",
    "sequence": 3,
    "updated_at": _DONE_AT,
    "processed_at": _DONE_AT,
}
REFUND_FAILED = REFUND | {
    "status": "FAILED",
    "failure_code": "refund_declined",
    "failure_reason": "The refund was declined.",
    "gateway_transaction_id": None,
}
REFUND_CANCELLED = REFUND_PENDING | {"status": "CANCELLED", "sequence": 2, "updated_at": _DONE_AT}
REFUNDS = {"refunds": [REFUND], "limit": 20, "next_cursor": None}
PAYMENT_REFUNDS = {"payment_id": EXAMPLE_ID, **REFUNDS, "limit": 100}
REFUND_HISTORY = {
    "refund_id": REFUND_ID,
    "history": [
        {
            "sequence": 1,
            "previous_status": None,
            "new_status": "PENDING",
            "reason": "requested",
            "metadata": {},
            "created_at": _ASKED_AT,
            "created_by": "service:shop",
        },
        {
            "sequence": 2,
            "previous_status": "PENDING",
            "new_status": "PROCESSING",
            "reason": "claimed",
            "metadata": {"attempt": 1},
            "created_at": "2026-11-28T09:12:40.021Z",
            "created_by": "worker",
        },
        {
            "sequence": 3,
            "previous_status": "PROCESSING",
            "new_status": "COMPLETED",
            "reason": "gateway_approved",
            "metadata": {"gateway": "stripe_mock", "gateway_transaction_id": REFUND["gateway_transaction_id"]},
            "created_at": _DONE_AT,
            "created_by": "worker",
        },
    ],
}
# The payment at each step of the refund.
REFUND_REQUESTED = COMPLETED | {"amount_refundable": 1085, "sequence": 4, "updated_at": _ASKED_AT}
REFUND_GIVEN_BACK = COMPLETED | {"sequence": 5, "updated_at": _DONE_AT}
PARTIALLY_REFUNDED = COMPLETED | {
    "status": "PARTIALLY_REFUNDED",
    "amount_refunded": 500,
    "amount_refundable": 1085,
    "sequence": 5,
    "updated_at": _DONE_AT,
}
REFUNDED = PARTIALLY_REFUNDED | {"status": "REFUNDED", "amount_refunded": 1585, "amount_refundable": 0}
