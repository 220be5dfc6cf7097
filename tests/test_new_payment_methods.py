"""Payment methods that are added over HTTP, on both databases: what is shown, what is kept, and what is refused."""

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from api.schemas.payment_methods import Method as MethodModel
from shared.config.settings import Settings
from shared.database.engine import open_database
from shared.runtime import Runtime
from tests.support.api_client import (
    MASTERCARD,
    RunningApi,
    accepted,
    added,
    card,
    opened,
    order,
    paypal,
    pointers,
    problem,
)
from tests.support.harness import SetClock
from tests.support.settling import claimed
from tests.support.stored import everything_stored, row_counts

pytest_plugins = ["tests.support.api_fixtures"]


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
