"""Repeating a POST with the same Idempotency-Key, on both databases: it is done once, however often it is asked for."""

import asyncio
from typing import Any

import httpx
import orjson
import pytest
from sqlalchemy import select

from shared.database.tables import idempotency_keys
from shared.ids import new_id
from tests.support.api_client import RunningApi, accepted, added, card, order, paypal, pointers, problem
from tests.support.idempotency import KEY, keys
from tests.support.settling import APPROVED, DECLINED, claimed, settled
from tests.support.stored import row_counts

pytest_plugins = ["tests.support.api_fixtures"]


async def test_the_same_request_again_is_the_same_payment(running_api: RunningApi, user: httpx.AsyncClient) -> None:
    body = order(await added(user), metadata={"a": "1", "b": "2"})
    first = await user.post("/payments", json=body, headers=KEY)
    shuffled = dict(reversed(body.items())) | {"metadata": {"b": "2", "a": "1"}, "currency": "USD", "description": None}
    for again in (body, shuffled):
        answer = await user.post("/payments", json=again, headers=KEY)
        assert (answer.status_code, answer.json()) == (202, first.json())
        assert answer.headers["idempotent-replayed"] == "true"
        assert answer.headers["location"] == first.headers["location"]
    assert "idempotent-replayed" not in first.headers
    assert (await row_counts(running_api.database))["payments"] == 1


async def test_a_repeat_shows_the_payment_as_it_is_now(running_api: RunningApi, user: httpx.AsyncClient) -> None:
    body = order(await added(user))
    payment = (await user.post("/payments", json=body, headers=KEY)).json()
    await claimed(running_api.database, payment["id"])
    answer = await user.post("/payments", json=body, headers=KEY)
    assert (answer.status_code, answer.json()["status"], answer.headers["etag"]) == (202, "PROCESSING", '"2"')
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize("outcome", [APPROVED, DECLINED])
async def test_the_repeat_of_a_payment_that_has_ended_starts_no_new_one(
    running_api: RunningApi, user: httpx.AsyncClient, outcome: Any
) -> None:
    body = order(await added(user))
    payment = (await user.post("/payments", json=body, headers=KEY)).json()
    await settled(running_api.database, payment["id"], outcome)
    answer = await user.post("/payments", json=body, headers=KEY)
    assert (answer.status_code, answer.json()["id"]) == (202, payment["id"])
    assert answer.json()["status"] in {"COMPLETED", "FAILED"}
    assert "retry-after" not in answer.headers


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": 1586},
        {"currency": "EUR"},
        {"order_id": "another"},
        {"description": "x"},
        {"metadata": {"a": "1"}},
        {"callback_url": "https://shop.example/"},
        {"payment_method_id": str(new_id())},
    ],
)
async def test_another_request_under_the_same_key_is_422(
    running_api: RunningApi, user: httpx.AsyncClient, changes: dict[str, Any]
) -> None:
    body = order(await added(user))
    await user.post("/payments", json=body, headers=KEY)
    answer = await user.post("/payments", json=body | changes, headers=KEY)
    found = problem(answer, 422, "idempotency_key_reused")
    assert found["detail"].endswith("Use a new key.")
    assert [error["pointer"] for error in found["errors"]] == ["/header/Idempotency-Key"]
    assert (await row_counts(running_api.database))["payments"] == 1


async def test_fifty_equal_requests_at_once_are_one_payment(running_api: RunningApi, user: httpx.AsyncClient) -> None:
    body = order(await added(user))
    answers = await asyncio.gather(*(user.post("/payments", json=body, headers=KEY) for _ in range(50)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 49
    counts = await row_counts(running_api.database)
    assert (counts["payments"], counts["payment_history"]) == (1, 1)


async def test_the_key_is_looked_at_before_the_order(running_api: RunningApi, user: httpx.AsyncClient) -> None:
    body = order(await added(user))
    payment = (await user.post("/payments", json=body, headers=KEY)).json()
    assert (await user.post("/payments", json=body, headers=KEY)).json() == payment  # not 409
    answer = await user.post("/payments", json=body, headers={"Idempotency-Key": "k2"})
    problem(answer, 409, "payment_in_progress")
    answer = await user.post("/payments", json=body | {"amount": 99}, headers=KEY)
    problem(answer, 422, "idempotency_key_reused")  # not 409 either
    await user.delete(f"/payment-methods/{body['payment_method_id']}")
    assert (await user.post("/payments", json=body, headers=KEY)).json() == payment  # nor 422


async def test_a_refusal_never_binds_a_key(running_api: RunningApi, user: httpx.AsyncClient) -> None:
    method_id = await added(user)
    blocked = order(method_id, order_id="o1")
    first = await accepted(user, blocked)
    refused: list[tuple[dict[str, Any], int]] = [
        (order(method_id, amount=0), 422),
        (order(method_id, amount=1), 422),
        (order(method_id, user_id=1), 403),
        (order(method_id, callback_url="http://10.0.0.1/"), 422),
        (order(str(new_id())), 422),
        (blocked, 409),
    ]
    for body, status in refused:
        assert (await user.post("/payments", json=body, headers=KEY)).status_code == status
        assert await keys(running_api.database) == []
    await user.post(f"/payments/{first['id']}/cancel")
    answer = await user.post("/payments", json=blocked, headers=KEY)
    assert (answer.status_code, "idempotent-replayed" in answer.headers) == (202, False)


async def test_equal_requests_that_are_refused_together_are_all_refused(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    method_id = await added(user)
    first = await accepted(user, order(method_id, order_id="o1"))
    body = order(method_id, order_id="o1")
    answers = await asyncio.gather(*(user.post("/payments", json=body, headers=KEY) for _ in range(10)))
    for answer in answers:
        assert problem(answer, 409, "payment_in_progress")["payment_id"] == first["id"]
        assert "idempotent-replayed" not in answer.headers
    assert await keys(running_api.database) == []


async def test_a_key_belongs_to_its_subject_and_its_operation(running_api: RunningApi) -> None:
    clients = [running_api.user(1), running_api.user(2), running_api.service("1"), running_api.admin("1")]
    made: set[str] = set()
    for client in clients:
        method_id = (await client.post("/payment-methods", json=card(), headers=KEY)).json()["id"]
        body = order(method_id, order_id=f"o-{len(made)}")
        payment = (await client.post("/payments", json=body, headers=KEY)).json()
        assert (await client.post(f"/payments/{payment['id']}/cancel", headers=KEY)).status_code == 200
        made.add(payment["id"])
    assert len(made) == len(clients)
    assert len(await keys(running_api.database)) == 3 * len(clients)


async def test_a_key_may_come_quoted(user: httpx.AsyncClient) -> None:
    body = order(await added(user))
    first = await user.post("/payments", json=body, headers={"Idempotency-Key": '"ab"'})
    again = await user.post("/payments", json=body, headers={"Idempotency-Key": "ab"})
    assert first.json() == again.json()
    assert again.headers["idempotent-replayed"] == "true"


@pytest.mark.parametrize("key", ["x", "x" * 255, '"' + "x" * 255 + '"', "!#$%&'()*+,-./:;<=>?@[]^_`{|}~", 'a"b'])
async def test_a_key_is_up_to_255_visible_characters(user: httpx.AsyncClient, key: str) -> None:
    assert (await user.post("/payments", json=order(await added(user)), headers={"Idempotency-Key": key})).is_success


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)  # no database is asked
@pytest.mark.parametrize("key", ["", '""', "x" * 256, '"' + "x" * 256 + '"', "a b", "ü", "a\tb", "\x7f", "x" * 3000])
async def test_a_key_that_is_none_is_422_and_nothing_is_done(
    running_api: RunningApi, user: httpx.AsyncClient, key: str
) -> None:
    method_id = await added(user)
    headers = {b"Idempotency-Key": key.encode("latin-1")}
    for path, body in (
        ("/payments", order(method_id)),
        ("/payment-methods", paypal()),
        (f"/payments/{new_id()}/cancel", None),
    ):
        assert pointers(await user.post(path, json=body, headers=headers)) == ["/header/Idempotency-Key"]
    assert await row_counts(running_api.database) == {"payment_methods": 1}


async def test_what_is_stored_of_a_request_cannot_be_searched_for(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    body = card("4000056655665556", cvv="987")
    await user.post("/payment-methods", json=body, headers=KEY)
    async with running_api.database.read() as connection:
        row = (await connection.execute(select(idempotency_keys))).one()
    assert (row.scope, row.key) == ("user:1 POST /payment-methods", "k1")
    assert len(row.fingerprint) == 64
    assert "4000056655665556" not in repr(row)


async def test_a_plain_intent_is_recognised_by_what_it_was_in_0_1(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    """So that a repeat across an upgrade is done once: the members that came later count where they are given."""
    absent: dict[str, Any] = {
        "currency": "USD",
        "description": None,
        "metadata": {},
        "callback_url": None,
        "user_id": None,
    }
    body = order(await added(user))
    operation, keyring = "POST /payments", running_api.runtime.keyring
    later: list[dict[str, Any]] = [{}, {"capture_method": "manual"}, {"return_url": "https://shop.example/"}]
    for number, members in enumerate(later):
        sent = body | members | {"order_id": f"later-{number}"}
        await user.post("/payments", json=sent, headers={"Idempotency-Key": str(number)})
        content = orjson.dumps(absent | sent, option=orjson.OPT_SORT_KEYS)
        async with running_api.database.read() as connection:
            stored = select(idempotency_keys.c.fingerprint).where(idempotency_keys.c.key == str(number))
            assert (await connection.execute(stored)).scalar_one() == keyring.fingerprint(operation, content), members


async def test_a_repeated_cancel_is_done_once(running_api: RunningApi, user: httpx.AsyncClient) -> None:
    payment = await accepted(user, order(await added(user)))
    path = f"/payments/{payment['id']}/cancel"
    answers = await asyncio.gather(*(user.post(path, headers=KEY) for _ in range(10)))
    assert {answer.status_code for answer in answers} == {200}
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 9
    assert len((await user.get(f"/payments/{payment['id']}/history")).json()["history"]) == 2


async def test_a_cancel_that_came_too_late_does_not_bind_its_key(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    payment = await accepted(user, order(await added(user)))
    await claimed(running_api.database, payment["id"])
    answer = await user.post(f"/payments/{payment['id']}/cancel", headers=KEY)
    problem(answer, 409, "payment_not_cancellable")
    assert await keys(running_api.database) == []


async def test_twenty_equal_new_methods_at_once_are_one(running_api: RunningApi, user: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(user.post("/payment-methods", json=paypal(), headers=KEY) for _ in range(20)))
    assert {(answer.status_code, answer.content) for answer in answers} == {(201, answers[0].content)}
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 19
    assert (await row_counts(running_api.database))["payment_methods"] == 1
