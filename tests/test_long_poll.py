"""Long polls: `Prefer: wait=N` over HTTP and the waiters behind it, with Redis and without."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import UUID

import httpx
import pytest
from redis.asyncio import Redis

from api.long_poll import POLL_INTERVAL_S, LongPolls
from shared.broker.client import SETTLED_CHANNEL, Broker, open_broker
from shared.config.settings import Settings
from shared.database.engine import Database
from shared.errors import DatabaseUnavailable
from shared.payments.find import find_many
from shared.runtime import Runtime
from tests.support.api_client import (
    APPROVED,
    DECLINED,
    RunningApi,
    Scripted,
    accepted,
    added,
    claimed,
    opened,
    order,
    paid,
    served,
    settled,
    working,
)
from tests.support.servers import ValkeyServer, free_port
from tests.support.waiting import eventually

pytest_plugins = ["tests.support.api_fixtures"]

WAIT = {"Prefer": "wait=20"}  # far longer than any test takes


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


# -- over HTTP


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


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)  # no database is asked
@pytest.mark.parametrize(
    ("prefer", "applied"),
    [
        ("wait=7", "wait=7"),
        ("wait=100", "wait=25"),
        ("wait=999999999", "wait=25"),
        ("WAIT = 3", "wait=3"),
        ('wait="3"', "wait=3"),
        ("respond-async, wait=10", "wait=10"),
        ("wait=3; x=y", "wait=3"),
        ("wait=2, wait=9", "wait=2"),
        ('foo="a", wait=2', "wait=2"),
        ("respond-async; wait=10", None),
        ("return=minimal; wait=1", None),
        ('foo="a, wait=1"', None),
        ('foo="\\", wait=1, "', None),
        ("handling=lenient,wait=4,x", "wait=4"),
        ("", None),
        ("wait=0", None),
        ("wait=00, wait=9", None),
        ("wait", None),
        ("wait=", None),
        ("wait=x", None),
        ("wait=-5", None),
        ("wait=1.5", None),
        ("wait=1e3", None),
        ("wait=9999999999", None),
        ("await=5", None),
        ("wait=5s", None),
        ("respond-async", None),
    ],
)
async def test_a_wish_is_for_25_seconds_at_most_and_nonsense_ignored(
    running_api: RunningApi, user: httpx.AsyncClient, prefer: str, applied: str | None
) -> None:
    payment = await paid(user)
    await settled(running_api.database, payment["id"], APPROVED)
    answer = await user.get(f"/payments/{payment['id']}", headers={"Prefer": prefer})
    assert answer.status_code == 200
    assert answer.headers.get("preference-applied") == applied


async def test_nonsense_makes_no_request_wait(user: httpx.AsyncClient) -> None:
    payment = await paid(user)
    for prefer in ("wait=x", "wait=-1", "wait=0", "respond-async"):
        answer = await user.get(f"/payments/{payment['id']}", headers={"Prefer": prefer})
        assert (answer.status_code, answer.json()) == (200, payment)
        assert "preference-applied" not in answer.headers


async def test_a_payment_that_has_ended_makes_no_request_wait(running_api: RunningApi, user: httpx.AsyncClient) -> None:
    body, key = order(await added(user)), {"Idempotency-Key": "k1"}
    payment = (await user.post("/payments", json=body, headers=key)).json()
    await settled(running_api.database, payment["id"], APPROVED)
    got = await user.get(f"/payments/{payment['id']}", headers=WAIT)
    replayed = await user.post("/payments", json=body, headers=key | WAIT)
    assert (got.status_code, replayed.status_code) == (200, 202)
    assert got.json() == replayed.json()
    assert got.headers["preference-applied"] == replayed.headers["preference-applied"] == "wait=20"


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


async def test_what_is_refused_is_refused_at_once(user: httpx.AsyncClient) -> None:
    method_id = await added(user)
    await accepted(user, order(method_id, order_id="o1"))
    for body in (order(method_id, order_id="o1"), order("x"), order(method_id, amount=1)):
        assert (await user.post("/payments", json=body, headers=WAIT)).status_code in {409, 422}
    assert (await user.get("/payments/x", headers=WAIT)).status_code == 404


async def test_nobody_waits_for_a_payment_that_is_not_theirs(running_api: RunningApi, user: httpx.AsyncClient) -> None:
    payment = await paid(user)
    assert (await running_api.user(2).get(f"/payments/{payment['id']}", headers=WAIT)).status_code == 404


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


# -- the waiters


@asynccontextmanager
async def running_polls(database: Database, broker: Broker, *, capacity: int = 100) -> AsyncIterator[LongPolls]:
    long_polls = LongPolls(database, broker, capacity=capacity)
    running = asyncio.create_task(long_polls.run())
    try:
        yield long_polls
    finally:
        running.cancel()
        await asyncio.wait([running])
        if not running.cancelled():
            running.result()


async def subscribed(redis_url: str) -> None:
    """Return as soon as there is a subscription to settled payments."""
    client = Redis.from_url(redis_url)

    async def subscriptions() -> int:
        [(_channel, count)] = await client.pubsub_numsub(SETTLED_CHANNEL)
        return int(count)

    _: int = await eventually(subscriptions)
    await client.aclose()


async def test_a_message_ends_a_wait_sooner_than_the_next_look(runtime: Runtime, running_api: RunningApi) -> None:
    user = running_api.user()
    rounds, elapsed_s = 6, 0.0
    async with running_polls(runtime.database, runtime.broker) as long_polls:
        await subscribed(running_api.settings.redis_url or "")
        for _ in range(rounds):
            payment = await paid(user)
            async with long_polls.subscribe(UUID(payment["id"]), find_many) as waiter:
                assert waiter is not None
                await settled(runtime.database, payment["id"], APPROVED)
                began = monotonic()
                assert await runtime.broker.notify_settled([UUID(payment["id"])])
                ended = await asyncio.wait_for(waiter, 10)
                elapsed_s += monotonic() - began
            assert ended is not None
            assert ended.status == "COMPLETED"
    assert (
        elapsed_s < (rounds - 1) * POLL_INTERVAL_S * 0.8
    )  # looks alone would take a second for each round but the first


async def test_without_redis_a_look_a_second_finds_what_has_ended(runtime: Runtime, running_api: RunningApi) -> None:
    nowhere = open_broker(f"redis://127.0.0.1:{free_port()}/0")
    payment = await paid(running_api.user())
    async with (
        running_polls(runtime.database, nowhere) as long_polls,
        long_polls.subscribe(UUID(payment["id"]), find_many) as waiter,
    ):
        assert waiter is not None
        await settled(runtime.database, payment["id"], DECLINED)
        ended = await asyncio.wait_for(waiter, POLL_INTERVAL_S + 5)
        assert ended is not None
        assert ended.status == "FAILED"
    await nowhere.close()


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_long_polls_survive_redis_and_subscribe_again(
    runtime: Runtime, running_api: RunningApi, tmp_path: Path
) -> None:
    user = running_api.user()
    with ValkeyServer(tmp_path / "valkey") as valkey:
        broker = open_broker(valkey.url)
        async with running_polls(runtime.database, broker) as long_polls:
            await subscribed(valkey.url)
            valkey.kill()
            payment = await paid(user)
            async with long_polls.subscribe(UUID(payment["id"]), find_many) as waiter:
                await settled(runtime.database, payment["id"], APPROVED)
                assert waiter is not None
                assert await asyncio.wait_for(waiter, 10) is not None
            valkey.start()
            await subscribed(valkey.url)
        await broker.close()


async def test_strange_messages_on_the_channel_are_ignored(
    runtime: Runtime, running_api: RunningApi, redis_url: str
) -> None:
    payment = await paid(running_api.user())
    async with (
        Redis.from_url(redis_url) as stranger,
        running_polls(runtime.database, runtime.broker) as long_polls,
        long_polls.subscribe(UUID(payment["id"]), find_many) as waiter,
    ):
        await subscribed(redis_url)
        for message in (b"", b"x", b"\xff", b"1", b"null", b"{}", b'["x"]', b"[1, null]", b'{"a": 1}', b"[[]]"):
            await stranger.publish(SETTLED_CHANNEL, message)
        await settled(runtime.database, payment["id"], APPROVED)
        await runtime.broker.notify_settled([UUID(payment["id"])])
        assert waiter is not None
        assert await asyncio.wait_for(waiter, 10) is not None


async def test_one_query_serves_all_whose_payments_settled_together(runtime: Runtime, running_api: RunningApi) -> None:
    user = running_api.user()
    method_id = await added(user)
    ids = [UUID((await accepted(user, order(method_id)))["id"]) for _ in range(10)]
    for payment_id in ids:
        await settled(runtime.database, str(payment_id), APPROVED)
    counting = Scripted(runtime.database)
    async with AsyncExitStack() as stack:
        long_polls = await stack.enter_async_context(running_polls(counting, runtime.broker))
        await subscribed(running_api.settings.redis_url or "")
        all_waiters = [
            await stack.enter_async_context(long_polls.subscribe(payment_id, find_many))
            for payment_id in ids
            for _ in range(5)
        ]
        await runtime.broker.notify_settled(ids)
        ended = await asyncio.gather(*(waiter for waiter in all_waiters if waiter))
        assert len(ended) == 50
        assert counting.reads <= 2  # a look of the second may have come between


async def test_a_payment_that_has_not_ended_ends_no_wait(runtime: Runtime, running_api: RunningApi) -> None:
    payment = await paid(running_api.user())
    counting = Scripted(runtime.database)
    async with (
        running_polls(counting, runtime.broker) as long_polls,
        long_polls.subscribe(UUID(payment["id"]), find_many) as waiter,
    ):
        await subscribed(running_api.settings.redis_url or "")
        await claimed(runtime.database, payment["id"])
        await runtime.broker.notify_settled([UUID(payment["id"])])
        await eventually(lambda: counting.reads)
        assert waiter is not None
        assert not waiter.done()


async def test_there_is_capacity_again_when_a_waiter_leaves(runtime: Runtime, running_api: RunningApi) -> None:
    payment_id = UUID((await paid(running_api.user()))["id"])
    long_polls = LongPolls(runtime.database, runtime.broker, capacity=1)
    async with long_polls.subscribe(payment_id, find_many) as first:
        assert first is not None
        async with long_polls.subscribe(payment_id, find_many) as second:
            assert second is None
    async with long_polls.subscribe(payment_id, find_many) as third:
        assert third is not None
    # A payment whose last waiter has left would be read every second, for ever, and nothing else would show it.
    assert long_polls._subscriptions == {}


class Failing(Scripted):
    """Cannot be read for a while."""

    is_failing = True

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Any]:
        if self.is_failing:
            self.reads += 1
            raise DatabaseUnavailable("away")
        async with super().read() as connection:
            yield connection


async def test_long_polls_outlive_a_database_that_is_away(runtime: Runtime, running_api: RunningApi) -> None:
    payment = await paid(running_api.user())
    await settled(runtime.database, payment["id"], APPROVED)
    failing = Failing(runtime.database)
    async with (
        running_polls(failing, runtime.broker) as long_polls,
        long_polls.subscribe(UUID(payment["id"]), find_many) as waiter,
    ):
        await eventually(lambda: failing.reads)
        failing.is_failing = False
        assert waiter is not None
        assert await asyncio.wait_for(waiter, 10) is not None


async def test_at_shutdown_every_wait_ends_and_none_begins(runtime: Runtime) -> None:
    long_polls = LongPolls(runtime.database, runtime.broker, capacity=10)
    payment_id = UUID("0199f0a2-7d7e-7c3a-9a51-0d4b1f2f6f00")
    async with long_polls.subscribe(payment_id, find_many) as waiter:
        assert waiter is not None
        long_polls.cancel_all()
        assert await waiter is None
        async with long_polls.subscribe(payment_id, find_many) as late:
            assert late is None
