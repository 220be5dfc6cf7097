"""The OpenAPI document: every operation, with what it may answer and examples of it."""

import re
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from openapi_spec_validator import OpenAPIV31SpecValidator

from api.paths import PREFIX
from api.problems import PROBLEM_TYPE
from api.schemas import api_keys as key_models
from api.schemas import explain as explain_models
from api.schemas import operations as operation_models
from api.schemas import payment_methods as method_models
from api.schemas import payments as payment_models
from api.schemas import problems as problem_models
from api.schemas import refunds as refund_models
from api.schemas import rule_tests as rule_test_models
from api.schemas import simulation_clock as clock_models
from api.schemas import simulation_rules as rule_models
from api.schemas import webhooks as webhook_models
from api.schemas.fields import METADATA_PAIRS_MAX
from shared.database.engine import Database
from shared.ids import ORDER_ID, USER_ID
from shared.verify.breaches import PROMISES, BreachKind, Invariant
from shared.verify.kinds import KINDS as KINDS_OF_BREACH
from tests.support.api_client import RunningApi, added
from tests.support.approvals import waiting
from tests.support.models import strict
from tests.support.money import authorized, charged
from tests.support.notifications import GATEWAY, notify

pytest_plugins = ["tests.support.api_fixtures", "tests.support.openapi_fixtures"]

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
EVERYWHERE = {"invalid_token", "validation_error", "rate_limited", "unavailable"}
# Operations whose requests are signed and need no token.
SIGNED = {"post /webhooks/payment/{gateway}", "post /webhooks/payment"}
AT_THE_ROOT = {"get /health": "200", "get /health/ready": "200 503", "get /metrics": "200"}
# The platform's gateway forwards these paths; they lead to the same operations and are not described.
ON_THE_PLATFORM = (
    "/api/payments/{payment_id}",
    "/api/payments/methods/{method_id}",
    "/api/payments/refunds/{refund_id}",
    "/api/payments/{payment_id}/capture",
    "/api/payments/{payment_id}/action",
    # Pages for people.
    "/approve/{token}",
    "/api/payments/approve/{token}",
)
type Make = Callable[[httpx.AsyncClient, Database], Awaitable[dict[str, Any]]]
# A body that may be left out.
WITHOUT_A_BODY = {"post /payments/{payment_id}/capture", "post /payments/{payment_id}/refunds"}


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


# -- the document


def test_every_operation_has_the_statuses_and_codes_that_can_happen_in_order(document: dict[str, Any]) -> None:
    described = operations(document)
    assert set(described) == set(OPERATIONS) | set(AT_THE_ROOT)
    for key, operation in described.items():
        assert list(operation["responses"]) == sorted(operation["responses"]), key
        successes = [status for status in operation["responses"] if status < "400" or key in AT_THE_ROOT]
        codes = {
            code
            for status, response in operation["responses"].items()
            if status not in successes
            for code in examples_of_problem(response, int(status))
        }
        expected = OPERATIONS.get(key)
        assert " ".join(successes) == (expected[0] if expected else AT_THE_ROOT[key]), key
        everywhere = EVERYWHERE - {"invalid_token"} if key in SIGNED else EVERYWHERE
        assert codes == (set(expected[1].split()) | everywhere if expected else set()), key


def examples_of_problem(response: dict[str, Any], status: int) -> set[str]:
    """Return the codes of a response, whose only content is a problem document with an example for each of them."""
    assert list(response["content"]) == [PROBLEM_TYPE]
    described = response["content"][PROBLEM_TYPE]
    assert described["schema"] == {"$ref": "#/components/schemas/ProblemDocument"}
    for code, example in described["examples"].items():
        shown = problem_models.ProblemDocument.model_validate(example["value"])
        assert (shown.code, shown.status) == (code, status)
    return set(described["examples"])


def test_every_operation_says_what_it_is_for(document: dict[str, Any]) -> None:
    names = []
    for key, operation in operations(document).items():
        assert re.fullmatch(r"[A-Z][^.\n]+", operation["summary"]), key
        assert operation.get("description", ".").endswith("."), key
        assert operation["summary"] not in operation.get("description", ""), key
        assert operation["tags"], key
        names.append(operation["operationId"])
        for status, response in operation["responses"].items():
            assert response["description"].endswith("."), (key, status)
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+){1,3}", name) for name in names), names


def test_every_success_has_a_schema_of_its_own(document: dict[str, Any]) -> None:
    for key, operation in operations(document).items():
        for status, response in operation["responses"].items():
            if status in {"204", "304"} or int(status) >= 400 or key == "get /metrics":
                continue
            schema = resolved(document, response["content"]["application/json"]["schema"])
            assert schema["type"] == "object", (key, status)
            assert schema["description"], (key, status)


def test_every_body_has_an_example_that_its_own_model_takes(document: dict[str, Any]) -> None:
    for key, operation in operations(document).items():
        if "requestBody" in operation:
            assert list(operation["requestBody"]["content"]) == ["application/json"]
            assert operation["requestBody"].get("required", False) == (key not in WITHOUT_A_BODY)
            assert request_examples(document, operation)


OF_ADMINS = ("/api-keys", "/simulation/clock/advance", "/simulation/rules", "/simulation/rules/test")


async def test_every_request_example_succeeds(running_api: RunningApi, document: dict[str, Any]) -> None:
    """Each one with objects of its own, in the role with the fewest rights that may do it."""
    executed = 0
    for number, (key, operation) in enumerate(operations(document).items()):
        method, path = key.split()
        for example in request_examples(document, operation):
            service, user = running_api.service(), running_api.user(1000 + number * 100 + executed)
            endpoint = await service.post("/webhook-endpoints", json={"name": "o", "url": "https://o.example"})
            ids = {"method_id": await added(user), "endpoint_id": endpoint.json()["id"]}
            if "{payment_id}" in path:
                make: Make = {"capture": authorized, "action": waiting}.get(path.rpartition("/")[2], charged)
                ids["payment_id"] = (await make(user, running_api.database))["id"]
            merchant = {"/webhook-endpoints": service, "/payments": service}
            merchant |= dict.fromkeys(OF_ADMINS, running_api.admin())
            actor = merchant.get(path.partition("/{")[0], user) if path != "/payments" else user
            if key in SIGNED:
                answer = await notify(running_api, example, path=path.format(gateway=GATEWAY))
            else:
                answer = await actor.request(method, path.format(**ids), json=example)
            assert answer.is_success, (key, example, answer.text)
            assert str(answer.status_code) in operation["responses"]
            executed += 1
    assert executed > len([key for key in OPERATIONS if key.startswith("patch")])


def request_examples(document: dict[str, Any], operation: dict[str, Any]) -> list[Any]:
    """Return the examples of bodies of an operation, for each of the kinds of its body."""
    if "requestBody" not in operation:
        return []
    schema = resolved(document, operation["requestBody"]["content"]["application/json"]["schema"])
    kinds = [resolved(document, kind) for kind in schema.get("oneOf", [schema])]
    assert all(kind["examples"] for kind in kinds)
    return [example for kind in kinds for example in kind["examples"]]


def test_the_example_of_a_report_is_what_payments_verify_says() -> None:
    example = operation_models.VERIFY_REPORT_EXAMPLE
    operation_models.VerifyReport.model_validate(example)
    for invariant in example["invariants"]:
        assert invariant["promise"] == PROMISES[Invariant(invariant["name"])]
    for breaches in example["breaches"]:
        info = KINDS_OF_BREACH[BreachKind(breaches["kind"])]
        assert (breaches["invariant"], breaches["words"]) == (info.invariant, info.words)
        assert breaches["what_to_do"] == info.what_to_do


def test_everything_but_the_roots_operations_needs_a_bearer_token_or_a_signature(document: dict[str, Any]) -> None:
    for key, operation in operations(document).items():
        assert ("security" in operation) == (key in OPERATIONS.keys() - SIGNED), key
        required = {p["name"] for p in operation.get("parameters", []) if p["in"] == "header" and p["required"]}
        assert required == ({"webhook-id", "webhook-timestamp", "webhook-signature"} if key in SIGNED else set()), key
    [scheme] = document["components"]["securitySchemes"].values()
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    assert all(word in scheme["description"] for word in ("JWT", "API key", "sk_sim_"))


def test_the_headers_that_clients_may_send_are_described(document: dict[str, Any]) -> None:
    for key, operation in operations(document).items():
        headers = {p["name"] for p in operation.get("parameters", []) if p["in"] == "header"}
        assert ("Idempotency-Key" in headers) == (key.startswith("post") and key not in SIGNED), key
        if key.endswith(("/{payment_id}", "/status")):
            assert {"Prefer", "If-None-Match"} <= headers


def test_the_limits_of_what_clients_send_are_described_as_they_are(document: dict[str, Any]) -> None:
    request = document["components"]["schemas"]["PaymentRequest"]["properties"]
    assert request["amount"]["format"] == "int64"
    assert (request["amount"]["minimum"], request["amount"]["maximum"]) == (1, 2**63 - 1)
    assert request["currency"]["pattern"] == "^[A-Z]{3}$"
    for described, pattern in ((request["order_id"], ORDER_ID), (request["user_id"]["anyOf"][0], USER_ID)):
        text, number = resolved(document, described)["anyOf"]
        assert (text["pattern"], number["type"], number["format"]) == (pattern, "integer", "int64")
        # A negative number in decimal form is an id like every other one.
        assert (number["minimum"], number["maximum"]) == (-(2**63) + 1, 2**63 - 1)
    pairs = resolved(document, request["metadata"])
    assert pairs["maxProperties"] == METADATA_PAIRS_MAX
    assert resolved(document, pairs["propertyNames"]) | {"minLength": 1, "maxLength": 40} == resolved(
        document, pairs["propertyNames"]
    )
    assert resolved(document, pairs["additionalProperties"])["maxLength"] == 500
    assert document["components"]["schemas"]["Payment"]["properties"]["amount"]["format"] == "int64"


def test_every_success_has_an_example_that_is_an_answer(document: dict[str, Any]) -> None:
    for key, operation in operations(document).items():
        for status, response in operation["responses"].items():
            if "application/json" not in response.get("content", {}):
                continue
            shown = response["content"]["application/json"]
            model = next(
                found
                for module in (
                    payment_models,
                    refund_models,
                    method_models,
                    webhook_models,
                    key_models,
                    rule_models,
                    rule_test_models,
                    clock_models,
                    operation_models,
                    explain_models,
                )
                if (found := getattr(module, shown["schema"]["$ref"].rpartition("/")[2], None))
            )
            strict(model).model_validate(shown["example"])
            required = document["components"]["schemas"][model.__name__].get("required", [])
            assert set(required) <= set(shown["example"]), (key, status)


def test_nothing_in_the_document_is_left_over(document: dict[str, Any]) -> None:
    text = repr(document)
    for name in document["components"]["schemas"]:
        assert f"'#/components/schemas/{name}'" in text, name
    assert not {"HTTPValidationError", "ValidationError"} & set(document["components"]["schemas"])


def test_every_tag_is_described_and_used(document: dict[str, Any]) -> None:
    used = {tag for operation in operations(document).values() for tag in operation["tags"]}
    names = [
        "payments", "refunds", "payment methods", "webhooks", "gateway notifications", "events", "api keys",
        "simulation", "operation",
    ]  # fmt: skip
    assert [tag["name"] for tag in document["tags"]] == names
    # The tag of the webhooks has no operations: what openapi-generator makes of the ones would replace the others.
    assert {tag for webhook in document["webhooks"].values() for tag in webhook["post"]["tags"]} == {"events"}
    assert used == set(names) - {"events"}
    assert all(tag["description"].endswith(".") for tag in document["tags"])


async def test_the_document_is_served_and_valid(running_api: RunningApi) -> None:
    anybody = running_api.client(base="")
    served = (await anybody.get("/openapi.json")).json()
    assert served["openapi"].startswith("3.1.")
    OpenAPIV31SpecValidator(served).validate()
    assert not set(ON_THE_PLATFORM) & set(served["paths"])
    assert (await anybody.get("/docs")).status_code == 200
