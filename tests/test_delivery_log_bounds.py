"""The log of deliveries is bounded in bytes, whatever receivers answered and however often they were asked."""

import tracemalloc
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import insert, select, update

from shared.database.engine import Database
from shared.database.tables import URL_CHARS_MAX, deliveries, delivery_attempts
from shared.webhooks.attempts import RESPONSE_BYTES_MAX, cut_text
from shared.webhooks.delivery_log import ATTEMPTS_ON_PAGE_MAX, ATTEMPTS_SHOWN_MAX, BODIES_SHOWN_MAX
from tests.support.api_client import RunningApi, paid

pytest_plugins = ["tests.support.api_fixtures"]

# Bytes of the largest response with a page of the log, and of the memory that making one takes.
PAGE_BYTES_MAX = 2_000_000
MEMORY_BYTES_MAX = 40_000_000
# What 0.1.0 stored of 20,000 bytes that are no text: three bytes for each.
OLD_BODY = "\N{REPLACEMENT CHARACTER}" * 20_000


async def endpoint(service: httpx.AsyncClient) -> str:
    made = await service.post(
        "/webhook-endpoints",
        json={"name": "x", "url": "https://orders.example/hook", "event_types": ["payment.initiated"]},
    )
    return str(made.json()["id"])


async def attempted(database: Database, ids: list[UUID], attempts: int, body: str) -> None:
    """Let each delivery have so many attempts with this answer and the longest URL."""
    url = "https://orders.example/".ljust(URL_CHARS_MAX, "x")
    async with database.transaction() as connection:
        now = await database.clock.now(connection)
        for delivery_id in ids:
            rows = [
                {
                    "delivery_id": delivery_id,
                    "number": number,
                    "started_at": now,
                    "duration_ms": 1,
                    "status_code": 500,
                    "error": "e" * 255,
                    "response_body": body,
                    "url": url,
                }
                for number in range(1, attempts + 1)
            ]
            await connection.execute(insert(delivery_attempts), rows)
        await connection.execute(update(deliveries).where(deliveries.c.id.in_(ids)).values(attempts_total=attempts))


@pytest.mark.parametrize(
    "said",
    [
        b"\xff" * 25_000,
        "é".encode() * 15_000,
        b"a" + "€".encode() * 9_000,
        b"\0" * 25_000,
        b"plain" * 5_000,
        b"\xf0\x9f" * 20_000,
        b"",
    ],
)
def test_an_answer_is_cut_after_it_was_made_text(said: bytes) -> None:
    text = cut_text(said.decode("utf-8", "replace"))
    assert len(text.encode()) <= RESPONSE_BYTES_MAX
    whole = said.decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
    assert whole.startswith(text)
    assert len(text.encode()) > min(RESPONSE_BYTES_MAX, len(whole.encode())) - 4


async def test_one_page_of_a_log_with_huge_answers_takes_bounded_memory(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    """30 deliveries with 50 attempts of 60 KB each are 90 MB in the database."""
    endpoint_id = await endpoint(service)
    payments = [await paid(user) for _ in range(30)]
    async with running_api.database.read() as connection:
        ids = list((await connection.execute(select(deliveries.c.id))).scalars())
    assert len(ids) == len(payments)
    await attempted(running_api.database, ids, ATTEMPTS_SHOWN_MAX, OLD_BODY)
    found: list[str] = []
    cursor = None
    while True:
        params: dict[str, Any] = {"limit": 100} | ({"cursor": cursor} if cursor else {})
        tracemalloc.start()
        answer = await service.get(f"/webhook-endpoints/{endpoint_id}/deliveries", params=params)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        page = answer.json()
        assert len(answer.content) <= PAGE_BYTES_MAX
        assert peak <= MEMORY_BYTES_MAX
        assert sum(len(delivery["attempts"]) for delivery in page["deliveries"]) <= ATTEMPTS_ON_PAGE_MAX
        assert not any("response_body" in attempt for d in page["deliveries"] for attempt in d["attempts"])
        found += [delivery["id"] for delivery in page["deliveries"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == sorted(map(str, ids), reverse=True)


async def test_one_delivery_shows_its_latest_answers_and_no_more(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    await endpoint(service)
    await paid(user)
    async with running_api.database.read() as connection:
        ids = list((await connection.execute(select(deliveries.c.id))).scalars())
    await attempted(running_api.database, ids, ATTEMPTS_SHOWN_MAX + 5, OLD_BODY)
    answer = await service.get(f"/webhook-deliveries/{ids[0]}")
    attempts = answer.json()["attempts"]
    assert [attempt["number"] for attempt in attempts] == list(range(6, ATTEMPTS_SHOWN_MAX + 6))
    bodies = [attempt["response_body"] for attempt in attempts]
    assert bodies[:-BODIES_SHOWN_MAX] == [None] * (ATTEMPTS_SHOWN_MAX - BODIES_SHOWN_MAX)
    for body in bodies[-BODIES_SHOWN_MAX:]:
        assert 0 < len(body.encode()) <= RESPONSE_BYTES_MAX
    assert len(answer.content) <= PAGE_BYTES_MAX


async def test_the_deliveries_of_a_payment_are_paged_the_oldest_first(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    for _ in range(7):
        await endpoint(service)
    payment = await paid(user)
    path = f"/payments/{payment['id']}/deliveries"
    whole = (await user.get(path)).json()
    assert (len(whole["deliveries"]), whole["limit"], whole["next_cursor"]) == (7, 100, None)
    found: list[dict[str, Any]] = []
    cursor = None
    for size in (3, 3, 1):
        params: dict[str, Any] = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = (await user.get(path, params=params)).json()
        assert (page["payment_id"], len(page["deliveries"])) == (payment["id"], size)
        found += page["deliveries"]
        cursor = page["next_cursor"]
    assert cursor is None
    assert found == whole["deliveries"] == sorted(found, key=lambda delivery: delivery["id"])
    other = await paid(user)
    first = (await user.get(path, params={"limit": 1})).json()["next_cursor"]
    foreign = await user.get(f"/payments/{other['id']}/deliveries", params={"cursor": first})
    assert foreign.status_code == 422
