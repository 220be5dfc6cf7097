"""Refunds and their cancels that are asked for again over HTTP, with the same key or too late."""

import asyncio

import httpx

from tests.support.api_client import RunningApi, problem
from tests.support.long_polls import WAIT
from tests.support.money import charged, refund_claimed, refund_ended, refunded

pytest_plugins = ["tests.support.api_fixtures"]


async def test_a_repeated_refund_is_one_refund_and_shown_as_it_is(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    payment = await charged(user, running_api.database)
    path, key, body = f"/payments/{payment['id']}/refunds", {"Idempotency-Key": "k"}, {"amount": 5}
    answers = await asyncio.gather(*(service.post(path, json=body, headers=key) for _ in range(10)))
    [refund_id] = {answer.json()["id"] for answer in answers}
    assert {answer.status_code for answer in answers} == {202}
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 9
    await refund_ended(running_api.database, refund_id)
    late = await service.post(path, json=body, headers=key | WAIT)
    assert (late.status_code, late.json()["status"], late.headers["location"]) == (
        202, "COMPLETED", f"/api/v1/refunds/{refund_id}",
    )  # fmt: skip
    for other in ({"amount": 6}, {}, {"amount": 5, "reason": "fraudulent"}):
        problem(await service.post(path, json=other, headers=key), 422, "idempotency_key_reused")
    # The same key of another principal, and below another payment, is another key.
    assert (await running_api.admin().post(path, json=body, headers=key)).json()["id"] != refund_id
    other_payment = await charged(user, running_api.database)
    assert (await service.post(f"/payments/{other_payment['id']}/refunds", json=body, headers=key)).status_code == 202


async def test_no_body_and_an_empty_object_are_the_same_request(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    payment = await charged(user, running_api.database)
    path, key = f"/payments/{payment['id']}/refunds", {"Idempotency-Key": "k"}
    first = await service.post(path, headers=key)
    second = await service.post(path, headers=key, json={})
    assert (first.json()["id"], second.headers["idempotent-replayed"]) == (second.json()["id"], "true")


async def test_a_repeated_cancel_of_a_refund_answers_what_it_is_now(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    refund = await refunded(service, await charged(user, running_api.database))
    path, key = f"/refunds/{refund['id']}/cancel", {"Idempotency-Key": "k"}
    answers = await asyncio.gather(*(service.post(path, headers=key) for _ in range(5)))
    assert {(answer.status_code, answer.json()["sequence"]) for answer in answers} == {(200, 2)}
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 4


async def test_a_refund_that_a_worker_has_claimed_is_not_cancelled(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    refund = await refunded(service, await charged(user, running_api.database))
    await refund_claimed(running_api.database, refund["id"])
    refusal = problem(await service.post(f"/refunds/{refund['id']}/cancel"), 409, "refund_not_cancellable")
    claimed_refund = (await user.get(f"/refunds/{refund['id']}")).json()
    assert f"has been PROCESSING since {claimed_refund['updated_at']}" in refusal["detail"]
    ended = await refunded(service, await charged(user, running_api.database))
    await refund_ended(running_api.database, ended["id"])
    problem(await service.post(f"/refunds/{ended['id']}/cancel"), 409, "refund_not_cancellable")
