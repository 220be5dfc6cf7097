"""The webhooks of the OpenAPI document say what receivers get."""

from typing import Any

import httpx
import orjson
from openapi_spec_validator import OpenAPIV31SpecValidator
from sqlalchemy import select

from api.schemas.events import Event, EventData
from api.schemas.payments import Payment
from api.schemas.refunds import Refund
from shared.database.tables import events
from shared.event_types import EventType
from tests.support.api_client import RunningApi, paid
from tests.support.approvals import waiting
from tests.support.models import strict
from tests.support.money import CAPTURE_DECLINED, REFUND_DECLINED, authorized, refund_ended
from tests.support.settling import APPROVED, DECLINED, settled

pytest_plugins = ["tests.support.api_fixtures", "tests.support.openapi_fixtures"]


def test_every_type_of_event_is_described_with_an_example(document: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(document).validate()
    assert set(document["webhooks"]) == set(EventType)
    for name, methods in document["webhooks"].items():
        assert list(methods) == ["post"]
        content = methods["post"]["requestBody"]["content"]["application/json"]
        assert content["schema"] == {"$ref": "#/components/schemas/Event"}
        strict(Event).model_validate(content["example"])
        assert content["example"]["type"] == name
        strict(Payment).model_validate(content["example"]["data"]["payment"])


async def test_what_is_sent_is_what_the_model_says(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    wanted = {"name": "all", "url": "https://o.example", "event_types": list(EventType)}
    assert (await service.post("/webhook-endpoints", json=wanted)).status_code == 201
    payments = [await paid(user) for _ in range(3)]
    await settled(running_api.database, payments[0]["id"], APPROVED)
    await settled(running_api.database, payments[1]["id"], DECLINED)
    assert (await user.post(f"/payments/{payments[2]['id']}/cancel")).status_code == 200
    await waiting(user, running_api.database)
    held = await authorized(user, running_api.database)
    assert (await service.post(f"/payments/{held['id']}/capture")).status_code == 202
    await settled(running_api.database, held["id"], CAPTURE_DECLINED)
    path = f"/payments/{payments[0]['id']}/refunds"
    refund_ids = [(await service.post(path, json={"amount": amount})).json()["id"] for amount in (1, 2, 3)]
    await refund_ended(running_api.database, refund_ids[0])
    await refund_ended(running_api.database, refund_ids[1], REFUND_DECLINED)
    assert (await service.post(f"/refunds/{refund_ids[2]}/cancel")).status_code == 200
    await refund_ended(running_api.database, (await service.post(path)).json()["id"])
    async with running_api.database.read() as connection:
        found = (await connection.execute(select(events.c.type, events.c.body))).all()
    assert {row.type for row in found} == set(EventType) - {EventType.ORDER_CONFLICT}
    for row in found:
        body = orjson.loads(row.body)
        strict(Event).model_validate(body)
        strict(EventData).model_validate(body["data"])
        strict(Payment).model_validate(body["data"]["payment"])
        assert body["data"]["payment"].keys() == Payment.model_fields.keys()
        is_of_refund = row.type.startswith("refund.") or row.type.endswith("refunded")
        members = {"payment", "sequence"} | ({"refund_id", "refund"} if is_of_refund else set())
        assert body["data"].keys() == members
        if is_of_refund:
            strict(Refund).model_validate(body["data"]["refund"])
            assert body["data"]["refund_id"] == body["data"]["refund"]["id"]
