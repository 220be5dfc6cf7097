"""The OpenAPI document says what is answered, and what is answered is what the models say."""

import inspect
import re
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from api import openapi
from api.main import create_app
from api.problem_handlers import CODES, as_problem
from api.problems import KINDS, PROBLEM_TYPE, Code, Problem
from api.schemas import operations as operation_models
from api.schemas import payment_methods as method_models
from api.schemas import payments as payment_models
from api.schemas import problems as problem_models
from api.schemas import webhooks as webhook_models
from api.state import Api
from cli.verify.breaches import KINDS as KINDS_OF_BREACH
from cli.verify.breaches import PROMISES, BreachKind, Invariant
from shared import errors
from shared.config.settings import load_settings
from shared.lifecycle import PaymentStatus
from shared.runtime import open_runtime
from tests.support.api_client import APPROVED, DECLINED, RunningApi, added, card, order, paid, paypal, settled

pytest_plugins = ["tests.support.api_fixtures"]

# What the contract promises, under /api/v1, beside the 429 that each of them may answer.
OPERATIONS = {
    ("post", "/payments"): {"202", "201", "400", "401", "403", "409", "413", "415", "503"},
    ("get", "/payments"): {"200", "401", "403", "503"},
    ("get", "/payments/{payment_id}"): {"200", "304", "401", "404", "503"},
    ("get", "/payments/{payment_id}/status"): {"200", "304", "401", "404", "503"},
    ("get", "/payments/{payment_id}/history"): {"200", "401", "404", "503"},
    ("get", "/payments/{payment_id}/deliveries"): {"200", "401", "404", "503"},
    ("post", "/payments/{payment_id}/cancel"): {"200", "401", "404", "409", "503"},
    ("post", "/payment-methods"): {"201", "200", "400", "401", "404", "413", "415", "503"},
    ("get", "/payment-methods"): {"200", "401", "503"},
    ("get", "/payment-methods/{method_id}"): {"200", "401", "404", "503"},
    ("patch", "/payment-methods/{method_id}"): {"200", "400", "401", "404", "413", "415", "503"},
    ("delete", "/payment-methods/{method_id}"): {"204", "401", "404", "503"},
    ("get", "/stats"): {"200", "401", "403", "503"},
    ("post", "/webhook-endpoints"): {"201", "400", "401", "403", "404", "413", "415", "503"},
    ("get", "/webhook-endpoints"): {"200", "401", "403", "503"},
    ("get", "/webhook-endpoints/{endpoint_id}"): {"200", "401", "403", "404", "503"},
    ("patch", "/webhook-endpoints/{endpoint_id}"): {"200", "400", "401", "403", "404", "413", "415", "503"},
    ("delete", "/webhook-endpoints/{endpoint_id}"): {"204", "401", "403", "404", "503"},
    ("get", "/webhook-endpoints/{endpoint_id}/deliveries"): {"200", "401", "403", "404", "503"},
    ("get", "/webhook-deliveries/{delivery_id}"): {"200", "401", "404", "503"},
    ("post", "/webhook-deliveries/{delivery_id}/resend"): {"202", "401", "404", "409", "503"},
    ("get", "/verify/last"): {"200", "401", "403", "404", "503"},
    ("get", "/callback-secret"): {"200", "401", "503"},
}
# The platform's gateway forwards /api/payments/*: payments and methods are there, too.
ON_THE_PLATFORM = {
    (method, "/api" + path.replace("/payment-methods", "/payments/methods")): statuses
    for (method, path), statuses in OPERATIONS.items()
    if path.startswith(("/payments", "/payment-methods"))
}
AT_THE_ROOT = {("get", "/health"): {"200"}, ("get", "/health/ready"): {"200", "503"}, ("get", "/metrics"): {"200"}}
CODES_OF_THE_CONTRACT = {
    400: {"malformed_request"},
    401: {"invalid_token"},
    403: {"forbidden"},
    404: {"not_found"},
    405: {"method_not_allowed"},
    408: {"request_timeout"},
    409: {"payment_in_progress", "order_already_paid", "payment_not_cancellable", "delivery_in_progress"},
    413: {"body_too_large"},
    415: {"unsupported_media_type"},
    422: {
        "validation_error", "payment_method_unusable", "payment_method_limit", "idempotency_key_reused",
        "callback_url_refused",
    },
    429: {"rate_limited"},
    431: {"headers_too_large"},
    500: {"internal_error"},
    503: {"unavailable", "overloaded", "outcome_unknown"},
}  # fmt: skip
INTERNAL = {errors.ConfigurationError, errors.SchemaOutdated}  # they stop a start and reach no client


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The OpenAPI document, of an API that reaches neither database nor Redis."""
    runtime = open_runtime(load_settings(database_url="postgresql://127.0.0.1:1/x", redis_url="redis://127.0.0.1:1"))
    return openapi.describe(create_app(Api(runtime)))


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method, path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


# -- the document


def test_every_operation_of_the_contract_is_there_with_every_status_and_no_other(document: dict[str, Any]) -> None:
    expected = {(method, f"/api/v1{path}"): statuses for (method, path), statuses in OPERATIONS.items()}
    expected = {key: statuses | {"422", "429"} for key, statuses in (expected | ON_THE_PLATFORM).items()} | AT_THE_ROOT
    assert {key: set(operation["responses"]) for key, operation in operations(document).items()} == expected


def test_every_operation_says_what_it_is_for(document: dict[str, Any]) -> None:
    seen = []
    for key, operation in operations(document).items():
        assert operation["summary"], key
        assert operation["description"].endswith("."), key
        assert operation["tags"], key
        seen.append(operation["operationId"])
        for status, response in operation["responses"].items():
            assert response["description"], (key, status)
    assert len(set(seen)) == len(seen)


def test_every_error_is_a_problem_document_with_an_example_for_each_code(document: dict[str, Any]) -> None:
    for key, operation in operations(document).items():
        for status, response in operation["responses"].items():
            if int(status) < 400 or key == ("get", "/health/ready"):
                continue
            assert list(response["content"]) == [PROBLEM_TYPE], (key, status)
            described = response["content"][PROBLEM_TYPE]
            assert described["schema"] == {"$ref": "#/components/schemas/ProblemDocument"}
            assert set(described["examples"]) == CODES_OF_THE_CONTRACT[int(status)]
            for code, example in described["examples"].items():
                shown = problem_models.ProblemDocument.model_validate(example["value"])
                assert (shown.code, shown.status) == (code, int(status))


def test_a_refusal_for_asking_too_often_says_how_long_to_wait(document: dict[str, Any]) -> None:
    for (_, path), operation in operations(document).items():
        if path.startswith("/api/"):
            assert set(operation["responses"]["429"]["headers"]) == {"Retry-After", "RateLimit", "RateLimit-Policy"}


def test_every_success_has_a_schema_of_its_own(document: dict[str, Any]) -> None:
    for key, operation in operations(document).items():
        for status, response in operation["responses"].items():
            if status in {"204", "304"} or int(status) >= 400 or key == ("get", "/metrics"):
                continue
            schema = resolved(document, response["content"]["application/json"]["schema"])
            assert schema["type"] == "object", (key, status)
            assert schema["description"], (key, status)


def test_every_body_has_an_example_that_its_own_model_takes(document: dict[str, Any]) -> None:
    request = document["components"]["schemas"]["PaymentRequest"]
    for example in request["examples"]:
        payment_models.PaymentRequest.model_validate(example)
    for operation in operations(document).values():
        if "requestBody" in operation:
            assert list(operation["requestBody"]["content"]) == ["application/json"]
            assert operation["requestBody"]["required"]


def test_the_example_of_a_report_is_what_payments_verify_says() -> None:
    example = operation_models.VERIFY_REPORT_EXAMPLE
    operation_models.VerifyReport.model_validate(example)
    for invariant in example["invariants"]:
        assert invariant["promise"] == PROMISES[Invariant(invariant["name"])]
    for breaches in example["breaches"]:
        info = KINDS_OF_BREACH[BreachKind(breaches["kind"])]
        assert (breaches["invariant"], breaches["words"]) == (info.invariant, info.words)
        assert breaches["what_to_do"] == info.what_to_do


def test_everything_but_the_roots_operations_needs_a_bearer_token(document: dict[str, Any]) -> None:
    for (method, path), operation in operations(document).items():
        needs_token = "security" in operation
        assert needs_token == path.startswith("/api/"), (method, path)
    [scheme] = document["components"]["securitySchemes"].values()
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")


def test_the_headers_that_clients_may_send_are_described(document: dict[str, Any]) -> None:
    for (method, path), operation in operations(document).items():
        headers = {p["name"].lower() for p in operation.get("parameters", []) if p["in"] == "header"}
        assert ("idempotency-key" in headers) == (method == "post"), path
        if path.endswith(("/{payment_id}", "/status")):
            assert {"prefer", "if-none-match"} <= headers
        for parameter in operation.get("parameters", []):
            assert parameter["in"] == "path" or "$ref" in parameter["schema"] or parameter["schema"], parameter


def test_nothing_in_the_document_is_left_over(document: dict[str, Any]) -> None:
    text = repr(document)
    for name in document["components"]["schemas"]:
        assert f"'#/components/schemas/{name}'" in text, name
    assert not {"HTTPValidationError", "ValidationError"} & set(document["components"]["schemas"])


def test_generators_of_clients_can_read_the_document(document: dict[str, Any]) -> None:
    """What openapi-generator stumbles over: constants, defaults beside references, names that clash."""
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        for member in schema.get("properties", {}).values():
            assert isinstance(member.get("const", ""), str) or member["const"] is True, member
            assert not {"$ref", "default"} <= set(member), member
    assert schemas["Payment"]["properties"]["livemode"]["type"] == "boolean"
    assert not {f"New{name}" for name in schemas} & set(schemas)


async def test_the_document_is_served(running_api: RunningApi) -> None:
    anybody = running_api.client(base="")
    served = await anybody.get("/openapi.json")
    paths = {path for _, path in (*ON_THE_PLATFORM, *AT_THE_ROOT)}
    assert set(served.json()["paths"]) == {f"/api/v1{path}" for _, path in OPERATIONS} | paths
    assert (await anybody.get("/docs")).status_code == 200


# -- the codes


def test_the_codes_are_the_contracts_and_no_others() -> None:
    assert set(Code) == set().union(*CODES_OF_THE_CONTRACT.values())
    assert {code: kind.status for code, kind in KINDS.items()} == {
        code: status for status, codes in CODES_OF_THE_CONTRACT.items() for code in codes
    }
    for kind in KINDS.values():
        assert kind.title
        assert not kind.title.endswith(".")


def test_every_error_of_ours_has_a_code_or_reaches_no_client() -> None:
    def leaves(error: type[errors.PaymentsError]) -> set[type[errors.PaymentsError]]:
        below = set().union(*(leaves(child) for child in error.__subclasses__()))
        return below or {error}

    raised = {each for each in leaves(errors.PaymentsError) if each.__module__ == "shared.errors"}
    assert raised - INTERNAL <= set(CODES)
    assert set(CODES) - raised == {errors.DatabaseUnavailable}  # raised itself, and the root of WriteConflict
    assert not INTERNAL & set(CODES)


def test_the_tree_of_errors_is_drawn_as_it_is() -> None:
    drawn = set(re.findall(r"[─ ]([A-Z]\w+)", inspect.getdoc(errors) or ""))
    defined = {
        name for name, value in vars(errors).items() if isinstance(value, type) and value.__module__ == "shared.errors"
    }
    assert defined <= drawn | {"PaymentsError"}


def test_only_a_refusal_is_described_in_its_own_words() -> None:
    words = "This user already has 5 payment methods. Delete one before adding another."
    problem = as_problem(errors.PaymentMethodLimit(words))
    assert (problem.code, problem.detail) == (Code.PAYMENT_METHOD_LIMIT, words)
    for error in (errors.DatabaseUnavailable("08006 at 10.0.0.1"), errors.CommitUnknown("x"), errors.Overloaded("7")):
        assert as_problem(error).detail is None
    assert as_problem(errors.SchemaOutdated("at 1")).code == Code.INTERNAL_ERROR
    assert isinstance(as_problem(errors.WriteConflict("40P01")), Problem)


# -- the answers


async def test_what_is_answered_is_what_the_models_say_to_the_letter(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    key = {"Idempotency-Key": "k1"}
    made = await service.post(
        "/webhook-endpoints", json={"name": "o", "url": "https://o.example", "event_types": ["payment.initiated"]}
    )
    endpoint = f"/webhook-endpoints/{made.json()['id']}"
    method = await user.post("/payment-methods", json=card())
    account = await user.post("/payment-methods", json=paypal(), headers=key)
    payments = [await paid(user, callback_url="https://me.example/", metadata={"a": "b"}) for _ in range(3)]
    await settled(running_api.database, payments[0]["id"], APPROVED)
    await settled(running_api.database, payments[1]["id"], DECLINED)
    cancelled = await user.post(f"/payments/{payments[2]['id']}/cancel")
    accepted = await user.post("/payments", json=order(await added(user)))
    path = f"/payments/{payments[0]['id']}"
    delivery = (await user.get(f"{path}/deliveries")).json()["deliveries"][0]
    answers: list[tuple[httpx.Response, type[BaseModel]]] = [
        (made, webhook_models.EndpointWithSecret),
        (await service.get(endpoint), webhook_models.Endpoint),
        (await service.patch(endpoint, json={"name": "n"}), webhook_models.Endpoint),
        (await service.get("/webhook-endpoints"), webhook_models.EndpointList),
        (await service.get(f"{endpoint}/deliveries"), webhook_models.EndpointDeliveries),
        (method, method_models.Method),
        (account, method_models.Method),
        (await user.get("/payment-methods"), method_models.MethodList),
        (accepted, payment_models.Payment),
        (cancelled, payment_models.Payment),
        (await user.get(path), payment_models.Payment),
        (await user.get(f"/payments/{payments[1]['id']}"), payment_models.Payment),
        (await user.get("/payments"), payment_models.PaymentList),
        (await user.get(f"{path}/status"), payment_models.PaymentStatusAnswer),
        (await user.get(f"{path}/history"), payment_models.PaymentHistory),
        (await user.get(f"{path}/deliveries"), webhook_models.PaymentDeliveries),
        (await user.post(f"/webhook-deliveries/{delivery['id']}/resend"), webhook_models.Delivery),
        (await user.get("/callback-secret"), webhook_models.CallbackSecret),
        (await running_api.client(base="").get("/health"), operation_models.Health),
        (await running_api.client(base="").get("/health/ready"), operation_models.Ready),
        (await user.get("/payments/x"), problem_models.ProblemDocument),
        (await user.post("/payments", json={}), problem_models.ProblemDocument),
    ]
    for answer, model in answers:
        strict(model).model_validate_json(answer.content)
    statuses = {payment["status"] for payment in (await user.get("/payments")).json()["payments"]}
    assert statuses == set(PaymentStatus) - {"PROCESSING"}


def strict(model: type[BaseModel]) -> type[BaseModel]:
    """The model, refusing members that it does not know; those inside it are held against their own by name."""
    return type(model.__name__, (model,), {"model_config": {"extra": "forbid"}})


async def test_no_answer_has_a_member_that_its_model_does_not_know(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    payment = await paid(user)
    await settled(running_api.database, payment["id"], APPROVED)
    shown = (await user.get(f"/payments/{payment['id']}")).json()
    assert set(shown) == set(payment_models.Payment.model_fields)
    assert set(shown["payment_method_details"]) <= set(payment_models.MethodDetails.model_fields)
    history = (await user.get(f"/payments/{payment['id']}/history")).json()["history"]
    assert {frozenset(move) for move in history} == {frozenset(payment_models.HistoryEntry.model_fields)}
    methods = (await user.get("/payment-methods")).json()["payment_methods"]
    assert set(methods[0]) == set(method_models.Method.model_fields)
