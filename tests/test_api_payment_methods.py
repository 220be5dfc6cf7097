"""Payment methods over HTTP, on both databases: what is added, what is kept of it, and who may do what with it."""

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from api.schemas.payment_methods import Method as MethodModel
from shared.config.settings import Settings
from shared.database.engine import Database, open_database
from shared.database.schema import metadata
from shared.ids import new_id
from shared.payment_methods import change_method, delete_method, find_method
from shared.runtime import Runtime
from tests.support.api_client import (
    MASTERCARD,
    SIX_CARDS,
    VISA,
    RunningApi,
    accepted,
    added,
    card,
    claimed,
    opened,
    order,
    paypal,
    pointers,
    problem,
    row_counts,
)
from tests.support.harness import SetClock

pytest_plugins = ["tests.support.api_fixtures"]


async def everything_stored(database: Database) -> str:
    """Every value of every table, as text."""
    async with database.read() as connection:
        rows = [
            tuple(row)
            for table in metadata.sorted_tables
            for row in await connection.execute(text(f"SELECT * FROM {table.name}"))  # noqa: S608
        ]
    return repr(rows)


# -- adding


async def test_a_new_card_is_answered_with_what_may_be_shown(user: httpx.AsyncClient) -> None:
    answer = await user.post("/payment-methods", json=card(cardholder_name="Ada Lovelace", display_name="Mine"))
    method = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/api/v1/payment-methods/{method['id']}"
    MethodModel.model_validate(method)
    assert (
        method
        | {
            "user_id": "1",
            "type": "CREDIT_CARD",
            "display_name": "Mine",
            "masked_details": {"brand": "visa", "last4": "4242", "exp_month": 12, "exp_year": 2040},
            "is_default": True,
            "is_active": True,
            "expires_at": "2041-01-01T00:00:00.000Z",
        }
        == method
    )
    assert (await user.get(f"/payment-methods/{method['id']}")).json() == method


async def test_without_a_name_a_method_is_named_after_what_it_is(user: httpx.AsyncClient) -> None:
    names = [
        (await user.post("/payment-methods", json=body)).json()["display_name"]
        for body in (card(), card(MASTERCARD, type="DEBIT_CARD"), paypal())
    ]
    assert names == ["Visa ending in 4242", "Mastercard ending in 4444", "PayPal s***r@example.com"]


async def test_a_paypal_account_is_kept_masked(user: httpx.AsyncClient) -> None:
    method = (await user.post("/payment-methods", json=paypal("shopper@example.com"))).json()
    MethodModel.model_validate(method)
    assert (method["type"], method["expires_at"]) == ("PAYPAL", None)
    assert method["masked_details"] == {"email": "s***r@example.com"}


async def test_neither_number_nor_cvc_nor_address_is_stored_or_answered(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    bodies = [card("4000 0566-5566 5556", cvv="987", cardholder_name="Ada L."), paypal("shopper@example.com")]
    answers = [
        await user.post("/payment-methods", json=body, headers={"Idempotency-Key": "k" + body["type"]})
        for body in bodies
    ]
    payment = await accepted(user, order(answers[0].json()["id"]))
    await claimed(running_api.database, payment["id"])
    texts = "".join(answer.text for answer in answers) + await everything_stored(running_api.database)
    for secret in ("4000056655665556", "4000 0566", "66556655", "'987'", '"987"', "shopper@example.com", "Ada L."):
        assert secret not in texts
    assert "5556" in texts


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)  # no database is asked
@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"card_number": "4242424242424241"}, "/payment_details/card_number"),
        ({"card_number": "1234567812345670"}, "/payment_details/card_number"),
        ({"card_number": "42424242424242"}, "/payment_details/card_number"),
        ({"card_number": "4242-4242-4242-424x"}, "/payment_details/card_number"),
        ({"card_number": "٤٢٤٢٤٢٤٢٤٢٤٢٤٢٤٢"}, "/payment_details/card_number"),
        ({"card_number": "4242424242424242\0"}, "/payment_details/card_number"),
        ({"card_number": "424242424242" * 4}, "/payment_details/card_number"),
        ({"card_number": 4242424242424242}, "/payment_details/card_number"),
        ({"card_number": ["4242424242424242"]}, "/payment_details/card_number"),
        ({"card_number": None}, "/payment_details/card_number"),
        ({"cvv": "12"}, "/payment_details/cvv"),
        ({"cvv": "1234"}, "/payment_details/cvv"),
        ({"cvv": "98a"}, "/payment_details/cvv"),
        ({"cvv": 987}, "/payment_details/cvv"),
        ({"cvv": None}, "/payment_details/cvv"),
        ({"exp_month": 0}, "/payment_details/exp_month"),
        ({"exp_month": 13}, "/payment_details/exp_month"),
        ({"exp_month": "12"}, "/payment_details/exp_month"),
        ({"exp_year": 26}, "/payment_details/exp_year"),
        ({"exp_year": 2101}, "/payment_details/exp_year"),
        ({"exp_year": 10**22}, "/payment_details/exp_year"),
        ({"exp_year": 2020}, "/payment_details/exp_year"),
        ({"cardholder_name": "x" * 101}, "/payment_details/cardholder_name"),
        ({"cardholder_name": "a\nb"}, "/payment_details/cardholder_name"),
        ({"pin": "0000"}, "/payment_details/pin"),
        ({"4242424242424242": "x"}, "/payment_details/[hidden]"),
        ({"display_name": ""}, "/display_name"),
        ({"display_name": "x" * 101}, "/display_name"),
        ({"display_name": "a\0"}, "/display_name"),
        ({"is_default": "yes"}, "/is_default"),
        ({"type": "GIFT_CARD"}, "/type"),
        ({"type": "4242424242424242"}, "/type"),
        ({"type": None}, "/type"),
        ({"type": ["CREDIT_CARD"]}, "/type"),
    ],
)
async def test_what_is_wrong_with_a_card_is_named_by_its_place_and_never_repeated(
    running_api: RunningApi, user: httpx.AsyncClient, changes: dict[str, Any], pointer: str
) -> None:
    answer = await user.post("/payment-methods", json=card(**changes))
    assert pointers(answer) == [pointer]
    errors = str(answer.json()["errors"])
    assert not any(secret in errors for secret in ("4242", "1234", "987", "98a", "٤"))
    assert await row_counts(running_api.database) == {}


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)  # no database is asked
@pytest.mark.parametrize(
    "email", ["", "x", "a@b", "a b@example.com", "a@@example.com", "a@example.", "a\0@e.com", 7, "x" * 250 + "@e.com"]
)
async def test_an_address_that_is_none_is_named(user: httpx.AsyncClient, email: Any) -> None:
    assert pointers(await user.post("/payment-methods", json=paypal(email))) == ["/payment_details/email"]


async def test_an_american_express_card_has_a_cvc_of_four_digits(user: httpx.AsyncClient) -> None:
    amex = "378282246310005"
    answer = await user.post("/payment-methods", json=card(amex))
    assert pointers(answer) == ["/payment_details/cvv"]
    assert (await user.post("/payment-methods", json=card(amex, cvv="1234"))).status_code == 201


async def test_a_number_may_be_written_with_spaces_and_hyphens(user: httpx.AsyncClient) -> None:
    first = await user.post("/payment-methods", json=card("4242 4242 4242 4242"))
    again = await user.post("/payment-methods", json=card("4242-4242-4242-4242"))
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]


# -- the same again, and the limit


async def test_the_same_card_again_is_the_one_that_is_there(running_api: RunningApi, user: httpx.AsyncClient) -> None:
    first = await user.post("/payment-methods", json=card(display_name="Mine"))
    again = await user.post("/payment-methods", json=card(cvv="999", display_name="Other"))
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    assert (await row_counts(running_api.database)) == {"payment_methods": 1}


async def test_the_same_card_again_with_another_expiry_is_the_renewed_card(user: httpx.AsyncClient) -> None:
    first = (await user.post("/payment-methods", json=card(exp_year=2030))).json()
    renewed = await user.post("/payment-methods", json=card(exp_year=2035, exp_month=1))
    assert (renewed.status_code, renewed.json()["id"]) == (200, first["id"])
    assert renewed.json()["expires_at"] == "2035-02-01T00:00:00.000Z"
    assert (await user.get(f"/payment-methods/{first['id']}")).json() == renewed.json()


async def test_credit_and_debit_paypal_and_other_users_are_other_methods(running_api: RunningApi) -> None:
    one, two = running_api.user(1), running_api.user(2)
    ids = {
        await added(one, card()),
        await added(one, card(type="DEBIT_CARD")),
        await added(two, card()),
        await added(one, paypal("a@example.com")),
        await added(one, paypal("b@example.com")),
    }
    assert len(ids) == 5
    assert await added(one, paypal("A@Example.COM")) in ids


async def test_a_sixth_method_is_one_too_many(user: httpx.AsyncClient) -> None:
    for number in SIX_CARDS[:5]:
        await added(user, card(number))
    answer = await user.post("/payment-methods", json=card(SIX_CARDS[5]))
    assert "5" in problem(answer, 422, "payment_method_limit")["detail"]
    assert (await user.post("/payment-methods", json=card(SIX_CARDS[0]))).status_code == 200  # one that is there
    methods = (await user.get("/payment-methods")).json()["payment_methods"]
    await user.delete(f"/payment-methods/{methods[0]['id']}")
    assert (await user.post("/payment-methods", json=card(SIX_CARDS[5]))).status_code == 201


async def test_the_limit_holds_for_ten_that_come_at_once(user: httpx.AsyncClient) -> None:
    bodies = [paypal(f"shopper{n}@example.com") for n in range(10)]
    answers = await asyncio.gather(*(user.post("/payment-methods", json=body) for body in bodies))
    assert sorted(answer.status_code for answer in answers) == [201] * 5 + [422] * 5
    for answer in answers:
        if answer.status_code == 422:
            problem(answer, 422, "payment_method_limit")
    methods = (await user.get("/payment-methods")).json()["payment_methods"]
    assert len(methods) == 5
    assert [method["is_default"] for method in methods].count(True) == 1


async def test_the_same_card_ten_times_at_once_is_one_method(user: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(user.post("/payment-methods", json=card()) for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [200] * 9 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1


# -- the default


async def defaults(client: httpx.AsyncClient) -> list[bool]:
    """Who is the default, the newest first."""
    return [method["is_default"] for method in (await client.get("/payment-methods")).json()["payment_methods"]]


async def test_the_first_method_is_the_default_and_the_list_has_the_newest_first(user: httpx.AsyncClient) -> None:
    ids = [await added(user, card(number)) for number in SIX_CARDS[:3]]
    listed = (await user.get("/payment-methods")).json()["payment_methods"]
    assert [method["id"] for method in listed] == list(reversed(ids))
    assert await defaults(user) == [False, False, True]


async def test_there_is_always_exactly_one_default(user: httpx.AsyncClient) -> None:
    one = await added(user, card())
    two = await added(user, card(MASTERCARD, is_default=True))
    assert await defaults(user) == [True, False]
    changed = await user.patch(f"/payment-methods/{one}", json={"is_default": True})
    assert changed.json()["is_default"]
    assert await defaults(user) == [False, True]
    answer = await user.post("/payment-methods", json=card(MASTERCARD, is_default=True))
    assert (answer.status_code, answer.json()["id"], answer.json()["is_default"]) == (200, two, True)
    assert await defaults(user) == [True, False]
    assert pointers(await user.patch(f"/payment-methods/{two}", json={"is_default": False})) == ["/is_default"]


async def test_deleting_the_default_passes_it_to_the_newest(user: httpx.AsyncClient) -> None:
    one, two, three = [await added(user, card(number)) for number in SIX_CARDS[:3]]
    assert (await user.delete(f"/payment-methods/{one}")).status_code == 204
    assert await defaults(user) == [True, False]
    assert (await user.delete(f"/payment-methods/{two}")).status_code == 204
    assert await defaults(user) == [True]
    assert (await user.delete(f"/payment-methods/{three}")).status_code == 204
    await added(user, card())
    assert await defaults(user) == [True]


async def test_ten_who_want_to_be_the_default_at_once_leave_one(user: httpx.AsyncClient) -> None:
    ids = [await added(user, card(number)) for number in SIX_CARDS[:5]] * 2
    answers = await asyncio.gather(
        *(user.patch(f"/payment-methods/{method_id}", json={"is_default": True}) for method_id in ids)
    )
    assert {answer.status_code for answer in answers} == {200}
    assert (await defaults(user)).count(True) == 1


async def test_a_default_made_of_a_method_that_is_just_being_deleted_leaves_the_old_one(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    await added(user, card())
    doomed = await added(user, card(MASTERCARD))
    for _ in range(10):
        changed, deleted = await asyncio.gather(
            user.patch(f"/payment-methods/{doomed}", json={"is_default": True}),
            user.delete(f"/payment-methods/{doomed}"),
        )
        assert (changed.status_code in {200, 404}, deleted.status_code) == (True, 204)
        assert (await defaults(user)).count(True) == 1
        doomed = await added(user, card(MASTERCARD))


# -- changing and deleting


async def test_a_method_can_be_renamed(user: httpx.AsyncClient) -> None:
    method_id = await added(user)
    answer = await user.patch(f"/payment-methods/{method_id}", json={"display_name": "Für Bücher"})
    assert (answer.status_code, answer.json()["display_name"]) == (200, "Für Bücher")
    same = await user.patch(f"/payment-methods/{method_id}", json={})
    assert (same.status_code, same.json()) == (200, answer.json())


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"display_name": ""}, "/display_name"),
        ({"display_name": "x" * 101}, "/display_name"),
        ({"display_name": "a\0b"}, "/display_name"),
        ({"is_default": 1}, "/is_default"),
        ({"card_number": VISA}, "/card_number"),
        ({"user_id": 2}, "/user_id"),
        ([], ""),
        ("x", ""),
    ],
)
async def test_nothing_else_of_a_method_can_be_changed(user: httpx.AsyncClient, body: Any, pointer: str) -> None:
    method_id = await added(user)
    before = (await user.get(f"/payment-methods/{method_id}")).json()
    answer = await user.patch(f"/payment-methods/{method_id}", json=body)
    assert pointers(answer) == [pointer]
    assert VISA not in answer.text
    assert (await user.get(f"/payment-methods/{method_id}")).json() == before


async def test_a_deleted_method_is_not_found_any_more(user: httpx.AsyncClient) -> None:
    method_id = await added(user)
    deleted = await user.delete(f"/payment-methods/{method_id}")
    assert (deleted.status_code, deleted.content) == (204, b"")
    path = f"/payment-methods/{method_id}"
    for again in (user.get(path), user.delete(path), user.patch(path, json={"display_name": "x"})):
        problem(await again, 404, "not_found")
    assert (await user.get("/payment-methods")).json() == {"payment_methods": []}
    assert await added(user) != method_id  # the same card, added anew


async def test_payments_accepted_before_the_deletion_go_on(running_api: RunningApi, user: httpx.AsyncClient) -> None:
    method_id = await added(user, card("4000000000000002"))
    payment = await accepted(user, order(method_id))
    await user.delete(f"/payment-methods/{method_id}")
    problem(await user.post("/payments", json=order(method_id)), 422, "payment_method_unusable")
    claim = await claimed(running_api.database, payment["id"])
    assert claim.method["scenario"] == "card_declined"


# -- whose it is


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_a_method_is_nobody_elses_business(running_api: RunningApi, user: httpx.AsyncClient, method: str) -> None:
    path = f"/payment-methods/{await added(user)}"
    body = {"display_name": "x"} if method == "PATCH" else None
    for stranger in (running_api.user(2), running_api.service("shop"), running_api.user("10")):
        problem(await stranger.request(method, path, json=body), 404, "not_found")
        assert (await stranger.get("/payment-methods")).json() == {"payment_methods": []}
    answer = await running_api.admin().request(method, path, json=body)
    assert answer.status_code in {200, 204}


async def test_what_is_no_id_of_ours_is_not_found(user: httpx.AsyncClient) -> None:
    for wrong in (str(new_id()), "1", VISA, "x" * 3000, "%00", "ü"):
        for method in ("GET", "PATCH", "DELETE"):
            body = {"display_name": "x"} if method == "PATCH" else None
            answer = await user.request(method, f"/payment-methods/{wrong}", json=body)
            problem(answer, 404, "not_found")
            assert VISA not in answer.text


# -- expiry


async def test_a_card_is_valid_through_the_last_day_of_its_month(settings: Settings, runtime: Runtime) -> None:
    clock = SetClock()
    clock.moment = datetime(2030, 2, 28, 23, 59, 59, 999_000, UTC)
    database = open_database(settings, clock=clock)
    async with opened(Runtime(settings, database, runtime.broker, runtime.keyring)) as running_api:
        user = running_api.user()
        method_id = await added(user, card(exp_month=2, exp_year=2030))
        assert (await user.get(f"/payment-methods/{method_id}")).json()["expires_at"] == "2030-03-01T00:00:00.000Z"
        payment = await accepted(user, order(method_id))
        assert payment["created_at"] == "2030-02-28T23:59:59.999Z"
        clock.moment = datetime(2030, 3, 1, tzinfo=UTC)
        answer = await user.post("/payments", json=order(method_id))
        expired = problem(answer, 422, "payment_method_unusable")
        assert expired["detail"] == "This payment method has expired. Choose or add another one."
        assert [error["pointer"] for error in expired["errors"]] == ["/payment_method_id"]
        late = await user.post("/payment-methods", json=card(MASTERCARD, exp_month=2, exp_year=2030))
        assert pointers(late) == ["/payment_details/exp_year"]
        assert late.json()["errors"][0]["detail"] == '"exp_year" is in the past: the card has expired.'
        assert (await claimed(database, payment["id"])) is not None  # accepted in time: it goes on
    await database.dispose()


# -- repeats


async def test_a_repeat_without_or_with_another_cvc_is_the_same_request(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    key = {"Idempotency-Key": "k1"}
    first = await user.post("/payment-methods", json=card(cvv="123"), headers=key)
    again = await user.post("/payment-methods", json=card("4242 4242 4242 4242", cvv="999"), headers=key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert ("idempotent-replayed" in first.headers, again.headers["idempotent-replayed"]) == (False, "true")
    for other in (card(MASTERCARD), card(exp_year=2041), card(display_name="x"), card(type="DEBIT_CARD"), paypal()):
        problem(await user.post("/payment-methods", json=other, headers=key), 422, "idempotency_key_reused")
    assert await row_counts(running_api.database) == {"payment_methods": 1, "idempotency_keys": 1}


async def test_the_repeat_of_a_request_that_found_the_card_there_finds_it_again(user: httpx.AsyncClient) -> None:
    method_id = await added(user)
    for expected in (None, "true"):
        answer = await user.post("/payment-methods", json=card(), headers={"Idempotency-Key": "k1"})
        assert (answer.status_code, answer.json()["id"]) == (200, method_id)
        assert answer.headers.get("idempotent-replayed") == expected


async def test_a_repeat_shows_the_method_as_it_is_now(user: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "k1"}
    method = (await user.post("/payment-methods", json=card(), headers=key)).json()
    await user.patch(f"/payment-methods/{method['id']}", json={"display_name": "New"})
    assert (await user.post("/payment-methods", json=card(), headers=key)).json()["display_name"] == "New"
    await user.delete(f"/payment-methods/{method['id']}")
    problem(await user.post("/payment-methods", json=card(), headers=key), 404, "not_found")
    # A card that was added again meanwhile is found.
    added_again = await added(user)
    answer = await user.post("/payment-methods", json=card(), headers=key)
    assert (answer.status_code, answer.json()["id"]) == (200, added_again)
    assert answer.headers["idempotent-replayed"] == "true"


async def test_a_refusal_does_not_bind_the_key(user: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "k1"}
    for refused in (card("4242424242424241"), card(exp_year=2020), {"type": "X"}):
        problem(await user.post("/payment-methods", json=refused, headers=key), 422, "validation_error")
    assert (await user.post("/payment-methods", json=card(), headers=key)).status_code == 201


# -- the verbs, where HTTP cannot aim


async def test_a_method_that_went_meanwhile_is_neither_changed_nor_deleted_again(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    kept, gone = await added(user, card()), await added(user, card(MASTERCARD))
    async with running_api.database.read() as connection:
        method = await find_method(connection, UUID(gone), user_id=None)
    assert method is not None
    await user.delete(f"/payment-methods/{gone}")
    async with running_api.database.transaction() as connection:
        now = await running_api.database.clock.now(connection)
        assert not await delete_method(connection, method, now=now)
        assert await change_method(connection, method, display_name="x", make_default=False, now=now) is None
    assert [m["id"] for m in (await user.get("/payment-methods")).json()["payment_methods"]] == [kept]
