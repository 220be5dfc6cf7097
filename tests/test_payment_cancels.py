"""Payments that are cancelled over HTTP while they are pending: once and for all, or not at all."""

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

import httpx
from sqlalchemy import select

from shared.database.tables import events, payments
from shared.payments.requests import cancel
from tests.support.api_client import RunningApi, accepted, added, order, paid, problem
from tests.support.settling import APPROVED, DECLINED, claimed, settled

pytest_plugins = ["tests.support.api_fixtures"]


async def test_a_pending_payment_can_be_cancelled_once_and_for_all(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    payment = await paid(user, callback_url="https://me.example/cb")
    path = f"/payments/{payment['id']}"
    answer = await user.post(f"{path}/cancel")
    cancelled = answer.json()
    assert (answer.status_code, cancelled["status"], cancelled["sequence"]) == (200, "CANCELLED", 2)
    assert answer.headers["etag"] == '"2"'
    assert cancelled["processed_at"] is None
    again = await user.post(f"{path}/cancel")
    assert (again.status_code, again.json()) == (200, cancelled)
    history = (await user.get(f"{path}/history")).json()["history"]
    assert [(move["new_status"], move["reason"], move["created_by"]) for move in history] == [
        ("PENDING", "accepted", "user:1"),
        ("CANCELLED", "cancelled", "user:1"),
    ]
    shown = (await user.get(f"{path}/deliveries")).json()["deliveries"]
    assert [delivery["event_type"] for delivery in shown] == ["payment.cancelled"]
    assert await claimed(running_api.database, payment["id"]) is None
    async with running_api.database.read() as connection:
        due = (await connection.execute(select(payments.c.due_at))).scalar_one()
        kinds = (await connection.execute(select(events.c.type).order_by(events.c.sequence))).scalars().all()
    assert (due, kinds) == (None, ["payment.cancelled"])


async def test_a_payment_that_a_worker_has_taken_up_cannot_be_cancelled(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    payment = await paid(user)
    await claimed(running_api.database, payment["id"])
    problem(await user.post(f"/payments/{payment['id']}/cancel"), 409, "payment_not_cancellable")
    for outcome in (APPROVED, DECLINED):
        ended = await paid(user)
        await settled(running_api.database, ended["id"], outcome)
        problem(await user.post(f"/payments/{ended['id']}/cancel"), 409, "payment_not_cancellable")
    assert len((await user.get(f"/payments/{payment['id']}/history")).json()["history"]) == 2


async def test_against_a_claim_exactly_one_wins(running_api: RunningApi, user: httpx.AsyncClient) -> None:
    async def cancelled(payment_id: str) -> bool:
        async with running_api.database.transaction() as connection:
            now = await running_api.database.clock.now(connection)
            result = await cancel(connection, UUID(payment_id), by="user:1", now=now)
            return result is not None and result.is_moved

    async def taken(payment_id: str) -> bool:
        return await claimed(running_api.database, payment_id) is not None

    async def later(rival: Callable[[str], Awaitable[bool]], payment_id: str, by_s: float) -> bool:
        await asyncio.sleep(by_s)
        return await rival(payment_id)

    method_id = await added(user)
    winners = set()
    for round_ in range(40):
        payment_id = (await accepted(user, order(method_id)))["id"]
        first, second = [cancelled, taken] if round_ % 2 else [taken, cancelled]
        # Without a head start in some rounds, the same one may win all of them by chance.
        by_s = (round_ // 2 % 4) * 0.01
        has_won = await asyncio.gather(first(payment_id), later(second, payment_id, by_s))
        results = dict(zip((first, second), has_won, strict=True))
        assert sorted(results.values()) == [False, True]
        winners.add(results[cancelled])
        history = (await user.get(f"/payments/{payment_id}/history")).json()["history"]
        assert [move["sequence"] for move in history] == [1, 2]
        answer = await user.post(f"/payments/{payment_id}/cancel")
        assert answer.status_code == (200 if results[cancelled] else 409)
    assert winners == {True, False}


async def test_many_who_cancel_at_once_cancel_once(user: httpx.AsyncClient) -> None:
    payment = await paid(user)
    answers = await asyncio.gather(*(user.post(f"/payments/{payment['id']}/cancel") for _ in range(10)))
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["sequence"] for answer in answers} == {2}
    assert len((await user.get(f"/payments/{payment['id']}/history")).json()["history"]) == 2
