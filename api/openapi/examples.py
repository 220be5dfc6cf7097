"""Examples of successful responses: what the service answers, with ids and moments that fit together."""

from typing import Any

from api.openapi.responses import EXAMPLE_ID
from shared.simulation.ready_made import READY_MADE

METHOD_ID = "01a21e56-c064-75e9-95b7-9130c903e3c6"
ENDPOINT_ID = "01a21e56-b118-7d10-8e4c-5c1f3f0e2b77"
EVENT_ID = "01a21e5a-9f0b-7a44-b5c2-1f7d6a1c0e52"
DELIVERY_ID = "01a21e5a-9f0c-7c21-9d0e-6b8a4c2f1d93"
ACCEPTED_AT = "2026-11-27T18:48:55.401Z"
ENDED_AT = "2026-11-27T18:48:57.118Z"
CARD = {"brand": "visa", "last4": "4242", "exp_month": 12, "exp_year": 2030}

METHOD: dict[str, Any] = {
    "id": METHOD_ID,
    "user_id": "1",
    "type": "CREDIT_CARD",
    "display_name": "Visa ending in 4242",
    "masked_details": CARD,
    "is_default": True,
    "is_active": True,
    "expires_at": "2031-01-01T00:00:00.000Z",
    "created_at": "2026-11-27T18:40:02.311Z",
}
TEST_METHODS = {
    "test_methods": [READY_MADE[name].to_json() for name in ("pm_test_visa", "pm_test_paypal_funds")],
}
METHODS = {"payment_methods": [METHOD]}

PENDING: dict[str, Any] = {
    "id": EXAMPLE_ID,
    "order_id": "1042",
    "user_id": "1",
    "created_by": "user:1",
    "payment_method_id": METHOD_ID,
    "amount": 1585,
    "currency": "USD",
    "description": "Two mugs",
    "metadata": {"basket": "7"},
    "callback_url": None,
    "status": "PENDING",
    "capture_method": "automatic",
    "amount_authorized": 0,
    "amount_captured": 0,
    "amount_refunded": 0,
    "amount_refundable": 0,
    "return_url": None,
    "next_action": None,
    "capture_before": None,
    "last_capture_error": None,
    "gateway": None,
    "gateway_transaction_id": None,
    "failure_code": None,
    "failure_reason": None,
    "failure_advice": None,
    "outcome_rule": None,
    "payment_method_details": {"type": "CREDIT_CARD", **CARD},
    "gateway_details": None,
    "simulation": None,
    "sequence": 1,
    "livemode": False,
    "created_at": ACCEPTED_AT,
    "updated_at": ACCEPTED_AT,
    "processed_at": None,
}
COMPLETED = PENDING | {
    "status": "COMPLETED",
    "amount_authorized": 1585,
    "amount_captured": 1585,
    "amount_refundable": 1585,
    "gateway": "stripe_mock",
    "gateway_transaction_id": "ch_3T9kQ2eZvKYlo2C81mXw4RbN",
    "outcome_rule": "rate",
    "gateway_details": {
        "authorization_code": "K7Q2ZD",
        "avs_result": "Y",
        "cvc_result": "M",
    },
    "sequence": 3,
    "updated_at": ENDED_AT,
    "processed_at": ENDED_AT,
}
FAILED = COMPLETED | {
    "status": "FAILED",
    "amount_authorized": 0,
    "amount_captured": 0,
    "amount_refundable": 0,
    "gateway_transaction_id": None,
    "failure_code": "insufficient_funds",
    "failure_reason": "The account does not have enough funds, or its daily limit is reached.",
    "failure_advice": "use_another_method",
    "gateway_details": {"avs_result": "Y", "cvc_result": "M"},
}
CANCELLED = PENDING | {"status": "CANCELLED", "sequence": 2, "updated_at": ENDED_AT}

PAYMENTS = {"payments": [COMPLETED], "limit": 20, "next_cursor": None}
STATUS = {"payment_id": EXAMPLE_ID, "status": "COMPLETED", "updated_at": ENDED_AT}
HISTORY: dict[str, Any] = {
    "payment_id": EXAMPLE_ID,
    "history": [
        {
            "sequence": 1,
            "previous_status": None,
            "new_status": "PENDING",
            "reason": "accepted",
            "metadata": {},
            "created_at": ACCEPTED_AT,
            "created_by": "user:1",
        },
        {
            "sequence": 2,
            "previous_status": "PENDING",
            "new_status": "PROCESSING",
            "reason": "claimed",
            "metadata": {"attempt": 1},
            "created_at": "2026-11-27T18:48:55.423Z",
            "created_by": "worker",
        },
        {
            "sequence": 3,
            "previous_status": "PROCESSING",
            "new_status": "COMPLETED",
            "reason": "gateway_approved",
            "metadata": {"gateway": "stripe_mock", "gateway_transaction_id": COMPLETED["gateway_transaction_id"]},
            "created_at": ENDED_AT,
            "created_by": "worker",
        },
    ],
}

ENDPOINT: dict[str, Any] = {
    "id": ENDPOINT_ID,
    "name": "order-service",
    "url": "https://orders.example/hooks/payments",
    "event_types": ["payment.completed", "payment.failed", "payment.cancelled"],
    "enabled": True,
    "disabled_reason": None,
    "problem": None,
    "created_by": "service:orders",
    "created_at": "2026-11-27T18:30:00.000Z",
    "updated_at": "2026-11-27T18:30:00.000Z",
}
# The secret of no endpoint.
NEW_ENDPOINT = ENDPOINT | {"secret": "whsec_" + "EXAMPLE" * 4}
ENDPOINTS = {"webhook_endpoints": [ENDPOINT]}
DELIVERY: dict[str, Any] = {
    "id": DELIVERY_ID,
    "event_id": EVENT_ID,
    "event_type": "payment.completed",
    "payment_id": EXAMPLE_ID,
    "kind": "endpoint",
    "endpoint_id": ENDPOINT_ID,
    "endpoint_name": "order-service",
    "status": "delivered",
    "tries": 1,
    "next_attempt_at": None,
    "last_error": None,
    "created_at": ENDED_AT,
    "updated_at": "2026-11-27T18:48:57.131Z",
    "delivered_at": "2026-11-27T18:48:57.131Z",
    "attempts": [
        {
            "number": 1,
            "started_at": "2026-11-27T18:48:57.122Z",
            "duration_ms": 9,
            "status_code": 200,
            "error": None,
        }
    ],
}
RESENT = DELIVERY | {"status": "pending", "tries": 0, "next_attempt_at": "2026-11-27T18:50:00.000Z"}
PAYMENT_DELIVERIES = {"payment_id": EXAMPLE_ID, "deliveries": [DELIVERY], "limit": 100, "next_cursor": None}
ENDPOINT_DELIVERIES = {
    "deliveries": [DELIVERY | {"url": ENDPOINT["url"]}],
    "limit": 20,
    "next_cursor": None,
}
API_KEY: dict[str, Any] = {
    "id": "01a21e56-a9d4-7b06-8a4e-2f9c1d7b3e60",
    "name": "orders",
    "role": "service",
    "key_start": "sk_sim_" + "7Qd2",
    "created_by": "admin:root",
    "created_at": "2026-11-27T18:25:00.000Z",
    "expires_at": "2027-11-27T00:00:00.000Z",
    "last_used_at": None,
}
# The key of no service.
NEW_API_KEY = API_KEY | {"key": "sk_sim_7Qd2" + "EXAMPLE" * 5 + "KEYS"}
API_KEYS = {"api_keys": [API_KEY | {"last_used_at": ENDED_AT}], "limit": 20, "next_cursor": None}
CALLBACK_SECRET = {"secret": NEW_ENDPOINT["secret"]}

HEALTH = {"status": "healthy", "timestamp": ACCEPTED_AT, "version": "0.2.0", "uptime": 86.25}
READY: dict[str, Any] = {
    "ready": True,
    "checks": {
        "database": "ready",
        "redis": "ready",
        "auth_service": "not_configured",
        "order_service": "not_configured",
    },
}
NOT_READY = READY | {"ready": False, "checks": READY["checks"] | {"database": "not_ready"}}
FIGURES = {
    "computed_at": ENDED_AT,
    "queue_depth": 3,
    "in_flight": 212,
    "oldest_pending_s": 0.021,
    "refund_backlog": 1,
    "webhook_backlog": 4,
    "accepted_per_s": 101.2,
    "settled_per_s": 99.4,
    "workers": [
        {
            "worker": "host-4211-q7x",
            "slots": 2000,
            "in_gateway": 212,
            "checking_orders": 0,
            "sending": 4,
            "settled": 8120,
            "settled_per_s": 99.4,
            "uptime_s": 82.0,
            "version": "0.2.0",
        }
    ],
}
CLOCK = {
    "now": "2026-12-01T18:49:02.440Z",
    "real_now": "2026-11-27T18:49:01.940Z",
    "offset_s": 345600.5,
    "speed": 1.0,
    "advances_to": None,
}
ADVANCED = {
    "now": "2026-12-01T18:49:02.440Z",
    "offset_s": 345600.5,
    "became_due": 900,
    "ended": 100,
    "is_idle": True,
}
