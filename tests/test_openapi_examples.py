"""The examples in the OpenAPI document: those of requests succeed, and those of answers are what their models say."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from api.schemas import api_keys as key_models
from api.schemas import explain as explain_models
from api.schemas import operations as operation_models
from api.schemas import payment_methods as method_models
from api.schemas import payments as payment_models
from api.schemas import refunds as refund_models
from api.schemas import rule_tests as rule_test_models
from api.schemas import simulation_clock as clock_models
from api.schemas import simulation_rules as rule_models
from api.schemas import webhooks as webhook_models
from shared.database.engine import Database
from shared.verify.breaches import PROMISES, BreachKind, Invariant
from shared.verify.kinds import KINDS as KINDS_OF_BREACH
from tests.support.api_client import RunningApi, added
from tests.support.approvals import waiting
from tests.support.models import strict
from tests.support.money import authorized, charged
from tests.support.notifications import GATEWAY, notify
from tests.support.openapi_operations import OPERATIONS, SIGNED, operations, resolved

pytest_plugins = ["tests.support.api_fixtures", "tests.support.openapi_fixtures"]

type Make = Callable[[httpx.AsyncClient, Database], Awaitable[dict[str, Any]]]
# A body that may be left out.
WITHOUT_A_BODY = {"post /payments/{payment_id}/capture", "post /payments/{payment_id}/refunds"}


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
