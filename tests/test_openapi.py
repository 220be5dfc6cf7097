"""The OpenAPI document: every operation, with what it is for, takes and may answer."""

import re
from typing import Any

from openapi_spec_validator import OpenAPIV31SpecValidator

from api.problems import PROBLEM_TYPE
from api.schemas import problems as problem_models
from api.schemas.fields import METADATA_PAIRS_MAX
from shared.ids import ORDER_ID, USER_ID
from tests.support.api_client import RunningApi
from tests.support.openapi_operations import AT_THE_ROOT, OPERATIONS, SIGNED, operations, resolved

pytest_plugins = ["tests.support.api_fixtures", "tests.support.openapi_fixtures"]

EVERYWHERE = {"invalid_token", "validation_error", "rate_limited", "unavailable"}
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
    first, second = [await anybody.get("/openapi.json") for _ in range(2)]
    assert first.content == second.content
    served = first.json()
    assert served["openapi"].startswith("3.1.")
    OpenAPIV31SpecValidator(served).validate()
    assert not set(ON_THE_PLATFORM) & set(served["paths"])
    assert (await anybody.get("/docs")).status_code == 200
