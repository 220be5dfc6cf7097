"""Accepting payments through the group commit: one that is refused, a full queue, clients that leave, and shutdown."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import httpx
import pytest

from api.main import create_app
from api.state import Api
from shared import metrics
from shared.config.settings import Settings
from shared.errors import ValueRefused
from shared.ids import new_id
from shared.payments.find import Visible
from shared.payments.intent import Intent
from shared.runtime import Runtime
from tests.support.api_client import RunningApi, added, opened, order, problem
from tests.support.scripted_databases import Scripted
from tests.support.stored import row_counts
from tests.support.waiting import eventually

pytest_plugins = ["tests.support.api_fixtures"]


def intent(method_id: str, **changes: Any) -> Intent:
    """An intent as if it had passed the checks of HTTP."""
    valid = Intent(
        id=new_id(),
        user_id="1",
        created_by="user:1",
        visible=Visible(user_id="1"),
        order_id="poisoned",
        payment_method_id=UUID(method_id),
        amount=1585,
        currency="USD",
        description=None,
        metadata={},
        callback_url=None,
        correlation_id=None,
        idempotency=None,
    )
    return replace(valid, **changes)


POISON: dict[str, dict[str, Any]] = {
    "check": {"amount": 0},
    "overflow": {"amount": 2**63},
    "surrogate": {"description": "\ud800"},
    "json": {"metadata": {"a": "\ud800"}},
}
POISON_OF_POSTGRESQL = {
    "nul": {"description": "a\0b"},
    "json nul": {"metadata": {"a": "\0"}},
    "long": {"order_id": "x" * 65},
}


async def test_one_that_the_database_refuses_leaves_49_others_accepted(running_api: RunningApi, backend: str) -> None:
    user = running_api.user()
    method_id = await added(user)
    poisons: dict[str, Any] = POISON | POISON_OF_POSTGRESQL if backend == "postgresql" else POISON
    written = 0
    for name, changes in poisons.items():
        others = 49 if name == "check" else 3
        posts = [asyncio.create_task(user.post("/payments", json=order(method_id))) for _ in range(others)]
        poisoned = asyncio.create_task(running_api.intents.submit(intent(method_id, **changes)))
        answers = await asyncio.gather(*posts)
        assert {answer.status_code for answer in answers} == {202}, name
        with pytest.raises(ValueRefused):
            await poisoned
        written += others
        counts = await row_counts(running_api.database)
        assert {counts["payments"], counts["payment_history"]} == {written}, name


async def test_fifty_payments_at_once_take_few_transactions(runtime: Runtime) -> None:
    counting = Scripted(runtime.database)
    async with opened(Runtime(runtime.settings, counting, runtime.broker, runtime.keyring)) as running_api:
        user = running_api.user()
        method_id = await added(user)
        before = counting.transactions
        answers = await asyncio.gather(*(user.post("/payments", json=order(method_id)) for _ in range(50)))
        assert {answer.status_code for answer in answers} == {202}
        assert counting.transactions - before <= 10
    assert (await row_counts(runtime.database))["payments"] == 50


@asynccontextmanager
async def api_before_start(runtime: Runtime) -> AsyncIterator[tuple[httpx.AsyncClient, Api]]:
    """An API that commits nothing from its accept queue until `api.running()`."""
    api = Api(runtime)
    running_api = RunningApi(runtime=runtime, transport=httpx.ASGITransport(create_app(api)), api=api)
    yield running_api.user(), api


async def test_a_full_accept_queue_is_503_overloaded_and_what_waits_is_accepted(
    runtime: Runtime, settings: Settings
) -> None:
    small = Runtime(
        settings.model_copy(update={"accept_queue_max": 2}), runtime.database, runtime.broker, runtime.keyring
    )
    async with api_before_start(small) as (user, api):
        method_id = await added(user)
        waiting = [asyncio.create_task(user.post("/payments", json=order(method_id))) for _ in range(2)]
        await eventually(lambda: api.intents.queued == 2)
        for _ in range(3):
            answer = await user.post("/payments", json=order(method_id))
            problem(answer, 503, "overloaded")
            assert answer.headers["retry-after"] == "1"
        async with api.running():
            assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [202, 202]
    assert (await row_counts(runtime.database))["payments"] == 2


async def test_an_answer_that_is_held_takes_no_place_among_those_that_come_in(
    runtime: Runtime, settings: Settings
) -> None:
    small = Runtime(
        settings.model_copy(update={"accept_queue_max": 1}), runtime.database, runtime.broker, runtime.keyring
    )
    async with api_before_start(small) as (user, api), api.running():
        method_id = await added(user)
        held = asyncio.create_task(user.post("/payments", json=order(method_id), headers={"Prefer": "wait=25"}))
        await eventually(lambda: api.intents.queued == 0 and api.admission.admitted == 0 and is_one_waiting())
        # One after the other: each leaves its place, also one that is refused.
        for _ in range(3):
            assert (await user.post("/payments", json=order(method_id))).status_code == 202
            problem(await user.post("/payments", json={}), 422, "validation_error")
        held.cancel()
        await asyncio.wait([held])


def is_one_waiting() -> bool:
    return b"\npayments_waiters 1.0\n" in metrics.exposition()


async def test_a_client_that_leaves_has_its_payment_all_the_same(runtime: Runtime) -> None:
    async with api_before_start(runtime) as (user, api):
        method_id = await added(user)
        leaving = asyncio.create_task(user.post("/payments", json=order(method_id)))
        await eventually(lambda: api.intents.queued == 1)
        leaving.cancel()
        await asyncio.wait([leaving])
        async with api.running():
            pass
    assert (await row_counts(runtime.database))["payments"] == 1


async def test_what_is_queued_at_shutdown_is_accepted(runtime: Runtime) -> None:
    async with api_before_start(runtime) as (user, api):
        method_id = await added(user)
        waiting = asyncio.create_task(user.post("/payments", json=order(method_id)))
        await eventually(lambda: api.intents.queued == 1)
        async with api.running():
            pass
        assert (await waiting).status_code == 202
        problem(await user.post("/payments", json=order(method_id)), 503, "overloaded")
