"""Many writers, one transaction: who shares it, who gets which answer, and what one that fails does to the others."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from api.main import create_app
from api.problem_handlers import as_problem
from api.problems import Code
from api.state import Api
from shared import metrics
from shared.config.settings import Settings
from shared.database.engine import Database, open_database
from shared.database.group_commit import GroupCommit
from shared.database.tables import idempotency_keys
from shared.errors import (
    CommitUnknown,
    DatabaseUnavailable,
    Overloaded,
    PaymentInProgress,
    StatementFailed,
    ValueRefused,
    WriteConflict,
)
from shared.ids import new_id
from shared.payments.find import Visible
from shared.payments.intent import Intent
from shared.runtime import Runtime
from tests.support.api_client import RunningApi, Scripted, added, opened, order, problem, row_counts
from tests.support.servers import PostgresServer
from tests.support.waiting import eventually

pytest_plugins = ["tests.support.api_fixtures"]


async def write(connection: AsyncConnection, now: datetime, members: Sequence[str]) -> list[str | PaymentInProgress]:
    """One row per member; `refused` is refused by us, `poison` by the database; `defect` and `wrong` are defects."""
    answers: list[str | PaymentInProgress] = []
    for member in members:
        if member == "refused":
            answers.append(PaymentInProgress(None))
            continue
        if member == "defect":
            raise KeyError(member)
        if member == "wrong":
            await connection.execute(text("SELEC 1"))
        key = None if member == "poison" else member
        row = {"scope": "s", "key": key, "fingerprint": "f", "object_id": new_id(), "created_at": now}
        await connection.execute(insert(idempotency_keys), row)
        answers.append(member.upper())
    return answers


async def written(database: Database) -> set[str]:
    async with database.read() as connection:
        return set((await connection.execute(select(idempotency_keys.c.key))).scalars())


def commit_of(database: Database, **options: Any) -> GroupCommit[str, str]:
    return GroupCommit(database, write, **({"batch_max": 100, "queue_max": 1000} | options))


def submitted(commit: GroupCommit[str, str], *members: str) -> list[asyncio.Task[str]]:
    """The members, all of them queued when this returns."""
    loop = asyncio.get_running_loop()
    return [asyncio.Task(commit.submit(member), loop=loop, eager_start=True) for member in members]


async def outcomes(tasks: Sequence[asyncio.Task[str]]) -> list[Any]:
    return await asyncio.gather(*tasks, return_exceptions=True)


# -- sharing


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


# -- failing


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


# -- accepting payments through it


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


@pytest.mark.parametrize(("word", "is_written"), [("lost", True), ("rolled_back", False)])
async def test_where_the_answer_to_commit_was_lost_the_repeat_with_the_same_key_is_answered_truly(
    runtime: Runtime, word: str, is_written: bool
) -> None:
    scripted = Scripted(runtime.database)
    async with opened(Runtime(runtime.settings, scripted, runtime.broker, runtime.keyring)) as running_api:
        user = running_api.user()
        body, key = order(await added(user)), {"Idempotency-Key": "k1"}
        scripted.script.append(word)
        answer = await user.post("/payments", json=body, headers=key)
        problem(answer, 503, "outcome_unknown")
        assert answer.headers["retry-after"] == "1"
        again = await user.post("/payments", json=body, headers=key)
        assert again.status_code == 202
        assert ("idempotent-replayed" in again.headers) == is_written
        assert (await row_counts(runtime.database))["payments"] == 1


async def test_other_operations_answer_a_lost_commit_and_a_conflict_the_same_way(runtime: Runtime) -> None:
    scripted = Scripted(runtime.database)
    async with opened(Runtime(runtime.settings, scripted, runtime.broker, runtime.keyring)) as running_api:
        key = {"Idempotency-Key": "k1"}
        body = {"type": "PAYPAL", "payment_details": {"email": "a@example.com"}}
        scripted.script.append("lost")
        problem(await running_api.user().post("/payment-methods", json=body, headers=key), 503, "outcome_unknown")
        again = await running_api.user().post("/payment-methods", json=body, headers=key)
        assert (again.status_code, again.headers["idempotent-replayed"]) == (201, "true")
        scripted.script += ["conflict", "ok"]  # tried a second time
        assert (await running_api.user(2).post("/payment-methods", json=body, headers=key)).status_code == 201
        scripted.script += ["conflict", "conflict"]
        problem(await running_api.user(3).post("/payment-methods", json=body, headers=key), 503, "unavailable")


# -- a COMMIT whose answer really is lost


class CuttingProxy:
    """Between us and PostgreSQL; once armed, it cuts the connection after a COMMIT and keeps the answer."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.is_armed = False

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._port)
        cut = asyncio.Event()

        async def upwards() -> None:
            while data := await reader.read(65_536):
                if self.is_armed and b"COMMIT" in data:
                    self.is_armed = False
                    cut.set()
                up_writer.write(data)

        async def downwards() -> None:
            while data := await up_reader.read(65_536):
                if cut.is_set():
                    break
                writer.write(data)

        pumps = [asyncio.create_task(upwards()), asyncio.create_task(downwards())]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        await asyncio.wait(pumps)
        writer.close()
        up_writer.close()


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
async def test_a_connection_cut_while_committing_is_outcome_unknown(
    runtime: Runtime, postgres: PostgresServer, settings: Settings, backend: str
) -> None:
    proxy = CuttingProxy(postgres.port)
    server = await asyncio.start_server(proxy.handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    url = settings.database_url.replace(f":{postgres.port}/", f":{port}/")
    database = open_database(settings.model_copy(update={"database_url": url}))
    async with server:
        async with opened(Runtime(settings, database, runtime.broker, runtime.keyring)) as running_api:
            user = running_api.user()
            body, key = order(await added(user)), {"Idempotency-Key": "k1"}
            proxy.is_armed = True
            problem(await user.post("/payments", json=body, headers=key), 503, "outcome_unknown")
            assert not proxy.is_armed
            again = await user.post("/payments", json=body, headers=key)
            assert (again.status_code, again.headers["idempotent-replayed"]) == (202, "true")
            async with runtime.database.read() as connection:
                assert (await connection.execute(select(func.count()).select_from(idempotency_keys))).scalar_one() == 1
        # Or the proxy would wait for its connections, also for one that a task of the API opened last.
        await database.dispose()
        server.close_clients()
