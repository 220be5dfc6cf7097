"""Authorized payments that are cancelled over HTTP: a worker voids them, unless a capture came first."""

import asyncio

import httpx

from tests.support.api_client import RunningApi, problem
from tests.support.money import VOIDED, authorized, shown
from tests.support.settling import settled

pytest_plugins = ["tests.support.api_fixtures"]


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
