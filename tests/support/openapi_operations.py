"""The operations of the OpenAPI document: which there are, and what each of them may answer."""

from typing import Any

from api.paths import PREFIX

# Under /api/v1: the statuses of successes, and the codes of errors beside those of every operation.
BODY = "malformed_request body_too_large unsupported_media_type"
KEYED = "idempotency_key_reused outcome_unknown overloaded"
INTENT = (
    "forbidden simulation_disabled payment_in_progress order_already_paid payment_method_unusable callback_url_refused"
)
NOTIFICATION = f"{BODY} invalid_signature overloaded outcome_unknown"
OPERATIONS = {
    "post /payments": (
        "201 202",
        f"{BODY} {KEYED} {INTENT}",
    ),
    "get /payments": ("200", "forbidden"),
    "get /payments/{payment_id}": ("200 304", "not_found"),
    "get /payments/{payment_id}/status": ("200 304", "not_found"),
    "get /payments/{payment_id}/history": ("200", "not_found"),
    "get /payments/{payment_id}/deliveries": ("200", "not_found"),
    "get /payments/{payment_id}/explain": ("200", "not_found"),
    "post /payments/{payment_id}/cancel": ("200 202", f"{KEYED} not_found payment_not_cancellable"),
    "post /payments/{payment_id}/capture": (
        "200 202",
        f"{BODY} {KEYED} forbidden simulation_disabled not_found payment_not_capturable",
    ),
    "post /payments/{payment_id}/action": (
        "200 202",
        f"{BODY} {KEYED} simulation_disabled not_found no_action_required",
    ),
    "post /payments/{payment_id}/refunds": (
        "201 202",
        f"{BODY} {KEYED} forbidden simulation_disabled not_found payment_not_refundable refund_exceeds_balance",
    ),
    "get /payments/{payment_id}/refunds": ("200", "not_found"),
    "get /refunds": ("200", ""),
    "get /refunds/{refund_id}": ("200 304", "not_found"),
    "get /refunds/{refund_id}/history": ("200", "not_found"),
    "post /refunds/{refund_id}/cancel": ("200", f"{KEYED} forbidden not_found refund_not_cancellable"),
    "post /payment-methods": ("200 201", f"{BODY} {KEYED} forbidden not_found payment_method_limit"),
    "get /test-methods": ("200", "simulation_disabled"),
    "get /payment-methods": ("200", "forbidden"),
    "get /payment-methods/{method_id}": ("200", "forbidden not_found"),
    "patch /payment-methods/{method_id}": ("200", f"{BODY} forbidden not_found outcome_unknown"),
    "delete /payment-methods/{method_id}": ("204", "forbidden not_found outcome_unknown"),
    "post /webhook-endpoints": ("201", f"{BODY} {KEYED} forbidden not_found callback_url_refused"),
    "get /webhook-endpoints": ("200", "forbidden"),
    "get /webhook-endpoints/{endpoint_id}": ("200", "forbidden not_found"),
    "patch /webhook-endpoints/{endpoint_id}": (
        "200",
        f"{BODY} forbidden not_found callback_url_refused outcome_unknown",
    ),
    "delete /webhook-endpoints/{endpoint_id}": ("204", "forbidden not_found outcome_unknown"),
    "get /webhook-endpoints/{endpoint_id}/deliveries": ("200", "forbidden not_found"),
    "get /webhook-deliveries/{delivery_id}": ("200", "not_found"),
    "post /webhook-deliveries/{delivery_id}/resend": ("202", f"{KEYED} not_found delivery_in_progress"),
    "get /callback-secret": ("200", ""),
    "post /webhooks/payment/{gateway}": ("204", NOTIFICATION),
    "post /webhooks/payment": ("204", NOTIFICATION),
    "post /api-keys": ("201", f"{BODY} {KEYED} forbidden not_found"),
    "get /api-keys": ("200", "forbidden"),
    "delete /api-keys/{key_id}": ("204", "forbidden not_found outcome_unknown"),
    "post /simulation/rules": (
        "201",
        f"{BODY} {KEYED} forbidden simulation_disabled not_found simulation_rule_limit",
    ),
    "get /simulation/rules": ("200", "forbidden simulation_disabled"),
    "delete /simulation/rules": ("204", "forbidden simulation_disabled outcome_unknown overloaded"),
    "get /simulation/rules/{rule_id}": ("200", "forbidden simulation_disabled not_found"),
    "delete /simulation/rules/{rule_id}": (
        "204",
        "forbidden simulation_disabled not_found outcome_unknown overloaded",
    ),
    "post /simulation/rules/test": ("200", f"{BODY} forbidden simulation_disabled payment_method_unusable"),
    "get /simulation/clock": ("200", "simulation_disabled"),
    "post /simulation/clock/advance": ("200", f"{BODY} {KEYED} forbidden simulation_disabled"),
    "get /stats": ("200", "forbidden"),
    "get /verify/last": ("200", "forbidden not_found"),
    "post /verify/run": ("202", "forbidden"),
    "get /verify/run": ("200", "forbidden not_found"),
}
# Operations whose requests are signed and need no token.
SIGNED = {"post /webhooks/payment/{gateway}", "post /webhooks/payment"}
AT_THE_ROOT = {"get /health": "200", "get /health/ready": "200 503", "get /metrics": "200"}


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method} {path.removeprefix(PREFIX)}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema
