"""Advancing the clock: schedules run in their order, in seconds, and nothing in real time is touched."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from time import monotonic, time
from typing import Any

import pytest
from sqlalchemy import select

from shared.broker.sleepers import Sleepers, say_sleepers
from shared.config.settings import Settings
from shared.database.tables import deliveries, delivery_attempts
from shared.runtime import Runtime, open_runtime
from shared.simulation.clock import lock_clock, write_clock
from shared.verify.scan import DELIVERIES, LEDGER, OPEN, RECORDS, Scan
from tests.support.api_client import RunningApi, accepted, added, opened, order
from tests.support.receivers import answering, receiver, waiting_for
from tests.support.waiting import eventually
from tests.support.workers import working

DAY_S = 24 * 3600
SCHEDULE = Settings.model_fields["webhook_retry_schedule"].default
ENDPOINT = {"name": "all", "event_types": ["payment.completed"]}


@pytest.fixture
async def runtime(make_settings: Any) -> AsyncIterator[Runtime]:
    """A runtime whose gateway always approves, in 2 s."""
    settings: Settings = make_settings(
        payment_success_rate=1,
        payment_processing_delay_min=2000,
        payment_processing_delay_max=2000,
        webhook_retry_schedule=SCHEDULE,
        rate_limit_user="100000/minute",
    )
    runtime = open_runtime(settings)
    yield runtime
    await runtime.close()


@pytest.fixture
async def running_api(runtime: Runtime) -> AsyncIterator[RunningApi]:
    async with opened(runtime) as running_api:
        yield running_api


async def advance(running_api: RunningApi, seconds: int) -> dict[str, Any]:
    answer = await running_api.admin().post("/simulation/clock/advance", json={"seconds": seconds})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def clock_now(running_api: RunningApi) -> datetime:
    answer = await running_api.user().get("/simulation/clock")
    return datetime.fromisoformat(answer.json()["now"])


async def advanced(running_api: RunningApi, seconds: int) -> dict[str, Any]:
    """Advance until it is over."""
    answer = await advance(running_api, seconds)
    while not answer["is_idle"]:
        answer = await advance(running_api, 0)
    return answer


async def assert_sound(running_api: RunningApi) -> None:
    scan = Scan(running_api.database)
    await scan.of_payments([*LEDGER, *RECORDS, *DELIVERIES, *OPEN])
    await scan.of_due(60)
    await scan.of_leases(30, 30)
    await scan.of_unclaimed(60)
    assert scan.found.is_sound, scan.found.shown


@pytest.mark.parametrize("ahead_s", [-10, 10, 10**9])
async def test_what_nobody_can_have_said_now_holds_up_no_advance(
    running_api: RunningApi, runtime: Runtime, ahead_s: int
) -> None:
    foreign = Sleepers(count=5, seen_at_s=time() + ahead_s, wakes_at_s=1.0, wakes_until_s=1.0)
    await say_sleepers(runtime.broker, "foreign", foreign)
    assert (await advance(running_api, 60))["is_idle"]


@pytest.mark.parametrize("count", [3, pytest.param(100, marks=pytest.mark.slow)])
async def test_all_attempts_of_exhausting_deliveries_are_made_in_their_order(
    running_api: RunningApi, runtime: Runtime, count: int
) -> None:
    attempts_max = len(SCHEDULE) + 1
    async with receiver(answering(500)) as server, working(runtime):
        registered = await running_api.admin().post("/webhook-endpoints", json={**ENDPOINT, "url": server.url})
        assert registered.status_code == 201, registered.text
        user = running_api.user()
        method_id = await added(user)
        for number in range(count):
            await accepted(user, order(method_id, order_id=str(number)))
        before = await clock_now(running_api)
        answer = await advanced(running_api, 4 * DAY_S)
        assert datetime.fromisoformat(answer["now"]) - before >= timedelta(days=4)
        # The first two attempts may have been made before.
        assert answer["became_due"] >= count * (attempts_max - 2)
        assert answer["ended"] == count
        async with running_api.database.read() as connection:
            rows = (await connection.execute(select(delivery_attempts))).all()
            ends = (await connection.execute(select(deliveries.c.status, deliveries.c.attempts_total))).all()
        assert Counter(ends) == {("exhausted", attempts_max): count}
        of_delivery: dict[Any, list[datetime]] = {}
        for row in sorted(rows, key=lambda row: row.number):
            of_delivery.setdefault(row.delivery_id, []).append(row.started_at)
        for moments in of_delivery.values():
            waits = [(after - before).total_seconds() for before, after in pairwise(moments)]
            for wait_s, scheduled_s in zip(waits, SCHEDULE, strict=True):
                # With the jitter, and what a delivery may be late.
                assert 0.8 * scheduled_s - 1 <= wait_s <= 1.25 * scheduled_s + 5
        assert len(server.requests) == count * attempts_max
        await assert_sound(running_api)


async def test_a_payment_in_the_gateway_is_woken_at_its_moment(running_api: RunningApi, runtime: Runtime) -> None:
    async with working(runtime):
        user = running_api.user()
        payment_id = (await accepted(user, order(await added(user))))["id"]
        answer = await advanced(running_api, 60)
        payment = (await user.get(f"/payments/{payment_id}")).json()
        assert payment["status"] == "COMPLETED"
        created, processed = (datetime.fromisoformat(payment[name]) for name in ("created_at", "processed_at"))
        assert timedelta(seconds=2) <= processed - created < timedelta(seconds=5)
        assert answer["is_idle"]


async def test_an_attempt_that_is_being_made_is_waited_for_and_keeps_its_lease(
    running_api: RunningApi, runtime: Runtime
) -> None:
    released = asyncio.Event()
    async with receiver(waiting_for(released)) as server, working(runtime):
        await running_api.admin().post("/webhook-endpoints", json={**ENDPOINT, "url": server.url})
        user = running_api.user()
        await accepted(user, order(await added(user)))
        before = await clock_now(running_api)
        advancing = asyncio.create_task(advanced(running_api, 4 * DAY_S))
        await eventually(lambda: server.requests)
        await asyncio.sleep(0.5)
        # It has not gone past the attempt, however long its lease would be in service time.
        assert await clock_now(running_api) - before < timedelta(minutes=1)
        assert not advancing.done()
        released.set()
        await advancing
        assert len(server.requests) == 1
        await assert_sound(running_api)


async def test_an_authorization_ends_and_what_it_holds_is_released(running_api: RunningApi, runtime: Runtime) -> None:
    async with working(runtime):
        user = running_api.user()
        method_id = await added(user)
        payment_id = (await accepted(user, order(method_id, capture_method="manual")))["id"]
        answer = await advanced(running_api, 7 * DAY_S + 60)
        payment = (await user.get(f"/payments/{payment_id}")).json()
        assert payment["status"] == "CANCELLED"
        history = (await user.get(f"/payments/{payment_id}/history")).json()["history"]
        moments = [datetime.fromisoformat(entry["created_at"]) for entry in history]
        assert moments == sorted(moments)
        assert timedelta(days=7) < moments[-1] - moments[0] < timedelta(days=7, seconds=30)
        assert answer["ended"] == 1
        await assert_sound(running_api)


async def test_another_process_goes_on_when_the_one_that_advances_is_killed(
    running_api: RunningApi, runtime: Runtime
) -> None:
    """What is left of it is a target, its name, and the moment until which it had the task."""
    database = running_api.database

    async def leave(*, until: timedelta) -> datetime:
        async with database.transaction() as connection:
            time, real_now = await lock_clock(connection)
            target = time.at(real_now) + timedelta(days=1)
            of_killed = {"advanced_by": "killed", "advanced_until": real_now + until}
            await write_clock(connection, replace(time, advances_to=target), **of_killed)
        return target

    target = await leave(until=timedelta(seconds=2))
    began = monotonic()
    # The next call finds it, too: it waits, and adds nothing.
    answer = await advanced(running_api, 0)
    assert monotonic() - began >= 2
    assert datetime.fromisoformat(answer["now"]) >= target.replace(microsecond=0)


async def test_the_next_advance_begins_its_counts_anew(running_api: RunningApi) -> None:
    assert (await advanced(running_api, 60))["became_due"] == 0
    answer = await advanced(running_api, 0)
    assert (answer["became_due"], answer["ended"]) == (0, 0)
