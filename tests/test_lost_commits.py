"""A commit whose answer is lost: clients learn that its outcome is unknown, and their repeats are answered truly."""

import asyncio

import pytest
from sqlalchemy import func, select

from shared.config.settings import Settings
from shared.database.engine import open_database
from shared.database.tables import idempotency_keys
from shared.runtime import Runtime
from tests.support.api_client import added, opened, order, problem
from tests.support.scripted_databases import Scripted
from tests.support.servers import PostgresServer
from tests.support.stored import row_counts

pytest_plugins = ["tests.support.api_fixtures"]


# -- an answer that a script loses


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
