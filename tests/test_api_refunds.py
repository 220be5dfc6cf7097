"""Refunds over HTTP, on both databases. A worker's part is played by the tests."""

import asyncio
from typing import Any
from uuid import UUID

import httpx
import pytest

from api.long_poll import LongPolls
from shared.lifecycle import PaymentStatus
from shared.payments.find import find_many
from shared.refund_lifecycle import RefundReason, RefundStatus
from shared.refunds.find import find_refunds
from shared.refunds.refusals import INSTEAD_OF_CANCELLING, INSTEAD_OF_REFUNDING
from tests.support.api_client import (
    DECLINED,
    RunningApi,
    claimed,
    order,
    paid,
    pointers,
    problem,
    row_counts,
    settled,
)
from tests.support.money import REFUND_DECLINED, authorized, charged, refund_claimed, refund_ended, shown
from tests.support.waiting import eventually

pytest_plugins = ["tests.support.api_fixtures"]

WAIT = {"Prefer": "wait=20"}  # far longer than any test takes
INT64_MAX = 2**63 - 1


async def raw(client: httpx.AsyncClient, path: str, body: str) -> httpx.Response:
    return await client.post(path, content=body, headers={"Content-Type": "application/json"})


async def refunded(client: httpx.AsyncClient, payment: dict[str, Any], **body: Any) -> dict[str, Any]:
    """A refund that must be accepted."""
    answer = await client.post(f"/payments/{payment['id']}/refunds", json=body)
    assert answer.status_code == 202, answer.text
    refund: dict[str, Any] = answer.json()
    return refund


def amounts(payment: dict[str, Any]) -> tuple[str, int, int, int]:
    return payment["status"], payment["amount_captured"], payment["amount_refunded"], payment["amount_refundable"]


# -- asking for one


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


# -- repeats


async def test_a_repeated_refund_is_one_refund_and_shown_as_it_is(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    payment = await charged(user, running_api.database)
    path, key, body = f"/payments/{payment['id']}/refunds", {"Idempotency-Key": "k"}, {"amount": 5}
    answers = await asyncio.gather(*(service.post(path, json=body, headers=key) for _ in range(10)))
    [refund_id] = {answer.json()["id"] for answer in answers}
    assert {answer.status_code for answer in answers} == {202}
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 9
    await refund_ended(running_api.database, refund_id)
    late = await service.post(path, json=body, headers=key | WAIT)
    assert (late.status_code, late.json()["status"], late.headers["location"]) == (
        202, "COMPLETED", f"/api/v1/refunds/{refund_id}",
    )  # fmt: skip
    for other in ({"amount": 6}, {}, {"amount": 5, "reason": "fraudulent"}):
        problem(await service.post(path, json=other, headers=key), 422, "idempotency_key_reused")
    # The same key of another principal, and below another payment, is another key.
    assert (await running_api.admin().post(path, json=body, headers=key)).json()["id"] != refund_id
    other_payment = await charged(user, running_api.database)
    assert (await service.post(f"/payments/{other_payment['id']}/refunds", json=body, headers=key)).status_code == 202


async def test_no_body_and_an_empty_object_are_the_same_request(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    payment = await charged(user, running_api.database)
    path, key = f"/payments/{payment['id']}/refunds", {"Idempotency-Key": "k"}
    first = await service.post(path, headers=key)
    second = await service.post(path, headers=key, json={})
    assert (first.json()["id"], second.headers["idempotent-replayed"]) == (second.json()["id"], "true")


async def test_a_repeated_cancel_of_a_refund_answers_what_it_is_now(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    refund = await refunded(service, await charged(user, running_api.database))
    path, key = f"/refunds/{refund['id']}/cancel", {"Idempotency-Key": "k"}
    answers = await asyncio.gather(*(service.post(path, headers=key) for _ in range(5)))
    assert {(answer.status_code, answer.json()["sequence"]) for answer in answers} == {(200, 2)}
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 4


async def test_a_refund_that_a_worker_has_claimed_is_not_cancelled(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    refund = await refunded(service, await charged(user, running_api.database))
    await refund_claimed(running_api.database, refund["id"])
    refusal = problem(await service.post(f"/refunds/{refund['id']}/cancel"), 409, "refund_not_cancellable")
    claimed_refund = (await user.get(f"/refunds/{refund['id']}")).json()
    assert f"has been PROCESSING since {claimed_refund['updated_at']}" in refusal["detail"]
    ended = await refunded(service, await charged(user, running_api.database))
    await refund_ended(running_api.database, ended["id"])
    problem(await service.post(f"/refunds/{ended['id']}/cancel"), 409, "refund_not_cancellable")


# -- waiting and following


async def test_a_refund_that_waits_is_answered_201_when_it_ends(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    payment = await charged(user, running_api.database)
    waiting = asyncio.create_task(service.post(f"/payments/{payment['id']}/refunds", headers=WAIT))
    [refund] = await listed(user, payment)
    await refund_ended(running_api.database, refund["id"])
    answer = await waiting
    assert (answer.status_code, answer.json()["status"], answer.headers["etag"]) == (201, "COMPLETED", '"3"')
    assert (answer.headers["preference-applied"], answer.headers["vary"]) == ("wait=20", "Prefer")
    assert "retry-after" not in answer.headers


async def listed(client: httpx.AsyncClient, payment: dict[str, Any]) -> list[dict[str, Any]]:
    """The refunds of the payment, as soon as there are any."""

    async def there() -> Any:
        return (await client.get(f"/payments/{payment['id']}/refunds")).json()["refunds"]

    found: list[dict[str, Any]] = await eventually(there)
    return found


async def test_a_refund_that_waits_too_long_is_202(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    payment = await charged(user, running_api.database)
    answer = await service.post(f"/payments/{payment['id']}/refunds", headers={"Prefer": "wait=1"})
    assert (answer.status_code, answer.json()["status"]) == (202, "PENDING")
    assert answer.headers["preference-applied"] == "wait=1"


async def test_a_get_of_a_refund_waits_for_its_end_and_knows_its_version(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    refund = await refunded(service, await charged(user, running_api.database))
    path = f"/refunds/{refund['id']}"
    got = await user.get(path)
    assert (got.status_code, got.headers["etag"], got.headers["retry-after"]) == (200, '"1"', "1")
    assert (await user.get(path, headers={"If-None-Match": '"1"'})).status_code == 304
    waiting = [asyncio.create_task(user.get(path, headers=WAIT | known)) for known in ({}, {"If-None-Match": 'W/"1"'})]
    await refund_ended(running_api.database, refund["id"])
    for answer in await asyncio.gather(*waiting):
        assert (answer.status_code, answer.json()["status"], answer.headers["etag"]) == (200, "COMPLETED", '"3"')
    known = {"If-None-Match": '"3"'}
    assert (await user.get(path, headers=known | {"Prefer": "wait=1"})).status_code == 304
    assert (await user.get(path, headers=WAIT)).headers["preference-applied"] == "wait=20"


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_message_ends_the_wait_for_a_refund_and_for_no_other(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    payment = await charged(user, running_api.database)
    first, second = [await refunded(service, payment, amount=1) for _ in range(2)]
    runtime = running_api.runtime
    long_polls = LongPolls(runtime.database, runtime.broker, capacity=3)
    running = asyncio.create_task(long_polls.run())
    async with (
        long_polls.subscribe(UUID(first["id"]), find_refunds) as one,
        long_polls.subscribe(UUID(second["id"]), find_refunds) as other,
        long_polls.subscribe(UUID(payment["id"]), find_many, until=lambda found: found.sequence > 5) as of_payment,
    ):
        assert one is not None
        assert other is not None
        assert of_payment is not None
        await refund_ended(running_api.database, first["id"])
        await runtime.broker.notify_settled([UUID(first["id"]), UUID(payment["id"])])
        ended = await asyncio.wait_for(one, 10)
        assert ended is not None
        assert (str(ended.id), ended.is_settled, other.done()) == (first["id"], True, False)
        partly = await asyncio.wait_for(of_payment, 10)
        assert partly is not None
        assert partly.status == "PARTIALLY_REFUNDED"
    running.cancel()
    await asyncio.wait([running])


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_every_step_of_a_refund_that_a_client_takes_is_said_on_the_channel(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    payment = await charged(user, running_api.database)
    async with running_api.runtime.broker.subscribe_settled() as subscription:

        async def heard() -> set[UUID]:
            # The first answer says only that the subscription began.
            return set(await subscription.next_ids(timeout_s=1))

        refund = await refunded(service, payment)
        said: set[UUID] = await eventually(heard)
        assert said == {UUID(payment["id"])}
        await service.post(f"/refunds/{refund['id']}/cancel")
        said = await eventually(heard)
        assert said == {UUID(refund["id"]), UUID(payment["id"])}


async def test_the_history_of_a_refund_has_no_gaps(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    refund = await refunded(service, await charged(user, running_api.database))
    await refund_ended(running_api.database, refund["id"])
    answer = await user.get(f"/refunds/{refund['id']}/history")
    assert answer.json()["refund_id"] == refund["id"]
    history = answer.json()["history"]
    assert [(move["sequence"], move["reason"], move["created_by"]) for move in history] == [
        (1, "requested", "service:shop"), (2, "claimed", "worker"), (3, "gateway_approved", "worker"),
    ]  # fmt: skip


# -- lists


async def test_refunds_are_listed_newest_first_by_pages_and_filters(
    running_api: RunningApi, user: httpx.AsyncClient, other: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    first, second = [await charged(user, running_api.database) for _ in range(2)]
    foreign = await charged(other, running_api.database)
    made = [await refunded(service, payment, amount=1) for payment in (first, second, first, foreign)]
    ids = [refund["id"] for refund in made]
    await refund_ended(running_api.database, ids[0])

    async def ids_of(client: httpx.AsyncClient, path: str = "/refunds", **query: Any) -> list[str]:
        answer = await client.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return [refund["id"] for refund in answer.json()["refunds"]]

    assert await ids_of(service) == ids[::-1]
    assert await ids_of(user) == [ids[2], ids[1], ids[0]]
    assert await ids_of(other) == [ids[3]]
    assert await ids_of(user, status="COMPLETED") == [ids[0]]
    assert await ids_of(user, payment_id=first["id"]) == [ids[2], ids[0]]
    assert await ids_of(user, payment_id=first["id"], status="PENDING") == [ids[2]]
    assert await ids_of(user, payment_id=foreign["id"]) == []
    assert await ids_of(user, f"/payments/{first['id']}/refunds") == [ids[2], ids[0]]
    page = (await user.get("/refunds", params={"payment_id": first["id"], "limit": 1})).json()
    assert ([one["id"] for one in page["refunds"]], page["limit"]) == ([ids[2]], 1)
    rest = (await user.get("/refunds", params={"cursor": page["next_cursor"]})).json()
    assert ([one["id"] for one in rest["refunds"]], rest["next_cursor"]) == ([ids[0]], None)
    below = (await user.get(f"/payments/{first['id']}/refunds", params={"limit": 1})).json()
    last = {"cursor": below["next_cursor"]}
    assert await ids_of(user, f"/payments/{first['id']}/refunds", **last) == [ids[0]]
    for path in ("/refunds", "/payments", f"/payments/{second['id']}/refunds"):
        assert pointers(await user.get(path, params=last)) == ["/query/cursor"]
    assert pointers(await other.get("/refunds", params={"cursor": page["next_cursor"]})) == ["/query/cursor"]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("status=DONE", "/query/status"),
        ("status=REFUNDED", "/query/status"),
        ("payment_id=x", "/query/payment_id"),
        ("payment_id=", "/query/payment_id"),
        ("limit=0", "/query/limit"),
        ("limit=101", "/query/limit"),
        ("limit=1e1", "/query/limit"),
        ("cursor=x", "/query/cursor"),
        ("user_id=1", "/query/user_id"),
        ("status=PENDING&status=FAILED", "/query/status"),
    ],
)
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_filter_that_is_not_known_is_refused(user: httpx.AsyncClient, query: str, pointer: str) -> None:
    assert pointers(await user.get(f"/refunds?{query}")) == [pointer]


# -- rights


@pytest.mark.parametrize("refund_id", ["x", "0199f0a2-7d7e-7c3a-9a51-0d4b1f2f6f00", "%00", "refunds"])
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_what_does_not_exist_is_404_for_everybody(
    user: httpx.AsyncClient, service: httpx.AsyncClient, refund_id: str
) -> None:
    for client in (user, service):
        problem(await client.get(f"/refunds/{refund_id}"), 404, "not_found")
        problem(await client.get(f"/refunds/{refund_id}/history"), 404, "not_found")
        problem(await client.post(f"/refunds/{refund_id}/cancel"), 404, "not_found")
        problem(await client.post(f"/payments/{refund_id}/refunds"), 404, "not_found")
        problem(await client.get(f"/payments/{refund_id}/refunds"), 404, "not_found")


async def test_users_see_their_refunds_and_make_none(
    running_api: RunningApi, user: httpx.AsyncClient, other: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    payment = await charged(user, running_api.database)
    refund = await refunded(service, payment, amount=1)
    before = await row_counts(running_api.database)
    problem(await user.post(f"/payments/{payment['id']}/refunds"), 403, "forbidden")
    problem(await user.post(f"/refunds/{refund['id']}/cancel"), 403, "forbidden")
    problem(await other.post(f"/payments/{payment['id']}/refunds"), 404, "not_found")
    problem(await other.post(f"/refunds/{refund['id']}/cancel"), 404, "not_found")
    problem(await other.get(f"/refunds/{refund['id']}", headers=WAIT), 404, "not_found")
    assert (await user.get(f"/refunds/{refund['id']}")).json() == refund
    assert await row_counts(running_api.database) == before


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_on_the_platforms_paths_a_location_keeps_its_prefix(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    payment = await charged(user, running_api.database)
    service = running_api.service()
    service.base_url = httpx.URL(running_api.url)
    made = await service.post(f"/api/payments/{payment['id']}/refunds", json={"amount": 1})
    path = f"/api/payments/refunds/{made.json()['id']}"
    assert made.headers["location"] == path
    assert (await service.get(path)).json() == made.json()
    assert (await service.get(f"{path}/history")).json()["refund_id"] == made.json()["id"]
    assert (await service.get("/api/payments/refunds")).json()["refunds"] == [made.json()]
    assert (await service.get(f"/api/payments/{payment['id']}/refunds")).json()["refunds"] == [made.json()]
    assert (await service.post(f"{path}/cancel")).json()["status"] == "CANCELLED"
