"""Due rows: who takes them, who claims them and what a stale work item does, on both databases."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Table, text, update

from shared.database.engine import Database
from shared.database.leases import REPUBLISHED_AFTER_S, WorkItem, claim, give_back, lock, take_due
from shared.database.tables import deliveries, payments
from shared.ids import new_id
from shared.lifecycle import PaymentStatus
from shared.payments.payment import Payment
from tests.support.receivers import complete_payments
from tests.support.rows import accepted, claimed, read, write

NOW = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)
CLAIM = update(payments).values(status=PaymentStatus.PROCESSING)


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


async def take(database: Database, *, now: datetime = NOW, limit: int = 10, table: Table = payments) -> list[WorkItem]:
    async with database.transaction() as connection:
        return list(await take_due(connection, table, now=now, limit=limit))


async def claim_rows(database: Database, items: Sequence[WorkItem]) -> list[Any]:
    async with database.transaction() as connection:
        return list(await claim(connection, payments, items, CLAIM))


async def give(database: Database, items: Sequence[WorkItem], *, since: datetime = NOW) -> None:
    async with database.transaction() as connection:
        await give_back(connection, payments, dict.fromkeys(items, since), taken_at=NOW)


def due_in(seconds: float, **changes: Any) -> Payment:
    return accepted(NOW, due_at=after(seconds), **changes)


async def test_only_what_is_due_is_taken_and_a_row_is_due_from_its_very_moment(database: Database) -> None:
    past, present, future = await write(database, due_in(-1), due_in(0), due_in(0.001))
    ended = accepted(NOW, status=PaymentStatus.COMPLETED, due_at=None, due_reason=None)
    await write(database, ended)
    assert sorted(await take(database)) == sorted([past, present])
    assert await take(database, now=after(0.001)) == [future]


async def test_the_longest_due_come_first_and_never_more_than_the_limit(database: Database) -> None:
    items = await write(database, *(due_in(-seconds) for seconds in (1, 3, 2, 5, 4)))
    assert sorted(await take(database, limit=2)) == sorted([items[3], items[4]])
    assert sorted(await take(database, limit=2)) == sorted([items[1], items[2]])
    assert await take(database, limit=2) == [items[0]]
    assert await take(database, limit=2) == []


async def test_the_limit_holds_whatever_plan_postgresql_makes(database: Database) -> None:
    """A join that runs its inner side once per row is what the planner takes when it believes the table to be tiny."""
    if database.is_sqlite:
        return
    await write(database, *(due_in(-1) for _ in range(20)))
    async with database.transaction() as connection:
        for other in ("hashjoin", "mergejoin", "hashagg", "sort", "material", "memoize"):
            await connection.execute(text(f"SET LOCAL enable_{other} = off"))
        assert len(await take_due(connection, payments, now=NOW, limit=3)) == 3


async def test_a_taken_row_that_no_worker_claims_is_due_again_after_a_while(database: Database) -> None:
    [item] = await write(database, due_in(0))
    assert await take(database) == [item]
    assert await take(database, now=after(REPUBLISHED_AFTER_S - 0.001)) == []
    assert await take(database, now=after(REPUBLISHED_AFTER_S)) == [item]


async def test_taking_changes_when_a_row_is_due_and_nothing_else(database: Database) -> None:
    row = claimed(NOW, claims=2)
    await write(database, row)
    await take(database)
    taken = await read(database, row.id)
    assert taken.due_at == after(REPUBLISHED_AFTER_S)
    assert (taken.status, taken.lease_version, taken.sequence) == (row.status, row.lease_version, row.sequence)
    assert (taken.due_reason, taken.updated_at) == (row.due_reason, row.updated_at)


async def test_deliveries_are_taken_the_same_way(database: Database) -> None:
    async with database.transaction() as connection:
        items = await complete_payments(connection, 3, now=NOW, callback_url="https://shop.example/")
    assert sorted(await take(database, table=deliveries, now=after(5))) == sorted(items)
    assert await take(database, table=deliveries, now=after(5)) == []


async def test_relays_beside_each_other_take_different_rows(database: Database) -> None:
    items = await write(database, *(due_in(-number) for number in range(200)))
    rounds = await asyncio.gather(*(take(database, limit=20) for _ in range(16)))
    taken = [item for each in rounds for item in each]
    assert len(taken) == len(set(taken)), "a row was taken twice"
    # A row that another relay held may be left for the next round.
    while more := await take(database, limit=200):
        taken += more
    assert sorted(taken) == sorted(items)


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
async def test_a_relay_passes_over_rows_that_are_locked(database: Database) -> None:
    held, free = await write(database, due_in(-2), due_in(-1))
    async with database.transaction() as connection:
        assert list(await lock(connection, payments, [held])) == [held]
        assert await take(database) == [free]


async def test_what_could_not_be_published_is_due_at_once(database: Database) -> None:
    items = await write(database, due_in(0), due_in(0))
    await take(database)
    await give(database, items)
    assert sorted(await take(database)) == sorted(items)


async def test_giving_back_touches_nothing_that_moved_on(database: Database) -> None:
    lost, ended, held = claimed(NOW), claimed(NOW), claimed(NOW)
    items = await write(database, lost, ended, held)
    await take(database)
    # All were taken. Then one was claimed, one settled and one authorized, by a worker that still held its lease.
    async with database.transaction() as connection:
        await connection.execute(
            update(payments)
            .where(payments.c.id == held.id)
            .values(status=PaymentStatus.AUTHORIZED, due_at=after(3600), capture_before=after(3600))
        )
        await connection.execute(
            update(payments).where(payments.c.id == lost.id).values(lease_version=2, due_at=after(30), sequence=3)
        )
        await connection.execute(
            update(payments).where(payments.c.id == ended.id).values(status=PaymentStatus.COMPLETED, due_at=None)
        )
    await give(database, items)
    assert (await read(database, lost.id)).due_at == after(30)
    assert (await read(database, ended.id)).due_at is None
    assert (await read(database, held.id)).due_at == after(3600)
    await give(database, [])


async def test_of_several_claims_with_equal_work_items_exactly_one_gets_the_row(database: Database) -> None:
    row = due_in(0)
    [item] = await write(database, row)
    claims = await asyncio.gather(*(claim_rows(database, [item]) for _ in range(8)))
    assert sorted(len(each) for each in claims) == [0] * 7 + [1]
    assert (await read(database, row.id)).lease_version == 1


async def test_a_work_item_is_good_for_one_claim_and_only_with_the_latest_lease_version(database: Database) -> None:
    row = claimed(NOW, claims=3)
    [item] = await write(database, row)
    for lease_version in (0, 1, 2, 4):
        assert await claim_rows(database, [WorkItem(item.id, lease_version)]) == []
    assert [each["lease_version"] for each in await claim_rows(database, [item])] == [4]
    assert await claim_rows(database, [item]) == []


async def test_repeated_unknown_and_stale_work_items_in_one_batch_do_no_harm(database: Database) -> None:
    one, other = await write(database, due_in(0), due_in(0))
    batch = [one, WorkItem(new_id(), 0), one, WorkItem(other.id, 7), other, WorkItem(one.id, 1)]
    assert sorted(each["id"] for each in await claim_rows(database, batch)) == sorted([one.id, other.id])
    assert (await read(database, one.id)).lease_version == 1
    assert await claim_rows(database, []) == []


async def test_batches_that_overlap_in_any_order_neither_deadlock_nor_share_a_row(database: Database) -> None:
    items = await write(database, *(due_in(0) for _ in range(60)))
    orders = [items, items[::-1], items[30:] + items[:30], items[::2] + items[1::2]]
    claims = await asyncio.gather(*(claim_rows(database, order) for order in orders))
    won = [each["id"] for batch in claims for each in batch]
    assert sorted(won) == sorted(item.id for item in items)


async def test_a_lock_returns_the_columns_of_work_items_that_are_still_valid(database: Database) -> None:
    row = claimed(NOW, claims=2)
    [item] = await write(database, row)
    async with database.transaction() as connection:
        held = await lock(connection, payments, [item, WorkItem(row.id, 1), WorkItem(new_id(), 0)], payments.c.status)
        assert {held_item: each["status"] for held_item, each in held.items()} == {item: PaymentStatus.PROCESSING}
        assert await lock(connection, payments, []) == {}


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize("table", [payments, deliveries], ids=str)
async def test_finding_what_is_due_reads_an_index_and_not_the_table(database: Database, table: Table) -> None:
    async with database.read() as connection:
        found = await connection.execute(
            text(f"EXPLAIN QUERY PLAN SELECT id FROM {table} WHERE due_at <= '2026' ORDER BY due_at LIMIT 10")  # noqa: S608
        )
        plan = " ".join(row.detail for row in found)
    assert f"ix_{table}_due" in plan
    assert "SCAN" not in plan
    assert "B-TREE" not in plan  # nothing is sorted
