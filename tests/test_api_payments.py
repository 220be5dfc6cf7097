"""Payments over HTTP, on both databases: what is accepted, what is refused, who sees what, and the lists."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import select

from api.schemas.payments import Payment as PaymentModel
from shared.config.settings import Settings
from shared.database.tables import events, payments
from shared.ids import new_id
from shared.payments.requests import cancel
from shared.runtime import Runtime
from tests.support.api_client import (
    APPROVED,
    DECLINED,
    MASTERCARD,
    RunningApi,
    accepted,
    added,
    card,
    change,
    claimed,
    opened,
    opened_with,
    order,
    paid,
    paypal,
    pointers,
    problem,
    row_counts,
    settled,
)

pytest_plugins = ["tests.support.api_fixtures"]

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


# -- accepting


async def test_an_accepted_payment_is_pending_and_says_where_to_look_and_when(user: httpx.AsyncClient) -> None:
    answer = await user.post("/payments", json=order(await added(user)))
    payment = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/api/v1/payments/{payment['id']}"
    assert (answer.headers["retry-after"], answer.headers["etag"]) == ("1", '"1"')
    assert "preference-applied" not in answer.headers
    assert UUID(payment["id"]).version == 7
    PaymentModel.model_validate(payment)
    assert (payment["status"], payment["sequence"], payment["livemode"]) == ("PENDING", 1, False)
    assert MOMENT.fullmatch(payment["created_at"])
    assert payment["updated_at"] == payment["created_at"]
    found = await user.get(f"/payments/{payment['id']}")
    assert (found.status_code, found.json()) == (200, payment)


async def test_a_payment_shows_what_was_asked_for_and_how_it_is_paid(user: httpx.AsyncClient) -> None:
    asked = {
        "order_id": 1042,
        "amount": 99,
        "currency": "JPY",
        "description": "Zwei Krüge ☕",
        "metadata": {"basket": "7", "größe": ""},
        "callback_url": "https://shop.example/hooks?a=1",
    }
    method_id = await added(user)
    payment = await accepted(user, {**asked, "payment_method_id": method_id})
    assert payment | asked == payment | {"order_id": 1042}
    assert payment["order_id"] == "1042"
    assert (payment["user_id"], payment["payment_method_id"]) == ("1", method_id)
    assert payment["payment_method_details"] == {
        "type": "CREDIT_CARD",
        "brand": "visa",
        "last4": "4242",
        "exp_month": 12,
        "exp_year": 2040,
    }
    nothing_yet = ("gateway", "gateway_transaction_id", "gateway_details", "failure_code", "failure_reason")
    assert {payment[name] for name in (*nothing_yet, "outcome_rule", "processed_at")} == {None}


async def test_a_paypal_payment_shows_the_masked_address_only(user: httpx.AsyncClient) -> None:
    payment = await accepted(user, order(await added(user, paypal("shopper@example.com"))))
    assert payment["payment_method_details"] == {"type": "PAYPAL", "email": "s***r@example.com"}


async def test_what_is_left_out_has_its_default(user: httpx.AsyncClient) -> None:
    payment = await paid(user)
    defaults: dict[str, Any] = {"currency": "USD", "description": None, "metadata": {}, "callback_url": None}
    assert payment | defaults == payment


async def test_a_payment_is_written_down_with_its_history_and_nothing_that_nobody_wants(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    await paid(user)
    assert await row_counts(running_api.database) == {
        "payment_methods": 1,
        "payments": 1,
        "payment_history": 1,
    }


@pytest.mark.parametrize("order_id", ["A.b_c-9", "x" * 64, "0", "-", 0, 7, 2**63 - 1, -5])
async def test_order_ids_are_short_names_or_integers(user: httpx.AsyncClient, order_id: Any) -> None:
    assert (await paid(user, order_id=order_id))["order_id"] == str(order_id)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)  # no database is asked
@pytest.mark.parametrize(
    ("member", "values"),
    [
        ("order_id", ["", "x" * 65, "a b", "a/b", "ü", "1\n", 2**63, 10**22, 1.5, 1.0, True, None, [], {}]),
        ("amount", [0, -1, 1.0, 15.85, "1585", True, None, [], 2**63, 10**22, 1e3]),
        ("currency", ["usd", "US", "USDX", "XXX", "", "U\0D", 840, None]),
        ("description", ["x" * 256, "a\nb", "a\0b", "\x7f", "\x85", 7, []]),
        ("metadata", [{str(n): "" for n in range(21)}, {"": "x"}, {"k" * 41: "x"}, {"k": "v" * 501}, {"k": 1}, [], ""]),
        ("metadata", [{"k": None}, {"k": "\0"}, {"\0": "k"}, {str(n): "ü" * 500 for n in range(20)}, None]),
        ("callback_url", ["", "https://x.example/" + "a" * 2048, 7, "https://x.example/\n", []]),
        ("payment_method_id", ["", "x" * 65, 7, None, True]),
        ("user_id", ["", "x" * 65, "a b", "ü", "1\n", 2**63, 1.5, True, []]),
        ("card_number", ["4242424242424242"]),
    ],
)
async def test_every_member_that_is_wrong_is_named_and_nothing_is_written(
    running_api: RunningApi, admin: httpx.AsyncClient, member: str, values: list[Any]
) -> None:
    method_id = await added(admin)
    for value in values:
        answer = await admin.post("/payments", json={**order(method_id), member: value})
        named = pointers(answer)
        assert named, value
        assert all(f"{place}/".startswith(f"/{member}/") for place in named), (value, named)
    assert await row_counts(running_api.database) == {"payment_methods": 1}


@pytest.mark.parametrize("member", ["order_id", "amount", "payment_method_id"])
async def test_a_member_that_is_missing_is_named(user: httpx.AsyncClient, member: str) -> None:
    body = order(str(new_id()))
    del body[member]
    assert pointers(await user.post("/payments", json=body)) == [f"/{member}"]


async def test_every_wrong_member_is_named_at_once(user: httpx.AsyncClient) -> None:
    wrong = {"order_id": "", "amount": 0, "currency": "x", "payment_method_id": "m", "metadata": {"a/b~c": 1}}
    found = pointers(await user.post("/payments", json=wrong))
    assert sorted(found) == ["/amount", "/currency", "/metadata/a~1b~0c", "/order_id"]


async def test_amounts_are_bounded_by_the_settings(user: httpx.AsyncClient) -> None:
    method_id = await added(user)
    for amount, is_right in ((49, False), (50, True), (100_000_000, True), (100_000_001, False)):
        answer = await user.post("/payments", json=order(method_id, amount=amount))
        if is_right:
            assert answer.status_code == 202
        else:
            assert pointers(answer) == ["/amount"]
            assert "between 50 and 100000000" in answer.text


async def test_where_an_order_service_numbers_the_orders_an_order_id_is_a_positive_integer(runtime: Runtime) -> None:
    settings = runtime.settings.model_copy(update={"order_service_url": "http://127.0.0.1:1"})
    async with opened(Runtime(settings, runtime.database, runtime.broker, runtime.keyring)) as running_api:
        user = running_api.user()
        method_id = await added(user)
        for order_id in ("abc", "0", "-1", "1.0", "0042", "٤٢", str(2**63), "9" * 64):
            answer = await user.post("/payments", json=order(method_id, order_id=order_id))
            assert pointers(answer) == ["/order_id"], order_id
        assert (await accepted(user, order(method_id, order_id="42")))["order_id"] == "42"
        assert (await accepted(user, order(method_id, order_id=43)))["order_id"] == "43"


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)  # no database is asked
@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1/hook",
        "http://169.254.169.254/latest/meta-data",
        "http://[::ffff:10.0.0.1]/hook",
        "https://user:secret@shop.example/",
        "https://shop.example/#part",
        "ftp://shop.example/",
        "shop.example/hook",
        "http://0x7f.1/",
        "http://shop.example:0/",
    ],
)
async def test_no_callback_is_promised_to_an_address_that_may_not_be_reached(
    running_api: RunningApi, user: httpx.AsyncClient, url: str
) -> None:
    answer = await user.post("/payments", json=order(await added(user), callback_url=url))
    body = problem(answer, 422, "callback_url_refused")
    assert [error["pointer"] for error in body["errors"]] == ["/callback_url"]
    assert "secret" not in answer.text
    assert await row_counts(running_api.database) == {"payment_methods": 1}


async def test_loopback_takes_callbacks_in_development_but_our_own_ports_never_do(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    for port in running_api.settings.own_ports:
        for host in ("127.0.0.1", "localhost", "127.9.9.9", "0.0.0.0", "[::1]"):  # noqa: S104
            answer = await user.post("/payments", json=order("x", callback_url=f"http://{host}:{port}/"))
            problem(answer, 422, "callback_url_refused")
    await paid(user, callback_url="http://127.0.0.1:1/hook")


# -- with which method


UNUSABLE = '"payment_method_id" must be an active payment method of the user that has not expired.'


async def test_a_method_must_be_the_payers_own_and_in_use(running_api: RunningApi, user: httpx.AsyncClient) -> None:
    gone = await added(user)
    assert (await user.delete(f"/payment-methods/{gone}")).status_code == 204
    foreign = await added(running_api.user(2))
    for method_id in (gone, foreign, str(new_id()), "pm_1", "00000000-0000-0000-0000-000000000000"):
        answer = await user.post("/payments", json=order(method_id))
        body = problem(answer, 422, "payment_method_unusable")
        assert body["detail"] == "This user has no such payment method. Choose or add another one."
        assert body["errors"] == [{"pointer": "/payment_method_id", "detail": UNUSABLE}]
    assert "payments" not in await row_counts(running_api.database)


async def test_what_becomes_of_the_method_later_does_not_touch_the_payment(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    payment = await paid(user)
    await user.delete(f"/payment-methods/{payment['payment_method_id']}")
    assert (await user.get(f"/payments/{payment['id']}")).json() == payment
    claim = await claimed(running_api.database, payment["id"])
    details = claim.method["details"]
    assert claim.method == {"type": "CREDIT_CARD", "details": details, "scenario": None, "is_approved": True}
    assert claim.method["details"]["last4"] == "4242"


# -- for whom


async def test_a_user_pays_for_nobody_else_not_even_under_their_own_name(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    method_id = await added(user)
    for user_id in (2, "2", 1, "1"):
        problem(await user.post("/payments", json=order(method_id, user_id=user_id)), 403, "forbidden")
    assert "payments" not in await row_counts(running_api.database)


@pytest.mark.parametrize("role", ["service", "admin", "payment_admin", "super_admin"])
async def test_services_and_admins_pay_for_a_user_with_that_users_method(running_api: RunningApi, role: str) -> None:
    asker, payer = running_api.user("shop", role=role), running_api.user(7)
    method_id = await added(payer)
    payment = await accepted(asker, order(method_id, user_id=7))
    assert payment["user_id"] == "7"
    assert (await payer.get(f"/payments/{payment['id']}")).json() == payment
    own = await added(asker)
    problem(await asker.post("/payments", json=order(own, user_id="7")), 422, "payment_method_unusable")
    problem(await asker.post("/payments", json=order(method_id)), 422, "payment_method_unusable")
    assert (await accepted(asker, order(own)))["user_id"] == "shop"


# -- one live payment per user and order


async def test_an_order_with_a_payment_in_progress_takes_no_second_one(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    first = await paid(user, order_id="o1")
    again = order(first["payment_method_id"], order_id="o1", amount=99)
    answer = await user.post("/payments", json=again)
    assert problem(answer, 409, "payment_in_progress")["payment_id"] == first["id"]
    await claimed(running_api.database, first["id"])
    answer = await user.post("/payments", json=again)
    assert problem(answer, 409, "payment_in_progress")["payment_id"] == first["id"]
    assert (await row_counts(running_api.database))["payments"] == 1


async def test_a_paid_order_is_not_paid_again(running_api: RunningApi, user: httpx.AsyncClient) -> None:
    first = await paid(user, order_id="o1")
    await settled(running_api.database, first["id"], APPROVED)
    answer = await user.post("/payments", json=order(first["payment_method_id"], order_id="o1"))
    assert problem(answer, 409, "order_already_paid")["payment_id"] == first["id"]


async def test_after_a_failed_or_cancelled_payment_the_order_may_be_paid(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    failed = await paid(user, order_id="o1")
    await settled(running_api.database, failed["id"], DECLINED)
    cancelled = await paid(user, order_id="o1")
    await user.post(f"/payments/{cancelled['id']}/cancel")
    third = await paid(user, order_id="o1")
    assert len({failed["id"], cancelled["id"], third["id"]}) == 3


async def test_two_users_may_have_an_order_of_the_same_name(running_api: RunningApi) -> None:
    one, two = await paid(running_api.user(1), order_id="o1"), await paid(running_api.user(2), order_id="o1")
    assert one["id"] != two["id"]


async def test_of_two_payments_for_an_order_at_the_same_instant_one_is_accepted(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    method_id = await added(user)
    for round_ in range(10):
        body = order(method_id, order_id=f"race-{round_}")
        answers = await asyncio.gather(*(user.post("/payments", json=body) for _ in range(4)))
        assert sorted(answer.status_code for answer in answers) == [202, 409, 409, 409]
        [won] = [answer.json()["id"] for answer in answers if answer.status_code == 202]
        for answer in answers:
            if answer.status_code == 409:
                assert problem(answer, 409, "payment_in_progress")["payment_id"] == won
    assert (await row_counts(running_api.database))["payments"] == 10


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
    assert all(MOMENT.fullmatch(move["created_at"]) for move in answer["history"])


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


# -- lists


async def pages(client: httpx.AsyncClient, **params: Any) -> list[list[dict[str, Any]]]:
    """Every page of a list; from the second on, the cursor alone says what is listed."""
    found = []
    answer = await client.get("/payments", params=params)
    while True:
        assert answer.status_code == 200, answer.text
        body = answer.json()
        found.append(body["payments"])
        if body["next_cursor"] is None:
            return found
        kept = {"limit": params["limit"]} if "limit" in params else {}
        answer = await client.get("/payments", params={**kept, "cursor": body["next_cursor"]})


async def test_a_list_has_the_newest_first_in_pages_without_gaps_or_repeats(user: httpx.AsyncClient) -> None:
    method_id = await added(user)
    made = [await accepted(user, order(method_id)) for _ in range(7)]
    found = await pages(user, limit=3)
    assert [len(page) for page in found] == [3, 3, 1]
    assert [payment for page in found for payment in page] == list(reversed(made))
    assert [len(page) for page in await pages(user, limit=7)] == [7]
    whole = (await user.get("/payments")).json()
    assert (len(whole["payments"]), whole["limit"], whole["next_cursor"]) == (7, 20, None)


async def test_a_page_is_not_disturbed_by_what_happens_meanwhile(user: httpx.AsyncClient) -> None:
    method_id = await added(user)
    made = [await accepted(user, order(method_id)) for _ in range(4)]
    first = (await user.get("/payments", params={"limit": 2})).json()
    await accepted(user, order(method_id))
    second = (await user.get("/payments", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert [payment["id"] for payment in second["payments"]] == [made[1]["id"], made[0]["id"]]


async def test_an_empty_list_is_a_list(user: httpx.AsyncClient) -> None:
    assert (await user.get("/payments")).json() == {"payments": [], "limit": 20, "next_cursor": None}


async def test_users_list_their_own_services_and_admins_all(running_api: RunningApi) -> None:
    payer, other, creator = running_api.user(7), running_api.user(8), running_api.service("shop")
    own = await paid(payer)
    made = await accepted(creator, order(await added(payer), user_id=7))
    foreign = await paid(other)
    seen = {}
    for name, client in {"payer": payer, "other": other, "creator": creator, "admin": running_api.admin()}.items():
        seen[name] = {payment["id"] for payment in (await client.get("/payments")).json()["payments"]}
    assert seen == {
        "payer": {own["id"], made["id"]},
        "other": {foreign["id"]},
        "creator": {own["id"], made["id"], foreign["id"]},
        "admin": {own["id"], made["id"], foreign["id"]},
    }
    for client in (creator, running_api.admin()):
        of_user = (await client.get("/payments", params={"user_id": "7"})).json()["payments"]
        assert {payment["id"] for payment in of_user} == {own["id"], made["id"]}
    problem(await payer.get("/payments", params={"user_id": "7"}), 403, "forbidden")


async def test_with_the_scope_created_a_service_lists_what_it_created(make_settings: Callable[..., Settings]) -> None:
    async with opened_with(make_settings(service_scope="created")) as running_api:
        payer, creator = running_api.user(7), running_api.service("shop")
        await paid(payer)
        made = await accepted(creator, order(await added(payer), user_id=7))
        assert [payment["id"] for payment in (await creator.get("/payments")).json()["payments"]] == [made["id"]]
        refused = problem(await creator.get("/payments", params={"user_id": "7"}), 403, "forbidden")
        assert refused["detail"] == "Only admins may name a user here. Leave out user_id."


async def test_lists_are_filtered_by_status_and_order(running_api: RunningApi, user: httpx.AsyncClient) -> None:
    one, two = await paid(user, order_id="o1"), await paid(user, order_id="o2")
    await settled(running_api.database, one["id"], DECLINED)
    three = await paid(user, order_id="o1")

    async def listed(**params: str) -> list[str]:
        return [payment["id"] for page in await pages(user, limit=1, **params) for payment in page]

    assert await listed(status="PENDING") == [three["id"], two["id"]]
    assert await listed(status="FAILED") == [one["id"]]
    assert await listed(order_id="o1") == [three["id"], one["id"]]
    assert await listed(order_id="o1", status="PENDING") == [three["id"]]
    assert await listed(order_id="nothing") == []


async def test_created_after_is_inclusive_and_created_before_is_not(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    start = datetime(2026, 3, 1, 12, tzinfo=UTC)
    made = [await paid(user) for _ in range(3)]
    for seconds, payment in enumerate(made):
        await change(running_api.database, payment["id"], created_at=start + timedelta(seconds=seconds))

    async def listed(**params: str) -> list[int]:
        found = {payment["id"] for page in await pages(user, limit=1, **params) for payment in page}
        return [number for number, payment in enumerate(made) if payment["id"] in found]

    assert await listed(created_after="2026-03-01T12:00:01Z") == [1, 2]
    assert await listed(created_before="2026-03-01T12:00:01Z") == [0]
    assert await listed(created_after="2026-03-01T14:00:01+02:00", created_before="2026-03-01T12:00:02.000Z") == [1]
    assert await listed(created_after="2026-03-01T12:00:01.001Z") == [2]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "limit=-1",
        "limit=x",
        "limit=1.5",
        "limit=",
        "limit=99999999999999999999",
        "status=DONE",
        "status=pending",
        "status=",
        "order_id=",
        "order_id=a%20b",
        "order_id=%00",
        "created_after=yesterday",
        "created_after=0.5",
        "created_before=1795380367",
        "created_after=2026-03-01",
        "created_after=2026-03-01T12:00:00",
        "created_after=9999-12-31T23:59:59-12:00",
        "created_before=0001-01-01T00:00:00%2B12:00",
        "created_before=nan",
        "created_before=99999999999999999999999",
        "user_id=",
        "user_id=%00",
        "user_id=a%20b",
        "user_id=%ED%A0%80",
        "cursor=",
        "cursor=x",
        "cursor=%C3%BC",
        "cursor=" + "A" * 2001,
        "cursor=" + "A" * 100,
        "limit=%FF",
    ],
)
async def test_a_wrong_query_is_422_and_names_the_parameter(admin: httpx.AsyncClient, query: str) -> None:
    assert pointers(await admin.get(f"/payments?{query}")) == [f"/query/{query.partition('=')[0]}"]


async def test_a_cursor_is_opaque_and_keeps_its_filters(user: httpx.AsyncClient) -> None:
    method_id = await added(user)
    for order_id in ("o1", "o2", "o3"):
        await accepted(user, order(method_id, order_id=order_id))
    filters: dict[str, Any] = {"status": "PENDING", "created_after": "2020-01-01T01:00:00+01:00", "limit": 1}
    first = (await user.get("/payments", params=filters)).json()
    cursor = first["next_cursor"]
    assert first["payments"][0]["id"] not in cursor
    assert re.fullmatch(r"[A-Za-z0-9_-]+", cursor)
    same_moment = {"created_after": "2020-01-01T00:00:00Z"}
    for repeated in ({"limit": 1}, filters, filters | same_moment):
        params = {"cursor": cursor, **repeated}
        assert [p["order_id"] for p in (await user.get("/payments", params=params)).json()["payments"]] == ["o2"]
    for other in ({"status": "FAILED"}, {"status": "PENDING"}, {"order_id": "o1"}):
        assert pointers(await user.get("/payments", params={"cursor": cursor, **other})) == ["/query/cursor"]


async def test_a_cursor_that_is_foreign_or_tampered_with_is_422(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    method_id = await added(user)
    for _ in range(2):
        await accepted(user, order(method_id))
    cursor = (await user.get("/payments", params={"limit": 1})).json()["next_cursor"]
    for client in (running_api.user(2), running_api.admin("1"), running_api.service("1")):
        assert pointers(await client.get("/payments", params={"cursor": cursor})) == ["/query/cursor"]
    for place in range(0, len(cursor), 5):
        tampered = cursor[:place] + ("A" if cursor[place] != "A" else "B") + cursor[place + 1 :]
        assert pointers(await user.get("/payments", params={"cursor": tampered})) == ["/query/cursor"]
    for cut in (cursor[:-4], cursor[4:], cursor + cursor):
        assert pointers(await user.get("/payments", params={"cursor": cut})) == ["/query/cursor"]


async def test_a_cursor_of_deliveries_is_none_of_payments(running_api: RunningApi, service: httpx.AsyncClient) -> None:
    endpoint = (
        await service.post(
            "/webhook-endpoints",
            json={"name": "o", "url": "https://o.example", "event_types": ["payment.initiated"]},
        )
    ).json()
    method_id = await added(service)
    for _ in range(2):
        await accepted(service, order(method_id))
    of_deliveries = f"/webhook-endpoints/{endpoint['id']}/deliveries"
    first = (await service.get(of_deliveries, params={"limit": 1})).json()["next_cursor"]
    second = (await service.get("/payments", params={"limit": 1})).json()["next_cursor"]
    assert pointers(await service.get("/payments", params={"cursor": first})) == ["/query/cursor"]
    assert pointers(await service.get(of_deliveries, params={"cursor": second})) == ["/query/cursor"]


# -- cancelling


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


async def test_a_second_card_of_the_same_user_pays_as_well(user: httpx.AsyncClient) -> None:
    payment = await accepted(user, order(await added(user, card(MASTERCARD, type="DEBIT_CARD"))))
    assert payment["payment_method_details"]["type"] == "DEBIT_CARD"
    assert payment["payment_method_details"]["brand"] == "mastercard"
