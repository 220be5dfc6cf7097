"""Requests that wait for a refund, and what is said of its steps to those who wait."""

import asyncio
from typing import Any
from uuid import UUID

import httpx
import pytest

from api.long_poll import LongPolls
from shared.payments.find import find_many
from shared.refunds.find import find_refunds
from tests.support.api_client import RunningApi
from tests.support.long_polls import WAIT
from tests.support.money import charged, refund_ended, refunded
from tests.support.waiting import eventually

pytest_plugins = ["tests.support.api_fixtures"]


async def test_a_refund_that_waits_is_answered_201_when_it_ends(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    payment = await charged(user, running_api.database)
    waiting = asyncio.create_task(service.post(f"/payments/{payment['id']}/refunds", headers=WAIT))
    [refund] = await listed(user, payment)
    await refund_ended(running_api.database, refund["id"])
    answer = await waiting
    assert (answer.status_code, answer.json()["status"], answer.headers["etag"]) == (201, "COMPLETED", '"3"')
    assert (answer.headers["preference-applied"], answer.headers["vary"]) == ("wait=20", "Prefer")
    assert "retry-after" not in answer.headers


async def listed(client: httpx.AsyncClient, payment: dict[str, Any]) -> list[dict[str, Any]]:
    """The refunds of the payment, as soon as there are any."""

    async def there() -> Any:
        return (await client.get(f"/payments/{payment['id']}/refunds")).json()["refunds"]

    found: list[dict[str, Any]] = await eventually(there)
    return found


async def test_a_refund_that_waits_too_long_is_202(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    payment = await charged(user, running_api.database)
    answer = await service.post(f"/payments/{payment['id']}/refunds", headers={"Prefer": "wait=1"})
    assert (answer.status_code, answer.json()["status"]) == (202, "PENDING")
    assert answer.headers["preference-applied"] == "wait=1"


async def test_a_get_of_a_refund_waits_for_its_end_and_knows_its_version(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    refund = await refunded(service, await charged(user, running_api.database))
    path = f"/refunds/{refund['id']}"
    got = await user.get(path)
    assert (got.status_code, got.headers["etag"], got.headers["retry-after"]) == (200, '"1"', "1")
    assert (await user.get(path, headers={"If-None-Match": '"1"'})).status_code == 304
    waiting = [asyncio.create_task(user.get(path, headers=WAIT | known)) for known in ({}, {"If-None-Match": 'W/"1"'})]
    await refund_ended(running_api.database, refund["id"])
    for answer in await asyncio.gather(*waiting):
        assert (answer.status_code, answer.json()["status"], answer.headers["etag"]) == (200, "COMPLETED", '"3"')
    known = {"If-None-Match": '"3"'}
    assert (await user.get(path, headers=known | {"Prefer": "wait=1"})).status_code == 304
    assert (await user.get(path, headers=WAIT)).headers["preference-applied"] == "wait=20"


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_message_ends_the_wait_for_a_refund_and_for_no_other(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    payment = await charged(user, running_api.database)
    first, second = [await refunded(service, payment, amount=1) for _ in range(2)]
    runtime = running_api.runtime
    long_polls = LongPolls(runtime.database, runtime.broker, capacity=3)
    running = asyncio.create_task(long_polls.run())
    async with (
        long_polls.subscribe(UUID(first["id"]), find_refunds) as one,
        long_polls.subscribe(UUID(second["id"]), find_refunds) as other,
        long_polls.subscribe(UUID(payment["id"]), find_many, until=lambda found: found.sequence > 5) as of_payment,
    ):
        assert one is not None
        assert other is not None
        assert of_payment is not None
        await refund_ended(running_api.database, first["id"])
        await runtime.broker.notify_settled([UUID(first["id"]), UUID(payment["id"])])
        ended = await asyncio.wait_for(one, 10)
        assert ended is not None
        assert (str(ended.id), ended.is_settled, other.done()) == (first["id"], True, False)
        partly = await asyncio.wait_for(of_payment, 10)
        assert partly is not None
        assert partly.status == "PARTIALLY_REFUNDED"
    running.cancel()
    await asyncio.wait([running])


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_every_step_of_a_refund_that_a_client_takes_is_said_on_the_channel(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    payment = await charged(user, running_api.database)
    async with running_api.runtime.broker.subscribe_settled() as subscription:

        async def heard() -> set[UUID]:
            # The first answer says only that the subscription began.
            return set(await subscription.next_ids(timeout_s=1))

        refund = await refunded(service, payment)
        said: set[UUID] = await eventually(heard)
        assert said == {UUID(payment["id"])}
        await service.post(f"/refunds/{refund['id']}/cancel")
        said = await eventually(heard)
        assert said == {UUID(refund["id"]), UUID(payment["id"])}
