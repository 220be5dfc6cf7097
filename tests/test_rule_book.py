"""The rules as workers know them, on both databases: exact numbers, the same at every repeat, and known at once."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from time import monotonic

import pytest
from structlog.testing import capture_logs

from shared.config.settings import Settings
from shared.database.engine import Database, open_database
from shared.ids import new_id
from shared.simulation.calls import Call, CallOperation
from shared.simulation.matching import fired_by
from shared.simulation.rule_store import delete_rule, delete_rules
from shared.simulation.rule_uses import Claimant, Use, key_of, write_uses
from shared.simulation.rules import Effect, Fired, Match, Outage, Rule, Span
from tests.support.harness import SetClock
from tests.support.processing import UnreliableDatabase
from tests.support.rules import NOW, SEED, ago, call, rule, running_book, stored, used
from tests.support.waiting import eventually
from worker.gateway.protocol import OutcomeUnknown
from worker.gateway.rule_book import RuleBook

BOOKS = 8


async def fired_on(book: RuleBook, *calls: Call) -> list[Fired | None]:
    return await asyncio.gather(*(book.fired(each) for each in calls))


def names(fired: list[Fired | None]) -> Counter[str | None]:
    return Counter(each.name if each else None for each in fired)


async def test_without_a_rule_nothing_fires_and_nothing_is_asked(database: Database) -> None:
    unreliable = UnreliableDatabase(database)
    async with running_book(unreliable) as book:
        unreliable.is_away = True
        assert await book.fired(call()) is None


async def test_a_rule_without_times_fires_on_each_call_and_writes_nothing(database: Database) -> None:
    every = rule(Match(currency="USD"))
    await stored(database, every)
    async with running_book(database) as book:
        assert names(await fired_on(book, call(), call(), call(currency="EUR"))) == {"declines": 2, None: 1}
    assert await used(database, every.id) == (0, 0)


async def test_a_rule_fires_as_often_as_it_may_and_then_the_next_one(database: Database) -> None:
    older, twice = rule(name="older"), rule(name="twice", times=2)
    await stored(database, older, twice)
    async with running_book(database) as book:
        assert names(await fired_on(book, *(call() for _ in range(5)))) == {"twice": 2, "older": 3}
        assert names(await fired_on(book, call())) == {"older": 1}
    assert await used(database, twice.id) == (2, 2)


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
async def test_the_number_is_exact_with_eight_workers(database: Database, settings: Settings) -> None:
    first, second = rule(name="first", times=100), rule(name="second", times=57)
    await stored(database, second, first)
    async with AsyncExitStack() as stack:
        books = []
        for _ in range(BOOKS):
            own = open_database(settings.model_copy(update={"database_pool_size": 3}))
            stack.push_async_callback(own.dispose)
            # Small batches: many transactions want the same rule.
            books.append(await stack.enter_async_context(running_book(own, batch_max=5)))
        calls = [call() for _ in range(400)]
        per_book = [calls[number::BOOKS] for number in range(BOOKS)]
        per_worker = await asyncio.gather(*(fired_on(book, *own) for book, own in zip(books, per_book, strict=True)))
        fired = [each for of_worker in per_worker for each in of_worker]
        assert names(fired) == {"first": 100, "second": 57, None: 243}
        # The same calls again, after kills, by other workers: each does the same.
        again = [replace(each, may_be_repeated=True) for own in per_book for each in own]
        rotated = again[50:] + again[:50]
        results = await asyncio.gather(*(books[n % BOOKS].fired(each) for n, each in enumerate(rotated)))
        assert results == [*fired[50:], *fired[:50]]
    assert await used(database, first.id) == (100, 100)
    assert await used(database, second.id) == (57, 57)


async def test_one_call_is_one_use_however_many_workers_make_it_at_once(database: Database) -> None:
    """As when a worker is taken for dead, and is not."""
    once = rule(times=10)
    await stored(database, once)
    async with AsyncExitStack() as stack:
        books = [await stack.enter_async_context(running_book(database)) for _ in range(3)]
        same = call(may_be_repeated=True)
        fired = await asyncio.gather(*(book.fired(same) for book in books for _ in range(2)))
    assert names(fired) == {"declines": 6}
    assert await used(database, once.id) == (1, 1)


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
async def test_one_call_is_one_use_also_where_two_workers_know_different_rules(database: Database) -> None:
    known, unknown = rule(name="known", times=5), rule(name="unknown", times=5)
    await stored(database, known, unknown)
    same = call()
    claimants = [Claimant(key_of(same), (fired_by(each, same, seed=SEED),), None) for each in (known, unknown)]

    async def second() -> Sequence[Use]:
        async with database.transaction() as connection:
            return await write_uses(connection, NOW, claimants[1:])

    async with database.transaction() as connection:
        [first] = await write_uses(connection, NOW, claimants[:1])
        # It waits for the end of this transaction.
        other = asyncio.create_task(second())
        await asyncio.wait([other], timeout=0.3)
        assert not other.done()
    assert first.fired is not None
    assert [use.fired for use in await other] == [first.fired]
    assert (await used(database, known.id), await used(database, unknown.id)) == ((1, 1), (0, 0))


async def test_a_repeated_call_does_the_same_though_its_rule_is_gone(database: Database) -> None:
    """The worker was killed between the use and the ledger."""
    once = rule(effect=Effect(outcomes=("timeout_charged",), delay_ms=Span(min=0, max=1000)), times=1)
    await stored(database, once)
    first = call()
    async with running_book(database) as killed:
        fired = await killed.fired(first)
        assert fired is not None
    async with database.transaction() as connection:
        assert await delete_rules(connection, now=NOW) == 1
    async with running_book(database) as book:
        assert await book.fired(replace(first, may_be_repeated=True)) == fired
        # Another call, and another operation of the same payment, are no repeats.
        assert await book.fired(replace(first, may_be_repeated=True, number=2)) is None
        of_capture = replace(first, may_be_repeated=True, operation=CallOperation.CAPTURE, operation_number=5)
        assert await book.fired(of_capture) is None
        assert await book.fired(replace(first, may_be_repeated=True, refund_id=new_id())) is None


def drawing_rules() -> list[Rule]:
    """Rules with new ids, as in another run, that draw all that can be drawn."""
    return [
        rule(Match(percent=30), Effect(outage=Outage.TIMEOUT), name="lost"),
        rule(Match(percent=50), Effect(outcomes=("approve",), delay_ms=Span(min=0, max=500)), name="slow"),
    ]


async def test_with_one_seed_the_same_calls_are_hit_in_the_same_way_with_one_worker_and_with_eight(
    database: Database,
) -> None:
    calls = [call(seed_key=f"1 order {number} 0") for number in range(200)]
    await stored(database, *drawing_rules())
    async with running_book(database) as book:
        with_one = await fired_on(book, *calls)
    async with database.transaction() as connection:
        await delete_rules(connection, now=NOW)
    await stored(database, *drawing_rules())
    async with AsyncExitStack() as stack:
        books = [await stack.enter_async_context(running_book(database)) for _ in range(BOOKS)]
        numbered = reversed(list(enumerate(calls)))
        with_eight = {number: await books[number % BOOKS].fired(each) for number, each in numbered}
    assert [without_id(with_eight[number]) for number in range(200)] == [without_id(each) for each in with_one]
    assert set(names(with_one)) == {"lost", "slow", None}


def without_id(fired: Fired | None) -> object:
    return fired and fired.to_json()


# -- what workers know


async def test_a_change_is_known_within_a_second(database: Database) -> None:
    async with running_book(database) as book:
        await stored(database, added := rule())

        async def fires() -> bool:
            return await book.fired(call()) is not None

        began_at = monotonic()
        await eventually(fires, 1)
        async with database.transaction() as connection:
            await delete_rule(connection, added.id, now=NOW)

        async def is_over() -> bool:
            return await book.fired(call()) is None

        await eventually(is_over, 1)
        assert monotonic() - began_at < 2


async def test_a_worker_that_starts_during_an_outage_knows_of_it_at_its_first_call(database: Database) -> None:
    await stored(database, rule(effect=Effect(outage=Outage.UNAVAILABLE), expires_at=ago(hours=-1)))
    book = RuleBook(database, seed="", batch_max=1, queue_max=1)
    fired = await book.fired(call())
    assert fired is not None
    assert fired.outcomes == ("network_error",)


async def test_rules_are_read_only_when_they_have_changed(database: Database) -> None:
    await stored(database, rule())
    book = RuleBook(database, seed="", batch_max=1, queue_max=1)
    with capture_logs() as logs:
        for _ in range(3):
            await book.refresh()
        await stored(database, rule())
        await book.refresh()
    assert [line["rules"] for line in logs if line["event"] == "rules.read"] == [1, 2]


async def test_a_rule_ends_with_its_time_also_while_the_database_is_away(database: Database) -> None:
    clock, unreliable = SetClock(), UnreliableDatabase(database)
    unreliable.clock, clock.moment = clock, NOW
    await stored(database, rule(expires_at=ago(minutes=-5)))
    book = RuleBook(unreliable, seed="", batch_max=1, queue_max=1)
    await book.refresh()
    unreliable.is_away = True
    clock.moment += timedelta(minutes=4)
    assert await book.fired(call()) is not None
    clock.moment += timedelta(minutes=2)
    assert await book.fired(call()) is None


async def test_while_the_rules_cannot_be_read_those_that_are_known_hold(database: Database) -> None:
    await stored(database, rule())
    unreliable = UnreliableDatabase(database)
    async with running_book(unreliable) as book:
        unreliable.is_away = True
        with capture_logs() as logs:
            await eventually(lambda: any(line["event"] == "rules.not_read" for line in logs), 2)
        assert await book.fired(call()) is not None


async def test_while_a_use_cannot_be_written_the_outcome_is_unknown(database: Database) -> None:
    once = rule(times=1)
    await stored(database, once)
    unreliable = UnreliableDatabase(database)
    async with running_book(unreliable) as book:
        unreliable.is_away = True
        for asked in (call(), call(may_be_repeated=True)):
            with pytest.raises(OutcomeUnknown):
                await book.fired(asked)
    with pytest.raises(OutcomeUnknown):
        await RuleBook(unreliable, seed="", batch_max=1, queue_max=1).fired(call())
    assert await used(database, once.id) == (0, 0)


async def test_a_rule_that_was_deleted_a_moment_ago_does_not_fire_on_a_counted_call(database: Database) -> None:
    once = rule(times=1)
    await stored(database, once)
    async with running_book(database) as book:
        async with database.transaction() as connection:
            await delete_rule(connection, once.id, now=NOW)
        assert await book.fired(call()) is None
