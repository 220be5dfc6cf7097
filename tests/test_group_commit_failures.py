"""What a member or a transaction that fails does to the others that share it, and which answer each of them gets."""

import asyncio
from collections.abc import Sequence
from datetime import datetime

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from api.problem_handlers import as_problem
from api.problems import Code
from shared.database.engine import Database
from shared.database.group_commit import GroupCommit
from shared.errors import (
    CommitUnknown,
    DatabaseUnavailable,
    PaymentInProgress,
    StatementFailed,
    ValueRefused,
    WriteConflict,
)
from tests.support.group_commits import commit_of, outcomes, submitted, written
from tests.support.scripted_databases import Scripted


async def test_an_error_that_is_answered_is_its_members_own(database: Database) -> None:
    commit = commit_of(database)
    tasks = submitted(commit, "a", "refused", "b")
    await commit.run_once()
    first, refused, last = await outcomes(tasks)
    assert (first, last) == ("A", "B")
    assert isinstance(refused, PaymentInProgress)
    assert await written(database) == {"a", "b"}


async def test_what_the_database_refuses_fails_alone(database: Database) -> None:
    counting = Scripted(database)
    commit = commit_of(counting)
    tasks = submitted(commit, "a", "b", "poison", "c")
    assert await commit.run_once() == 4
    first, second, poisoned, last = await outcomes(tasks)
    assert (first, second, last) == ("A", "B", "C")
    assert isinstance(poisoned, ValueRefused)
    assert counting.transactions == 1 + 4  # together, then one by one
    assert await written(database) == {"a", "b", "c"}


async def test_a_statement_that_the_database_calls_wrong_fails_alone_and_is_no_fault_of_a_client(
    database: Database,
) -> None:
    commit = commit_of(database)
    tasks = submitted(commit, "a", "wrong", "b")
    await commit.run_once()
    first, wrong, last = await outcomes(tasks)
    assert (first, last) == ("A", "B")
    assert isinstance(wrong, StatementFailed)
    assert as_problem(wrong).code is Code.UNAVAILABLE
    assert await written(database) == {"a", "b"}


async def test_an_end_of_the_process_while_it_commits_leaves_the_outcome_unknown(database: Database) -> None:
    began = asyncio.Event()

    async def hangs(_connection: AsyncConnection, _now: datetime, _members: Sequence[str]) -> list[str]:
        began.set()
        await asyncio.Event().wait()
        return []

    commit = GroupCommit(database, hangs, batch_max=10, queue_max=10)
    running = asyncio.create_task(commit.run())
    tasks = submitted(commit, "a", "b")
    await began.wait()
    running.cancel()
    assert [type(outcome) for outcome in await outcomes(tasks)] == [CommitUnknown] * 2
    await asyncio.wait([running])


async def test_a_conflict_is_tried_again_once_then_one_by_one(database: Database) -> None:
    counting = Scripted(database, "conflict")
    commit = commit_of(counting)
    tasks = submitted(commit, "a", "b")
    await commit.run_once()
    assert await outcomes(tasks) == ["A", "B"]
    assert counting.transactions == 2

    counting = Scripted(database, "conflict", "conflict", "ok", "conflict", "conflict")
    commit = commit_of(counting)
    tasks = submitted(commit, "c", "d", "e")
    await commit.run_once()
    third, fourth, fifth = await outcomes(tasks)
    assert (third, fifth) == ("C", "E")
    assert isinstance(fourth, WriteConflict)
    assert counting.transactions == 6
    assert await written(database) == {"a", "b", "c", "e"}


@pytest.mark.parametrize(
    ("word", "error", "is_written"),
    [("unavailable", DatabaseUnavailable, False), ("lost", CommitUnknown, True), ("rolled_back", CommitUnknown, False)],
)
async def test_what_is_unknown_or_impossible_is_not_tried_again(
    database: Database, word: str, error: type[Exception], is_written: bool
) -> None:
    counting = Scripted(database, word)
    commit = commit_of(counting)
    tasks = submitted(commit, "a", "b")
    await commit.run_once()
    assert [type(outcome) for outcome in await outcomes(tasks)] == [error, error]
    assert counting.transactions == 1
    assert await written(database) == ({"a", "b"} if is_written else set())
    again = submitted(commit, "c")
    await commit.run_once()
    assert await outcomes(again) == ["C"]


async def test_a_defect_ends_the_task_and_leaves_no_member_waiting(database: Database) -> None:
    commit = commit_of(database)
    tasks = submitted(commit, "a", "defect")
    with pytest.raises(KeyError):
        await commit.run()
    assert [type(outcome) for outcome in await outcomes(tasks)] == [CommitUnknown] * 2
    assert await written(database) == set()
