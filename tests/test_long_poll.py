"""Long polls over HTTP: when a request that waits for the end of a payment is answered, and with what."""

import asyncio
from time import monotonic
from typing import Any
from uuid import UUID

import httpx
import pytest

from shared.config.settings import Settings
from shared.runtime import Runtime
from tests.support.api_client import RunningApi, accepted, added, opened, order, paid, served
from tests.support.long_polls import WAIT, Failing
from tests.support.settling import APPROVED, DECLINED, claimed, settled
from tests.support.waiting import eventually
from tests.support.workers import working

pytest_plugins = ["tests.support.api_fixtures"]


async def waiters(running_api: RunningApi, count: int) -> None:
    """Return as soon as the API says that so many requests wait."""
    anybody = running_api.client(base="")

    async def is_said() -> bool:
        return f"payments_waiters {float(count)}" in (await anybody.get("/metrics")).text.splitlines()

    _: bool = await eventually(is_said, 20)


async def settled_and_notified(running_api: RunningApi, payment_id: str, outcome: Any = APPROVED) -> None:
    """The payment ends and the broker says so, as when a worker ends it."""
    await settled(running_api.database, payment_id, outcome)
    await running_api.runtime.broker.notify_settled([UUID(payment_id)])


async def test_with_a_worker_a_payment_ends_while_its_client_waits(runtime: Runtime, running_api: RunningApi) -> None:
    async with working(runtime):
        user = running_api.user()
        answer = await user.post("/payments", json=order(await added(user)), headers=WAIT)
        payment = answer.json()
        assert answer.status_code == 201
        assert payment["status"] in {"COMPLETED", "FAILED"}
        assert payment["processed_at"] is not None
        assert answer.headers["preference-applied"] == "wait=20"
        assert answer.headers["vary"] == "Prefer"
        assert answer.headers["location"] == f"/api/v1/payments/{payment['id']}"
        assert "retry-after" not in answer.headers
        assert (await user.get(f"/payments/{payment['id']}")).json() == payment


@pytest.mark.parametrize("outcome", [APPROVED, DECLINED])
async def test_a_post_that_waits_is_answered_201_when_the_payment_ends(
    running_api: RunningApi, user: httpx.AsyncClient, outcome: Any
) -> None:
    waiting = asyncio.create_task(user.post("/payments", json=order(await added(user)), headers=WAIT))
    await waiters(running_api, 1)
    [payment] = await eventually_listed(user)
    await settled_and_notified(running_api, payment["id"], outcome)
    answer = await waiting
    assert (answer.status_code, answer.json()["sequence"], answer.headers["etag"]) == (201, 3, '"3"')


async def eventually_listed(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    """The client's payments, as soon as there are any."""
    while True:
        found: list[dict[str, Any]] = (await client.get("/payments")).json()["payments"]
        if found:
            return found


@pytest.mark.parametrize("path", ["", "/status"])
async def test_a_get_that_waits_is_answered_when_the_payment_ends(
    running_api: RunningApi, user: httpx.AsyncClient, path: str
) -> None:
    payment = await paid(user)
    headers = WAIT | {"If-None-Match": '"1"'}
    waiting = asyncio.create_task(user.get(f"/payments/{payment['id']}{path}", headers=headers))
    await waiters(running_api, 1)
    await settled_and_notified(running_api, payment["id"])
    answer = await waiting
    assert (answer.status_code, answer.json()["status"], answer.headers["etag"]) == (200, "COMPLETED", '"3"')
    assert (answer.headers["preference-applied"], answer.headers["vary"]) == ("wait=20", "Prefer")


async def test_a_cancel_ends_the_waiting_too(running_api: RunningApi, user: httpx.AsyncClient) -> None:
    payment = await paid(user)
    waiting = asyncio.create_task(user.get(f"/payments/{payment['id']}", headers=WAIT))
    await waiters(running_api, 1)
    await user.post(f"/payments/{payment['id']}/cancel")
    assert (await waiting).json()["status"] == "CANCELLED"


async def test_when_the_time_is_up_the_answer_is_the_payment_as_it_is(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    method_id = await added(user)
    payment = await accepted(user, order(method_id))
    began = monotonic()
    post, get, unchanged = await asyncio.gather(
        user.post("/payments", json=order(method_id), headers={"Prefer": "wait=1"}),
        user.get(f"/payments/{payment['id']}", headers={"Prefer": "wait=1"}),
        user.get(f"/payments/{payment['id']}", headers={"Prefer": "wait=1", "If-None-Match": '"1"'}),
    )
    assert monotonic() - began >= 1
    assert (post.status_code, post.json()["status"], post.headers["retry-after"]) == (202, "PENDING", "1")
    assert (get.status_code, get.json()) == (200, payment)
    assert unchanged.status_code == 304
    for answer in (post, get, unchanged):
        assert answer.headers["preference-applied"] == "wait=1"
    await waiters(running_api, 0)


async def test_a_repeat_may_wait_for_the_payment_of_the_first_request(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    body, key = order(await added(user)), {"Idempotency-Key": "k1"}
    payment = (await user.post("/payments", json=body, headers=key)).json()
    waiting = asyncio.create_task(user.post("/payments", json=body, headers=key | WAIT))
    await waiters(running_api, 1)
    await settled_and_notified(running_api, payment["id"])
    answer = await waiting
    assert (answer.status_code, answer.json()["id"], answer.json()["status"]) == (202, payment["id"], "COMPLETED")
    assert answer.headers["idempotent-replayed"] == "true"


@pytest.mark.parametrize("fails_at_once", [True, False])
async def test_a_repeat_that_waits_is_answered_though_the_database_cannot_be_read(
    runtime: Runtime, settings: Settings, fails_at_once: bool
) -> None:
    failing = Failing(runtime.database)
    failing.is_failing = False
    async with opened(Runtime(settings, failing, runtime.broker, runtime.keyring)) as running_api:
        user = running_api.user()
        body, key = order(await added(user)), {"Idempotency-Key": "k1"}
        payment = (await user.post("/payments", json=body, headers=key)).json()
        failing.is_failing = fails_at_once
        waiting = asyncio.create_task(user.post("/payments", json=body, headers=key | {"Prefer": "wait=1"}))
        await waiters(running_api, 1)
        failing.is_failing = True
        answer = await waiting
    assert (answer.status_code, answer.json()) == (202, payment)
    assert answer.headers["preference-applied"] == "wait=1"


async def test_two_hundred_may_wait_at_once(running_api: RunningApi, user: httpx.AsyncClient) -> None:
    method_id = await added(user)
    ids = [(await accepted(user, order(method_id)))["id"] for _ in range(10)]
    waiting = [
        asyncio.create_task(user.get(f"/payments/{payment_id}/status", headers=WAIT))
        for payment_id in ids
        for _ in range(20)
    ]
    await waiters(running_api, 200)
    for payment_id in ids:
        await settled(running_api.database, payment_id, APPROVED)
    await running_api.runtime.broker.notify_settled([UUID(payment_id) for payment_id in ids])
    answers = await asyncio.gather(*waiting)
    assert {(answer.status_code, answer.json()["status"]) for answer in answers} == {(200, "COMPLETED")}
    await waiters(running_api, 0)


@pytest.mark.parametrize("capacity", [0, 1])
async def test_beyond_the_capacity_the_answer_comes_at_once_and_does_not_say_that_it_waited(
    runtime: Runtime, settings: Settings, capacity: int
) -> None:
    small = Runtime(
        settings.model_copy(update={"waiters_max": capacity}), runtime.database, runtime.broker, runtime.keyring
    )
    async with opened(small) as running_api:
        user = running_api.user()
        method_id = await added(user)
        payment = await accepted(user, order(method_id))
        held = [asyncio.create_task(user.get(f"/payments/{payment['id']}", headers=WAIT)) for _ in range(capacity)]
        await waiters(running_api, capacity)
        for answer in (
            await user.get(f"/payments/{payment['id']}", headers=WAIT),
            await user.post("/payments", json=order(method_id), headers=WAIT),
        ):
            assert (answer.status_code in {200, 202}, answer.json()["status"]) == (True, "PENDING")
            assert "preference-applied" not in answer.headers
            assert answer.headers["vary"] == "Prefer"
        await settled_and_notified(running_api, payment["id"])
        for answer in await asyncio.gather(*held):
            assert answer.json()["status"] == "COMPLETED"


async def test_a_post_whose_time_is_up_answers_the_state_of_now(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    body = order(await added(user))
    posting = asyncio.create_task(user.post("/payments", json=body, headers={"Prefer": "wait=2"}))

    async def stored() -> list[dict[str, Any]]:
        return list((await user.get("/payments")).json()["payments"])

    [payment] = await eventually(stored)
    assert await claimed(running_api.database, payment["id"])
    answer = await posting
    assert (answer.status_code, answer.json()["status"], answer.headers["etag"]) == (202, "PROCESSING", '"2"')


async def test_at_shutdown_every_request_that_waits_is_answered_at_once(runtime: Runtime) -> None:
    stop = asyncio.Event()
    async with served(runtime, stop) as running_api:
        user = running_api.user()
        method_id = await added(user)
        payment = await accepted(user, order(method_id))
        waiting = [asyncio.create_task(user.get(f"/payments/{payment['id']}", headers=WAIT)) for _ in range(20)] + [
            asyncio.create_task(user.post("/payments", json=order(method_id), headers=WAIT)) for _ in range(5)
        ]
        await waiters(running_api, 25)
        began = monotonic()
        stop.set()
        answers = await asyncio.gather(*waiting)
        assert monotonic() - began < 10
        assert {answer.json()["status"] for answer in answers} == {"PENDING"}
        assert {answer.status_code for answer in answers} == {200, 202}
        assert not any("preference-applied" in answer.headers for answer in answers)
