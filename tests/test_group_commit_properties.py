"""Group commits of two processes answer every member truly, whatever befalls them.

Members are refused, poison their batch, leave before their answer, meet transactions that fail in every way, and lock
rows against each other in any order: on PostgreSQL those are real deadlocks.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as settings_of
from hypothesis import strategies as st
from sqlalchemy import bindparam, delete, insert, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.config.settings import Settings
from shared.database.engine import Database, open_database
from shared.database.group_commit import GroupCommit
from shared.database.tables import idempotency_keys
from shared.errors import (
    CommitUnknown,
    DatabaseUnavailable,
    PaymentInProgress,
    PaymentsError,
    ValueRefused,
    WriteConflict,
)
from shared.ids import new_id
from tests.support.scripted_databases import Scripted

DEADLOCK = "40P01"
SHARED_ROWS = 3  # that members lock against each other
NOW = datetime(2026, 1, 1, tzinfo=UTC)
KINDS = ("fine", "fine", "fine", "refused", "poison", "leaves")
WORDS = ("ok", "ok", "ok", "conflict", "unavailable", "lost", "rolled_back")


@dataclass(frozen=True, slots=True)
class Member:
    """What one member writes: a row of its own, after those that others lock as well."""

    name: str
    kind: str
    locks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What one process is to commit, and what becomes of its first transactions."""

    members: tuple[tuple[str, tuple[int, ...]], ...]
    script: tuple[str, ...]
    batch_max: int


def plans() -> st.SearchStrategy[Plan]:
    locks = st.permutations(range(SHARED_ROWS)).map(lambda order: tuple(order[:2]))
    members = st.lists(st.tuples(st.sampled_from(KINDS), locks), min_size=1, max_size=8).map(tuple)
    scripts = st.lists(st.sampled_from(WORDS), max_size=6).map(tuple)
    return st.builds(Plan, members, scripts, st.integers(1, 6))


LOCK = update(idempotency_keys).where(idempotency_keys.c.key == bindparam("shared")).values(fingerprint="locked")


async def write(
    connection: AsyncConnection, _now: datetime, members: Sequence[Member]
) -> list[str | PaymentInProgress]:
    if connection.dialect.name == "postgresql":
        await connection.execute(text("SET LOCAL deadlock_timeout = '5ms'"))  # else each takes a second
    answers: list[str | PaymentInProgress] = []
    for member in members:
        if member.kind == "refused":
            answers.append(PaymentInProgress(None))
            continue
        for number in member.locks:
            await connection.execute(LOCK, {"shared": f"shared {number}"})
        await connection.execute(insert(idempotency_keys), _row(None if member.kind == "poison" else member.name))
        answers.append(member.name.upper())
    return answers


def _row(key: str | None) -> dict[str, Any]:
    return {"scope": "s", "key": key, "fingerprint": "f", "object_id": new_id(), "created_at": NOW}


class TwoProcesses:
    """The databases of two processes, in a loop of their own."""

    def __init__(self, settings: Settings) -> None:
        self._runner = asyncio.Runner()
        self._databases = [open_database(settings) for _ in range(2)]
        self.deadlocks = 0

    @property
    def is_sqlite(self) -> bool:
        """One writer at a time, and no deadlocks."""
        return self._databases[0].is_sqlite

    def examine(self, plans: Sequence[Plan]) -> set[str]:
        """Commit both plans and check every answer; return the keys that are in the table."""
        return self._runner.run(self._examine(plans))

    def close(self) -> None:
        self._runner.run(self._dispose())
        self._runner.close()

    async def _dispose(self) -> None:
        for database in self._databases:
            await database.dispose()

    async def _write(
        self, connection: AsyncConnection, now: datetime, members: Sequence[Member]
    ) -> list[str | PaymentInProgress]:
        try:
            return await write(connection, now, members)
        except DBAPIError as error:
            self.deadlocks += getattr(error.orig, "sqlstate", None) == DEADLOCK
            raise

    async def _examine(self, plans: Sequence[Plan]) -> set[str]:
        async with self._databases[0].transaction() as connection:
            await connection.execute(delete(idempotency_keys))
            await connection.execute(
                insert(idempotency_keys), [_row(f"shared {number}") for number in range(SHARED_ROWS)]
            )
        answered = await asyncio.gather(
            *(
                self._committed(database, plan, str(number))
                for number, (database, plan) in enumerate(zip(self._databases, plans, strict=True))
            )
        )
        async with self._databases[0].read() as connection:
            written = set((await connection.execute(select(idempotency_keys.c.key))).scalars())
        answers = {member: answer for part in answered for member, answer in part.items()}
        assert {name for name in written if not name.startswith("shared")} <= {member.name for member in answers}
        for member, answer in answers.items():
            assert_true(member, answer, is_written=member.name in written)
        return written

    async def _committed(self, database: Database, plan: Plan, process: str) -> dict[Member, object]:
        """Return every member with its answer; `run` ends, with no member waiting."""
        members = [Member(f"{process}.{n}", kind, locks) for n, (kind, locks) in enumerate(plan.members)]
        commit: GroupCommit[Member, str] = GroupCommit(
            Scripted(database, *plan.script), self._write, batch_max=plan.batch_max, queue_max=100
        )
        running, loop = asyncio.create_task(commit.run()), asyncio.get_running_loop()
        # All are queued when the last is made.
        tasks = {member: asyncio.Task(commit.submit(member), loop=loop, eager_start=True) for member in members}
        for member, task in tasks.items():
            if member.kind == "leaves":
                task.cancel()
        async with asyncio.timeout(30):
            answers = await asyncio.gather(*tasks.values(), return_exceptions=True)
            commit.close()
            await running
        return dict(zip(tasks, answers, strict=True))


def assert_true(member: Member, answer: object, *, is_written: bool) -> None:
    """The answer of a member is true; one that left got none, and may be written or not."""
    match answer:
        case str():
            assert (member.kind, is_written, answer) == ("fine", True, member.name.upper())
        case PaymentInProgress():
            assert (member.kind, is_written) == ("refused", False)
        case ValueRefused():
            assert (member.kind, is_written) == ("poison", False)
        case WriteConflict() | DatabaseUnavailable():
            assert not is_written
        case CommitUnknown():
            pass  # that is what it says
        case asyncio.CancelledError():
            assert member.kind == "leaves"
        case _:
            assert isinstance(answer, PaymentsError), f"{member} was answered {answer!r}"
            pytest.fail(f"{member} was answered {answer!r}")


@pytest.fixture
def two(settings: Settings) -> Iterator[TwoProcesses]:
    two = TwoProcesses(settings)
    yield two
    two.close()


def examine(two: TwoProcesses, *, examples: int, **options: Any) -> None:
    @settings_of(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck), **options
    )
    @given(st.tuples(plans(), plans()))
    def hold(both: tuple[Plan, Plan]) -> None:
        two.examine(both)

    hold()


def test_every_member_is_answered_truly(two: TwoProcesses) -> None:
    examine(two, examples=60, derandomize=True)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_member_is_answered_truly_however_long_one_looks(two: TwoProcesses) -> None:
    examine(two, examples=1000)


def test_members_that_left_are_written_all_the_same(two: TwoProcesses) -> None:
    leaving = Plan(members=(("leaves", (0, 1)), ("fine", (0, 1))), script=(), batch_max=2)
    assert two.examine((leaving, leaving)) >= {"0.0", "0.1", "1.0", "1.1"}


def test_members_that_deadlock_are_tried_again_together_and_then_alone(two: TwoProcesses) -> None:
    there, back = (
        Plan(members=tuple(("fine", locks) for _ in range(8)), script=(), batch_max=4) for locks in ((0, 1), (1, 0))
    )
    lost = 0
    for _ in range(20):
        lost += 2 * 8 + SHARED_ROWS - len(two.examine((there, back)))
    assert (two.deadlocks == 0) == two.is_sqlite  # they are real
    # A member that is given up has lost alone, twice.
    assert 2 * lost <= two.deadlocks
