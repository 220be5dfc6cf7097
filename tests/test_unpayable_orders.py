"""Orders on the platform that must not be paid, or are cancelled while they are."""

from uuid import UUID

import pytest

from tests.support.api_client import token
from tests.support.order_standins import Order
from tests.support.platforms import SECRET, MakeSettings, platform
from tests.support.receivers import receiver
from tests.support.rows import assert_sound, ledger_entries
from tests.support.waiting import eventually

pytestmark = pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")


# -- orders that must not be paid


async def test_an_order_that_does_not_fit_fails_its_payment_and_is_left_alone(make_settings: MakeSettings) -> None:
    async with platform(make_settings) as shop:
        unfit: dict[str, Order | int] = {
            "order_not_found": 999,
            "order_not_owned": shop.orders.place(user_id=2),
            "order_not_payable": shop.orders.place(status="CANCELLED"),
            "order_amount_mismatch": shop.orders.place(total="15.86"),
        }
        for code, order in unfit.items():
            ended = await shop.ended(await shop.pay(order))
            assert (ended["status"], ended["failure_code"], ended["outcome_rule"]) == ("FAILED", code, "order")
            assert await ledger_entries(shop.database, UUID(ended["id"])) == ["decline"]
        assert shop.orders.asked("PUT") == []
        # An order that fails a payment can be paid later.
        late = shop.orders.place()
        late.total = "1.00"
        assert (await shop.ended(await shop.pay(late)))["failure_code"] == "order_amount_mismatch"
        late.total = "15.85"
        assert (await shop.ended(await shop.pay(late)))["status"] == "COMPLETED"
        await assert_sound(shop.database)


async def test_an_order_service_that_stays_away_fails_the_payment_in_the_end(make_settings: MakeSettings) -> None:
    async with platform(make_settings, order_check_timeout=0.5) as shop:
        order = shop.orders.place()
        await shop.orders.down()
        payment = await shop.pay(order)
        ended = await shop.ended(payment)
        assert (ended["status"], ended["failure_code"]) == ("FAILED", "order_service_unavailable")
        history = (await shop.user.get(f"/payments/{payment['id']}/history")).json()["history"]
        assert [move["reason"] for move in history][-1] == "order_check_timed_out"
        await assert_sound(shop.database)
        await shop.orders.up()
        assert (await shop.ended(await shop.pay(order)))["status"] == "COMPLETED"


async def test_a_service_may_pay_for_the_owner_of_an_order(make_settings: MakeSettings) -> None:
    async with platform(make_settings) as shop:
        order = shop.orders.place()
        service = shop.running_api.bearing(token(SECRET, user_id="shop", role="service"))
        body = {"order_id": order.id, "user_id": 1, "payment_method_id": shop.method_id, "amount": 1585}
        answer = await service.post("/payments", json=body, headers={"Prefer": "wait=20"})
        assert answer.json()["status"] == "COMPLETED"


# -- an order that is cancelled while it is paid


async def test_an_order_that_is_cancelled_while_it_is_paid_is_a_conflict_that_is_emitted_once(
    make_settings: MakeSettings,
) -> None:
    async with platform(make_settings) as shop, receiver() as desk:
        service = shop.running_api.bearing(token(SECRET, user_id="desk", role="service"))
        registered = await service.post(
            "/webhook-endpoints",
            json={"name": "desk", "url": desk.url, "event_types": ["payment.order_conflict", "payment.failed"]},
        )
        assert registered.status_code == 201, registered.text
        order = shop.orders.place()
        shop.orders.cancels_before_update = True
        payment = await shop.pay(order)
        completed = await shop.ended(payment)
        # It was charged: what to do about it is for people.
        assert completed["status"] == "COMPLETED"
        delivery = await shop.order_update(payment, "exhausted")
        assert "cancelled" in delivery["last_error"]
        assert delivery["tries"] == 1
        await eventually(lambda: desk.requests, 20)
        event = desk.requests[0].verified(registered.json()["secret"])
        assert event["type"] == "payment.order_conflict"
        assert event["data"]["payment"] == completed
        again = await shop.running_api.bearing(shop.auth.token(1)).post(f"/webhook-deliveries/{delivery['id']}/resend")
        assert again.status_code == 202, again.text

        async def was_tried_again() -> bool:
            return len((await shop.order_update(payment, "exhausted"))["attempts"]) == 2

        await eventually(was_tried_again)
        shown = (await shop.user.get(f"/payments/{payment['id']}/deliveries")).json()["deliveries"]
        assert [each["event_type"] for each in shown].count("payment.order_conflict") == 1
        assert order.moves == []


async def test_a_receiver_of_the_usual_events_gets_no_conflict(make_settings: MakeSettings) -> None:
    async with platform(make_settings) as shop, receiver() as desk:
        service = shop.running_api.bearing(token(SECRET, user_id="desk", role="service"))
        await service.post("/webhook-endpoints", json={"name": "desk", "url": desk.url})
        shop.orders.cancels_before_update = True
        payment = await shop.pay(shop.orders.place(), callback_url=desk.url)
        await shop.order_update(payment, "exhausted")
        shown = (await shop.user.get(f"/payments/{payment['id']}/deliveries")).json()["deliveries"]
        assert {each["event_type"] for each in shown} == {"payment.completed"}
