"""What is answered is what the models of the OpenAPI document say."""

import re
from typing import Any

import httpx
from pydantic import BaseModel

from api.openapi.document import HEADERS
from api.schemas import operations as operation_models
from api.schemas import payment_methods as method_models
from api.schemas import payments as payment_models
from api.schemas import problems as problem_models
from api.schemas import refunds as refund_models
from api.schemas import webhooks as webhook_models
from shared.lifecycle import PaymentStatus
from tests.support.api_client import RunningApi, added, card, order, paid, paypal
from tests.support.approvals import waiting
from tests.support.models import strict
from tests.support.money import CAPTURE_DECLINED, REFUND_DECLINED, authorized, charged, refund_ended
from tests.support.settling import APPROVED, DECLINED, settled

pytest_plugins = ["tests.support.api_fixtures"]


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
    held, voided = [await authorized(user, running_api.database) for _ in range(2)]
    capture = await service.post(f"/payments/{held['id']}/capture", json={"amount": 1})
    await settled(running_api.database, held["id"], CAPTURE_DECLINED)
    parts = [await service.post(f"{path}/refunds", json={"amount": amount}) for amount in (1, 2, 3)]
    refunds = [f"/refunds/{part.json()['id']}" for part in parts]
    await refund_ended(running_api.database, parts[0].json()["id"])
    await refund_ended(running_api.database, parts[1].json()["id"], REFUND_DECLINED)
    _, whole = [await charged(user, running_api.database) for _ in range(2)]
    all_of_it = await service.post(f"/payments/{whole['id']}/refunds")
    await refund_ended(running_api.database, all_of_it.json()["id"])
    open_, answered = [await waiting(user, running_api.database) for _ in range(2)]
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
        (capture, payment_models.Payment),
        (await user.get(f"/payments/{held['id']}"), payment_models.Payment),
        (await user.post(f"/payments/{voided['id']}/cancel"), payment_models.Payment),
        (await user.get(f"/payments/{open_['id']}"), payment_models.Payment),
        (await user.get("/payments"), payment_models.PaymentList),
        (await user.post(f"/payments/{answered['id']}/action", json={"result": "approve"}), payment_models.Payment),
        (await user.get(f"/payments/{answered['id']}/history"), payment_models.PaymentHistory),
        (await user.post(f"/payments/{answered['id']}/action", json={}), problem_models.ProblemDocument),
        (parts[0], refund_models.Refund),
        *[(await user.get(refund), refund_models.Refund) for refund in refunds],
        (await service.post(f"{refunds[2]}/cancel"), refund_models.Refund),
        (await user.get(f"{refunds[0]}/history"), refund_models.RefundHistory),
        (await user.get(f"{path}/refunds"), refund_models.RefundsOfPayment),
        (await user.get("/refunds"), refund_models.RefundList),
        (await service.post(f"{path}/refunds", json={"amount": 1585}), problem_models.ProblemDocument),
        (await user.get(f"{path}/deliveries"), webhook_models.PaymentDeliveries),
        (await user.post(f"/webhook-deliveries/{delivery['id']}/resend"), webhook_models.Delivery),
        (await user.get("/callback-secret"), webhook_models.CallbackSecret),
        (await running_api.client(base="").get("/health"), operation_models.Health),
        (await running_api.client(base="").get("/health/ready"), operation_models.Ready),
        (await user.get("/payments/x"), problem_models.ProblemDocument),
        (await user.post("/payments", json={}), problem_models.ProblemDocument),
    ]
    document = (await running_api.client(base="").get("/openapi.json")).json()
    for answer, model in answers:
        strict(model).model_validate_json(answer.content)
        check_headers(document, answer)
    statuses = {payment["status"] for payment in (await user.get("/payments")).json()["payments"]}
    assert statuses == set(PaymentStatus)


def check_headers(document: dict[str, Any], answer: httpx.Response) -> None:
    """The described headers are there if they must be, and no other one of them is."""
    path = answer.request.url.path
    template = next(t for t in document["paths"] if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", t), path))
    described = document["paths"][template][answer.request.method.lower()]["responses"][str(answer.status_code)]
    for name in HEADERS:
        is_described = name in described["headers"]
        assert is_described or name not in answer.headers, (name, template)
        assert name in answer.headers or not (is_described and HEADERS[name].is_always_there), (name, template)


async def test_no_answer_has_a_member_that_its_model_does_not_know(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    payment = await paid(user)
    await settled(running_api.database, payment["id"], APPROVED)
    shown = (await user.get(f"/payments/{payment['id']}")).json()
    assert set(shown) == set(payment_models.Payment.model_fields)
    assert set(shown["payment_method_details"]) <= set(payment_models.MethodDetails.model_fields)
    refunded = (await service.post(f"/payments/{payment['id']}/refunds")).json()
    assert set(refunded) == set(refund_models.Refund.model_fields)
    history = (await user.get(f"/payments/{payment['id']}/history")).json()["history"]
    assert {frozenset(move) for move in history} == {frozenset(payment_models.HistoryEntry.model_fields)}
    for move in history:
        strict(payment_models.HistoryMetadata).model_validate(move["metadata"])
    strict(payment_models.GatewayDetails).model_validate(shown["gateway_details"])
    methods = (await user.get("/payment-methods")).json()["payment_methods"]
    assert set(methods[0]) == set(method_models.Method.model_fields)
    ready_made = (await user.get("/test-methods")).json()["test_methods"]
    for method in (*methods, *ready_made):
        strict(method_models.MaskedDetails).model_validate(method["masked_details"])
