"""Correlation ids: accepted and answered, replaced where they are none, and kept with the payment."""

import httpx
import pytest

from shared.ids import new_id
from tests.support.api_client import RunningApi, added, order

pytest_plugins = ["tests.support.api_fixtures"]


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)  # no database is asked
@pytest.mark.parametrize("sent", ["x", "a" * 128, "!~", "01HZ-order:4711/7", "0199f0a2-7d7e-7c3a-9a51-0d4b1f2f6f00"])
async def test_a_correlation_id_is_accepted_and_answered(
    running_api: RunningApi, user: httpx.AsyncClient, sent: str
) -> None:
    for path in ("/payments", "/nothing", f"/payments/{new_id()}"):
        assert (await user.get(path, headers={"X-Correlation-ID": sent})).headers["x-correlation-id"] == sent
    answer = await running_api.client(base="").get("/health", headers={"X-Correlation-ID": sent})
    assert answer.headers["x-correlation-id"] == sent


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)  # no database is asked
@pytest.mark.parametrize("sent", ["", "a" * 129, "a b", "ü", "\x7f", "a\tb", "x" * 5000])
async def test_a_correlation_id_that_is_none_is_replaced(user: httpx.AsyncClient, sent: str) -> None:
    answer = await user.get("/payments", headers={b"X-Correlation-ID": sent.encode("latin-1")})
    made = answer.headers["x-correlation-id"]
    assert answer.status_code == 200
    assert made != sent
    assert len(made) == 36


async def test_every_request_has_a_correlation_id_of_its_own_that_goes_with_the_payment(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    made = {(await user.get("/payments")).headers["x-correlation-id"] for _ in range(3)}
    assert len(made) == 3
    answer = await user.post("/payments", json=order(await added(user)), headers={"X-Correlation-ID": "order-4711"})
    assert answer.headers["x-correlation-id"] == "order-4711"
    async with running_api.database.read() as connection:
        found = await connection.exec_driver_sql("SELECT correlation_id FROM payments")
        assert found.scalars().all() == ["order-4711"]
