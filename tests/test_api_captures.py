"""Authorizing, capturing and voiding payments over HTTP, on both databases. A worker's part is played by the tests."""

import asyncio
from typing import Any

import httpx
import pytest

from shared.broker.heartbeats import WorkerStatus, send_heartbeat
from shared.lifecycle import PaymentStatus
from shared.payments.refusals import INSTEAD_OF_CAPTURING
from shared.runtime import Runtime
from tests.support.api_client import (
    DECLINED,
    RunningApi,
    added,
    card,
    change,
    claimed,
    opened,
    order,
    paid,
    paypal,
    pointers,
    problem,
    settled,
    working,
)
from tests.support.money import AUTHORIZED, CAPTURE_DECLINED, CAPTURED, VOIDED, authorized, charged, shown
from tests.support.waiting import eventually

pytest_plugins = ["tests.support.api_fixtures"]

WAIT = {"Prefer": "wait=20"}  # far longer than any test takes
INT64_MAX = 2**63 - 1


async def raw(client: httpx.AsyncClient, path: str, body: str) -> httpx.Response:
    return await client.post(path, content=body, headers={"Content-Type": "application/json"})


# -- the intent


async def test_a_payment_is_captured_automatically_unless_its_client_says_otherwise(user: httpx.AsyncClient) -> None:
    assert (await paid(user))["capture_method"] == "automatic"
    assert (await paid(user, capture_method="automatic"))["capture_method"] == "automatic"
    manual = await paid(user, capture_method="manual")
    assert (manual["capture_method"], manual["status"], manual["amount_authorized"]) == ("manual", "PENDING", 0)


@pytest.mark.parametrize("value", [None, "", "MANUAL", "later", 1, True, ["manual"], {"manual": True}])
async def test_no_other_capture_method_is_taken(user: httpx.AsyncClient, value: Any) -> None:
    answer = await user.post("/payments", json=order(await added(user), capture_method=value))
    assert pointers(answer) == ["/capture_method"]


async def test_a_debit_card_cannot_be_captured_later_added_or_ready_made(user: httpx.AsyncClient) -> None:
    added_debit = await added(user, card("4000056655665556", type="DEBIT_CARD"))
    for method_id in (added_debit, "pm_test_debit"):
        answer = await user.post("/payments", json=order(method_id, capture_method="manual"))
        assert pointers(answer) == ["/capture_method"]
        assert "debit card" in answer.json()["detail"]
        assert (await user.post("/payments", json=order(method_id))).status_code == 202
    for method_id in (await added(user), await added(user, paypal()), "pm_test_visa", "pm_test_paypal"):
        assert (await user.post("/payments", json=order(method_id, capture_method="manual"))).status_code == 202


async def test_a_key_tells_an_automatic_payment_from_a_manual_one(user: httpx.AsyncClient) -> None:
    body, key = order(await added(user)), {"Idempotency-Key": "k"}
    first = await user.post("/payments", json=body, headers=key)
    same = await user.post("/payments", json=body | {"capture_method": "automatic"}, headers=key)
    assert (same.status_code, same.json()["id"]) == (202, first.json()["id"])
    other = await user.post("/payments", json=body | {"capture_method": "manual"}, headers=key)
    problem(other, 422, "idempotency_key_reused")


async def test_an_authorized_payment_shows_what_is_held_and_until_when(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    payment = await authorized(user, running_api.database)
    assert payment["status"] == "AUTHORIZED"
    amounts = [payment[f"amount_{name}"] for name in ("authorized", "captured", "refunded", "refundable")]
    assert amounts == [1585, 0, 0, 0]
    assert payment["capture_before"] > payment["updated_at"]
    assert (payment["processed_at"], payment["last_capture_error"], payment["failure_advice"]) == (None, None, None)


# -- capture


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


async def in_status(client: httpx.AsyncClient, payment_id: str, status: str) -> dict[str, Any]:
    """The payment, as soon as it has this status."""

    async def there() -> Any:
        payment = await shown(client, payment_id)
        return payment if payment["status"] == status else None

    found: dict[str, Any] = await eventually(there)
    return found


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


# -- void


async def test_an_authorized_payment_is_voided_by_a_worker(running_api: RunningApi, user: httpx.AsyncClient) -> None:
    payment = await authorized(user, running_api.database)
    path, key = f"/payments/{payment['id']}/cancel", {"Idempotency-Key": "k"}
    answer = await user.post(path, headers=key)
    assert (answer.status_code, answer.json()["status"], answer.headers["etag"]) == (202, "PROCESSING", '"4"')
    assert answer.headers["retry-after"] == "1"
    repeated = await user.post(path, headers=key)
    assert (repeated.status_code, repeated.headers["idempotent-replayed"]) == (202, "true")
    refusal = problem(await user.post(path), 409, "payment_not_cancellable")
    assert "PROCESSING" in refusal["detail"]
    await settled(running_api.database, payment["id"], VOIDED)
    voided = await shown(user, payment["id"])
    assert (voided["status"], voided["capture_before"], voided["amount_captured"]) == ("CANCELLED", None, 0)
    again = await user.post(path)
    assert (again.status_code, again.json()) == (200, voided)
    assert (await user.post(path, headers=key)).json() == voided


async def test_capture_and_cancel_at_once_one_wins(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    for _ in range(5):
        payment = await authorized(user, running_api.database)
        paths = [f"/payments/{payment['id']}/{verb}" for verb in ("capture", "cancel") * 5]
        answers = await asyncio.gather(*(service.post(path) for path in paths))
        assert sorted(answer.status_code for answer in answers) == [202] + [409] * 9
        assert (await shown(user, payment["id"]))["sequence"] == 4


# -- waiting


async def test_a_post_that_waits_is_answered_201_when_the_payment_is_authorized(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    body = order(await added(user), capture_method="manual")
    waiting = asyncio.create_task(user.post("/payments", json=body, headers=WAIT))

    async def listed() -> Any:
        return (await user.get("/payments")).json()["payments"]

    [payment] = await eventually(listed)
    await settled(running_api.database, payment["id"], AUTHORIZED)
    answer = await waiting
    assert (answer.status_code, answer.json()["status"]) == (201, "AUTHORIZED")
    got = await user.get(f"/payments/{payment['id']}", headers=WAIT)
    assert (got.json(), got.headers["preference-applied"]) == (answer.json(), "wait=20")


@pytest.mark.parametrize("path", ["", "/status"])
async def test_with_the_current_etag_a_get_waits_for_the_next_state(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient, path: str
) -> None:
    payment = await authorized(user, running_api.database)
    known = {"If-None-Match": '"3"'}
    unchanged = await user.get(f"/payments/{payment['id']}{path}", headers=known | {"Prefer": "wait=1"})
    assert (unchanged.status_code, unchanged.headers["etag"]) == (304, '"3"')
    assert unchanged.headers["preference-applied"] == "wait=1"
    waiting = asyncio.create_task(user.get(f"/payments/{payment['id']}{path}", headers=known | WAIT))
    await service.post(f"/payments/{payment['id']}/capture")
    await settled(running_api.database, payment["id"], CAPTURED)
    answer = await waiting
    assert (answer.status_code, answer.json()["status"], answer.headers["etag"]) == (200, "COMPLETED", '"6"')


@pytest.mark.parametrize("etag", ['"2"', "*", '"5-gzip", "2"', 'W/"9"'])
async def test_with_another_etag_a_get_is_answered_at_once(
    running_api: RunningApi, user: httpx.AsyncClient, etag: str
) -> None:
    payment = await authorized(user, running_api.database)
    async with asyncio.timeout(15):
        answer = await user.get(f"/payments/{payment['id']}", headers=WAIT | {"If-None-Match": etag})
    assert answer.status_code == (304 if etag == "*" else 200)
    assert answer.headers["preference-applied"] == "wait=20"


async def test_a_refund_is_a_next_state_of_its_payment(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    payment = await charged(user, running_api.database)
    waiting = asyncio.create_task(user.get(f"/payments/{payment['id']}", headers=WAIT | {"If-None-Match": '"3"'}))
    await service.post(f"/payments/{payment['id']}/refunds", json={"amount": 85})
    answer = await waiting
    assert (answer.status_code, answer.json()["sequence"], answer.json()["amount_refundable"]) == (200, 4, 1500)


# -- beside a worker of 0.1, and with one of ours


async def test_while_a_worker_of_0_1_is_alive_nothing_is_accepted_that_it_would_do_wrong(
    runtime: Runtime, running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    held, voided = [await authorized(user, running_api.database) for _ in range(2)]
    done = await charged(user, running_api.database)
    method_id = await added(user, card("5555555555554444"))
    old = WorkerStatus(worker="old", slots=1, in_gateway=0, sending=0, settled=0, settled_per_s=0.0, uptime_s=1.0)
    await send_heartbeat(runtime.broker, old)
    async with opened(runtime) as beside:
        service, customer = beside.service(), beside.user()
        for refused in (
            await customer.post("/payments", json=order(method_id, capture_method="manual")),
            await service.post(f"/payments/{held['id']}/capture"),
            await customer.post(f"/payments/{voided['id']}/cancel"),
            await service.post(f"/payments/{done['id']}/refunds"),
        ):
            body = problem(refused, 503, "unavailable")
            assert "older version" in body["detail"]
            assert "retry-after" in refused.headers
        assert (await customer.post("/payments", json=order(method_id))).status_code == 202
    for before in (held, voided, done):
        assert await shown(user, before["id"]) == before


async def test_with_a_worker_a_payment_is_authorized_captured_and_refunded(
    runtime: Runtime, running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    async with working(runtime):
        held = await user.post("/payments", json=order("pm_test_visa", capture_method="manual"), headers=WAIT)
        assert (held.status_code, held.json()["status"]) == (201, "AUTHORIZED")
        path = f"/payments/{held.json()['id']}"
        captured = await service.post(f"{path}/capture", json={"amount": 1000}, headers=WAIT)
        assert (captured.status_code, captured.json()["amount_captured"]) == (200, 1000)
        refund = await service.post(f"{path}/refunds", headers=WAIT)
        assert (refund.status_code, refund.json()["status"], refund.json()["amount"]) == (201, "COMPLETED", 1000)
        refunded = (await user.get(path)).json()
        assert (refunded["status"], refunded["amount_refundable"]) == ("REFUNDED", 0)
        second = await user.post("/payments", json=order("pm_test_visa", capture_method="manual"), headers=WAIT)
        assert (await user.post(f"/payments/{second.json()['id']}/cancel")).status_code == 202
        await in_status(user, second.json()["id"], "CANCELLED")


async def test_the_platforms_paths_lead_to_the_same_operations(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    held, done = await authorized(user, running_api.database), await charged(user, running_api.database)
    service = running_api.service()
    service.base_url = httpx.URL(f"{running_api.url}/api")
    assert (await service.post(f"/payments/{held['id']}/capture")).status_code == 202
    refund = await service.post(f"/payments/{done['id']}/refunds")
    assert refund.headers["location"] == f"/api/payments/refunds/{refund.json()['id']}"
    assert (
        await running_api.client(base="", headers=dict(service.headers)).get(refund.headers["location"])
    ).json() == refund.json()
