"""Notifications of gateways: who may send one, and that it only makes due now what was due later."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import orjson
import pytest
from prometheus_client import REGISTRY
from standardwebhooks import Webhook

from shared.ids import new_id
from shared.keyring import new_webhook_secret
from shared.runtime import Runtime
from tests.support.api_client import RunningApi, opened, paid, problem
from tests.support.money import shown
from tests.support.notifications import (
    GATEWAY,
    PATH,
    is_due_soon,
    notification,
    notify,
    row,
    signed,
    waiting_payment,
    waiting_refund,
)
from tests.support.scripted_databases import Scripted
from tests.support.settling import APPROVED, claimed, settled
from tests.support.waiting import eventually
from tests.support.workers import working

pytest_plugins = ["tests.support.api_fixtures"]

ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
PATHS = (PATH, f"{PATH}/{GATEWAY}")


def received(result: str) -> float:
    name = "payments_gateway_notifications_received_total"
    return REGISTRY.get_sample_value(name, {"result": result}) or 0.0


# -- what one does


@pytest.mark.parametrize("path", PATHS)
async def test_a_payment_that_waits_is_due_now_and_nothing_else_of_it_changes(
    running_api: RunningApi, path: str
) -> None:
    payment_id, other_id = await waiting_payment(running_api), await waiting_payment(running_api)
    before, known = await row(running_api.database, payment_id), received("hastened")
    answer = await notify(running_api, notification(payment_id), path=path)
    assert (answer.status_code, answer.content) == (204, b"")
    after = await row(running_api.database, payment_id)
    assert {name for name in after if after[name] != before[name]} == {"due_at"}
    assert await is_due_soon(running_api.database, payment_id)
    assert not await is_due_soon(running_api.database, other_id)
    assert received("hastened") == known + 1


@pytest.mark.parametrize("path", PATHS)
async def test_a_refund_that_waits_is_due_now_and_its_payment_is_not(running_api: RunningApi, path: str) -> None:
    payment_id, refund_id = await waiting_refund(running_api)
    before = await row(running_api.database, refund_id), await row(running_api.database, payment_id)
    answer = await notify(running_api, notification(payment_id, refund_id=refund_id), path=path)
    assert answer.status_code == 204
    after = await row(running_api.database, refund_id)
    assert {name for name in after if after[name] != before[0][name]} == {"due_at"}
    assert await is_due_soon(running_api.database, refund_id)
    assert await row(running_api.database, payment_id) == before[1]


async def test_a_worker_takes_it_up_at_once_and_only_the_worker_ends_it(running_api: RunningApi) -> None:
    payment_id = await waiting_payment(running_api)
    async with working(running_api.runtime):
        answer = await notify(running_api, notification(payment_id))
        assert answer.status_code == 204

        async def has_ended() -> bool:
            return (await shown(running_api.user(), payment_id))["status"] in {"COMPLETED", "FAILED"}

        # The relay would look 5 seconds later.
        await eventually(has_ended, timeout_s=4)
    history = (await running_api.user().get(f"/payments/{payment_id}/history")).json()["history"]
    reasons = [entry["reason"] for entry in history]
    assert reasons[:4] == ["accepted", "claimed", "gateway_pending", "gateway_settled"]
    assert {entry["created_by"] for entry in history[1:]} == {"worker"}


@pytest.mark.parametrize("times", [1, 5])
async def test_it_may_come_as_often_as_it_likes(running_api: RunningApi, times: int) -> None:
    payment_id = await waiting_payment(running_api)
    content = orjson.dumps(notification(payment_id))
    headers = signed(running_api, content)
    for _ in range(times):
        answers = await asyncio.gather(
            *(running_api.client().post(path, content=content, headers=headers) for path in PATHS)
        )
        assert [answer.status_code for answer in answers] == [204, 204]
    due = (await row(running_api.database, payment_id))["due_at"]
    assert (await notify(running_api, notification(payment_id))).status_code == 204
    assert (await row(running_api.database, payment_id))["due_at"] == due


# -- what none does


async def test_nothing_changes_for_a_payment_that_does_not_wait_and_nothing_is_told_of_it(
    running_api: RunningApi,
) -> None:
    user, database = running_api.user(), running_api.database
    pending, in_gateway, ended = [(await paid(user, metadata={"n": str(n)}))["id"] for n in range(3)]
    await claimed(database, in_gateway)
    await settled(database, ended, APPROVED)
    known = received("ignored")
    for payment_id in (pending, in_gateway, ended):
        for gateway in (GATEWAY, "stripe_mock"):
            before = await row(database, payment_id)
            answer = await notify(
                running_api, notification(payment_id, gateway=gateway), path=f"{PATH}/{gateway}", signer=gateway
            )
            assert (answer.status_code, answer.content) == (204, b"")
            assert await row(database, payment_id) == before
    assert (await notify(running_api, notification(str(new_id())))).status_code == 204
    assert received("ignored") == known + 7


async def test_a_gateway_hastens_only_what_it_is_to_answer(running_api: RunningApi) -> None:
    payment_id = await waiting_payment(running_api)
    refunded_id, refund_id = await waiting_refund(running_api)
    for body in (
        notification(payment_id, gateway="stripe_mock"),
        # The signature decides, not the name in the body.
        notification(payment_id, gateway=GATEWAY),
        notification(refunded_id, refund_id=refund_id, gateway="stripe_mock"),
        # A refund is no payment, and a payment no refund.
        notification(refund_id, gateway="stripe_mock"),
    ):
        answer = await notify(running_api, body, path=f"{PATH}/stripe_mock", signer="stripe_mock")
        assert answer.status_code == 204
    for body in (notification(refund_id), notification(payment_id, refund_id=payment_id)):
        assert (await notify(running_api, body)).status_code == 204
    for row_id in (payment_id, refund_id):
        assert not await is_due_soon(running_api.database, row_id)


async def test_one_that_names_another_gateway_than_its_path_changes_nothing(running_api: RunningApi) -> None:
    payment_id = await waiting_payment(running_api)
    answer = await notify(running_api, notification(payment_id, gateway="square_mock"))
    assert answer.status_code == 204
    assert not await is_due_soon(running_api.database, payment_id)


# -- who may send one


async def forgeries(running_api: RunningApi, content: bytes) -> list[tuple[str, dict[str, str]]]:
    """Paths and headers of notifications that are not signed rightly."""
    right = signed(running_api, content)
    by_stripe = signed(running_api, content, signer="stripe_mock")
    secret = running_api.runtime.keyring.callback_secret(GATEWAY)
    of_callbacks = {**right, "webhook-signature": _signature(secret, right, content)}
    unknown = {**right, "webhook-signature": _signature(new_webhook_secret(), right, content)}
    found = [
        *({name: value for name, value in right.items() if name != left_out} for left_out in right),
        {"content-type": "application/json"},
        {**right, "webhook-id": "msg_2"},
        {**right, "webhook-signature": right["webhook-signature"][:-3]},
        {**right, "webhook-signature": right["webhook-signature"].replace("v1,", "v2,")},
        signed(running_api, content + b" "),
        signed(running_api, content, offset_s=-310),
        signed(running_api, content, offset_s=310),
        by_stripe,
        of_callbacks,
        unknown,
        {**unknown, "authorization": running_api.admin().headers["authorization"]},
    ]
    found = [headers for headers in found if "content-type" in headers]
    gateways = [
        f"{PATH}/stripe_mock",
        f"{PATH}/nobody_mock",
        f"{PATH}/PAYPAL_MOCK",
        f"{PATH}/%20",
        f"{PATH}/paypal_mock%00",
    ]
    return [(path, headers) for path in PATHS for headers in found] + [(path, right) for path in gateways]


def _signature(secret: str, headers: dict[str, str], content: bytes) -> str:
    moment = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
    signature: str = Webhook(secret).sign(headers["webhook-id"], moment, content.decode())
    return signature


async def test_whatever_is_not_signed_rightly_has_one_answer_and_costs_no_query(runtime: Runtime) -> None:
    counting = Scripted(runtime.database)
    async with opened(runtime) as ordinary:
        payment_id = await waiting_payment(ordinary)
    async with opened(replace(runtime, database=counting)) as running_api:
        known, content = received("refused"), orjson.dumps(notification(payment_id))
        forged = await forgeries(running_api, content)
        answers = [await running_api.client().post(path, content=content, headers=headers) for path, headers in forged]
        told = []
        for answer in answers:
            found = problem(answer, 401, "invalid_signature")
            assert answer.headers["www-authenticate"] == "Standard-Webhooks"
            told.append({name: found[name] for name in found.keys() - {"instance", "correlation_id"}})
        assert all(each == told[0] for each in told)
        assert (counting.transactions, counting.reads) == (0, 0)
        assert received("refused") == known + len(forged)
        assert not await is_due_soon(runtime.database, payment_id)
        # None of them was refused for anything but its signature.
        assert (await notify(running_api, content)).status_code == 204


@ON_SQLITE
async def test_two_lines_of_one_header_are_no_signature(running_api: RunningApi) -> None:
    content = orjson.dumps(notification(str(new_id())))
    right = list(signed(running_api, content).items())
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
        headers = [*right, (name, dict(right)[name])]
        answer = await running_api.client().post(f"{PATH}/{GATEWAY}", content=content, headers=headers)
        problem(answer, 401, "invalid_signature")


@ON_SQLITE
async def test_one_right_signature_among_several_is_enough(running_api: RunningApi) -> None:
    """So that a secret can be replaced without a pause."""
    content = orjson.dumps(notification(str(new_id())))
    headers = signed(running_api, content)
    wrong = _signature(new_webhook_secret(), headers, content)
    headers["webhook-signature"] = f"v2,xyz {wrong} {headers['webhook-signature']} {wrong}"
    for path in PATHS:
        assert (await running_api.client().post(path, content=content, headers=headers)).status_code == 204
