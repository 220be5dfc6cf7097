"""Refunds that are asked for over HTTP: how much is refunded and what is left, and what is refused without a trace."""

import asyncio
from typing import Any

import httpx
import pytest

from shared.lifecycle import PaymentStatus
from shared.refund_lifecycle import RefundReason, RefundStatus
from shared.refunds.refusals import INSTEAD_OF_CANCELLING, INSTEAD_OF_REFUNDING
from tests.support.api_client import RunningApi, order, paid, pointers, problem
from tests.support.money import REFUND_DECLINED, authorized, charged, refund_ended, refunded, shown
from tests.support.raw_bodies import INT64_MAX, raw
from tests.support.settling import DECLINED, claimed, settled
from tests.support.stored import row_counts

pytest_plugins = ["tests.support.api_fixtures"]


def amounts(payment: dict[str, Any]) -> tuple[str, int, int, int]:
    return payment["status"], payment["amount_captured"], payment["amount_refunded"], payment["amount_refundable"]


@pytest.mark.parametrize("body", [None, "{}", '{"amount": 1585}', '{"metadata": {}}'])
async def test_without_an_amount_all_that_is_left_is_refunded(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient, body: str | None
) -> None:
    payment = await charged(user, running_api.database)
    path = f"/payments/{payment['id']}/refunds"
    answer = await service.post(path) if body is None else await raw(service, path, body)
    refund = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/api/v1/refunds/{refund['id']}"
    assert (answer.headers["etag"], answer.headers["retry-after"]) == ('"1"', "1")
    assert (refund["status"], refund["amount"], refund["currency"]) == ("PENDING", 1585, "USD")
    assert (refund["payment_id"], refund["order_id"]) == (payment["id"], payment["order_id"])
    assert (refund["reason"], refund["metadata"], refund["created_by"]) == ("other", {}, "service:shop")
    assert amounts(await shown(user, payment["id"])) == ("COMPLETED", 1585, 0, 0)
    await refund_ended(running_api.database, refund["id"])
    assert amounts(await shown(user, payment["id"])) == ("REFUNDED", 1585, 1585, 0)


async def test_parts_are_refunded_until_nothing_is_left(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    payment = await charged(user, running_api.database)
    first = await refunded(service, payment, amount=1000, reason="requested_by_customer", metadata={"rma": "7"})
    assert (first["reason"], first["metadata"]) == ("requested_by_customer", {"rma": "7"})
    await refund_ended(running_api.database, first["id"])
    assert amounts(await shown(user, payment["id"])) == ("PARTIALLY_REFUNDED", 1585, 1000, 585)
    rest = await refunded(service, payment)
    assert rest["amount"] == 585
    await refund_ended(running_api.database, rest["id"])
    assert amounts(await shown(user, payment["id"])) == ("REFUNDED", 1585, 1585, 0)
    refusal = problem(await service.post(f"/payments/{payment['id']}/refunds"), 409, "payment_not_refundable")
    assert "has been REFUNDED since" in refusal["detail"]


async def test_a_refund_that_failed_or_was_cancelled_gives_its_amount_back(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    payment = await charged(user, running_api.database)
    failed = await refunded(service, payment)
    await refund_ended(running_api.database, failed["id"], REFUND_DECLINED)
    shown_refund = (await user.get(f"/refunds/{failed['id']}")).json()
    assert (shown_refund["status"], shown_refund["failure_code"]) == ("FAILED", "refund_declined")
    assert shown_refund["failure_reason"]
    assert amounts(await shown(user, payment["id"])) == ("COMPLETED", 1585, 0, 1585)
    cancelled = await refunded(service, payment)
    answer = await service.post(f"/refunds/{cancelled['id']}/cancel")
    assert (answer.status_code, answer.json()["status"], answer.headers["etag"]) == (200, "CANCELLED", '"2"')
    assert amounts(await shown(user, payment["id"])) == ("COMPLETED", 1585, 0, 1585)
    again = await service.post(f"/refunds/{cancelled['id']}/cancel")
    assert (again.status_code, again.json()) == (200, answer.json())


async def test_more_than_is_left_is_refused_with_what_is_left(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    payment = await charged(user, running_api.database)
    await refund_ended(running_api.database, (await refunded(service, payment, amount=500))["id"])
    await refunded(service, payment, amount=85)
    path, before = f"/payments/{payment['id']}/refunds", await row_counts(running_api.database)
    for amount in (1001, 1585, INT64_MAX):
        refusal = problem(await service.post(path, json={"amount": amount}), 409, "refund_exceeds_balance")
        assert refusal["refundable_amount"] == 1000
        assert "500 are refunded and 85 reserved" in refusal["detail"]
        assert "has been PARTIALLY_REFUNDED since" in refusal["detail"]
    assert await row_counts(running_api.database) == before
    await refunded(service, payment, amount=1000)
    for body in ({}, {"amount": 1}):
        refusal = problem(await service.post(path, json=body), 409, "refund_exceeds_balance")
        assert refusal["refundable_amount"] == 0


async def test_fifty_refunds_at_once_never_exceed_what_was_captured(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    payment = await charged(user, running_api.database, amount=100)
    path = f"/payments/{payment['id']}/refunds"
    answers = await asyncio.gather(*(service.post(path, json={"amount": 10}) for _ in range(50)))
    assert sorted(answer.status_code for answer in answers) == [202] * 10 + [409] * 40
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"refund_exceeds_balance"}
    assert amounts(await shown(user, payment["id"])) == ("COMPLETED", 100, 0, 0)


async def test_a_refusal_names_the_moment_of_the_first_refund_and_not_that_of_the_last(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    payment = await charged(user, running_api.database)
    await refund_ended(running_api.database, (await refunded(service, payment, amount=1))["id"])
    since = (await shown(user, payment["id"]))["updated_at"]
    await refund_ended(running_api.database, (await refunded(service, payment, amount=2))["id"])
    assert (await shown(user, payment["id"]))["updated_at"] > since
    path = f"/payments/{payment['id']}"
    for refused in (
        await service.post(f"{path}/refunds", json={"amount": 1585}),
        await service.post(f"{path}/capture"),
        await user.post(f"{path}/cancel"),
        await user.post("/payments", json=order("pm_test_visa", order_id=payment["order_id"])),
    ):
        assert refused.status_code == 409
        assert f"has been PARTIALLY_REFUNDED since {since}" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ('{"amount": 0}', "/amount"),
        ('{"amount": -5}', "/amount"),
        (f'{{"amount": {INT64_MAX + 1}}}', "/amount"),
        ('{"amount": null}', "/amount"),
        ('{"amount": "5"}', "/amount"),
        ('{"amount": 5.0}', "/amount"),
        ('{"amount": 1e2}', "/amount"),
        ('{"amount": true}', "/amount"),
        ('{"reason": null}', "/reason"),
        ('{"reason": "because"}', "/reason"),
        ('{"reason": "OTHER"}', "/reason"),
        ('{"reason": 1}', "/reason"),
        ('{"metadata": null}', "/metadata"),
        ('{"metadata": {"a": 1}}', "/metadata/a"),
        ('{"metadata": {"a": "\\u0000"}}', "/metadata/a"),
        ('{"currency": "USD"}', "/currency"),
        ('{"payment_id": "x"}', "/payment_id"),
        ("null", ""),
        ("[{}]", ""),
    ],
)
async def test_a_refund_that_is_not_allowed_writes_nothing(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient, body: str, pointer: str
) -> None:
    payment = await charged(user, running_api.database)
    before = await row_counts(running_api.database)
    assert pointers(await raw(service, f"/payments/{payment['id']}/refunds", body)) == [pointer]
    assert await row_counts(running_api.database) == before


async def test_a_member_that_comes_twice_refunds_nothing(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    payment = await charged(user, running_api.database)
    answer = await raw(service, f"/payments/{payment['id']}/refunds", '{"amount": 1, "amount": 1000}')
    problem(answer, 400, "malformed_request")
    assert await shown(user, payment["id"]) == payment


@pytest.mark.parametrize("reason", RefundReason)
async def test_every_reason_is_taken(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient, reason: RefundReason
) -> None:
    payment = await charged(user, running_api.database)
    assert (await refunded(service, payment, reason=reason))["reason"] == reason


async def test_only_what_was_captured_is_refunded_and_the_refusal_says_since_when(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    database = running_api.database
    pending, failed, cancelled, processing = [await paid(user) for _ in range(4)]
    await settled(database, failed["id"], DECLINED)
    await user.post(f"/payments/{cancelled['id']}/cancel")
    await claimed(database, processing["id"])
    held = await authorized(user, database)
    for payment in (pending, failed, cancelled, processing, held):
        now = await shown(user, payment["id"])
        refusal = problem(await service.post(f"/payments/{payment['id']}/refunds"), 409, "payment_not_refundable")
        assert f"has been {now['status']} since {now['processed_at'] or now['updated_at']}" in refusal["detail"]
        assert await shown(user, payment["id"]) == now


def test_every_status_has_its_refusal() -> None:
    assert set(INSTEAD_OF_REFUNDING) == set(PaymentStatus) - {"COMPLETED", "PARTIALLY_REFUNDED"}
    assert set(INSTEAD_OF_CANCELLING) >= set(RefundStatus) - {"PENDING", "CANCELLED"}
