"""A payment as it is read over HTTP: its ETag, status, history and deliveries, by those whose business it is."""

import re
from collections.abc import Callable

import httpx
import pytest

from api.schemas.payments import Payment as PaymentModel
from shared.config.settings import Settings
from shared.ids import new_id
from tests.support.api_client import RunningApi, accepted, added, opened_with, order, paid, problem
from tests.support.sentences import MOMENT
from tests.support.settling import APPROVED, DECLINED, change, claimed, settled

pytest_plugins = ["tests.support.api_fixtures"]


# -- looking


async def test_the_etag_answers_304_until_the_payment_moves(running_api: RunningApi, user: httpx.AsyncClient) -> None:
    payment = await paid(user)
    for path in (f"/payments/{payment['id']}", f"/payments/{payment['id']}/status"):
        for matching in ('"1"', 'W/"1"', '"0", "1"', '"x","1" , W/"9"', "*"):
            answer = await user.get(path, headers={"If-None-Match": matching})
            assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", '"1"'), matching
        for other in ('"2"', "1", '"11"', "", '""', "W/1", '"1', "\t"):
            answer = await user.get(path, headers={"If-None-Match": other})
            assert answer.status_code == 200, other
    await claimed(running_api.database, payment["id"])
    moved = await user.get(f"/payments/{payment['id']}", headers={"If-None-Match": '"1"'})
    assert (moved.status_code, moved.headers["etag"], moved.json()["sequence"]) == (200, '"2"', 2)


async def test_the_etag_is_right_over_every_move(running_api: RunningApi, user: httpx.AsyncClient) -> None:
    payment = await paid(user)
    path = f"/payments/{payment['id']}"
    seen = {}
    for _ in range(2):
        answer = await user.get(path)
        seen[answer.headers["etag"]] = answer.json()
        again = await user.get(path, headers={"If-None-Match": answer.headers["etag"]})
        assert again.status_code == 304
        await settled(running_api.database, payment["id"], APPROVED) if len(seen) == 1 else None
    assert list(seen) == ['"1"', '"3"']


async def test_the_status_is_the_small_answer_for_those_who_poll(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    payment = await paid(user)
    answer = await user.get(f"/payments/{payment['id']}/status")
    assert answer.json() == {
        "payment_id": payment["id"],
        "status": "PENDING",
        "updated_at": payment["updated_at"],
    }
    assert (answer.headers["etag"], answer.headers["retry-after"]) == ('"1"', "1")
    await settled(running_api.database, payment["id"], APPROVED)
    answer = await user.get(f"/payments/{payment['id']}/status")
    assert answer.json()["status"] == "COMPLETED"
    assert "retry-after" not in answer.headers


async def test_a_completed_payment_tells_how(running_api: RunningApi, user: httpx.AsyncClient) -> None:
    payment = await paid(user)
    await settled(running_api.database, payment["id"], APPROVED)
    answer = await user.get(f"/payments/{payment['id']}")
    done = answer.json()
    PaymentModel.model_validate(done)
    assert (done["status"], done["gateway"], done["gateway_transaction_id"]) == ("COMPLETED", "stripe_mock", "ch_1")
    assert (done["gateway_details"], done["outcome_rule"]) == ({"authorization_code": "A1B2C3"}, "rate")
    assert done["processed_at"] == done["updated_at"] >= payment["created_at"]
    assert "no-cache" in answer.headers["cache-control"]


async def test_a_decline_is_no_error_but_a_payment_that_failed(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    payment = await paid(user)
    await settled(running_api.database, payment["id"], DECLINED)
    answer = await user.get(f"/payments/{payment['id']}")
    done = answer.json()
    PaymentModel.model_validate(done)
    assert answer.status_code == 200
    assert (done["status"], done["failure_code"]) == ("FAILED", "card_declined")
    assert done["processed_at"] is not None


async def test_the_history_has_every_move_numbered_without_gaps(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    payment = await paid(user)
    await settled(running_api.database, payment["id"], APPROVED)
    answer = (await user.get(f"/payments/{payment['id']}/history")).json()
    assert answer["payment_id"] == payment["id"]
    moves = [
        (move["sequence"], move["previous_status"], move["new_status"], move["reason"], move["created_by"])
        for move in answer["history"]
    ]
    assert moves == [
        (1, None, "PENDING", "accepted", "user:1"),
        (2, "PENDING", "PROCESSING", "claimed", "worker"),
        (3, "PROCESSING", "COMPLETED", "gateway_approved", "worker"),
    ]
    assert set(answer["history"][0]) == {
        "sequence", "previous_status", "new_status", "reason", "metadata", "created_at", "created_by",
    }  # fmt: skip
    assert all(re.fullmatch(MOMENT, move["created_at"]) for move in answer["history"])


async def test_a_payments_deliveries_name_its_receivers_and_show_the_owners_own_url(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    endpoint = {"name": "orders", "url": "https://orders.example/hook?token=s3cret"}
    assert (await service.post("/webhook-endpoints", json=endpoint)).status_code == 201
    payment = await paid(user, callback_url="https://me.example/cb")
    assert (await user.get(f"/payments/{payment['id']}/deliveries")).json()["deliveries"] == []  # initiated: unwanted
    await settled(running_api.database, payment["id"], APPROVED)
    answer = await user.get(f"/payments/{payment['id']}/deliveries")
    assert answer.json()["payment_id"] == payment["id"]
    shown = {delivery["kind"]: delivery for delivery in answer.json()["deliveries"]}
    assert set(shown) == {"endpoint", "callback"}
    assert {delivery["event_type"] for delivery in shown.values()} == {"payment.completed"}
    assert {(delivery["status"], delivery["tries"]) for delivery in shown.values()} == {("pending", 0)}
    assert (shown["endpoint"]["endpoint_name"], "url" in shown["endpoint"]) == ("orders", False)
    assert (shown["callback"]["endpoint_name"], shown["callback"]["url"]) == (None, "https://me.example/cb")
    assert "s3cret" not in answer.text
    for_admin = (await admin.get(f"/payments/{payment['id']}/deliveries")).json()["deliveries"]
    assert {delivery["url"] for delivery in for_admin} == {"https://me.example/cb", endpoint["url"]}


# -- whose business it is


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("GET", "/status"), ("GET", "/history"), ("GET", "/deliveries"), ("POST", "/cancel")],
)
@pytest.mark.parametrize("scope", ["all", "created"])
async def test_a_payment_is_for_its_owner_services_and_admins_and_404_for_everybody_else(
    make_settings: Callable[..., Settings], scope: str, method: str, path: str
) -> None:
    """With SERVICE_SCOPE=created, of the services only for the one that created it."""
    async with opened_with(make_settings(service_scope=scope)) as running_api:
        await check_who_may(running_api, scope, method, path)


async def check_who_may(running_api: RunningApi, scope: str, method: str, path: str) -> None:
    payer, creator = running_api.user(7), running_api.service("shop")
    payment = await accepted(creator, order(await added(payer), user_id=7))
    services = [running_api.service("other"), running_api.service("7")]
    for stranger in (running_api.user(8), running_api.user("shop"), *(services if scope == "created" else [])):
        problem(await stranger.request(method, f"/payments/{payment['id']}{path}"), 404, "not_found")
    assert (await claimed(running_api.database, payment["id"])) is not None  # it was not cancelled either
    await change(running_api.database, payment["id"], status="PENDING")
    allowed = [payer, creator, running_api.admin(), running_api.user(9, roles=["x", "super_admin"])]
    for client in (*allowed, *(services if scope == "all" else [])):
        answer = await client.request(method, f"/payments/{payment['id']}{path}")
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("path", ["", "/status", "/history", "/deliveries", "/cancel"])
async def test_what_is_no_id_of_ours_is_not_found(admin: httpx.AsyncClient, path: str) -> None:
    method = "POST" if path == "/cancel" else "GET"
    new = str(new_id())
    for wrong in (
        new,
        "1",
        "x" * 3000,
        "%00",
        "%0a",
        "%ff",
        "ü",
        "{" + new + "}",
        new.replace("-", ""),
        f"urn:uuid:{new}",
    ):
        problem(await admin.request(method, f"/payments/{wrong}{path}"), 404, "not_found")


async def test_an_id_in_capitals_is_the_same_id(user: httpx.AsyncClient) -> None:
    payment = await paid(user)
    assert (await user.get(f"/payments/{payment['id'].upper()}")).json() == payment
