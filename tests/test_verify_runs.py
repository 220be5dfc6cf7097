"""Verifications that are asked of the workers: one at a time, with progress, and with a word when nobody does them."""

from dataclasses import replace
from typing import Any

import orjson

from shared.broker.client import Broker
from shared.broker.verify_runs import (
    ALIVE_S,
    ASKED_KEY,
    CURRENT_KEY,
    LAST_KEY,
    NO_WORKER,
    TAKEN_KEY,
    VerifyStatus,
    ask_for_verify,
    find_verify,
    say_verify,
    take_verify,
)
from tests.support.api_client import opened_with, problem
from tests.support.verify_runs import asked, ended, forget, known

pytest_plugins = ["tests.support.api_fixtures"]
ONE = VerifyStatus


async def ttl(broker: Broker, key: str) -> int:
    """The seconds after which Redis forgets it."""
    [left_s] = await broker.round_trip(lambda pipe: pipe.ttl(key), timeout_s=1)
    return int(left_s)


async def test_nobody_has_asked(broker: Broker) -> None:
    assert await find_verify(broker) is None
    assert await take_verify(broker, "one") is None


async def test_there_is_one_at_a_time_and_one_worker_takes_it(broker: Broker) -> None:
    first, second = asked(), asked()
    assert await ask_for_verify(broker, first) == first
    assert await ask_for_verify(broker, second) == first
    taken = await take_verify(broker, "one")
    assert taken == replace(first, status=ONE.RUNNING, worker="one")
    assert await take_verify(broker, "two") is None
    assert await say_verify(broker, replace(taken, checked=3, total=9))
    assert await known(broker) == replace(taken, checked=3, total=9)
    assert await ask_for_verify(broker, second) == replace(taken, checked=3, total=9)
    assert await say_verify(broker, replace(taken, status=ONE.DONE, checked=9, total=9))
    assert (await known(broker)).status is ONE.DONE
    assert await take_verify(broker, "two") is None
    assert await ask_for_verify(broker, second) == second
    assert await known(broker) == second
    assert await take_verify(broker, "two") == replace(second, status=ONE.RUNNING, worker="two")


async def test_each_word_of_a_run_prolongs_its_life(broker: Broker) -> None:
    await ask_for_verify(broker, asked())
    taken = await take_verify(broker, "one")
    assert taken is not None
    await broker.round_trip(lambda pipe: pipe.expire(CURRENT_KEY, 1), timeout_s=1)
    await say_verify(broker, taken)
    assert ALIVE_S - 1 <= await ttl(broker, CURRENT_KEY) <= ALIVE_S


async def test_how_a_run_ended_and_who_took_it_is_known_for_two_hours(broker: Broker) -> None:
    run = await ended(broker)
    for key in (ASKED_KEY, LAST_KEY, f"{TAKEN_KEY}{run.id}"):
        assert 7190 <= await ttl(broker, key) <= 7200, key


async def test_a_run_that_was_asked_for_this_moment_waits(broker: Broker) -> None:
    done, new = asked(), asked()
    await ask_for_verify(broker, done)
    taken = await take_verify(broker, "one")
    assert taken is not None
    await say_verify(broker, replace(taken, status=ONE.DONE))
    await ask_for_verify(broker, new)
    # Who asks has not written it down as the last one yet.
    await forget(broker, ASKED_KEY)
    assert await known(broker) == new


async def test_a_run_that_nobody_speaks_of_any_more_has_failed(broker: Broker) -> None:
    run = asked()
    await ask_for_verify(broker, run)
    assert 0 < await ttl(broker, CURRENT_KEY) <= ALIVE_S
    await forget(broker, CURRENT_KEY)
    assert await known(broker) == replace(run, status=ONE.FAILED, failure=NO_WORKER)
    await ask_for_verify(broker, run)
    taken = await take_verify(broker, "one")
    assert taken is not None
    await say_verify(broker, taken)
    await forget(broker, CURRENT_KEY)
    lost = await known(broker)
    assert lost.status is ONE.FAILED
    assert "one is gone" in (lost.failure or "")


async def test_a_run_that_nobody_took_has_failed_although_the_one_before_it_was_done(broker: Broker) -> None:
    await ended(broker)
    run = asked()
    await ask_for_verify(broker, run)
    await forget(broker, CURRENT_KEY)
    assert await known(broker) == replace(run, status=ONE.FAILED, failure=NO_WORKER)


async def test_a_run_that_redis_forgot_goes_on_unless_another_was_asked_for(broker: Broker) -> None:
    await ask_for_verify(broker, asked())
    taken = await take_verify(broker, "one")
    assert taken is not None
    await forget(broker, CURRENT_KEY, LAST_KEY)
    assert await say_verify(broker, replace(taken, checked=1))
    assert await known(broker) == replace(taken, checked=1)
    await forget(broker, CURRENT_KEY)
    other = asked()
    await ask_for_verify(broker, other)
    assert not await say_verify(broker, replace(taken, status=ONE.DONE))
    assert await known(broker) == other


async def test_a_run_that_redis_forgot_is_not_taken_by_another_worker(broker: Broker) -> None:
    await ask_for_verify(broker, asked())
    taken = await take_verify(broker, "one")
    assert taken is not None
    await broker.round_trip(lambda pipe: pipe.flushdb(), timeout_s=1)
    assert await say_verify(broker, taken)
    assert await take_verify(broker, "two") is None
    assert 7190 <= await ttl(broker, f"{TAKEN_KEY}{taken.id}") <= 7200
    # A replica that has become the master may still have the run as it was asked for.
    waiting = orjson.dumps(replace(taken, status=ONE.WAITING, worker=None).to_json())
    await broker.round_trip(lambda pipe: pipe.set(CURRENT_KEY, waiting), timeout_s=1)
    assert await take_verify(broker, "two") is None


async def test_a_run_that_a_worker_does_is_not_taken_although_redis_forgot_who_took_it(broker: Broker) -> None:
    running = replace(asked(), status=ONE.RUNNING, worker="one")
    await broker.round_trip(lambda pipe: pipe.set(CURRENT_KEY, orjson.dumps(running.to_json())), timeout_s=1)
    assert await take_verify(broker, "two") is None


async def test_a_word_of_who_asked_that_comes_late_changes_nothing(broker: Broker) -> None:
    run = asked()
    await ask_for_verify(broker, run)
    taken = await take_verify(broker, "one")
    assert taken is not None
    done = replace(taken, status=ONE.DONE)
    await say_verify(broker, done)
    await broker.round_trip(lambda pipe: pipe.set(ASKED_KEY, orjson.dumps(run.to_json())), timeout_s=1)
    assert await known(broker) == done
    # Later still: another run has ended meanwhile.
    newer = await ended(broker)
    await broker.round_trip(lambda pipe: pipe.set(ASKED_KEY, orjson.dumps(run.to_json())), timeout_s=1)
    assert await known(broker) == newer


async def test_what_is_no_run_is_replaced_although_another_has_ended(broker: Broker) -> None:
    await ended(broker)
    await broker.round_trip(lambda pipe: pipe.set(CURRENT_KEY, b"x"), timeout_s=1)
    run = asked()
    assert await ask_for_verify(broker, run) == run
    # And if no worker takes it, it is no longer under way.
    assert 0 < await ttl(broker, CURRENT_KEY) <= ALIVE_S


async def test_without_redis_nobody_can_ask(make_settings: Any) -> None:
    async with opened_with(make_settings(redis_url="redis://127.0.0.1:1")) as running_api:
        problem(await running_api.admin().post("/verify/run"), 503, "unavailable")
        problem(await running_api.admin().get("/verify/run"), 503, "unavailable")
