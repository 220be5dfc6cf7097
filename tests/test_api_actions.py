"""Payments that require their customer's action, over the API: who is shown the link, answers and cancels."""

import asyncio
import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import select

from api.openapi import money_examples
from shared.broker.heartbeats import WorkerStatus, send_heartbeat
from shared.config.settings import Settings
from shared.database.tables import events
from shared.lifecycle import HistoryReason
from tests.support.api_client import RunningApi, accepted, added, opened_with, order, paid, problem
from tests.support.approvals import RETURN_URL, require_action, row, waiting
from tests.support.sentences import check_sentences
from tests.support.settling import APPROVED, claimed, settled
from tests.support.waiting import eventually

pytest_plugins = ["tests.support.api_fixtures"]

WORKER_OF_0_1 = WorkerStatus(
    worker="old", slots=1, in_gateway=0, sending=0, settled=0, settled_per_s=0.0, uptime_s=1.0, version=None
)


async def history(client: httpx.AsyncClient, payment_id: str) -> list[tuple[str, str]]:
    """Why and by whom the payment moved, each time."""
    entries = (await client.get(f"/payments/{payment_id}/history")).json()["history"]
    return [(entry["reason"], entry["created_by"]) for entry in entries]


# -- who is shown the link


async def test_the_payer_and_the_creator_are_shown_the_link_and_nobody_else(running_api: RunningApi) -> None:
    user, service, admin = running_api.user(), running_api.service("shop"), running_api.admin()
    method_id = await added(user)
    made = await accepted(service, order(method_id, user_id="1", return_url=RETURN_URL))
    await require_action(running_api.database, made["id"])
    path = f"/payments/{made['id']}"
    links = {
        name: (await client.get(path)).json()["next_action"]
        for name, client in {
            "payer": user,
            "creator": service,
            "other service": running_api.service("stall"),
            "admin": admin,
        }.items()
    }
    assert links["payer"] == links["creator"]
    assert links["payer"]["type"] == "redirect"
    assert (links["other service"], links["admin"]) == (None, None)
    assert (await user.get("/payments")).json()["payments"][0]["next_action"] is None
    # A machine that has the number of the user for its name is not the user.
    assert (await running_api.service("1").get(path)).json()["next_action"] is None


async def test_the_link_is_the_same_at_every_reading_and_ends_with_the_action(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    payment = await waiting(user, running_api.database)
    link = payment["next_action"]
    waited = await user.get(f"/payments/{payment['id']}", headers={"Prefer": "wait=5"})
    assert waited.json()["next_action"] == link
    assert link["expires_at"] > payment["updated_at"]
    assert link["url"].startswith(f"{running_api.settings.link_base}/approve/")
    platform = running_api.client(base="/api", headers=dict(user.headers))
    on_platform = (await platform.get(f"/payments/{payment['id']}")).json()["next_action"]["url"]
    token = link["url"].rpartition("/")[2]
    assert on_platform == f"{running_api.settings.link_base}/api/payments/approve/{token}"
    cancelled = (await user.post(f"/payments/{payment['id']}/cancel")).json()
    assert (cancelled["status"], cancelled["next_action"]) == ("CANCELLED", None)


async def test_events_have_no_link(running_api: RunningApi, user: httpx.AsyncClient) -> None:
    payment = await waiting(user, running_api.database, callback_url="https://me.example/")
    listed = (await user.get(f"/payments/{payment['id']}/deliveries")).json()["deliveries"]
    assert [delivery["event_type"] for delivery in listed] == ["payment.requires_action"]
    async with running_api.database.read() as connection:
        bodies = (
            await connection.execute(select(events.c.body).where(events.c.payment_id == UUID(payment["id"])))
        ).scalars()
        [body] = [json.loads(body) for body in bodies]
    assert body["type"] == "payment.requires_action"
    assert (body["data"]["payment"]["next_action"], body["data"]["payment"]["return_url"]) == (None, RETURN_URL)


async def first_payment(client: httpx.AsyncClient) -> str:
    """The id of the client's newest payment; without one an empty text."""
    found = (await client.get("/payments")).json()["payments"]
    return str(found[0]["id"]) if found else ""


async def test_a_payment_that_waits_for_its_customer_ends_a_long_poll(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    body = order(await added(user), return_url=RETURN_URL)
    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(user.post("/payments", json=body, headers={"Prefer": "wait=20"}))
        payment_id = await eventually(lambda: first_payment(user))
        await require_action(running_api.database, payment_id)
    assert asking.result().status_code == 201
    assert asking.result().json()["next_action"]["url"]


# -- answers of tests


async def test_an_approval_makes_the_payment_due_for_the_gateway(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    payment = await waiting(user, running_api.database)
    path = f"/payments/{payment['id']}"
    answer = await user.post(f"{path}/action", json={"result": "approve"})
    assert answer.status_code == 202
    assert (answer.json()["status"], answer.json()["next_action"]) == ("PROCESSING", None)
    assert answer.headers["etag"] == f'"{answer.json()["sequence"]}"'
    assert (await history(user, payment["id"]))[-1] == ("action_approved", "user:1")
    # A worker claims it, and the gateway charges it.
    await settled(running_api.database, payment["id"], APPROVED)
    assert (await user.get(path)).json()["status"] == "COMPLETED"


async def test_a_decline_fails_the_payment_at_once(running_api: RunningApi, service: httpx.AsyncClient) -> None:
    payment = await waiting(running_api.user(), running_api.database)
    answer = await service.post(
        f"/payments/{payment['id']}/action", json={"result": "decline"}, headers={"Prefer": "wait=5"}
    )
    assert answer.status_code == 200
    declined = answer.json()
    assert declined["status"] == "FAILED"
    assert (declined["failure_code"], declined["outcome_rule"]) == ("authentication_failed", "customer")
    assert declined["failure_advice"] == "use_another_method"
    assert (await history(service, payment["id"]))[-1] == ("action_declined", "service:shop")
    assert await claimed(running_api.database, payment["id"]) is None


async def test_a_repeated_answer_is_one_answer_and_another_one_is_409(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    payment = await waiting(user, running_api.database)
    path, key = f"/payments/{payment['id']}/action", {"Idempotency-Key": "k1"}
    first = await user.post(path, json={"result": "approve"}, headers=key)
    again = await user.post(path, json={"result": "approve"}, headers=key)
    assert again.headers["idempotent-replayed"] == "true"
    assert (again.status_code, again.json()) == (202, first.json())
    problem(await user.post(path, json={"result": "decline"}, headers=key), 422, "idempotency_key_reused")
    refused = problem(await user.post(path, json={"result": "decline"}), 409, "no_action_required")
    assert refused["detail"] == (
        f"The payment has been PROCESSING since {first.json()['updated_at']}, so no action of its customer is required."
        " A worker is at work on it: wait for it to end."
    )


@pytest.mark.parametrize("outcome", [None, APPROVED])
async def test_a_payment_that_does_not_wait_is_409(
    running_api: RunningApi, user: httpx.AsyncClient, outcome: Any
) -> None:
    payment = await paid(user, return_url=RETURN_URL)
    if outcome:
        await settled(running_api.database, payment["id"], outcome)
    refused = problem(
        await user.post(f"/payments/{payment['id']}/action", json={"result": "approve"}), 409, "no_action_required"
    )
    check_sentences(refused["detail"])


async def test_an_answer_after_the_time_limit_is_409_and_changes_nothing(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    payment = await waiting(user, running_api.database, valid_s=-1)
    refused = problem(
        await user.post(f"/payments/{payment['id']}/action", json={"result": "approve"}), 409, "no_action_required"
    )
    assert "The time of its customer is over" in refused["detail"]
    assert (await row(running_api.database, payment["id"])).sequence == payment["sequence"]


@pytest.mark.parametrize("body", [{}, {"result": "yes"}, {"result": None}, {"result": "approve", "amount": 1}, []])
async def test_another_body_is_422(running_api: RunningApi, user: httpx.AsyncClient, body: Any) -> None:
    payment = await waiting(user, running_api.database)
    problem(await user.post(f"/payments/{payment['id']}/action", json=body), 422, "validation_error")


async def test_without_simulation_only_the_customer_answers(make_settings: Callable[..., Settings]) -> None:
    async with opened_with(make_settings(simulation="off")) as running_api:
        user = running_api.user()
        payment = await waiting(user, running_api.database)
        refused = await user.post(f"/payments/{payment['id']}/action", json={"result": "approve"})
        check_sentences(problem(refused, 403, "simulation_disabled")["detail"])
        assert payment["next_action"] is not None


async def test_beside_a_worker_of_0_1_nothing_is_approved_and_everything_declined(running_api: RunningApi) -> None:
    assert running_api.api is not None
    user, versions = running_api.user(), running_api.api.worker_versions
    approved, declined = [await waiting(user, running_api.database) for _ in range(2)]
    await send_heartbeat(running_api.runtime.broker, WORKER_OF_0_1)
    await versions.run_once()
    answer = await user.post(f"/payments/{approved['id']}/action", json={"result": "approve"})
    problem(answer, 503, "unavailable")
    assert (await row(running_api.database, approved["id"])).status == "REQUIRES_ACTION"
    answer = await user.post(f"/payments/{declined['id']}/action", json={"result": "decline"})
    assert answer.json()["status"] == "FAILED"


# -- what else is asked of such a payment


async def test_it_is_cancelled_at_once_neither_captured_nor_refunded_and_its_order_is_taken(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    payment = await waiting(user, running_api.database)
    path = f"/payments/{payment['id']}"
    taken = problem(
        await user.post("/payments", json=order(await added(user), order_id=payment["order_id"])),
        409,
        "payment_in_progress",
    )
    assert "or cancel it" in taken["detail"]
    check_sentences(problem(await service.post(f"{path}/capture"), 409, "payment_not_capturable")["detail"])
    check_sentences(problem(await service.post(f"{path}/refunds"), 409, "payment_not_refundable")["detail"])
    cancelled = await user.post(f"{path}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "CANCELLED")
    assert (await history(user, payment["id"]))[-1] == (HistoryReason.CANCELLED, "user:1")
    assert (await paid(user, order_id=payment["order_id"]))["status"] == "PENDING"


async def test_of_an_approval_and_a_cancel_at_once_one_wins(running_api: RunningApi, user: httpx.AsyncClient) -> None:
    for _ in range(10):
        payment = await waiting(user, running_api.database)
        path = f"/payments/{payment['id']}"
        answered, cancelled = await asyncio.gather(
            user.post(f"{path}/action", json={"result": "approve"}), user.post(f"{path}/cancel")
        )
        assert sorted([answered.status_code, cancelled.status_code]) in ([202, 409], [200, 409])
        status = (await user.get(path)).json()["status"]
        assert status == ("CANCELLED" if cancelled.status_code == 200 else "PROCESSING")


def test_the_examples_are_of_one_payment() -> None:
    found = (
        money_examples.REQUIRES_ACTION,
        money_examples.APPROVED,
        money_examples.COMPLETED_AFTER_APPROVAL,
    )
    assert [bool(payment["next_action"]) for payment in found] == [True, False, False]
    assert len({payment["return_url"] for payment in found}) == 1
