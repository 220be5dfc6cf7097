"""Duplicates over two processes of the API: one payment per key and one per order."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from sqlalchemy import func, select

from shared.config.settings import Settings
from shared.database.tables import payments
from shared.runtime import open_runtime
from tests.support.api_client import RunningApi, added, opened, order
from tests.support.stored import row_counts

pytest_plugins = ["tests.support.api_fixtures"]


@asynccontextmanager
async def two_apis(settings: Settings) -> AsyncIterator[tuple[RunningApi, RunningApi]]:
    """Two APIs on the same database, each with its own connections and its own group commit."""
    async with AsyncExitStack() as stack:
        apis = []
        for _ in range(2):
            runtime = open_runtime(settings)
            stack.push_async_callback(runtime.close)
            apis.append(await stack.enter_async_context(opened(runtime)))
        yield apis[0], apis[1]


async def test_duplicates_over_two_apis_are_one_payment_per_key(settings: Settings) -> None:
    async with two_apis(settings) as (one, two):
        clients = itertools.cycle([one.user(), two.user()])
        method_id = await added(one.user())
        requests = [
            (order(method_id, order_id=f"o-{n}"), {"Idempotency-Key": f"key-{n}"}) for n in range(15) for _ in range(4)
        ]
        answers = await asyncio.gather(
            *(next(clients).post("/payments", json=body, headers=headers) for body, headers in requests)
        )
        assert {answer.status_code for answer in answers} == {202}
        for n in range(15):
            same = answers[4 * n : 4 * n + 4]
            assert len({answer.content for answer in same}) == 1
            assert sum("idempotent-replayed" in answer.headers for answer in same) == 3
        counts = await row_counts(one.database)
        assert (counts["payments"], counts["payment_history"]) == (15, 15)
        assert counts["idempotency_keys"] == 15


async def test_an_order_paid_over_two_apis_at_once_is_paid_once(settings: Settings) -> None:
    async with two_apis(settings) as (one, two):
        method_id = await added(one.user())
        for n in range(10):
            body = order(method_id, order_id=f"o-{n}")
            answers = await asyncio.gather(
                one.user().post("/payments", json=body), two.user().post("/payments", json=body)
            )
            assert sorted(answer.status_code for answer in answers) == [202, 409]


async def test_batches_with_crossing_keys_and_orders_over_two_apis_all_end(settings: Settings) -> None:
    async with two_apis(settings) as (one, two):
        method_id = await added(one.user())
        requests = []
        for n in range(40):
            client = (one, two)[n % 2].user()
            body = order(method_id, order_id=f"o-{n * 7 % 10}")
            requests.append(client.post("/payments", json=body, headers={"Idempotency-Key": f"k-{n * 3 % 10}"}))
        answers = await asyncio.gather(*requests)
        assert {answer.status_code for answer in answers} <= {202, 409, 422}
        async with one.database.read() as connection:
            live = (await connection.execute(select(func.count()).select_from(payments))).scalar_one()
        assert 1 <= live <= 10
