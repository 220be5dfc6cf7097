"""Many writers, one transaction: who shares it, who waits for whom, and who is refused."""

import asyncio
from collections.abc import Sequence
from datetime import datetime

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.engine import Database
from shared.database.group_commit import GroupCommit
from shared.errors import Overloaded
from tests.support.group_commits import commit_of, outcomes, submitted, written
from tests.support.scripted_databases import Scripted


async def test_members_that_wait_together_share_one_transaction(database: Database) -> None:
    counting = Scripted(database)
    commit = commit_of(counting)
    names = [f"m{n}" for n in range(100)]
    tasks = submitted(commit, *names)
    assert await commit.run_once() == 100
    assert await outcomes(tasks) == [name.upper() for name in names]
    assert counting.transactions == 1
    assert await written(database) == set(names)


async def test_in_a_stream_members_gather_while_a_commit_lingers(database: Database) -> None:
    """A stream makes few large commits."""
    counting = Scripted(database)
    # That is, it lingers as long as it may.
    commit = commit_of(counting, linger_factor=1e9)
    running = asyncio.create_task(commit.run())
    for name in ("one", "two"):
        await outcomes(submitted(commit, f"{name} a", f"{name} b"))
    tasks = submitted(commit, "early")
    await asyncio.sleep(0)
    tasks += submitted(commit, *(f"late {n}" for n in range(20)))
    assert await outcomes(tasks) == ["EARLY", *(f"LATE {n}" for n in range(20))]
    assert counting.transactions == 3
    commit.close()
    await running


async def test_while_members_come_alone_none_waits_for_another(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that one who waited would wait for an hour.
    monkeypatch.setattr("shared.database.group_commit.LINGER_MAX_S", 3600)
    commit = commit_of(Scripted(database), linger_factor=1e9)
    running = asyncio.create_task(commit.run())
    # Two came together by chance.
    await outcomes(submitted(commit, "one", "two"))
    async with asyncio.timeout(60):
        for number in range(10):
            await commit.submit(f"alone {number}")
    commit.close()
    await running


async def test_what_arrives_while_a_commit_runs_shares_the_next_one(database: Database) -> None:
    entered, released = asyncio.Event(), asyncio.Event()

    async def slowly(connection: AsyncConnection, now: datetime, members: Sequence[str]) -> list[str]:
        entered.set()
        await released.wait()
        return [str(len(members))] * len(members)

    counting = Scripted(database)
    commit = GroupCommit(counting, slowly, batch_max=100, queue_max=100)
    running = asyncio.create_task(commit.run())
    first = asyncio.create_task(commit.submit("first"))
    await entered.wait()
    others = submitted(commit, *(f"m{n}" for n in range(30)))
    released.set()
    assert await first == "1"
    assert set(await outcomes(others)) == {"30"}
    assert counting.transactions == 2
    commit.close()
    await running


async def test_a_member_alone_waits_for_no_other(database: Database) -> None:
    commit = commit_of(database)
    running = asyncio.create_task(commit.run())
    assert await asyncio.wait_for(commit.submit("alone"), 10) == "ALONE"
    commit.close()
    await running


async def test_a_batch_has_a_limit(database: Database) -> None:
    counting = Scripted(database)
    commit = commit_of(counting, batch_max=40)
    tasks = submitted(commit, *(f"m{n}" for n in range(100)))
    assert [await commit.run_once() for _ in range(3)] == [40, 40, 20]
    assert counting.transactions == 3
    assert all(isinstance(outcome, str) for outcome in await outcomes(tasks))


async def test_a_full_queue_refuses_at_once_and_loses_no_member(database: Database) -> None:
    commit = commit_of(database, queue_max=3)
    tasks = submitted(commit, "a", "b", "c")
    with pytest.raises(Overloaded):
        await commit.submit("d")
    await commit.run_once()
    assert await outcomes(tasks) == ["A", "B", "C"]
    assert await written(database) == {"a", "b", "c"}


async def test_after_the_close_what_is_queued_is_written_and_nothing_more_taken(database: Database) -> None:
    commit = commit_of(database, batch_max=2)
    tasks = submitted(commit, "a", "b", "c")
    commit.close()
    with pytest.raises(Overloaded):
        await commit.submit("late")
    await commit.run()
    assert await outcomes(tasks) == ["A", "B", "C"]
    assert await written(database) == {"a", "b", "c"}


async def test_a_caller_that_leaves_does_not_withdraw_its_member(database: Database) -> None:
    commit = commit_of(database)
    stays, leaves, refused = submitted(commit, "stays", "leaves", "refused")
    leaves.cancel()
    refused.cancel()
    await commit.run_once()
    assert await stays == "STAYS"
    assert leaves.cancelled()
    assert await written(database) == {"stays", "leaves"}


async def test_only_what_is_committed_is_passed_on(database: Database) -> None:
    passed_on: list[list[str]] = []
    commit = commit_of(
        Scripted(database, "lost", "unavailable", "ok"), committed=lambda results: passed_on.append(list(results))
    )
    for members in (["a"], ["b"], ["c", "refused", "d"]):
        tasks = submitted(commit, *members)
        await commit.run_once()
        await outcomes(tasks)
    assert passed_on == [["C", "D"]]
