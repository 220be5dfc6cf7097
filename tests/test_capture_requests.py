"""Captures over HTTP: how much is captured and what is released, refusals, waits and repeats."""

import asyncio

import httpx
import pytest

from shared.lifecycle import PaymentStatus
from shared.payments.refusals import INSTEAD_OF_CAPTURING
from tests.support.api_client import RunningApi, paid, pointers, problem
from tests.support.long_polls import WAIT
from tests.support.money import CAPTURE_DECLINED, CAPTURED, authorized, charged, in_status, shown
from tests.support.raw_bodies import INT64_MAX, raw
from tests.support.settling import DECLINED, change, claimed, settled

pytest_plugins = ["tests.support.api_fixtures"]


@pytest.mark.parametrize("body", [None, "{}", '{"amount": 1585}'])
async def test_without_an_amount_all_is_captured(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient, body: str | None
) -> None:
    payment = await authorized(user, running_api.database)
    path = f"/payments/{payment['id']}/capture"
    answer = await service.post(path) if body is None else await raw(service, path, body)
    assert (answer.status_code, answer.json()["status"]) == (202, "PROCESSING")
    assert (answer.headers["etag"], answer.headers["retry-after"]) == ('"4"', "1")
    await settled(running_api.database, payment["id"], CAPTURED)
    captured = await shown(user, payment["id"])
    assert (captured["status"], captured["amount_captured"], captured["amount_refundable"]) == ("COMPLETED", 1585, 1585)
    assert captured["capture_before"] is None


async def test_a_part_is_captured_and_the_rest_released(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    payment = await authorized(user, running_api.database)
    assert (await service.post(f"/payments/{payment['id']}/capture", json={"amount": 1})).status_code == 202
    await settled(running_api.database, payment["id"], CAPTURED)
    captured = await shown(user, payment["id"])
    assert (captured["amount"], captured["amount_authorized"], captured["amount_captured"]) == (1585, 1585, 1)
    history = (await user.get(f"/payments/{payment['id']}/history")).json()["history"]
    assert [(move["reason"], move["metadata"].get("amount")) for move in history if "amount" in move["metadata"]] == [
        ("capture_requested", 1), ("captured", 1),
    ]  # fmt: skip
    again = await service.post(f"/payments/{payment['id']}/capture", json={"amount": 1})
    problem(again, 409, "payment_not_capturable")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ('{"amount": 0}', "/amount"),
        ('{"amount": -1}', "/amount"),
        ('{"amount": 1586}', "/amount"),
        (f'{{"amount": {INT64_MAX}}}', "/amount"),
        (f'{{"amount": {INT64_MAX + 1}}}', "/amount"),
        (f'{{"amount": {10**400}}}', "/amount"),
        ('{"amount": null}', "/amount"),
        ('{"amount": "100"}', "/amount"),
        ('{"amount": 100.0}', "/amount"),
        ('{"amount": 1e2}', "/amount"),
        ('{"amount": true}', "/amount"),
        ('{"amount": [1]}', "/amount"),
        ('{"amuont": 100}', "/amuont"),
        ('{"currency": "USD"}', "/currency"),
        ("null", ""),
        ("[]", ""),
        ("1", ""),
        ('"x"', ""),
    ],
)
async def test_a_capture_that_is_not_allowed_changes_nothing(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient, body: str, pointer: str
) -> None:
    payment = await authorized(user, running_api.database)
    answer = await raw(service, f"/payments/{payment['id']}/capture", body)
    assert pointers(answer) == [pointer]
    assert await shown(user, payment["id"]) == payment


async def test_an_amount_above_the_authorization_is_named(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    payment = await authorized(user, running_api.database)
    answer = await service.post(f"/payments/{payment['id']}/capture", json={"amount": 1586})
    [error] = problem(answer, 422, "validation_error")["errors"]
    assert error["detail"] == '"amount" must be between 1 and 1585 minor units, which are authorized.'


@pytest.mark.parametrize("body", ["{", "", '{"amount": 1, "amount": 2}', '{"amount": NaN}', "\x00"])
async def test_a_body_that_is_no_json_captures_nothing_but_no_body_is_none(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient, body: str
) -> None:
    payment = await authorized(user, running_api.database)
    answer = await raw(service, f"/payments/{payment['id']}/capture", body)
    if body:
        problem(answer, 400, "malformed_request")
        assert await shown(user, payment["id"]) == payment
    else:
        assert answer.status_code == 202


async def test_only_an_authorized_payment_is_captured_and_the_refusal_says_since_when(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    database = running_api.database
    pending, failed, cancelled, processing = [await paid(user) for _ in range(4)]
    manual = await paid(user, capture_method="manual")
    completed = await charged(user, database)
    await settled(database, failed["id"], DECLINED)
    await user.post(f"/payments/{cancelled['id']}/cancel")
    await claimed(database, processing["id"])
    capturing = await authorized(user, database)
    await service.post(f"/payments/{capturing['id']}/capture")
    for payment in (pending, manual, completed, failed, cancelled, processing, capturing):
        now = await shown(user, payment["id"])
        refusal = problem(await service.post(f"/payments/{payment['id']}/capture"), 409, "payment_not_capturable")
        assert f"has been {now['status']} since {now['processed_at'] or now['updated_at']}" in refusal["detail"]
        assert await shown(user, payment["id"]) == now


def test_every_status_has_its_refusal() -> None:
    assert set(INSTEAD_OF_CAPTURING) == set(PaymentStatus)


async def test_nothing_is_captured_once_the_authorization_is_over(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    payment = await authorized(user, running_api.database)
    async with running_api.database.read() as connection:
        now = await running_api.database.clock.now(connection)
    await change(running_api.database, payment["id"], capture_before=now)
    refusal = problem(await service.post(f"/payments/{payment['id']}/capture"), 409, "payment_not_capturable")
    assert "authorization is over" in refusal["detail"]


async def test_a_capture_that_failed_may_be_tried_again(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    payment = await authorized(user, running_api.database)
    path = f"/payments/{payment['id']}/capture"
    await service.post(path, json={"amount": 100})
    await settled(running_api.database, payment["id"], CAPTURE_DECLINED)
    held = await shown(user, payment["id"])
    assert (held["status"], held["amount_captured"]) == ("AUTHORIZED", 0)
    assert held["last_capture_error"] == {
        "code": "capture_declined", "reason": "The gateway declined the capture.", "at": held["updated_at"],
    }  # fmt: skip
    assert (await service.post(path)).status_code == 202
    await settled(running_api.database, payment["id"], CAPTURED)
    captured = await shown(user, payment["id"])
    assert (captured["status"], captured["amount_captured"], captured["last_capture_error"]) == (
        "COMPLETED", 1585, None,
    )  # fmt: skip


async def test_a_capture_that_waits_is_answered_200_however_it_ends(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    for outcome, status in ((CAPTURED, "COMPLETED"), (CAPTURE_DECLINED, "AUTHORIZED")):
        payment = await authorized(user, running_api.database)
        waiting = asyncio.create_task(service.post(f"/payments/{payment['id']}/capture", headers=WAIT))
        await in_status(user, payment["id"], "PROCESSING")
        await settled(running_api.database, payment["id"], outcome)
        answer = await waiting
        assert (answer.status_code, answer.json()["status"]) == (200, status)
        assert answer.headers["preference-applied"] == "wait=20"
        assert answer.headers["etag"] == f'"{answer.json()["sequence"]}"'


async def test_a_capture_that_waits_too_long_is_202(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    payment = await authorized(user, running_api.database)
    answer = await service.post(f"/payments/{payment['id']}/capture", headers={"Prefer": "wait=1"})
    assert (answer.status_code, answer.json()["status"]) == (202, "PROCESSING")
    assert (answer.headers["preference-applied"], answer.headers["retry-after"]) == ("wait=1", "1")


async def test_a_repeated_capture_is_one_capture_and_shows_the_payment_as_it_is(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    payment = await authorized(user, running_api.database)
    path, key = f"/payments/{payment['id']}/capture", {"Idempotency-Key": "k"}
    answers = await asyncio.gather(*(service.post(path, json={"amount": 7}, headers=key) for _ in range(10)))
    assert {(answer.status_code, answer.json()["sequence"]) for answer in answers} == {(202, 4)}
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 9
    await settled(running_api.database, payment["id"], CAPTURED)
    late = await service.post(path, json={"amount": 7}, headers=key | WAIT)
    assert (late.status_code, late.json()["status"], late.headers["idempotent-replayed"]) == (202, "COMPLETED", "true")
    problem(await service.post(path, json={"amount": 8}, headers=key), 422, "idempotency_key_reused")
    problem(await service.post(path, headers=key), 422, "idempotency_key_reused")


async def test_a_refused_capture_uses_up_no_key(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    payment = await authorized(user, running_api.database)
    path, key = f"/payments/{payment['id']}/capture", {"Idempotency-Key": "k"}
    assert (await service.post(path, json={"amount": 1586}, headers=key)).status_code == 422
    assert (await service.post(path, json={"amount": 1585}, headers=key)).status_code == 202


async def test_a_key_of_one_operation_is_another_key_in_the_next(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    key = {"Idempotency-Key": "k"}
    payment, other = [await authorized(user, running_api.database) for _ in range(2)]
    assert (await service.post(f"/payments/{payment['id']}/capture", headers=key)).status_code == 202
    await settled(running_api.database, payment["id"], CAPTURED)
    refund = await service.post(f"/payments/{payment['id']}/refunds", headers=key)
    assert (refund.status_code, refund.json()["status"]) == (202, "PENDING")
    cancelled = await service.post(f"/refunds/{refund.json()['id']}/cancel", headers=key)
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "CANCELLED")
    assert (await service.post(f"/payments/{other['id']}/cancel", headers=key)).status_code == 202
    for answer in (refund, cancelled):
        assert "idempotent-replayed" not in answer.headers


async def test_a_capture_without_a_body_has_no_fault_of_a_body(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    payment = await authorized(user, running_api.database)
    twice = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    answer = await service.post(f"/payments/{payment['id']}/capture?x=1", headers=twice)
    assert pointers(answer) == ["/header/idempotency-key", "/query/x"]


@pytest.mark.parametrize("payment_id", ["x", "0199f0a2-7d7e-7c3a-9a51-0d4b1f2f6f00", "%00", "1"])
async def test_what_does_not_exist_is_404_for_everybody(
    user: httpx.AsyncClient, service: httpx.AsyncClient, payment_id: str
) -> None:
    for client in (user, service):
        problem(await client.post(f"/payments/{payment_id}/capture"), 404, "not_found")


async def test_users_capture_nothing_and_learn_nothing_of_others(
    running_api: RunningApi, user: httpx.AsyncClient, other: httpx.AsyncClient
) -> None:
    payment = await authorized(user, running_api.database)
    problem(await user.post(f"/payments/{payment['id']}/capture"), 403, "forbidden")
    problem(await other.post(f"/payments/{payment['id']}/capture"), 404, "not_found")
    assert await shown(user, payment["id"]) == payment
