"""A stop while the database hangs: every open request gets an answer that says what is not known."""

import asyncio
from pathlib import Path

import pytest

from shared.database.migrations import migrate
from shared.ids import new_id
from tests.support.processes import PaymentsProcess, Shop, processes
from tests.support.raw_http import connected
from tests.support.servers import PostgresServer
from tests.support.survival import MakeSettings, everything_ends, on_postgresql, opened

pytest_plugins = ["tests.support.survival_fixtures"]

COUNT = 20
WEBSOCKET_OFFER = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\nhello"
)


@pytest.mark.slow
@on_postgresql
async def test_requests_that_a_stop_leaves_unfinished_are_503_and_can_be_repeated(
    slow_gateway: MakeSettings, own_postgres: PostgresServer, tmp_path: Path, redis_url: str
) -> None:
    # The database may take longer than the process takes to stop.
    settings = slow_gateway(database_url=own_postgres.url_of("own"), database_timeout_s=30, payment_success_rate=1)
    await migrate(settings)
    api = PaymentsProcess("api", tmp_path / "api", settings)
    with processes(api):
        await api.ready()
        async with Shop(settings) as shop:
            await shop.add_card()
            own_postgres.pause()
            keys = [str(new_id()) for _ in range(COUNT)]
            paying = [asyncio.create_task(shop.pay(headers={"Idempotency-Key": key}, order_id=key)) for key in keys]
            reading = [asyncio.create_task(shop.http.get("/payments")) for _ in range(3)]
            await asyncio.sleep(1)
            async with connected(f"http://127.0.0.1:{settings.port}") as offering:
                # It stays open, and must not end the process with an error.
                await offering.send(WEBSOCKET_OFFER)
                await offering.responses(1)
                api.terminate()
                paid, read = await asyncio.gather(*paying), await asyncio.gather(*reading)
            own_postgres.resume()
            for answer in paid:
                assert (answer.status_code, answer.json()["code"]) == (503, "outcome_unknown")
            for answer in read:
                assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
            for answer in (*paid, *read):
                assert answer.headers["content-type"] == "application/problem+json"
                assert int(answer.headers["retry-after"]) >= 1
                assert answer.headers["x-correlation-id"]
            assert await api.ended() == 0
            assert api.errors == ""
            api.start()
            await api.ready()
            again = [await shop.pay(headers={"Idempotency-Key": key}, order_id=key) for key in keys]
            assert {answer.status_code for answer in again} <= {200, 202}
    worker = PaymentsProcess("worker", tmp_path / "worker", settings)
    with processes(worker):
        await worker.ready()
        async with opened(settings) as database:
            await everything_ends(database)
            assert len({answer.json()["id"] for answer in again}) == COUNT
